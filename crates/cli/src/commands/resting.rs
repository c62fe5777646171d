//! `fanfare dead-letters`, `rejected`, `unroutable` and `crashed`: looks at messages that rest, and deals with them.
//!
//! Directly on RabbitMQ, the registry and the history that the configuration names, by the same functions as
//! the API.

pub(super) mod act;
mod operations;
mod rows;

use std::time::Duration;

use anyhow::{Context as _, bail};
use fanfare_broker::{Broker, JournalWriter, Place};
use fanfare_deadletters::{Action, Desk, Seen, View, reindex};
use fanfare_journal::History;
use fanfare_model::DatabaseLocation;
use fanfare_registry::Registry;
use fanfare_telemetry::Metrics;

use self::rows::{Grouped, Shown};
use super::broker::connected;
use crate::{
    Config, DeadLettersCommand, OneRestingArgs, OutputFormat, RestingCommand, RestingGroupArgs,
    RestingListArgs, Sources, clock, output, wiring::OPERATOR,
};

/// How long the end of what a command tells the journal is waited for.
const JOURNAL_ENDS_WITHIN: Duration = Duration::from_secs(5);

pub(crate) async fn dead_letters(
    format: OutputFormat,
    command: &DeadLettersCommand,
    sources: &Sources,
) -> anyhow::Result<()> {
    let (place, settings) = (Place::DeadLetters, Config::load(sources)?.settings);
    match command {
        DeadLettersCommand::List(args) => show_list(format, place, args, &settings).await,
        DeadLettersCommand::Group(args) => show_groups(format, place, args, &settings).await,
        DeadLettersCommand::Show(args) => show_one(format, place, args, &settings).await,
        DeadLettersCommand::Replay(args) => {
            act::run(format, (place, Action::Replay), args, &settings).await
        }
        DeadLettersCommand::Discard(args) => {
            act::run(format, (place, Action::Discard), args, &settings).await
        }
        DeadLettersCommand::Operations(command) => {
            operations::run(format, command, &settings).await
        }
        DeadLettersCommand::Reindex => set_index_right(format, &settings).await,
    }
}

pub(crate) async fn others(
    format: OutputFormat,
    place: Place,
    command: &RestingCommand,
    sources: &Sources,
) -> anyhow::Result<()> {
    let settings = Config::load(sources)?.settings;
    match command {
        RestingCommand::List(args) => show_list(format, place, args, &settings).await,
        RestingCommand::Group(args) => show_groups(format, place, args, &settings).await,
        RestingCommand::Show(args) => show_one(format, place, args, &settings).await,
        RestingCommand::Publish(args) => {
            act::run(format, (place, Action::Publish), args, &settings).await
        }
        RestingCommand::Discard(args) => {
            act::run(format, (place, Action::Discard), args, &settings).await
        }
    }
}

async fn show_list(
    format: OutputFormat,
    place: Place,
    args: &RestingListArgs,
    settings: &Config,
) -> anyhow::Result<()> {
    let viewer = Viewer::open(settings, place, args.from_queue).await?;
    let filter = args.filter.filter(&[], clock::system_clock().now());
    let looked = viewer.view.list(place, &filter, None, args.limit).await;
    let looked = looked.with_context(|| format!("listing `{place}`"))?;
    viewer.close().await;
    output::print_rows(format, &looked.found)?;
    let shown = looked.found.len();
    output::note(&format!("{shown} shown of {}", seen(place, looked.seen)))?;
    Ok(())
}

async fn show_groups(
    format: OutputFormat,
    place: Place,
    args: &RestingGroupArgs,
    settings: &Config,
) -> anyhow::Result<()> {
    let viewer = Viewer::open(settings, place, args.from_queue).await?;
    let now = clock::system_clock().now();
    let filter = args.filter.filter(&[], now);
    let looked = viewer.view.group(place, &filter, &args.by, now).await;
    let looked = looked.with_context(|| format!("counting `{place}`"))?;
    viewer.close().await;
    let groups = looked.found.iter().take(args.limit as usize);
    let rows: Vec<Grouped> = groups.cloned().map(Grouped).collect();
    output::print_rows(format, &rows)?;
    let (shown, all) = (rows.len(), looked.found.len());
    output::note(&format!(
        "{shown} of {all} groups shown, of {}",
        seen(place, looked.seen)
    ))?;
    Ok(())
}

