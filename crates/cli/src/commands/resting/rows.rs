//! What messages that rest, groups of them and operations on them look like in tables and in JSON.

use std::iter;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use fanfare_deadletters::{Entry, Found, Group, GroupBy, Reindexed};
use fanfare_journal::AttemptEntry;
use fanfare_model::Timestamp;
use fanfare_registry::{Operation, OperationItem};
use fanfare_wire::HeaderValue;
use serde_json::{Map, Value, json};

use crate::output::{Column, Row};

/// How much of an error a table shows, in characters.
const LONGEST_ERROR: usize = 105;

/// A column with the value of an expression.
macro_rules! column {
    ($name:literal, $value:expr) => {
        Column {
            name: $name,
            value: $value,
        }
    };
}

impl Row for Entry {
    const COLUMNS: &'static [Column<Self>] = &[
        column!("since", |entry| moment(entry.since)),
        column!("id", |entry| entry.id.as_str().into()),
        column!("tenant", |entry| entry.tenant.clone().into()),
        column!("type", |entry| entry.event_type.clone().into()),
        column!("source", |entry| entry.event_source.clone().into()),
        column!("event_id", |entry| entry.event_id.clone().into()),
        column!("endpoint", |entry| entry.endpoint.clone().into()),
        column!("reason", |entry| entry.reason.as_str().into()),
        column!("detail", |entry| entry.detail.clone().into()),
        column!("attempts", |entry| entry.attempts.into()),
        column!("replay", |entry| entry.replay.into()),
        column!("first_failed_at", |entry| moment(entry.first_failed_at)),
        column!("last_failed_at", |entry| moment(entry.last_failed_at)),
        column!("last_class", |entry| entry.last_class.clone().into()),
        column!("last_status", |entry| entry.last_status.into()),
        column!("last_error", |entry| entry.last_error.clone().into()),
        column!("trace_id", |entry| entry.trace_id.clone().into()),
        column!("routing_key", |entry| entry.routing_key.as_str().into()),
        column!("content_type", |entry| entry.content_type.clone().into()),
        column!("bytes", |entry| entry.bytes.into()),
    ];

    /// The longest texts would not stand beside the rest, so a row has lines.
    const TABLE: &'static [Column<Self>] = &[
        column!("since", |entry| date_and_time(entry.since)),
        column!("tenant, type", |entry| json!([
            entry.tenant,
            entry.event_type
        ])),
        column!("id, endpoint, last_error", |entry| {
            let error = entry.last_error.as_ref().or(entry.detail.as_ref());
            let error = error.map(|error| Value::from(shortened(error)));
            let endpoint = entry.endpoint.clone().map(Value::from);
            iter::once(entry.id.as_str().into())
                .chain(endpoint)
                .chain(error)
                .collect()
        }),
        column!("reason", |entry| entry.reason.as_str().into()),
        column!("attempts", |entry| entry.attempts.into()),
        column!("last_status", |entry| entry.last_status.into()),
    ];
}

/// One message with its payload.
pub(super) struct Shown(pub(super) Found);

impl Row for Shown {
    const COLUMNS: &'static [Column<Self>] = &[
        column!("message", |Self(found)| {
            let columns = Entry::COLUMNS.iter();
            columns
                .map(|column| (column.name.to_owned(), (column.value)(&found.entry)))
                .filter(|(_, value)| !value.is_null())
                .collect()
        }),
        column!("headers", |Self(found)| {
            let headers = found.headers.as_ref();
            headers.map_or(Value::Null, |headers| {
                headers
                    .iter()
                    .map(|(name, value)| (name.to_owned(), header(value)))
                    .collect()
            })
        }),
        column!("data", |Self(found)| data(&found.data)),
        column!("data_base64", |Self(found)| {
            match std::str::from_utf8(&found.data) {
                Ok(_) => Value::Null,
                Err(_) => STANDARD.encode(&found.data).into(),
            }
        }),
        column!("attempts", |Self(found)| match found.attempts.as_slice() {
            [] => Value::Null,
            attempts => attempts.iter().map(attempt).collect(),
        }),
    ];
}

fn attempt(attempt: &AttemptEntry) -> Value {
    json!({
        "at": attempt.at.to_string(),
        "replay": attempt.replay,
        "attempt": attempt.number,
        "status": attempt.status,
        "outcome": attempt.failure.map_or("succeeded", |class| class.name()),
        "error": attempt.error,
    })
}

