//! Deals with messages: says how many, asks whether it is meant, and shows how far it is.

use std::io::{self, BufRead as _, IsTerminal as _};

use anyhow::{Context as _, bail};
use fanfare_broker::Place;
use fanfare_deadletters::{Action, Desk, Progress, Request};
use fanfare_registry::{Operation, OperationId, Registry};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Office, seen};
use crate::{Config, OutputFormat, RestingActArgs, clock, output, signals::Signals};

pub(super) async fn run(
    format: OutputFormat,
    (place, action): (Place, Action),
    args: &RestingActArgs,
    settings: &Config,
) -> anyhow::Result<()> {
    let request = Request {
        place,
        action,
        filter: args.filter.filter(&args.ids, clock::system_clock().now()),
        all: args.all,
        pace: args.pace,
        why: args.why.clone().unwrap_or_default(),
        request_key: None,
    };
    let office = Office::open(settings).await?;
    let counted = office.desk.dry_run(&request).await?;
    let expected = counted.found;
    if args.dry_run || expected == 0 {
        say_how_many(format, &request, expected)?;
        output::note(&format!("of {}", seen(place, counted.seen)))?;
    } else if args.yes || is_meant(&request, expected)? {
        let asked = office.desk.request(request, expected, &actor()).await?;
        let id = asked.operation.id;
        if !args.no_wait {
            carry_out(&office.desk, place, Some(id)).await?;
        }
        print_operation(format, &office.registry, id).await?;
    } else {
        output::note("nothing was done")?;
    }
    office.close().await;
    Ok(())
}

/// Passes over a queue until what was asked for there is done, showing how far it is.
///
/// A signal ends the pass in order: what is not done yet stays, and the operation stays open.
pub(super) async fn carry_out(
    desk: &Desk,
    place: Place,
    shown: Option<OperationId>,
) -> anyhow::Result<()> {
    let signals = Signals::watch().context("watching for signals")?;
    let (bar, over) = (progress_bar(), CancellationToken::new());
    let stop = signals.terminate.child_token();
    let mut tell = |progress: &Progress| {
        if shown.is_some_and(|id| id != progress.operation.id) {
            return;
        }
        show(&bar, progress);
        if shown.is_some() && !progress.operation.state.is_open() {
            over.cancel();
        }
    };
    tokio::select! {
        ended = desk.run(place, &stop, &mut tell) => ended?,
        // Another process may have finished ours while it goes on with others.
        () = async { over.cancelled().await; stop.cancel(); std::future::pending().await } => {}
    }
    bar.finish_and_clear();
    if signals.terminate.is_cancelled() {
        output::note(
            "stopped in the middle: `fanfare dead-letters operations resume` goes on, `… cancel ID` gives it up",
        )?;
    }
    Ok(())
}

pub(in crate::commands) async fn print_operation(
    format: OutputFormat,
    registry: &Registry,
    id: OperationId,
) -> anyhow::Result<Operation> {
    let operation: Option<Operation> = registry.operation(id).await?;
    let operation = operation.with_context(|| format!("there is no operation `{id}`"))?;
    output::print_one(format, &operation)?;
    Ok(operation)
}

/// Who the audit log says it was.
pub(in crate::commands) fn actor() -> String {
    #[expect(clippy::disallowed_methods, reason = "`cli` may read the environment")]
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    user.map_or_else(|_| "cli".to_owned(), |user| format!("cli:{user}"))
}

fn say_how_many(format: OutputFormat, request: &Request, expected: u64) -> anyhow::Result<()> {
    let (place, action) = (request.place.name(), request.action.name());
    match format {
        OutputFormat::Table => {
            output::print(&format!(
                "{action} would deal with {expected} messages of `{place}`"
            ))?;
        }
        OutputFormat::Json => {
            let said =
                json!({"place": place, "action": action, "expected": expected, "dry_run": true});
            output::print(&output::to_json(&said))?;
        }
    }
    Ok(())
}

fn is_meant(request: &Request, expected: u64) -> anyhow::Result<bool> {
    let (place, action) = (request.place, request.action);
    if !io::stdin().is_terminal() {
        bail!("{action} deals with {expected} messages of `{place}`: say --yes if that is meant");
    }
    let repeats = Desk::repeats_at_most();
    output::note(&format!(
        "{action} {expected} messages of `{place}`? If this process dies in the middle, up to {repeats} \
         of them are repeated. [y/N]"
    ))?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// A bar on stderr, which shows nothing where that is no terminal.
pub(in crate::commands) fn progress_bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}");
    bar.set_style(style.expect("the template is one"));
    bar
}

fn show(bar: &ProgressBar, progress: &Progress) {
    let Progress {
        operation,
        looked_at,
        of,
    } = progress;
    bar.set_length(operation.request.expected.max(operation.resolved));
    bar.set_position(operation.resolved);
    bar.set_message(match of {
        0 => "another process passes over the queue".to_owned(),
        of => format!("looked at {looked_at} of {of}"),
    });
}
