//! Takes events in over HTTP, for services that do not speak AMQP.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode},
};
use bytes::Bytes;
use fanfare_model::{EventType, TenantId, Timestamp};
use fanfare_wire::{
    DecodedEvent, Envelope, EventDefaults, EventLimits, decode_event_with, is_batch, split_batch,
};
use futures_util::future::join_all;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    event_types,
    extract::{Path, TenantPath, check_media_type, media_type, read_bytes},
    problem::{BatchItem, Code, Problem, ProblemBody},
    run::Shared,
};

const ACCEPTED: [&str; 5] = [
    "application/cloudevents+json",
    "application/json",
    "application/cloudevents+protobuf",
    "application/cloudevents-batch+json",
    "application/cloudevents-batch+protobuf",
];
const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
/// What the attributes of an event in binary mode begin with (CloudEvents HTTP binding, "HTTP Header Names").
const ATTRIBUTE_PREFIX: &str = "ce-";

/// What was stored.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "id": "31-unlocked",
    "source": "https://example.com/rewards",
    "type": "reward.unlocked",
    "tenant": "MF4c1b7e20",
}))]
pub(crate) struct Accepted {
    /// The event's id: sent, taken from the idempotency key, or generated.
    id: String,
    source: String,
    #[serde(rename = "type")]
    #[schema(value_type = String)]
    event_type: EventType,
    #[schema(value_type = String)]
    tenant: TenantId,
}

/// What was stored of a batch: every event of it, in its order.
#[derive(Serialize, ToSchema)]
pub(crate) struct AcceptedBatch {
    events: Vec<BatchItem>,
}

/// Either of the two.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum AcceptedEvents {
    One(Accepted),
    Batch(AcceptedBatch),
}

