//! `fanfare topology`: shows what Fanfare has in RabbitMQ, and compares it with what is there.

use std::{io, process::ExitCode, time::Duration};

use anyhow::Context;
use fanfare_broker::{
    Argument, BindingSpec, ExchangeSpec, Finding, QueueKind, QueueSpec, Settings, Topology, Verdict,
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time;

use super::broker::place;
use crate::{
    Config, OutputFormat, Sources, TopologyCommand,
    output::{self, Column, Objects, Row},
};

/// Enough for some hundred questions to a busy broker.
const CHECK_WITHIN: Duration = Duration::from_secs(60);

/// Success means, for a check, that everything is as listed.
pub(crate) async fn run(
    format: OutputFormat,
    command: Option<&TopologyCommand>,
    sources: &Sources,
) -> anyhow::Result<ExitCode> {
    let settings = Config::load(sources)?.settings;
    match command {
        None => {
            output::print(&shown(format, &Topology::new(&settings.broker)))?;
            Ok(ExitCode::SUCCESS)
        }
        Some(TopologyCommand::Check) => check(format, &settings.broker).await,
    }
}

/// Prints `docs/topology.md`.
pub(crate) fn print_page() -> io::Result<()> {
    output::print(topology_markdown().trim_end())
}

async fn check(format: OutputFormat, settings: &Settings) -> anyhow::Result<ExitCode> {
    let checking = time::timeout(CHECK_WITHIN, Topology::check(settings));
    let checked = checking.await.context("RabbitMQ did not answer in time");
    let place = || format!("checking RabbitMQ at {}", place(settings));
    let findings = checked
        .and_then(|checked| Ok(checked?))
        .with_context(place)?;
    output::print_rows(format, &findings)?;
    let fine = findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::AsListed);
    let (fine, all) = (fine.count(), findings.len());
    output::note(&format!("{fine} of {all} are as they should be"))?;
    Ok(if fine == all {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn shown(format: OutputFormat, topology: &Topology) -> String {
    match format {
        OutputFormat::Table => {
            let tables = [
                output::table(topology.exchanges()),
                output::table(&folded_queues(topology)),
                output::table(&folded_bindings(topology)),
            ];
            tables.join("\n\n")
        }
        OutputFormat::Json => output::to_json(&Everything {
            exchanges: Objects(topology.exchanges()),
            queues: Objects(topology.queues()),
            bindings: Objects(topology.bindings()),
        }),
    }
}

#[derive(Serialize)]
struct Everything<'t> {
    exchanges: Objects<'t, ExchangeSpec>,
    queues: Objects<'t, QueueSpec>,
    bindings: Objects<'t, BindingSpec>,
}

impl Row for ExchangeSpec {
    const COLUMNS: &'static [Column<Self>] = &[
        Column {
            name: "exchange",
            value: |exchange| exchange.name.as_str().into(),
        },
        Column {
            name: "kind",
            value: |exchange| exchange.kind.name().into(),
        },
        Column {
            name: "arguments",
            value: |exchange| match &exchange.alternate {
                Some(alternate) => json!({ "alternate-exchange": alternate }),
                None => json!({}),
            },
        },
        Column {
            name: "purpose",
            value: |exchange| exchange.purpose.into(),
        },
    ];
}

impl Row for QueueSpec {
    const COLUMNS: &'static [Column<Self>] = &[
        Column {
            name: "queue",
            value: |queue| queue.name.as_str().into(),
        },
        Column {
            name: "kind",
            value: |queue| kind(queue.kind).into(),
        },
        Column {
            name: "arguments",
            value: |queue| {
                let arguments = queue.arguments.iter();
                let named = arguments.map(|(name, held)| ((*name).to_owned(), argument(held)));
                Value::Object(named.collect())
            },
        },
        Column {
            name: "purpose",
            value: |queue| queue.purpose.into(),
        },
    ];
}

impl Row for BindingSpec {
    const COLUMNS: &'static [Column<Self>] = &[
        Column {
            name: "exchange",
            value: |binding| binding.exchange.as_str().into(),
        },
        Column {
            name: "routing_key",
            value: |binding| binding.key.as_str().into(),
        },
        Column {
            name: "queue",
            value: |binding| binding.queue.as_str().into(),
        },
    ];
}

impl Row for Finding {
    const COLUMNS: &'static [Column<Self>] = &[
        Column {
            name: "kind",
            value: |finding| finding.kind.into(),
        },
        Column {
            name: "name",
            value: |finding| finding.name.as_str().into(),
        },
        Column {
            name: "verdict",
            value: |finding| {
                let verdict = match &finding.verdict {
                    Verdict::AsListed => "as listed",
                    Verdict::Missing => "missing",
                    Verdict::Differs(_) => "differs",
                };
                verdict.into()
            },
        },
        Column {
            name: "detail",
            value: |finding| match &finding.verdict {
                Verdict::AsListed => Value::Null,
                Verdict::Missing => "a role declares it when it starts".into(),
                Verdict::Differs(what) => what.as_str().into(),
            },
        },
    ];
}

