//! `fanfare publish --events`: publishes many events, and says of each that was not stored where it stands.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use fanfare_model::{Clock, Event, TraceContext};
use fanfare_producer::{EventBuilder, Producer, ProducerFault};
use fanfare_wire::{
    DecodedEvent, Envelope, EventDefaults, EventLimits, EventRejection, decode_event_with,
};
use futures_util::{Stream, StreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};

use super::{
    lines::{self, Place, Text},
    new_id,
};
use crate::{OutputFormat, PublishArgs, output};

/// How many of the events that were not stored are listed one by one.
const MOST_LISTED: usize = 1000;

/// What became of all of them.
#[derive(Debug, Default, Serialize)]
pub(super) struct Summary {
    /// Stored by RabbitMQ; with `--check`, those that would be published.
    published: u64,
    /// Not events that Fanfare accepts.
    refused: u64,
    /// Not confirmed; what came after them was not published.
    failed: u64,
    seconds: f64,
    /// The first of those that were not stored.
    faults: Vec<Fault>,
}

/// An event that was not stored.
#[derive(Debug, Serialize)]
struct Fault {
    #[serde(flatten)]
    place: Place,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    code: &'static str,
    detail: String,
}

impl Summary {
    pub(super) fn is_complete(&self) -> bool {
        self.refused == 0 && self.failed == 0
    }

    fn sentence(&self, check: bool) -> String {
        let Self {
            published,
            refused,
            failed,
            seconds,
            ..
        } = self;
        let verb = if check { "valid" } else { "published" };
        let failed = match failed {
            0 => String::new(),
            failed => format!(", {failed} not confirmed; the rest was not published"),
        };
        format!("{published} {verb}, {refused} refused{failed} in {seconds:.1} s")
    }
}

/// Publishes them all. `producer` is absent when they are only checked.
pub(super) async fn run(
    format: OutputFormat,
    args: &PublishArgs,
    producer: Option<&Producer>,
    clock: &Clock,
) -> anyhow::Result<Summary> {
    let bar = progress(&args.events);
    let (texts, reading) = read_all(args.events.clone(), args.in_flight.get().into());
    let started = Instant::now();
    let mut summary = Summary::default();
    let publishing = stream_of(texts).map(async |text: Text| {
        let outcome = handle(args, producer, clock, text.text).await;
        (text.place, text.read, outcome)
    });
    let mut publishing = std::pin::pin!(publishing.buffer_unordered(args.in_flight.get().into()));
    while let Some((place, read, outcome)) = publishing.next().await {
        note(&mut summary, format, &bar, place, outcome)?;
        if bar.length().is_some() {
            bar.set_position(read.max(bar.position()));
        }
        bar.set_message(format!(
            "{} published, {} refused",
            summary.published, summary.refused
        ));
        if summary.failed > 0 {
            // Without confirms there is no point in going on. What is under way may still be stored.
            break;
        }
    }
    bar.finish_and_clear();
    summary.seconds = started.elapsed().as_secs_f64();
    if summary.failed == 0 {
        reading.await.context("reading the events")??;
    } else {
        reading.abort();
    }
    match format {
        OutputFormat::Table => output::print(&summary.sentence(args.check))?,
        OutputFormat::Json => output::print(&output::to_json(&summary))?,
    }
    Ok(summary)
}

/// What an event lacks to be stored.
enum Missing {
    Acceptance(EventRejection),
    Confirm { id: String, fault: ProducerFault },
}

async fn handle(
    args: &PublishArgs,
    producer: Option<&Producer>,
    clock: &Clock,
    text: Result<Bytes, String>,
) -> Result<(), Missing> {
    let text = text.map_err(|detail| Missing::Acceptance(unreadable(detail)))?;
    let DecodedEvent { event, trace } = decode(args, clock, text).map_err(Missing::Acceptance)?;
    let Some(producer) = producer else {
        return Ok(());
    };
    match producer.publish_patiently(&event, &trace).await {
        Ok(()) => Ok(()),
        Err(ProducerFault::Invalid(rejection)) => Err(Missing::Acceptance(rejection)),
        Err(fault) => Err(Missing::Confirm {
            id: event.id,
            fault,
        }),
    }
}

fn unreadable(detail: String) -> EventRejection {
    EventRejection {
        code: fanfare_wire::RejectionCode::MalformedJson,
        field: None,
        detail,
    }
}

/// The event that a text stands for: itself, or the data of one that the arguments describe.
fn decode(args: &PublishArgs, clock: &Clock, text: Bytes) -> Result<DecodedEvent, EventRejection> {
    let id = new_id(clock.now());
    if args.data_lines {
        let event = described(args, &id, text.trim_ascii())?;
        let trace = TraceContext::default();
        return Ok(DecodedEvent { event, trace });
    }
    let mut message = Envelope {
        body: text,
        ..Envelope::default()
    };
    message.properties.content_type = Some("application/cloudevents+json".to_owned());
    let defaults = EventDefaults {
        tenant: args.tenant.as_ref(),
        id: Some(&id),
    };
    decode_event_with(&message, defaults, &EventLimits::default())
}