async fn show_one(
    format: OutputFormat,
    place: Place,
    args: &OneRestingArgs,
    settings: &Config,
) -> anyhow::Result<()> {
    let viewer = Viewer::open(settings, place, args.from_queue).await?;
    let looked = viewer.view.find(place, &args.id).await;
    let looked = looked.with_context(|| format!("looking for a message in `{place}`"))?;
    viewer.close().await;
    let found = looked
        .found
        .with_context(|| format!("`{}` is not among {}", args.id, seen(place, looked.seen)))?;
    output::print_one(format, &Shown(found))?;
    Ok(())
}

/// Among how many messages something was found, and where those were.
pub(super) fn seen(place: Place, seen: Seen) -> String {
    match seen {
        Seen::Queue {
            messages,
            complete: true,
        } => format!("{messages} messages in `{place}`"),
        Seen::Queue {
            messages,
            complete: false,
        } => format!("the first {messages} messages in `{place}`, and there are more"),
        Seen::Index {
            letters,
            as_of,
            in_queue,
        } => {
            let known = format!("{letters} in the index as of {as_of:.0}");
            match in_queue {
                None => known,
                Some(depth) => format!("{known}; the queue `{place}` holds {depth}"),
            }
        }
    }
}

/// A view with what it looks at, for one command.
struct Viewer {
    view: View,
    broker: Broker,
    index: Option<History>,
}

impl Viewer {
    async fn open(settings: &Config, place: Place, from_queue: bool) -> anyhow::Result<Self> {
        let broker = connected(&settings.broker, "fanfare looks").await?;
        let view = View::of_queues(&broker, &settings.dead_letters);
        let index = index(settings).filter(|_| place == Place::DeadLetters && !from_queue);
        Ok(Self {
            view: match &index {
                Some(index) => view.indexed_by(index.clone()),
                None => view,
            },
            broker,
            index,
        })
    }

    async fn close(&self) {
        self.broker.close().await;
        if let Some(index) = &self.index {
            index.close().await;
        }
    }
}

/// The history with its index of dead letters, if this installation keeps one here.
fn index(settings: &Config) -> Option<History> {
    let is_there = match &settings.history.database {
        DatabaseLocation::Sqlite(path) => path.exists(),
        DatabaseLocation::Postgres(_) => true,
    };
    let is_kept = settings.journal.enabled && is_there;
    is_kept.then(|| History::connect(&settings.history))
}

async fn set_index_right(format: OutputFormat, settings: &Config) -> anyhow::Result<()> {
    if !settings.journal.enabled {
        bail!("`journal.enabled` is off, so nothing would keep the index as the queue is");
    }
    let index = History::open(&settings.history).await?;
    let broker = connected(&settings.broker, "fanfare reindex").await?;
    let depth = broker
        .depth(&broker.topology().queue_of(Place::DeadLetters))
        .await?;
    let bar = act::progress_bar();
    bar.set_length(depth.into());
    let mut tell = |seen| bar.set_position(seen);
    let done = reindex(&broker, &index, &clock::system_clock(), &mut tell).await?;
    bar.finish_and_clear();
    broker.close().await;
    index.close().await;
    let done = done.context("another process passes over the queue: try again when it is done")?;
    output::print_one(format, &done)?;
    Ok(())
}

/// What operations are asked for at and carried out by, for one command.
struct Office {
    broker: Broker,
    registry: Registry,
    journal: JournalWriter,
    index: Option<History>,
    desk: Desk,
}

impl Office {
    async fn open(settings: &Config) -> anyhow::Result<Self> {
        let registry = Registry::open(&settings.registry).await?;
        let broker = connected(&settings.broker, "fanfare dead-letters").await?;
        let clock = clock::system_clock();
        let process = format!("command {}", std::process::id());
        let meter = Metrics::new().meter("fanfare.cli");
        let journal = &settings.journal;
        let journal =
            JournalWriter::start(&broker, journal, OPERATOR, &process, clock.clone(), &meter);
        let dead_letters = settings.dead_letters.clone();
        let desk =
            Desk::new(&broker, registry.clone(), clock, dead_letters).journalling(journal.clone());
        let index = index(settings);
        Ok(Self {
            desk: match &index {
                Some(index) => desk.indexed_by(index.clone()),
                None => desk,
            },
            broker,
            registry,
            journal,
            index,
        })
    }

    async fn close(&self) {
        self.journal.close(JOURNAL_ENDS_WITHIN).await;
        self.broker.close().await;
        self.registry.close().await;
        if let Some(index) = &self.index {
            index.close().await;
        }
    }
}

#[cfg(test)]
mod tests;
