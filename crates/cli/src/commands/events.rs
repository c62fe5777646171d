//! `fanfare events` and `fanfare attempts`: what happened, as far as the history knows.

use anyhow::{Context as _, bail};
use fanfare_journal::{
    AttemptEntry, AttemptFilter, DeliveryFilter, DeliveryRecord, EventFilter, EventHistory,
    EventRecord, FeedEntry, FeedFilter, History, OwedEvent, Page,
};
use fanfare_model::DeliveryState;
use serde_json::{Value, json};

use crate::{
    AttemptsArgs, Config, EventsCommand, EventsFeedArgs, EventsListArgs, EventsShowArgs,
    OutputFormat, Sources, clock,
    output::{self, Column, Row},
};

/// How much of an error a table shows, in characters.
const LONGEST_ERROR: usize = 60;

pub(crate) async fn run(
    format: OutputFormat,
    command: &EventsCommand,
    sources: &Sources,
) -> anyhow::Result<()> {
    let settings = Config::load(sources)?.settings;
    if let EventsCommand::Resend(args) = command {
        return super::replay::resend(format, args, &settings).await;
    }
    let history = History::open(&settings.history).await?;
    match command {
        EventsCommand::List(args) => list(format, &history, args).await?,
        EventsCommand::Show(args) => show(format, &history, args).await?,
        EventsCommand::Feed(args) => feed(format, &history, args).await?,
        EventsCommand::Resend(_) => {}
    }
    history.close().await;
    Ok(())
}

/// `fanfare attempts`.
pub(crate) async fn attempts(
    format: OutputFormat,
    args: &AttemptsArgs,
    sources: &Sources,
) -> anyhow::Result<()> {
    let settings = Config::load(sources)?.settings;
    let history = History::open(&settings.history).await?;
    let now = clock::system_clock().now();
    let filter = AttemptFilter {
        tenant: args.tenant.clone(),
        endpoint: args.endpoint,
        event_type: args.event_type.clone(),
        outcome: args.outcome,
        delivery: args.delivery,
        event_id: args.event.clone(),
        from: args.since.map(|moment| moment.at(now)),
        to: args.until.map(|moment| moment.at(now)),
    };
    let page = Page {
        after: args.after,
        limit: args.limit + 1,
    };
    let mut found = history.attempts(&filter, page).await?;
    history.close().await;
    let more = cut(&mut found, args.limit);
    output::print_rows(format, &found)?;
    if let Some(last) = found.last().filter(|_| more) {
        output::note(&format!("there are older ones: --after {}", last.cursor))?;
    }
    Ok(())
}

async fn list(
    format: OutputFormat,
    history: &History,
    args: &EventsListArgs,
) -> anyhow::Result<()> {
    let now = clock::system_clock().now();
    let (from, to) = (
        args.since.map(|moment| moment.at(now)),
        args.until.map(|moment| moment.at(now)),
    );
    let page = Page {
        after: args.after,
        limit: args.limit + 1,
    };
    let more = if args.endpoint.is_some() || args.state.is_some() {
        let filter = DeliveryFilter {
            tenant: args.tenant.clone(),
            endpoint: args.endpoint,
            event_types: args.event_type.iter().cloned().collect(),
            states: args
                .state
                .clone()
                .map(|states| states.0)
                .unwrap_or_default(),
            from,
            to,
            ..DeliveryFilter::default()
        };
        let mut found = history.deliveries(&filter, page).await?;
        let more = cut(&mut found, args.limit);
        output::print_rows(format, &found)?;
        let last = found.last().and_then(|owed| owed.delivery.as_ref());
        last.filter(|_| more).map(|last| last.cursor)
    } else {
        let event_type = match &args.event_type {
            Some(pattern) => {
                let exact = pattern.to_string().parse();
                Some(exact.context("a family of types is searched with --endpoint or --state")?)
            }
            None => None,
        };
        let filter = EventFilter {
            tenant: args.tenant.clone(),
            event_type,
            source: args.source.clone(),
            id: args.id.clone(),
            from,
            to,
        };
        let mut found = history.events(&filter, page).await?;
        let more = cut(&mut found, args.limit);
        output::print_rows(format, &found)?;
        found.last().filter(|_| more).map(|last| last.cursor)
    };
    if let Some(last) = more {
        output::note(&format!("there are older ones: --after {last}"))?;
    }
    Ok(())
}