fn described(args: &PublishArgs, id: &str, data: &[u8]) -> Result<Event, EventRejection> {
    let tenant = args.tenant.as_ref().map_or("", |tenant| tenant.as_str());
    let event_type = args.event_type.as_ref().map_or("", |name| name.as_str());
    let event = EventBuilder::new(tenant, event_type, &args.source)
        .id(id)
        .data(&args.content_type, data)
        .build();
    event.map_err(|fault| {
        let told = fault.to_string();
        if let ProducerFault::Invalid(rejection) = fault {
            rejection
        } else {
            unreadable(told)
        }
    })
}

/// Counts an outcome, and tells people at once what was not stored.
fn note(
    summary: &mut Summary,
    format: OutputFormat,
    bar: &ProgressBar,
    place: Place,
    outcome: Result<(), Missing>,
) -> std::io::Result<()> {
    let (id, field, code, detail) = match outcome {
        Ok(()) => {
            summary.published += 1;
            return Ok(());
        }
        Err(Missing::Acceptance(rejection)) => {
            summary.refused += 1;
            let code = rejection.code.name();
            (None, rejection.field, code, rejection.detail)
        }
        Err(Missing::Confirm { id, fault }) => {
            summary.failed += 1;
            (Some(id), None, "unconfirmed", fault.to_string())
        }
    };
    if format == OutputFormat::Table {
        let line = format!("{place}: {}", output::harmless(&detail));
        bar.suspend(|| output::note(&line))?;
    }
    if summary.faults.len() < MOST_LISTED {
        summary.faults.push(Fault {
            place,
            id,
            field,
            code,
            detail,
        });
    }
    Ok(())
}

/// Reads on a thread of its own, as far ahead as there is room for.
fn read_all(
    files: Vec<PathBuf>,
    room: usize,
) -> (mpsc::Receiver<Text>, JoinHandle<anyhow::Result<()>>) {
    let (sender, texts) = mpsc::channel(room);
    let reading = tokio::task::spawn_blocking(move || {
        let mut before = 0;
        for file in files {
            let mut latest = 0;
            let take = |mut text: Text| {
                latest = text.read;
                text.read += before;
                sender.blocking_send(text).is_ok()
            };
            lines::read(&file, take).with_context(|| format!("reading {}", file.display()))?;
            before += latest;
        }
        Ok(())
    });
    (texts, reading)
}

fn stream_of(texts: mpsc::Receiver<Text>) -> impl Stream<Item = Text> {
    stream::unfold(texts, async |mut texts| {
        let text = texts.recv().await?;
        Some((text, texts))
    })
}

/// A bar of the bytes of all files, or a spinner where their size is not known. Hidden without a terminal.
fn progress(files: &[PathBuf]) -> ProgressBar {
    let sizes = files.iter().map(|file| {
        let about = std::fs::metadata(file).ok()?;
        about.is_file().then_some(about.len())
    });
    let bar = match sizes.sum::<Option<u64>>() {
        Some(bytes) => {
            let style = "{bar:32} {percent:>3} %  {msg}  {elapsed}, {eta} left";
            let style = ProgressStyle::with_template(style);
            ProgressBar::new(bytes).with_style(style.expect("the template is valid"))
        }
        None => ProgressBar::new_spinner(),
    };
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::{Args, Command, clock};

    fn args(line: &[&str]) -> PublishArgs {
        let line = ["fanfare", "publish"].iter().chain(line);
        let Command::Publish(publish) = Args::try_parse_from(line).unwrap().command else {
            panic!("publish");
        };
        publish
    }

    #[tokio::test]
    async fn a_check_counts_and_names_places() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("events.jsonl");
        let good = r#"{"specversion":"1.0","source":"/s","type":"a","data":1}"#;
        let other = good.replace("\"type\":\"a\",", "");
        std::fs::write(&file, format!("{good}\n{other}\nnonsense\n{good}\n")).unwrap();
        let file = file.to_str().unwrap();
        let args = args(&["--tenant", "t", "--check", "--events", file]);
        let clock = clock::system_clock();
        let summary = run(OutputFormat::Json, &args, None, &clock).await.unwrap();
        assert_eq!((summary.published, summary.refused), (2, 2));
        assert!(!summary.is_complete());
        let mut told: Vec<String> = summary
            .faults
            .iter()
            .map(|fault| format!("{} {}", fault.place.line.unwrap(), fault.code))
            .collect();
        told.sort();
        assert_eq!(told, ["2 missing_attribute", "3 malformed_json"]);
    }

    #[tokio::test]
    async fn lines_of_data_become_events_of_the_arguments() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("data.txt");
        std::fs::write(&file, "{\"n\":1}\nbroken\n").unwrap();
        let file = file.to_str().unwrap();
        let line = ["--tenant", "t", "--type", "a", "--data-lines", "--check"];
        let args = args(&[&line[..], &["--events", file]].concat());
        let clock = clock::system_clock();
        let summary = run(OutputFormat::Json, &args, None, &clock).await.unwrap();
        assert_eq!((summary.published, summary.refused), (1, 1));
        assert_eq!(summary.faults[0].field.as_deref(), Some("data"));
    }

    #[tokio::test]
    async fn a_file_that_is_not_there_is_told() {
        let args = args(&["--check", "--events", "/nowhere/events.jsonl"]);
        let clock = clock::system_clock();
        let fault = run(OutputFormat::Json, &args, None, &clock)
            .await
            .unwrap_err();
        let told = format!("{fault:#}");
        assert!(told.contains("/nowhere/events.jsonl"), "{told}");
    }
}
