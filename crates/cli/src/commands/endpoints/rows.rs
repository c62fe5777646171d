//! What is printed of endpoints.

use std::time::Duration;

use fanfare_model::Endpoint;
use jiff::fmt::friendly::{Spacing, SpanPrinter};
use serde::Serialize;
use serde_json::Value;

use crate::output::{Column, Row};

/// An endpoint as one of many.
pub(super) struct Listed(pub(super) Endpoint);

impl Row for Listed {
    const COLUMNS: &'static [Column<Self>] = &[
        Column {
            name: "id",
            value: |Self(endpoint)| endpoint.id.to_string().into(),
        },
        Column {
            name: "tenant",
            value: |Self(endpoint)| endpoint.tenant.as_str().into(),
        },
        Column {
            name: "url",
            value: |Self(endpoint)| endpoint.url.to_string().into(),
        },
        Column {
            name: "event_types",
            value: |Self(endpoint)| event_types(endpoint),
        },
        Column {
            name: "rate",
            value: |Self(endpoint)| rate(endpoint),
        },
        Column {
            name: "state",
            value: |Self(endpoint)| endpoint.state.name().into(),
        },
    ];
}

/// An endpoint with everything but its secrets and the values of its headers, and how it stands.
pub(super) struct Shown(pub(super) Endpoint, pub(super) Value);

impl Row for Shown {
    const COLUMNS: &'static [Column<Self>] = &[
        Column {
            name: "id",
            value: |Self(endpoint, _)| endpoint.id.to_string().into(),
        },
        Column {
            name: "tenant",
            value: |Self(endpoint, _)| endpoint.tenant.as_str().into(),
        },
        Column {
            name: "url",
            value: |Self(endpoint, _)| endpoint.url.to_string().into(),
        },
        Column {
            name: "description",
            value: |Self(endpoint, _)| (*endpoint.description).into(),
        },
        Column {
            name: "event_types",
            value: |Self(endpoint, _)| event_types(endpoint),
        },
        Column {
            name: "filter",
            value: |Self(endpoint, _)| json(&endpoint.filter),
        },
        Column {
            name: "template",
            value: |Self(endpoint, _)| json(&endpoint.template),
        },
        Column {
            name: "state",
            value: |Self(endpoint, _)| endpoint.state.name().into(),
        },
        Column {
            name: "since",
            value: |Self(_, status)| status["since"].clone(),
        },
        Column {
            name: "by",
            value: |Self(_, status)| status["by"].clone(),
        },
        Column {
            name: "reason",
            value: |Self(_, status)| status["reason"].clone(),
        },
        Column {
            name: "dispatcher",
            value: |Self(_, status)| match status["dispatcher"].as_str() {
                Some(name) => name.into(),
                None => "unknown (no dispatcher answered)".into(),
            },
        },
        Column {
            name: "circuit",
            value: |Self(_, status)| status["circuit"].clone(),
        },
        Column {
            name: "circuit_open_since",
            value: |Self(_, status)| status["circuit_open_since"].clone(),
        },
        Column {
            name: "circuit_open_until",
            value: |Self(_, status)| status["circuit_open_until"].clone(),
        },
        Column {
            name: "held_back_until",
            value: |Self(_, status)| status["held_back_until"].clone(),
        },
        Column {
            name: "queued_until",
            value: |Self(_, status)| status["queued_until"].clone(),
        },
        Column {
            name: "in_flight",
            value: |Self(_, status)| status["in_flight"].clone(),
        },
        Column {
            name: "at_most_in_flight",
            value: |Self(_, status)| status["at_most_in_flight"].clone(),
        },
        Column {
            name: "failed_in_a_row",
            value: |Self(_, status)| status["failed_in_a_row"].clone(),
        },
        Column {
            name: "failing_since",
            value: |Self(_, status)| status["failing_since"].clone(),
        },
        Column {
            name: "last_success",
            value: |Self(_, status)| attempted(&status["last_success"]),
        },
        Column {
            name: "last_failures",
            value: |Self(_, status)| match status["last_failures"].as_array() {
                Some(failures) => failures.iter().map(attempted).collect(),
                None => "unknown (the history did not answer)".into(),
            },
        },
        Column {
            name: "rate",
            value: |Self(endpoint, _)| rate(endpoint),
        },
        Column {
            name: "max_in_flight",
            value: |Self(endpoint, _)| endpoint.max_in_flight.into(),
        },
        Column {
            name: "timeout",
            value: |Self(endpoint, _)| friendly(endpoint.timeout).into(),
        },
        Column {
            name: "schedule",
            value: |Self(endpoint, _)| endpoint.schedule.to_string().into(),
        },
        Column {
            name: "success",
            value: |Self(endpoint, _)| endpoint.success.to_string().into(),
        },
        Column {
            name: "permanent",
            value: |Self(endpoint, _)| endpoint.permanent.to_string().into(),
        },
        Column {
            name: "disable_after",
            value: |Self(endpoint, _)| endpoint.disable_after.to_string().into(),
        },
        Column {
            name: "format",
            value: |Self(endpoint, _)| endpoint.format.to_string().into(),
        },
        Column {
            name: "signature",
            value: |Self(endpoint, _)| endpoint.signature.to_string().into(),
        },
        Column {
            name: "public_keys",
            value: |Self(endpoint, _)| {
                let keys = endpoint
                    .secrets
                    .iter()
                    .filter_map(|secret| secret.public_key());
                keys.map(|key| key.to_string()).collect()
            },
        },
        Column {
            name: "retiring_until",
            value: |Self(endpoint, _)| {
                let retiring = endpoint.retiring.iter();
                retiring.map(|old| old.until.to_string()).collect()
            },
        },
        Column {
            name: "auth",
            value: |Self(endpoint, _)| endpoint.auth.as_ref().map(|auth| auth.kind()).into(),
        },
        Column {
            name: "client_certificate",
            value: |Self(endpoint, _)| endpoint.tls.client.is_some().into(),
        },
        Column {
            name: "extra_ca",
            value: |Self(endpoint, _)| endpoint.tls.ca.is_some().into(),
        },
        Column {
            name: "http_version",
            value: |Self(endpoint, _)| endpoint.http_version.to_string().into(),
        },
        Column {
            name: "request_origin",
            value: |Self(endpoint, _)| json(&endpoint.request_origin),
        },
        Column {
            name: "connect_timeout",
            value: |Self(endpoint, _)| endpoint.connect_timeout.map(friendly).into(),
        },
        Column {
            name: "header_names",
            value: |Self(endpoint, _)| {
                endpoint
                    .headers
                    .iter()
                    .map(|header| header.name())
                    .collect()
            },
        },
        Column {
            name: "created_at",
            value: |Self(endpoint, _)| endpoint.created_at.to_string().into(),
        },
        Column {
            name: "updated_at",
            value: |Self(endpoint, _)| endpoint.updated_at.to_string().into(),
        },
    ];
}

