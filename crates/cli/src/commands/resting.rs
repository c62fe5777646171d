//! `fanfare dead-letters`, `rejected`, `unroutable` and `crashed`: looks at messages that rest, and deals with them.
//!
//! Directly on RabbitMQ and the registry that the configuration names, by the same functions as the API.

mod act;
mod operations;
mod rows;

use anyhow::Context as _;
use fanfare_broker::{Broker, Place};
use fanfare_deadletters::{Desk, Looked, find, group, list};
use fanfare_registry::Registry;

use self::rows::{Grouped, Shown};
use super::broker::connected;
use crate::{
    Config, DeadLettersCommand, OneRestingArgs, OutputFormat, RestingCommand, RestingGroupArgs,
    RestingListArgs, Sources, clock, output,
};
use fanfare_deadletters::Action;

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
    let broker = connected(&settings.broker, "fanfare list").await?;
    let filter = args.filter.filter(&[], clock::system_clock().now());
    let bounds = (args.limit as usize, settings.dead_letters.look_at_most);
    let looked = list(&broker, place, &filter, None, bounds).await;
    let looked = looked.with_context(|| format!("listing `{place}`"))?;
    broker.close().await;
    output::print_rows(format, &looked.found)?;
    let shown = looked.found.len();
    output::note(&format!("{shown} shown of {} in `{place}`", seen(&looked)))?;
    Ok(())
}

async fn show_groups(
    format: OutputFormat,
    place: Place,
    args: &RestingGroupArgs,
    settings: &Config,
) -> anyhow::Result<()> {
    let broker = connected(&settings.broker, "fanfare group").await?;
    let now = clock::system_clock().now();
    let filter = args.filter.filter(&[], now);
    let at_most = settings.dead_letters.look_at_most;
    let looked = group(&broker, place, &filter, (&args.by, now), at_most).await;
    let looked = looked.with_context(|| format!("counting `{place}`"))?;
    broker.close().await;
    let groups = looked.found.iter().take(args.limit as usize);
    let rows: Vec<Grouped> = groups.cloned().map(Grouped).collect();
    output::print_rows(format, &rows)?;
    let (shown, all) = (rows.len(), looked.found.len());
    output::note(&format!(
        "{shown} of {all} groups shown, of {} in `{place}`",
        seen(&looked)
    ))?;
    Ok(())
}

async fn show_one(
    format: OutputFormat,
    place: Place,
    args: &OneRestingArgs,
    settings: &Config,
) -> anyhow::Result<()> {
    let broker = connected(&settings.broker, "fanfare show").await?;
    let at_most = settings.dead_letters.look_at_most;
    let looked = find(&broker, place, &args.id, at_most).await;
    let looked = looked.with_context(|| format!("looking for a message in `{place}`"))?;
    broker.close().await;
    let was_seen = seen(&looked);
    let found = looked
        .found
        .with_context(|| format!("`{}` is not among {was_seen} in `{place}`", args.id))?;
    output::print_one(format, &Shown(found))?;
    Ok(())
}

/// How many messages a look saw, and whether there are more.
fn seen<T>(looked: &Looked<T>) -> String {
    match looked.complete {
        true => format!("{} messages", looked.looked_at),
        false => format!(
            "the first {} messages, and there are more",
            looked.looked_at
        ),
    }
}

/// What operations are asked for at and carried out by, for one command.
async fn desk(settings: &Config) -> anyhow::Result<(Broker, Registry, Desk)> {
    let registry = Registry::open(&settings.registry).await?;
    let broker = connected(&settings.broker, "fanfare dead-letters").await?;
    let desk = Desk::new(
        &broker,
        registry.clone(),
        clock::system_clock(),
        settings.dead_letters.clone(),
    );
    Ok((broker, registry, desk))
}

#[cfg(test)]
mod tests;
