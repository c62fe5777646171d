//! Events and deliveries as protobuf and back, shared by bundles and dead letters.
//!
//! What was accepted once is not judged again by the rules for producers: a rule that a release makes
//! stricter must not strand what already waits in a queue. Only what the types demand is demanded.

use std::sync::Arc;

use bytes::Bytes;
use fanfare_model::{
    AttributeValue, Delivery, DeliveryId, EndpointId, Event, Failure, FailureHistory, Timestamp,
    TraceContext, Wait,
};

use crate::{DecodeFault, proto};

/// The most characters of an error text that travel.
pub(crate) const MAX_ERROR_CHARS: usize = 500;

/// The largest message of ours that is read: RabbitMQ's default `max_message_size` since 4.0.
pub(crate) const MAX_MESSAGE_BYTES: usize = 16_777_216;

/// The only version of our messages so far.
pub(crate) const VERSION: u32 = 1;

/// Refuses bytes that a small message could not hold; decoded, they may take many times their size.
pub(crate) fn check_size(bytes: usize) -> Result<(), DecodeFault> {
    if bytes <= MAX_MESSAGE_BYTES {
        return Ok(());
    }
    Err(DecodeFault::TooLarge {
        bytes,
        limit: MAX_MESSAGE_BYTES,
    })
}

/// An event without its data.
pub(crate) fn event_to_proto(event: &Event) -> proto::Event {
    let extensions = event.extensions.iter().map(|(name, value)| {
        let value = match value {
            AttributeValue::Boolean(value) => proto::attribute_value::Value::Boolean(*value),
            AttributeValue::Integer(value) => proto::attribute_value::Value::Integer(*value),
            AttributeValue::Text(value) => proto::attribute_value::Value::Text(value.clone()),
            AttributeValue::Binary(value) => proto::attribute_value::Value::Binary(value.clone()),
        };
        (name.clone(), proto::AttributeValue { value: Some(value) })
    });
    proto::Event {
        tenant: event.tenant.as_str().to_owned(),
        source: event.source.clone(),
        id: event.id.clone(),
        r#type: event.event_type.as_str().to_owned(),
        subject: event.subject.clone(),
        time: event.time.as_ref().map(|time| time.as_str().to_owned()),
        data_content_type: event.data_content_type.clone(),
        data_schema: event.data_schema.clone(),
        extensions: extensions.collect(),
        data: None,
    }
}

pub(crate) fn event_from_proto(event: proto::Event) -> Result<Event, DecodeFault> {
    let time = event.time.map(|time| time.parse());
    Ok(Event {
        tenant: event
            .tenant
            .parse()
            .map_err(|_| invalid("tenant", "a tenant's id"))?,
        source: event.source,
        id: event.id,
        event_type: event
            .r#type
            .parse()
            .map_err(|_| invalid("type", "an event type"))?,
        subject: event.subject,
        time: time
            .transpose()
            .map_err(|_| invalid("time", "an RFC 3339 timestamp"))?,
        data_content_type: event.data_content_type,
        data_schema: event.data_schema,
        extensions: event
            .extensions
            .into_iter()
            .filter_map(|(name, value)| Some((name, attribute_from_proto(value)?)))
            .collect(),
        data: event.data,
    })
}

/// A kind of value that a newer version may add is as an unknown field: ignored.
fn attribute_from_proto(value: proto::AttributeValue) -> Option<AttributeValue> {
    Some(match value.value? {
        proto::attribute_value::Value::Boolean(value) => AttributeValue::Boolean(value),
        proto::attribute_value::Value::Integer(value) => AttributeValue::Integer(value),
        proto::attribute_value::Value::Text(value) => AttributeValue::Text(value),
        proto::attribute_value::Value::Binary(value) => AttributeValue::Binary(value),
    })
}