/// What came of trying an endpoint out.
pub(super) struct Tried(pub(super) Value);

impl Row for Tried {
    const COLUMNS: &'static [Column<Self>] = &[
        Column {
            name: "outcome",
            value: |Self(tried)| tried["outcome"].clone(),
        },
        Column {
            name: "error",
            value: |Self(tried)| tried["error"].clone(),
        },
        Column {
            name: "not_allowed",
            value: |Self(tried)| tried["not_allowed"].clone(),
        },
        Column {
            name: "took_ms",
            value: |Self(tried)| tried["took_ms"].clone(),
        },
        Column {
            name: "type",
            value: |Self(tried)| tried["type"].clone(),
        },
        Column {
            name: "url",
            value: |Self(tried)| tried["url"].clone(),
        },
        Column {
            name: "request_headers",
            value: |Self(tried)| tried["request"]["headers"].clone(),
        },
        Column {
            name: "request_body",
            value: |Self(tried)| tried["request"]["body"].clone(),
        },
        Column {
            name: "status",
            value: |Self(tried)| tried["status"].clone(),
        },
        Column {
            name: "response_headers",
            value: |Self(tried)| tried["response"]["headers"].clone(),
        },
        Column {
            name: "response_body",
            value: |Self(tried)| tried["response"]["body"].clone(),
        },
    ];
}

/// An endpoint that just got its secret.
pub(super) struct Created(pub(super) Endpoint);

impl Row for Created {
    const COLUMNS: &'static [Column<Self>] = &[
        Column {
            name: "id",
            value: |Self(endpoint)| endpoint.id.to_string().into(),
        },
        Column {
            name: "tenant",
            value: |Self(endpoint)| endpoint.tenant.as_str().into(),
        },
        Column {
            name: "url",
            value: |Self(endpoint)| endpoint.url.to_string().into(),
        },
        Column {
            name: "event_types",
            value: |Self(endpoint)| event_types(endpoint),
        },
        Column {
            name: "secret",
            value: |Self(endpoint)| {
                endpoint
                    .secrets
                    .first()
                    .map(|secret| secret.reveal())
                    .into()
            },
        },
    ];
}

fn event_types(endpoint: &Endpoint) -> Value {
    endpoint
        .event_types
        .iter()
        .map(ToString::to_string)
        .collect()
}

pub(super) fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("what is shown is JSON")
}

fn rate(endpoint: &Endpoint) -> Value {
    endpoint.rate.map(|rate| rate.to_string()).into()
}

/// An attempt in a line: when, what came of it, and of which event.
fn attempted(attempt: &Value) -> Value {
    let text = |name: &str| attempt[name].as_str().unwrap_or_default();
    if attempt.is_null() {
        return Value::Null;
    }
    let status = attempt["status"].as_u64();
    let status = status.map_or_else(String::new, |status| format!(" ({status})"));
    format!(
        "{} {}{status} {}",
        text("at"),
        text("outcome"),
        text("type")
    )
    .into()
}

fn friendly(duration: Duration) -> String {
    SpanPrinter::new()
        .spacing(Spacing::None)
        .unsigned_duration_to_string(&duration)
}
