//! `fanfare replay` and `fanfare events resend`: sends again what the history holds.
//!
//! Directly on RabbitMQ, the registry and the history that the configuration names, by the same functions as
//! the API.

use std::{
    io::{self, BufRead as _, IsTerminal as _},
    time::Duration,
};

use anyhow::{Context as _, bail};
use fanfare_broker::{Broker, JournalWriter};
use fanfare_journal::History;
use fanfare_model::Timestamp;
use fanfare_registry::{OperationId, OperationPage, Registry};
use fanfare_replay::{Action, Checkpoint, Desk, Filter, PLACE, Progress, Request};
use fanfare_telemetry::Metrics;
use indicatif::ProgressBar;
use serde_json::json;

use super::{
    broker::connected,
    resting::act::{actor, print_operation, progress_bar},
};
use crate::{
    Config, EventsResendArgs, OutputFormat, PastArgs, ReplayArgs, ReplayCommand, SendingArgs,
    Sources, clock, output, signals::Signals, wiring::OPERATOR,
};

/// How long the end of what a command tells the journal is waited for.
const JOURNAL_ENDS_WITHIN: Duration = Duration::from_secs(5);

/// How many operations, on whatever, are read at once.
const READ_AT_ONCE: u32 = 1000;

pub(crate) async fn run(
    format: OutputFormat,
    args: &ReplayArgs,
    sources: &Sources,
) -> anyhow::Result<()> {
    let settings = Config::load(sources)?.settings;
    let now = clock::system_clock().now();
    let Some(command) = &args.command else {
        let (Some(past), Some(sending)) = (&args.past, &args.sending) else {
            bail!("say what to replay: --tenant and --endpoint, or a command");
        };
        let filter = Filter {
            outcome: Some(args.outcome),
            ..filter_of(past, now)
        };
        return send(format, (Action::Replay, filter), sending, &settings).await;
    };
    match command {
        ReplayCommand::Backfill(args) => {
            let filter = filter_of(&args.past, now);
            send(format, (Action::Backfill, filter), &args.sending, &settings).await
        }
        ReplayCommand::Operations { open, limit } => list(format, *open, *limit, &settings).await,
        ReplayCommand::Show { id } => {
            let registry = Registry::open(&settings.registry).await?;
            show(format, &registry, *id).await?;
            registry.close().await;
            Ok(())
        }
        ReplayCommand::Cancel { id } => {
            let office = Office::open(&settings).await?;
            let cancelled = office.desk.cancel(*id, &actor()).await?;
            cancelled.with_context(|| format!("there is no operation `{id}`"))?;
            show(format, &office.registry, *id).await?;
            office.close().await;
            Ok(())
        }
        ReplayCommand::Resume { id } => {
            let office = Office::open(&settings).await?;
            office.carry_out(*id).await?;
            show(format, &office.registry, *id).await?;
            office.close().await;
            Ok(())
        }
    }
}

/// `fanfare events resend`.
pub(crate) async fn resend(
    format: OutputFormat,
    args: &EventsResendArgs,
    settings: &Config,
) -> anyhow::Result<()> {
    let request = Request {
        action: Action::Resend,
        filter: Filter {
            source: args.source.clone(),
            event: Some(args.id.clone()),
            ..Filter::to(args.tenant.clone(), args.endpoint)
        },
        pace: None,
        why: args.why.clone(),
    };
    let office = Office::open(settings).await?;
    let expected = office.desk.dry_run(&request).await?;
    if expected == 0 {
        bail!(
            "the history does not have the data of event `{}`, so it cannot be sent",
            args.id
        );
    }
    let operation = office.desk.request(request, expected, &actor()).await?;
    if !args.no_wait {
        office.carry_out(operation.id).await?;
    }
    show(format, &office.registry, operation.id).await?;
    office.close().await;
    Ok(())
}

async fn send(
    format: OutputFormat,
    (action, filter): (Action, Filter),
    args: &SendingArgs,
    settings: &Config,
) -> anyhow::Result<()> {
    let request = Request {
        action,
        filter,
        pace: args.pace,
        why: args.why.clone().unwrap_or_default(),
    };
    let office = Office::open(settings).await?;
    let expected = office.desk.dry_run(&request).await?;
    office.say_how_far_it_knows().await?;
    if args.dry_run || expected == 0 {
        say_how_many(format, &request, expected)?;
    } else if args.yes || is_meant(&request, expected)? {
        let operation = office.desk.request(request, expected, &actor()).await?;
        if !args.no_wait {
            office.carry_out(operation.id).await?;
        }
        show(format, &office.registry, operation.id).await?;
    } else {
        output::note("nothing was sent")?;
    }
    office.close().await;
    Ok(())
}