/// A delivery that refers to its event by `index`.
pub(crate) fn delivery_to_proto(delivery: &Delivery, index: u32) -> proto::Delivery {
    proto::Delivery {
        id: Bytes::copy_from_slice(delivery.id.as_bytes()),
        endpoint: Bytes::copy_from_slice(delivery.endpoint.as_bytes()),
        event: index,
        registry_version: delivery.registry_version,
        first_seen: delivery.first_seen.as_microsecond(),
        failed_attempts: delivery.failed_attempts,
        replay: delivery.replay,
        wait: delivery.wait.map(|wait| proto::Wait {
            since: wait.since.as_microsecond(),
            until: wait.until.as_microsecond(),
        }),
        deadline: delivery.deadline.map(Timestamp::as_microsecond),
        last_start: delivery.last_start.map(Timestamp::as_microsecond),
        failures: delivery
            .failures
            .as_ref()
            .map(|failures| proto::FailureHistory {
                first_at: failures.first_at.as_microsecond(),
                last_at: failures.last_at.as_microsecond(),
                last_class: failures.last.class.name().to_owned(),
                last_status: failures.last.status.map(u32::from),
                last_error: bounded_error(&failures.last.error),
            }),
        traceparent: delivery.trace.traceparent.clone(),
        tracestate: delivery.trace.tracestate.clone(),
    }
}

pub(crate) fn delivery_from_proto(
    delivery: proto::Delivery,
    event: Arc<Event>,
) -> Result<Delivery, DecodeFault> {
    let id = sixteen("id", &delivery.id)?;
    let endpoint = sixteen("endpoint", &delivery.endpoint)?;
    Ok(Delivery {
        id: DeliveryId::from_bytes(id),
        endpoint: EndpointId::from_bytes(endpoint),
        event,
        registry_version: delivery.registry_version,
        first_seen: moment("first_seen", delivery.first_seen)?,
        failed_attempts: delivery.failed_attempts,
        replay: delivery.replay,
        wait: delivery.wait.map(wait_from_proto).transpose()?,
        deadline: optional_moment("deadline", delivery.deadline)?,
        last_start: optional_moment("last_start", delivery.last_start)?,
        failures: delivery.failures.map(failures_from_proto).transpose()?,
        trace: TraceContext::from_headers(
            delivery.traceparent.as_deref(),
            delivery.tracestate.as_deref(),
        ),
    })
}

fn wait_from_proto(wait: proto::Wait) -> Result<Wait, DecodeFault> {
    Ok(Wait {
        since: moment("wait.since", wait.since)?,
        until: moment("wait.until", wait.until)?,
    })
}

fn failures_from_proto(failures: proto::FailureHistory) -> Result<FailureHistory, DecodeFault> {
    let status = failures.last_status.map(u16::try_from).transpose();
    let class = failures.last_class.parse();
    Ok(FailureHistory {
        first_at: moment("failures.first_at", failures.first_at)?,
        last_at: moment("failures.last_at", failures.last_at)?,
        last: Failure {
            class: class.map_err(|_| invalid("failures.last_class", "a failure class"))?,
            status: status.map_err(|_| invalid("failures.last_status", "an HTTP status"))?,
            error: failures.last_error,
        },
    })
}

/// An error text, cut to what travels.
pub(crate) fn bounded_error(error: &str) -> String {
    error.chars().take(MAX_ERROR_CHARS).collect()
}

pub(crate) fn moment(field: &'static str, microsecond: i64) -> Result<Timestamp, DecodeFault> {
    Timestamp::from_microsecond(microsecond).map_err(|_| {
        invalid(
            field,
            "microseconds since 1970 within the years -9999 to 9999",
        )
    })
}

pub(crate) fn optional_moment(
    field: &'static str,
    microsecond: Option<i64>,
) -> Result<Option<Timestamp>, DecodeFault> {
    microsecond.map(|value| moment(field, value)).transpose()
}

pub(crate) fn sixteen(field: &'static str, bytes: &[u8]) -> Result<[u8; 16], DecodeFault> {
    bytes.try_into().map_err(|_| invalid(field, "16 bytes"))
}

pub(crate) fn invalid(field: &'static str, expected: &'static str) -> DecodeFault {
    DecodeFault::InvalidField { field, expected }
}