/// JSON as it is, other text as text; nothing of what is neither.
fn data(body: &[u8]) -> Value {
    let Ok(text) = std::str::from_utf8(body) else {
        return Value::Null;
    };
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

/// A group of messages.
pub(super) struct Grouped(pub(super) Group);

impl Grouped {
    fn by(&self, by: GroupBy) -> Value {
        self.0.by.get(&by).cloned().flatten().into()
    }
}

impl Row for Grouped {
    const COLUMNS: &'static [Column<Self>] = &[
        column!("count", |Self(group)| group.count.into()),
        column!("tenant", |group| group.by(GroupBy::Tenant)),
        column!("endpoint", |group| group.by(GroupBy::Endpoint)),
        column!("type", |group| group.by(GroupBy::Type)),
        column!("reason", |group| group.by(GroupBy::Reason)),
        column!("age", |group| group.by(GroupBy::Age)),
        column!("oldest", |Self(group)| moment(group.oldest)),
        column!("newest", |Self(group)| moment(group.newest)),
    ];

    const TABLE: &'static [Column<Self>] = &[
        column!("count", |Self(group)| group.count.into()),
        column!("by", |Self(group)| {
            let by = group.by.values();
            by.map(|value| Value::from(value.clone())).collect()
        }),
        column!("oldest", |Self(group)| date_and_time(group.oldest)),
        column!("newest", |Self(group)| date_and_time(group.newest)),
    ];
}

impl Row for Operation {
    const COLUMNS: &'static [Column<Self>] = &[
        column!("id", |operation| operation.id.to_string().into()),
        column!("place", |operation| operation.request.place.as_str().into()),
        column!("action", |operation| operation
            .request
            .action
            .as_str()
            .into()),
        column!("filter", |operation| operation.request.filter.clone()),
        column!("state", |operation| operation.state.name().into()),
        column!("expected", |operation| operation.request.expected.into()),
        column!("resolved", |operation| operation.resolved.into()),
        column!("pace", |operation| operation.request.pace.as_str().into()),
        column!("actor", |operation| operation.actor.as_str().into()),
        column!("why", |operation| operation.request.why.as_str().into()),
        column!("requested_at", |operation| moment(Some(
            operation.requested_at
        ))),
        column!("changed_at", |operation| moment(Some(operation.changed_at))),
    ];

    const TABLE: &'static [Column<Self>] = &[
        column!("requested_at", |operation| date_and_time(Some(
            operation.requested_at
        ))),
        column!("id, filter, why", |operation| {
            let request = &operation.request;
            let is_all = request.filter.as_object().is_some_and(Map::is_empty);
            let filter = if is_all {
                "all".to_owned()
            } else {
                request.filter.to_string()
            };
            json!([operation.id.to_string(), filter, request.why])
        }),
        column!("what", |operation| {
            let request = &operation.request;
            json!([request.place, request.action, operation.actor])
        }),
        column!("state", |operation| operation.state.name().into()),
        column!("resolved", |operation| {
            format!("{} of {}", operation.resolved, operation.request.expected).into()
        }),
    ];
}

impl Row for Reindexed {
    const COLUMNS: &'static [Column<Self>] = &[
        column!("in_queue", |done| done.in_queue.into()),
        column!("others", |done| done.others.into()),
        column!("entered", |done| done.entered.into()),
        column!("dropped", |done| done.dropped.into()),
    ];
}

impl Row for OperationItem {
    const COLUMNS: &'static [Column<Self>] = &[
        column!("message", |item| item.message.as_str().into()),
        column!("at", |item| moment(Some(item.at))),
        column!("was", |item| item.summary.clone()),
    ];

    const TABLE: &'static [Column<Self>] = &[
        column!("at", |item| date_and_time(Some(item.at))),
        column!("message", |item| item.message.as_str().into()),
        column!("tenant, type", |item| json!([
            item.summary["tenant"],
            item.summary["event_type"]
        ])),
        column!("reason", |item| item.summary["reason"].clone()),
    ];
}

fn header(value: &HeaderValue) -> Value {
    match value {
        HeaderValue::Text(text) => text.as_str().into(),
        HeaderValue::Integer(number) => (*number).into(),
        HeaderValue::Boolean(truth) => (*truth).into(),
        HeaderValue::Timestamp(second) => moment(Timestamp::from_second(*second).ok()),
        HeaderValue::Bytes(bytes) => format!("({} bytes)", bytes.len()).into(),
        HeaderValue::Other => Value::Null,
    }
}

fn moment(time: Option<Timestamp>) -> Value {
    time.map(|time| time.to_string()).into()
}

fn date_and_time(time: Option<Timestamp>) -> Value {
    let Some(time) = time else { return Value::Null };
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