fn kind(kind: QueueKind) -> &'static str {
    match kind {
        QueueKind::Quorum => "quorum",
        QueueKind::Stream => "stream",
    }
}

fn argument(argument: &Argument) -> Value {
    match argument {
        Argument::Text(text) => text.as_str().into(),
        Argument::Integer(number) => (*number).into(),
        Argument::Boolean(truth) => (*truth).into(),
    }
}

/// The queues, with one row for those that differ by nothing but their number.
fn folded_queues(topology: &Topology) -> Vec<QueueSpec> {
    let unnamed = |queue: &QueueSpec| (queue.kind, queue.arguments.clone(), queue.purpose);
    folded(
        topology.queues(),
        |one, next| unnamed(one) == unnamed(next),
        |first, last| QueueSpec {
            name: from_to(&first.name, &last.name),
            ..first.clone()
        },
    )
}

/// The bindings exchange by exchange, with one row for each exchange.
fn folded_bindings(topology: &Topology) -> Vec<BindingSpec> {
    let mut bindings = topology.bindings().to_vec();
    let place = |name: &str| topology.exchanges().iter().position(|e| e.name == name);
    bindings.sort_by_key(|binding| place(&binding.exchange));
    folded(
        &bindings,
        |one, next| one.exchange == next.exchange,
        |first, last| BindingSpec {
            exchange: first.exchange.clone(),
            queue: from_to(&first.queue, &last.queue),
            key: from_to(&first.key, &last.key),
        },
    )
}

fn folded<T: Clone>(
    items: &[T],
    alike: impl FnMut(&T, &T) -> bool,
    fold: impl Fn(&T, &T) -> T,
) -> Vec<T> {
    let runs = items.chunk_by(alike);
    runs.map(|run| match run {
        [first, .., last] => fold(first, last),
        one => one[0].clone(),
    })
    .collect()
}

fn from_to(first: &str, last: &str) -> String {
    format!("{first} … {last}")
}

/// The page `docs/topology.md`: everything, with the default settings.
pub(crate) fn topology_markdown() -> String {
    let topology = Topology::new(&Settings::default());
    format!(
        "{INTRODUCTION}\n## Exchanges\n\n{}\n## Queues\n\n{}\n## Bindings\n\n{}",
        output::markdown(topology.exchanges()),
        output::markdown(&folded_queues(&topology)),
        output::markdown(&folded_bindings(&topology)),
    )
}

const INTRODUCTION: &str = "\
<!-- Generated by `fanfare topology --markdown > docs/topology.md`. -->

# What Fanfare has in RabbitMQ

Everything is durable, and every process declares it when it starts. A role refuses to start on something that exists
with other arguments; `fanfare topology check` tells what differs. The names begin with `broker.prefix`, and the number
of delivery queues is `broker.partitions`; this page shows the defaults of both. `fanfare topology` shows the same for
the settings in effect.

Beside these, each process has an exclusive queue of its own, bound to the exchange `fanfare.control`, for as long as it
is connected.
";

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn the_page_in_docs_is_current() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/topology.md");
        let page = fs::read_to_string(path).unwrap_or_default();
        assert!(
            page == topology_markdown(),
            "docs/topology.md is not current: fanfare topology --markdown > docs/topology.md"
        );
    }

    #[test]
    fn things_that_differ_by_number_alone_share_a_row() {
        let topology = Topology::new(&Settings::default());
        let queues = folded_queues(&topology);
        let names: Vec<&str> = queues.iter().map(|queue| &*queue.name).collect();
        assert!(names.contains(&"fanfare.deliveries.g1.00 … fanfare.deliveries.g1.15"));
        assert!(names.contains(&"fanfare.delay.1s") && names.contains(&"fanfare.delay.2s"));
        let bindings = folded_bindings(&topology);
        assert_eq!(
            bindings.len(),
            topology.exchanges().len() - 1,
            "all but control's"
        );
    }

    #[test]
    fn scripts_get_everything_unfolded() {
        let topology = Topology::new(&Settings::default());
        let text = shown(OutputFormat::Json, &topology);
        let everything: Value = serde_json::from_str(&text).unwrap();
        for (part, count) in [
            ("exchanges", topology.exchanges().len()),
            ("queues", topology.queues().len()),
            ("bindings", topology.bindings().len()),
        ] {
            assert_eq!(
                everything[part].as_array().map(Vec::len),
                Some(count),
                "{part}"
            );
        }
        assert_eq!(everything["queues"][0]["arguments"]["x-delivery-limit"], 20);
    }
}