async fn list(
    format: OutputFormat,
    open_only: bool,
    limit: u32,
    settings: &Config,
) -> anyhow::Result<()> {
    let registry = Registry::open(&settings.registry).await?;
    let (mut found, mut before) = (Vec::new(), None);
    loop {
        let page = OperationPage {
            open_only,
            before,
            limit: READ_AT_ONCE,
        };
        let read = registry.operations(&page).await?;
        before = read.last().map(|last| last.id);
        let is_last = read.len() < READ_AT_ONCE as usize;
        found.extend(read.into_iter().filter(|one| one.request.place == PLACE));
        if is_last || found.len() >= limit as usize {
            break;
        }
    }
    registry.close().await;
    found.truncate(limit as usize);
    output::print_rows(format, &found)?;
    Ok(())
}

async fn show(format: OutputFormat, registry: &Registry, id: OperationId) -> anyhow::Result<()> {
    let operation = print_operation(format, registry, id).await?;
    let left_out = Checkpoint::of(&operation).left_out;
    if left_out > 0 {
        output::note(&format!(
            "{left_out} deliveries could not be sent, because the history does not have their data"
        ))?;
    }
    Ok(())
}

fn filter_of(past: &PastArgs, now: Timestamp) -> Filter {
    Filter {
        types: past.types.clone(),
        since: past.since.map(|moment| moment.at(now)),
        until: past.until.map(|moment| moment.at(now)),
        ..Filter::to(past.tenant.clone(), past.endpoint)
    }
}

/// A desk with what it works on, for one command.
struct Office {
    broker: Broker,
    registry: Registry,
    history: History,
    journal: JournalWriter,
    desk: Desk,
}

impl Office {
    async fn open(settings: &Config) -> anyhow::Result<Self> {
        let registry = Registry::open(&settings.registry).await?;
        let history = History::open(&settings.history).await?;
        let broker = connected(&settings.broker, "fanfare replay").await?;
        let clock = clock::system_clock();
        let journal = JournalWriter::start(
            &broker,
            &settings.journal,
            OPERATOR,
            &format!("command {}", std::process::id()),
            clock.clone(),
            &Metrics::new().meter("fanfare.journal"),
        );
        let dead_letters = fanfare_deadletters::Desk::new(
            &broker,
            registry.clone(),
            clock.clone(),
            settings.dead_letters.clone(),
        );
        let pace = settings.dead_letters.replay_pace;
        let (past, told) = (history.clone(), journal.clone());
        Ok(Self {
            desk: Desk::new(&broker, past, told, dead_letters, clock, pace),
            broker,
            registry,
            history,
            journal,
        })
    }

    async fn close(&self) {
        self.journal.close(JOURNAL_ENDS_WITHIN).await;
        self.broker.close().await;
        self.history.close().await;
        self.registry.close().await;
    }

    async fn say_how_far_it_knows(&self) -> anyhow::Result<()> {
        match self.history.progress().await?.written_at {
            Some(at) => output::note(&format!("as far as is recorded, which is up to {at:.0}"))?,
            None => output::note("nothing is recorded yet: does a recorder run?")?,
        }
        Ok(())
    }

    /// Sends until the operation is over, showing how far it is.
    ///
    /// A signal ends it in order: the operation stays open.
    async fn carry_out(&self, id: OperationId) -> anyhow::Result<()> {
        let signals = Signals::watch().context("watching for signals")?;
        let bar = progress_bar();
        let mut tell = |progress: &Progress| show_progress(&bar, progress);
        self.desk.run(id, &signals.terminate, &mut tell).await?;
        bar.finish_and_clear();
        if signals.terminate.is_cancelled() {
            output::note(&format!(
                "stopped in the middle: `fanfare replay resume {id}` goes on, `fanfare replay cancel {id}` gives it up"
            ))?;
        }
        Ok(())
    }
}

fn say_how_many(format: OutputFormat, request: &Request, expected: u64) -> anyhow::Result<()> {
    let (action, endpoint) = (request.action, request.filter.endpoint);
    match format {
        OutputFormat::Table => output::print(&format!(
            "{action} would send {expected} deliveries to {endpoint}"
        ))?,
        OutputFormat::Json => {
            let action = action.name();
            let said =
                json!({"place": PLACE, "action": action, "expected": expected, "dry_run": true});
            output::print(&output::to_json(&said))?;
        }
    }
    Ok(())
}

fn is_meant(request: &Request, expected: u64) -> anyhow::Result<bool> {
    let (action, endpoint) = (request.action, request.filter.endpoint);
    if !io::stdin().is_terminal() {
        bail!("{action} sends {expected} deliveries to {endpoint}: say --yes if that is meant");
    }
    let repeats = Desk::repeats_at_most();
    output::note(&format!(
        "{action} {expected} deliveries to {endpoint}? If this process dies in the middle, up to {repeats} of \
         them are repeated. [y/N]"
    ))?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn show_progress(bar: &ProgressBar, progress: &Progress) {
    let Progress { operation, ahead } = progress;
    bar.set_length(operation.request.expected.max(operation.resolved));
    bar.set_position(operation.resolved);
    bar.set_message(match ahead {
        Some(ahead) => format!("{ahead} on their way"),
        None => "another process sends them".to_owned(),
    });
}