async fn show(
    format: OutputFormat,
    history: &History,
    args: &EventsShowArgs,
) -> anyhow::Result<()> {
    let filter = EventFilter {
        tenant: Some(args.tenant.clone()),
        source: args.source.clone(),
        id: Some(args.id.clone()),
        ..EventFilter::default()
    };
    let page = Page {
        after: None,
        limit: 2,
    };
    let found = history.events(&filter, page).await?;
    let event = match found.as_slice() {
        [event] => history.event(&event.key()).await?,
        [] => None,
        _ => bail!("several sources use this id: say which one with --source"),
    };
    let (tenant, id) = (&args.tenant, &args.id);
    let event =
        event.with_context(|| format!("the history of tenant `{tenant}` holds no event `{id}`"))?;
    match format {
        OutputFormat::Json => output::print(&output::to_json(&whole(&event)))?,
        OutputFormat::Table => {
            output::print_one(format, &event.event)?;
            if let Some(data) = &event.event.event.data {
                let text = String::from_utf8_lossy(data);
                output::print(&format!("\n{}", output::harmless(&text)))?;
            }
            output::print("\nDELIVERIES")?;
            output::print_rows(format, &event.deliveries)?;
            output::print("\nATTEMPTS")?;
            output::print_rows(format, &event.attempts)?;
        }
    }
    Ok(())
}

fn whole(history: &EventHistory) -> Value {
    let data = history.event.event.data.as_ref();
    json!({
        "event": output::object(&history.event),
        "data": data.map(|data| String::from_utf8_lossy(data)),
        "deliveries": history.deliveries.iter().map(output::object).collect::<Vec<_>>(),
        "attempts": history.attempts.iter().map(output::object).collect::<Vec<_>>(),
    })
}

async fn feed(
    format: OutputFormat,
    history: &History,
    args: &EventsFeedArgs,
) -> anyhow::Result<()> {
    let filter = FeedFilter {
        endpoint: args.endpoint,
        states: args
            .state
            .clone()
            .map(|states| states.0)
            .unwrap_or_default(),
    };
    let mut page = Page {
        after: args.after,
        limit: args.limit,
    };
    let mut found = Vec::new();
    let part = loop {
        let mut part = history.feed_part(&args.tenant, &filter, page).await?;
        found.append(&mut part.entries);
        page.after = part.next;
        page.limit = args.limit.saturating_sub(u32::try_from(found.len())?);
        if page.limit == 0 || !part.more {
            break part;
        }
    };
    output::print_rows(format, &found)?;
    if let Some(next) = part.next {
        let what = if part.more {
            "there is more"
        } else {
            "that is all so far"
        };
        output::note(&format!("{what}; go on with --after {next}"))?;
    }
    Ok(())
}

/// Cuts the one result that tells whether there are more.
fn cut<T>(found: &mut Vec<T>, limit: u32) -> bool {
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    more
}

impl Row for EventRecord {
    const COLUMNS: &'static [Column<Self>] = &[
        Column {
            name: "routed_at",
            value: |record| record.at.to_string().into(),
        },
        Column {
            name: "tenant",
            value: |record| record.event.tenant.as_str().into(),
        },
        Column {
            name: "type",
            value: |record| record.event.event_type.as_str().into(),
        },
        Column {
            name: "source",
            value: |record| record.event.source.as_str().into(),
        },
        Column {
            name: "id",
            value: |record| record.event.id.as_str().into(),
        },
        Column {
            name: "subject",
            value: |record| record.event.subject.clone().into(),
        },
        Column {
            name: "trace_id",
            value: |record| record.trace_id.clone().into(),
        },
        Column {
            name: "complete",
            value: |record| record.is_complete.into(),
        },
    ];

    const TABLE: &'static [Column<Self>] = Self::COLUMNS.split_at(5).0;
}

