//! `fanfare dead-letters`: looks at the deliveries that were given up on.

use std::iter;

use anyhow::Context;
use fanfare_broker::Broker;
use fanfare_deadletters::{Listed, Unreadable, list};
use fanfare_model::{DeadLetter, Timestamp};
use fanfare_wire::HeaderValue;
use serde_json::{Value, json};

use super::broker::connected;
use crate::{
    Config, DeadLettersCommand, OutputFormat, Sources,
    output::{self, Column, Row},
};

/// How much of an error a table shows, in characters.
const LONGEST_ERROR: usize = 105;

pub(crate) async fn run(
    format: OutputFormat,
    command: &DeadLettersCommand,
    sources: &Sources,
) -> anyhow::Result<()> {
    let settings = Config::load(sources)?.settings;
    let DeadLettersCommand::List { limit } = command;
    let broker = connected(&settings.broker, "fanfare dead-letters").await?;
    let (listed, depth) = look(&broker, *limit as usize).await?;
    broker.close().await;
    output::print_rows(format, &listed)?;
    output::note(&format!("{} of {depth} dead letters", listed.len()))?;
    Ok(())
}

/// The first dead letters, and how many there are.
async fn look(broker: &Broker, limit: usize) -> anyhow::Result<(Vec<Listed>, usize)> {
    let queue = broker.topology().dead_letters_queue();
    // Before the look, because RabbitMQ does not count what is being looked at.
    let depth = broker.depth(&queue).await?;
    let listed = list(broker, limit).await.context("listing dead letters")?;
    let depth = listed.len().max(depth as usize);
    Ok((listed, depth))
}

impl Row for Listed {
    const COLUMNS: &'static [Column<Self>] = &[
        Column {
            name: "since",
            value: |listed| of(listed, |letter| letter.since.to_string()),
        },
        Column {
            name: "id",
            value: |listed| match listed {
                Self::DeadLetter(letter) => letter.delivery.id.to_string().into(),
                Self::Unreadable(other) => other.envelope.properties.message_id.clone().into(),
            },
        },
        Column {
            name: "tenant",
            value: |listed| of(listed, |letter| letter.delivery.event.tenant.as_str()),
        },
        Column {
            name: "type",
            value: |listed| of(listed, |letter| letter.delivery.event.event_type.as_str()),
        },
        Column {
            name: "source",
            value: |listed| of(listed, |letter| letter.delivery.event.source.as_str()),
        },
        Column {
            name: "event_id",
            value: |listed| of(listed, |letter| letter.delivery.event.id.as_str()),
        },
        Column {
            name: "endpoint",
            value: |listed| of(listed, |letter| letter.delivery.endpoint.to_string()),
        },
        REASON,
        ATTEMPTS,
        Column {
            name: "replay",
            value: |listed| of(listed, |letter| letter.delivery.replay),
        },
        LAST_STATUS,
        Column {
            name: "last_error",
            value: |listed| last_error(listed).into(),
        },
        Column {
            name: "trace_id",
            value: |listed| of(listed, |letter| letter.delivery.trace.trace_id()),
        },
        Column {
            name: "headers",
            value: |listed| match listed {
                // What they say stands in the other columns.
                Self::DeadLetter(_) => Value::Null,
                Self::Unreadable(other) => headers(other),
            },
        },
    ];

    /// The two longest ids would not stand beside the rest, so a row has two lines.
    const TABLE: &'static [Column<Self>] = &[
        Column {
            name: "since",
            value: |listed| of(listed, |letter| date_and_time(letter.since)),
        },
        Column {
            name: "tenant, type",
            value: |listed| match listed {
                Self::DeadLetter(letter) => {
                    let event = &letter.delivery.event;
                    json!([event.tenant, event.event_type.as_str()])
                }
                Self::Unreadable(other) => other.envelope.properties.message_type.clone().into(),
            },
        },
        Column {
            name: "endpoint, last_error",
            value: |listed| {
                let endpoint = of(listed, |letter| letter.delivery.endpoint.to_string());
                let error = last_error(listed).map(|error| shortened(&error));
                iter::once(endpoint).chain(error.map(Value::from)).collect()
            },
        },
        REASON,
        ATTEMPTS,
        LAST_STATUS,
    ];
}

const REASON: Column<Listed> = Column {
    name: "reason",
    value: |listed| match listed {
        Listed::DeadLetter(letter) => letter.reason.name().into(),
        Listed::Unreadable(_) => "unreadable".into(),
    },
};

const ATTEMPTS: Column<Listed> = Column {
    name: "attempts",
    value: |listed| of(listed, |letter| letter.delivery.failed_attempts),
};

const LAST_STATUS: Column<Listed> = Column {
    name: "last_status",
    value: |listed| {
        of(listed, |letter| {
            letter
                .delivery
                .failures
                .as_ref()
                .and_then(|past| past.last.status)
        })
    },
};

/// A value of a dead letter; nothing of a message that is none.
fn of<'l, V: Into<Value>>(listed: &'l Listed, value: fn(&'l DeadLetter) -> V) -> Value {
    match listed {
        Listed::DeadLetter(letter) => value(letter).into(),
        Listed::Unreadable(_) => Value::Null,
    }
}

/// The last failure; for a message that cannot be read, what is wrong with it.
fn last_error(listed: &Listed) -> Option<String> {
    match listed {
        Listed::DeadLetter(letter) => {
            let past = letter.delivery.failures.as_ref();
            past.map(|past| past.last.error.clone())
        }
        Listed::Unreadable(other) => Some(other.why.to_string()),
    }
}

fn headers(other: &Unreadable) -> Value {
    let value = |value: &HeaderValue| match value {
        HeaderValue::Text(text) => text.as_str().into(),
        HeaderValue::Integer(number) => (*number).into(),
        HeaderValue::Boolean(truth) => (*truth).into(),
        HeaderValue::Timestamp(second) => {
            Timestamp::from_second(*second).map_or(Value::Null, |time| time.to_string().into())
        }
        HeaderValue::Bytes(bytes) => format!("({} bytes)", bytes.len()).into(),
        HeaderValue::Other => Value::Null,
    };
    let headers = other.envelope.headers.iter();
    headers
        .map(|(name, held)| (name.to_owned(), value(held)))
        .collect()
}

fn date_and_time(time: Timestamp) -> Value {
    json!([
        time.strftime("%Y-%m-%d").to_string(),
        time.strftime("%H:%M:%SZ").to_string()
    ])
}

fn shortened(error: &str) -> String {
    match error.char_indices().nth(LONGEST_ERROR) {
        Some((end, _)) => format!("{}…", &error[..end]),
        None => error.to_owned(),
    }
}

#[cfg(test)]
mod tests;
