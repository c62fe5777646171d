//! Takes events in over HTTP, for services that do not speak AMQP.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
};
use bytes::Bytes;
use fanfare_model::{EventType, TenantId, Timestamp};
use fanfare_wire::{EventLimits, decode_structured_json, trace_of_event};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{
    extract::{Path, TenantPath, read_body},
    problem::{Code, Problem, ProblemBody},
    run::Shared,
};

const ACCEPTED: [&str; 2] = ["application/cloudevents+json", "application/json"];
const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// What was stored.
#[derive(Serialize, ToSchema)]
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

/// Publishes an event.
///
/// The body is a CloudEvent 1.0 in structured JSON mode, at most 256 KiB. `tenant` may be left out: it
/// is the one in the path. An event without `id` gets the idempotency key as its id, or else a new one;
/// whoever may have to repeat a request sends one of the two. A repeat is recognised by tenant,
/// `source` and `id`.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/events", tag = "events",
    params(
        ("tenant" = String, Path, description = "The tenant that the event happened in.", example = "MF4c1b7e20"),
        ("Idempotency-Key" = Option<String>, Header, description = "Becomes the event's id: 1 to 255 visible ASCII characters."),
        ("traceparent" = Option<String>, Header, description = "The trace that deliveries continue (W3C Trace Context)."),
        ("tracestate" = Option<String>, Header, description = "Belongs to `traceparent`."),
    ),
    request_body(description = "A CloudEvent.",
        content((Object = "application/cloudevents+json", example = json!({
            "specversion": "1.0",
            "id": "31-unlocked",
            "source": "https://example.com/rewards",
            "type": "reward.unlocked",
            "data": { "reward": 31 },
        })), (Object = "application/json"))),
    responses(
        (status = ACCEPTED, description = "RabbitMQ has stored the event.", body = Accepted),
        (status = TOO_MANY_REQUESTS, description = "There is no room now: wait for `Retry-After` and repeat.", body = ProblemBody, content_type = "application/problem+json"),
        (status = SERVICE_UNAVAILABLE, description = "Not confirmed, and perhaps stored: repeat with the same id.", body = ProblemBody, content_type = "application/problem+json"),
        (status = "default", description = "The event was not stored.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn publish(
    State(shared): State<Arc<Shared>>,
    Path(TenantPath { tenant }): Path<TenantPath>,
    request: Request,
) -> Result<(StatusCode, Json<Accepted>), Problem> {
    let headers = request.headers().clone();
    let key = idempotency_key(&headers)?;
    let body = read_body(request, &(), &ACCEPTED).await?;
    let body = with_id(body, || {
        key.map_or_else(|| generated_id(shared.api.clock.now()), str::to_owned)
    });
    let event = decode_structured_json(&body, Some(&tenant), &EventLimits::default())?;
    if let Some(key) = key.filter(|key| *key != event.id) {
        let detail = format!(
            "`{IDEMPOTENCY_KEY}` is `{key}`, but the event's `id` is `{}`: send one of them, or \
             the same in both",
            event.id
        );
        let code = Code::IdempotencyKeyMismatch;
        return Err(Problem::at(IDEMPOTENCY_KEY, code, &detail));
    }

    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let trace = trace_of_event(&event, header("traceparent"), header("tracestate"));
    match shared.producer.publish_in_trace(&event, &trace).await {
        Ok(()) => {
            let accepted = Accepted {
                id: event.id,
                source: event.source,
                event_type: event.event_type,
                tenant: event.tenant,
            };
            Ok((StatusCode::ACCEPTED, Json(accepted)))
        }
        Err(fault) => Err(Problem::from(fault).for_event(event.id)),
    }
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

/// The event with an id, if it has none. What is no JSON object is left for the decoder to refuse.
///
/// The id is written into the text rather than into a parsed value, because the data is kept byte for
/// byte, and members that come twice must still be refused.
fn with_id(body: Bytes, id: impl FnOnce() -> String) -> Bytes {
    let Ok(Identified { id: None }) = serde_json::from_slice(&body) else {
        return body;
    };
    let Some(brace) = body.iter().position(|b| *b == b'{') else {
        return body;
    };
    let id = serde_json::Value::from(id());
    let (before, after) = body.split_at(brace + 1);
    let member = format!(r#""id":{id},"#);
    [before, member.as_bytes(), after].concat().into()
}

/// Whether an event has an id. A null is there: two members of one name are no event.
#[derive(Deserialize)]
struct Identified<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn check(body: &'static str, expected: &str) {
        let with = with_id(Bytes::from_static(body.as_bytes()), || "a\"b".to_owned());
        assert_eq!(with, expected.as_bytes(), "{body}");
    }

    #[test]
    fn an_id_is_added_where_none_is_and_nothing_else_changes() {
        check(r#" {"type": "a"} "#, r#" {"id":"a\"b","type": "a"} "#);
        check(r#"{"id":"1","type":"a"}"#, r#"{"id":"1","type":"a"}"#);
        check(r#"{"\u0069d":"1"}"#, r#"{"\u0069d":"1"}"#);
        check(r#"{"id":null}"#, r#"{"id":null}"#);
        check(
            r#"{"data":{"id":1},"a":1,"a":2}"#,
            r#"{"id":"a\"b","data":{"id":1},"a":1,"a":2}"#,
        );
        for no_event in ["", "[{}]", "null", "{", r#"{"id":1,"id":2}"#] {
            check(no_event, no_event);
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