impl Row for OwedEvent {
    const COLUMNS: &'static [Column<Self>] = &[
        Column {
            name: "routed_at",
            value: |owed| owed.event.at.to_string().into(),
        },
        Column {
            name: "tenant",
            value: |owed| owed.event.event.tenant.as_str().into(),
        },
        Column {
            name: "type",
            value: |owed| owed.event.event.event_type.as_str().into(),
        },
        Column {
            name: "id",
            value: |owed| owed.event.event.id.as_str().into(),
        },
        Column {
            name: "state",
            value: |owed| state(owed.delivery.as_ref()),
        },
        Column {
            name: "attempts",
            value: |owed| owed.delivery.as_ref().map(|one| one.failed_attempts).into(),
        },
        Column {
            name: "last_error",
            value: |owed| last_error(owed.delivery.as_ref()),
        },
        Column {
            name: "source",
            value: |owed| owed.event.event.source.as_str().into(),
        },
        Column {
            name: "endpoint",
            value: |owed| {
                owed.delivery
                    .as_ref()
                    .map(|one| one.endpoint.to_string())
                    .into()
            },
        },
        Column {
            name: "delivery",
            value: |owed| owed.delivery.as_ref().map(|one| one.id.to_string()).into(),
        },
    ];

    const TABLE: &'static [Column<Self>] = Self::COLUMNS.split_at(7).0;
}

impl Row for DeliveryRecord {
    const COLUMNS: &'static [Column<Self>] = &[
        Column {
            name: "endpoint",
            value: |record| record.endpoint.to_string().into(),
        },
        Column {
            name: "state",
            value: |record| state(Some(record)),
        },
        Column {
            name: "changed_at",
            value: |record| record.changed_at.to_string().into(),
        },
        Column {
            name: "replay",
            value: |record| record.replay.into(),
        },
        Column {
            name: "failed_attempts",
            value: |record| record.failed_attempts.into(),
        },
        Column {
            name: "last_error",
            value: |record| last_error(Some(record)),
        },
        Column {
            name: "id",
            value: |record| record.id.to_string().into(),
        },
    ];

    const TABLE: &'static [Column<Self>] = Self::COLUMNS.split_at(6).0;
}

impl Row for AttemptEntry {
    const COLUMNS: &'static [Column<Self>] = &[
        Column {
            name: "at",
            value: |entry| entry.at.to_string().into(),
        },
        Column {
            name: "endpoint",
            value: |entry| entry.endpoint.to_string().into(),
        },
        Column {
            name: "attempt",
            value: |entry| entry.number.into(),
        },
        Column {
            name: "took_ms",
            value: |entry| (entry.took_micros / 1000).into(),
        },
        Column {
            name: "status",
            value: |entry| entry.status.into(),
        },
        Column {
            name: "outcome",
            value: |entry| {
                entry
                    .failure
                    .map_or("succeeded", |class| class.name())
                    .into()
            },
        },
        Column {
            name: "then",
            value: |entry| entry.settled.as_str().into(),
        },
        Column {
            name: "type",
            value: |entry| entry.event_type.as_str().into(),
        },
        Column {
            name: "tenant",
            value: |entry| entry.tenant.as_str().into(),
        },
        Column {
            name: "replay",
            value: |entry| entry.replay.into(),
        },
        Column {
            name: "error",
            value: |entry| entry.error.as_str().into(),
        },
        Column {
            name: "delivery",
            value: |entry| entry.delivery.to_string().into(),
        },
    ];

    const TABLE: &'static [Column<Self>] = Self::COLUMNS.split_at(7).0;
}

impl Row for FeedEntry {
    const COLUMNS: &'static [Column<Self>] = &[
        Column {
            name: "cursor",
            value: |entry| entry.cursor.to_string().into(),
        },
        Column {
            name: "routed_at",
            value: |entry| entry.event.at.to_string().into(),
        },
        Column {
            name: "type",
            value: |entry| entry.event.event.event_type.as_str().into(),
        },
        Column {
            name: "id",
            value: |entry| entry.event.event.id.as_str().into(),
        },
        Column {
            name: "source",
            value: |entry| entry.event.event.source.as_str().into(),
        },
        Column {
            name: "deliveries",
            value: |entry| {
                let deliveries = entry.deliveries.iter();
                deliveries
                    .map(|one| (one.endpoint.to_string(), one.state.name().into()))
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            },
        },
    ];
}

fn state(delivery: Option<&DeliveryRecord>) -> Value {
    match delivery.map(|one| one.state) {
        Some(DeliveryState::DeadLettered { reason }) => {
            format!("dead_lettered ({})", reason.name()).into()
        }
        Some(state) => state.name().into(),
        None => "not_owed".into(),
    }
}

fn last_error(delivery: Option<&DeliveryRecord>) -> Value {
    let failure = delivery.and_then(|one| one.last_failure.as_ref());
    failure
        .map(|failure| {
            failure
                .error
                .chars()
                .take(LONGEST_ERROR)
                .collect::<String>()
        })
        .into()
}