/// Publishes an event, or a batch of events.
///
/// The body is a CloudEvent 1.0 in structured JSON mode or in protobuf mode, or, in binary mode, its data: the
/// attributes are then headers `ce-…`. An event has at most 256 KiB. `tenant` may be left out: it
/// is the one in the path. An event without `id` gets the idempotency key as its id, or else a new one;
/// whoever may have to repeat a request sends one of the two. A repeat is recognised by tenant,
/// `source` and `id`.
///
/// A batch has at most 1000 events and 1 MiB. Each of its events is stored or refused by itself: 202 means that all
/// were stored; otherwise the problem lists in `events` what became of each. An event without `id` gets the
/// idempotency key, a dot, and its index.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/events", tag = "events",
    params(
        ("tenant" = String, Path, description = "The tenant that the event happened in.", example = "MF4c1b7e20"),
        ("Idempotency-Key" = Option<String>, Header, description = "Becomes the event's id: 1 to 255 visible ASCII characters."),
        ("traceparent" = Option<String>, Header, description = "The trace that deliveries continue (W3C Trace Context)."),
        ("tracestate" = Option<String>, Header, description = "Belongs to `traceparent`."),
    ),
    request_body(description = "A CloudEvent, or several.",
        content((Object = "application/cloudevents+json", example = json!({
            "specversion": "1.0",
            "id": "31-unlocked",
            "source": "https://example.com/rewards",
            "type": "reward.unlocked",
            "data": { "reward": 31 },
        })), (Object = "application/json"),
        (Vec<u8> = "application/cloudevents+protobuf"),
        (Vec<Object> = "application/cloudevents-batch+json"),
        (Vec<u8> = "application/cloudevents-batch+protobuf"))),
    responses(
        (status = ACCEPTED, description = "RabbitMQ has stored the event, or every event of the batch.", body = AcceptedEvents),
        (status = TOO_MANY_REQUESTS, description = "There is no room now: wait for `Retry-After` and repeat.", body = ProblemBody, content_type = "application/problem+json"),
        (status = SERVICE_UNAVAILABLE, description = "Not confirmed, and perhaps stored: repeat with the same id.", body = ProblemBody, content_type = "application/problem+json"),
        (status = "default", description = "The event was not stored, or not every event of the batch.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn publish(
    State(shared): State<Arc<Shared>>,
    Path(TenantPath { tenant }): Path<TenantPath>,
    request: Request,
) -> Result<(StatusCode, Json<AcceptedEvents>), Problem> {
    let headers = request.headers().clone();
    let key = idempotency_key(&headers)?;
    let message = read_message(request).await?;
    if is_batch(&message) {
        let events = publish_batch(&shared, &tenant, key, &message).await?;
        return Ok((StatusCode::ACCEPTED, Json(AcceptedEvents::Batch(events))));
    }
    let id = key.map_or_else(|| generated_id(shared.api.clock.now()), str::to_owned);
    let decoded = decode(&message, &tenant, &id)?;
    if let Some(key) = key.filter(|key| *key != decoded.event.id) {
        let detail = format!(
            "`{IDEMPOTENCY_KEY}` is `{key}`, but the event's `id` is `{}`: send one of them, or \
             the same in both",
            decoded.event.id
        );
        let code = Code::IdempotencyKeyMismatch;
        return Err(Problem::at(IDEMPOTENCY_KEY, code, &detail));
    }
    let accepted = store(&shared, decoded).await?;
    Ok((StatusCode::ACCEPTED, Json(AcceptedEvents::One(accepted))))
}

/// Stores every event of a batch that can be; `Ok` means all of them.
async fn publish_batch(
    shared: &Shared,
    tenant: &TenantId,
    key: Option<&str>,
    message: &Envelope,
) -> Result<AcceptedBatch, Problem> {
    let now = shared.api.clock.now();
    let events = split_batch(message, &EventLimits::default())?;
    let outcomes = events.iter().enumerate().map(async |(index, event)| {
        let id = key.map_or_else(|| generated_id(now), |key| format!("{key}.{index}"));
        store(shared, decode(event, tenant, &id)?).await
    });
    let outcomes = join_all(outcomes).await;
    let complete = outcomes.iter().all(Result::is_ok);
    let events: Vec<_> = outcomes.into_iter().map(BatchItem::from).collect();
    if complete {
        Ok(AcceptedBatch { events })
    } else {
        Err(Problem::of_batch(events))
    }
}

fn decode(message: &Envelope, tenant: &TenantId, id: &str) -> Result<DecodedEvent, Problem> {
    let defaults = EventDefaults {
        tenant: Some(tenant),
        id: Some(id),
    };
    let decoded = decode_event_with(message, defaults, &EventLimits::default())?;
    Ok(decoded)
}

async fn store(shared: &Shared, decoded: DecodedEvent) -> Result<Accepted, Problem> {
    let DecodedEvent { event, trace } = decoded;
    event_types::check(shared, &event).await?;
    match shared.producer.publish_in_trace(&event, &trace).await {
        Ok(()) => Ok(Accepted {
            id: event.id,
            source: event.source,
            event_type: event.event_type,
            tenant: event.tenant,
        }),
        Err(fault) => Err(Problem::from(fault).for_event(event.id)),
    }
}

/// The request as the message that it would be over AMQP.
async fn read_message(request: Request) -> Result<Envelope, Problem> {
    let headers = request.headers().clone();
    let is_binary = headers.contains_key("ce-specversion");
    if !is_binary {
        check_media_type(&headers, &ACCEPTED)?;
    }
    let body = read_bytes(request, &()).await?;
    Ok(if is_binary {
        binary_message(&headers, body)
    } else {
        let content_type = match &*media_type(&headers) {
            "application/json" => ACCEPTED[0].to_owned(),
            other => other.to_owned(),
        };
        let mut message = message(&headers, body);
        message.properties.content_type = Some(content_type);
        message
    })
}

/// Attributes as headers of AMQP, which have another prefix and no escapes.
fn binary_message(headers: &HeaderMap, body: Bytes) -> Envelope {
    let mut message = message(headers, body);
    let content_type = headers.get("content-type").and_then(|v| v.to_str().ok());
    message.properties.content_type = content_type.map(str::to_owned);
    for (name, value) in headers {
        if let Some(attribute) = name.as_str().strip_prefix(ATTRIBUTE_PREFIX) {
            let name = format!("cloudEvents_{attribute}");
            message.headers.insert(name, unescaped(value));
        }
    }
    message
}

fn message(headers: &HeaderMap, body: Bytes) -> Envelope {
    let mut message = Envelope {
        body,
        ..Envelope::default()
    };
    for name in ["traceparent", "tracestate"] {
        if let Some(text) = headers.get(name).and_then(|value| value.to_str().ok()) {
            message.headers.insert(name, text);
        }
    }
    message
}

/// The text of a header whose other characters are percent-encoded UTF-8 (CloudEvents HTTP binding, "HTTP Header
/// Values"). An escape that is none stays as it is.
fn unescaped(value: &HeaderValue) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after
            .get(..2)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let digits = digits.filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped.filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let fits = |text: &&str| {
        (1..=255).contains(&text.len()) && text.bytes().all(|b| (0x20..0x7f).contains(&b))
    };
    match value.to_str().ok().filter(fits) {
        Some(key) => Ok(Some(key)),
        None => {
            let detail = "`Idempotency-Key` must be 1 to 255 visible ASCII characters";
            Err(Problem::at(IDEMPOTENCY_KEY, Code::InvalidRequest, detail))
        }
    }
}

/// A UUID of version 7, so that ids sort by age.
fn generated_id(now: Timestamp) -> String {
    let milliseconds = u64::try_from(now.as_millisecond()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(milliseconds, &rand::random())
        .into_uuid()
        .to_string()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn an_attribute_in_a_header_is_unescaped() {
        for (sent, text) in [
            ("plain", "plain"),
            ("a%20b%22", "a b\""),
            ("%e2%82%ac", "\u{20ac}"),
            ("100%", "100%"),
            ("%+1%zz", "%+1%zz"),
            ("%ff", "\u{fffd}"),
        ] {
            assert_eq!(unescaped(&HeaderValue::from_static(sent)), text);
        }
    }

    #[test]
    fn a_generated_id_is_a_uuid_that_sorts_by_age() {
        let at = |second| generated_id(Timestamp::from_second(second).unwrap());
        assert!(at(1) < at(2));
        let uuid: Uuid = at(1).parse().unwrap();
        assert_eq!(uuid.get_version_num(), 7);
    }
}
