//! Reads the events that producers publish, and writes them: CloudEvents 1.0 over AMQP.
//!
//! Three modes. Structured: the whole event is a JSON document. Protobuf: it is a protobuf message.
//! Binary: the attributes are headers and the body is the data. `structured.rs`, `protobuf.rs` and
//! `binary.rs` know the forms, `batch.rs` splits several in one message, `rules.rs` says what is accepted.

mod attributes;
mod batch;
mod binary;
mod protobuf;
mod rejection;
mod rules;
mod structured;

use bytes::Bytes;
use fanfare_model::{AttributeValue, Event, TenantId, Timestamp, TraceContext};

pub use batch::{is_batch, split_batch};
pub use rejection::{EventRejection, RejectionCode};
pub use rules::check_event;
pub use structured::encode_structured;

use crate::{Envelope, Headers, Properties};

/// The media type of an event in structured mode.
const STRUCTURED_JSON: &str = "application/cloudevents+json";
/// The media type of an event in protobuf mode.
const PROTOBUF: &str = "application/cloudevents+protobuf";

/// How large an event may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventLimits {
    /// The most bytes that body and headers may have together.
    pub max_event_bytes: usize,
}

impl Default for EventLimits {
    fn default() -> Self {
        Self {
            max_event_bytes: 262_144,
        }
    }
}

impl EventLimits {
    /// The most bytes that a batch may have, together with its headers. Each of its events has the limit of any other.
    pub fn max_batch_bytes(&self) -> usize {
        self.max_event_bytes.saturating_mul(4)
    }
}

/// What an event gets of what it lacks, where the address that it was sent to knows.
#[derive(Debug, Clone, Copy, Default)]
pub struct EventDefaults<'a> {
    /// The tenant of the address; an event of another tenant is rejected.
    pub tenant: Option<&'a TenantId>,
    /// The id.
    pub id: Option<&'a str>,
}

/// An event as a producer published it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedEvent {
    /// The event.
    pub event: Event,
    /// The trace that it belongs to.
    pub trace: TraceContext,
}

/// Reads a published event.
///
/// A routing key, where there is one, must begin with the event's tenant: topic permissions rely on it.
pub fn decode_event(
    envelope: &Envelope,
    routing_key: Option<&str>,
    limits: &EventLimits,
) -> Result<DecodedEvent, EventRejection> {
    let decoded = decode_event_with(envelope, EventDefaults::default(), limits)?;
    if let Some(routing_key) = routing_key {
        check_routing_key(routing_key, &decoded.event)?;
    }
    Ok(decoded)
}

/// Reads an event that was published where more is known about it than the event says.
pub fn decode_event_with(
    envelope: &Envelope,
    defaults: EventDefaults<'_>,
    limits: &EventLimits,
) -> Result<DecodedEvent, EventRejection> {
    check_size(envelope.size(), limits.max_event_bytes)?;
    let event = match mode_of(envelope)? {
        Mode::StructuredJson => structured::decode(&envelope.body, defaults)?,
        Mode::Protobuf => protobuf::decode(&envelope.body, defaults)?,
        Mode::Binary => binary::decode(envelope, defaults)?,
    };
    let text = |name| envelope.headers.text(name);
    let trace = trace_of_event(&event, text("traceparent"), text("tracestate"));
    Ok(DecodedEvent { event, trace })
}

/// Reads an event in structured JSON mode from elsewhere than AMQP.
///
/// An event without a tenant gets `default_tenant`; one with another tenant is rejected.
pub fn decode_structured_json(
    body: &Bytes,
    default_tenant: Option<&TenantId>,
    limits: &EventLimits,
) -> Result<Event, EventRejection> {
    check_size(body.len(), limits.max_event_bytes)?;
    let defaults = EventDefaults {
        tenant: default_tenant,
        id: None,
    };
    structured::decode(body, defaults)
}

/// The trace of an event: the headers that it came with, else its distributed-tracing attributes.
pub fn trace_of_event(
    event: &Event,
    traceparent: Option<&str>,
    tracestate: Option<&str>,
) -> TraceContext {
    let sent = TraceContext::from_headers(traceparent, tracestate);
    if sent.traceparent.is_some() {
        return sent;
    }
    let attribute = |name| match event.extensions.get(name)? {
        AttributeValue::Text(text) => Some(text.as_str()),
        AttributeValue::Boolean(_) | AttributeValue::Integer(_) | AttributeValue::Binary(_) => None,
    };
    TraceContext::from_headers(attribute("traceparent"), attribute("tracestate"))
}

/// The message that publishes an event in structured JSON mode.
///
/// White space around JSON data is dropped. [`check_event`] tells beforehand whether it will be accepted.
pub fn event_envelope(event: &Event, trace: &TraceContext, now: Timestamp) -> Envelope {
    let mut headers = Headers::default();
    headers.insert_trace(trace);
    Envelope {
        properties: properties(event, STRUCTURED_JSON, now),
        headers,
        body: encode_structured(event),
    }
}

/// The message that publishes an event in protobuf mode: nothing of it is changed.
pub fn event_envelope_protobuf(event: &Event, trace: &TraceContext, now: Timestamp) -> Envelope {
    let mut headers = Headers::default();
    headers.insert_trace(trace);
    Envelope {
        properties: properties(event, PROTOBUF, now),
        headers,
        body: protobuf::encode(event),
    }
}

/// The message that publishes an event in binary mode: the body is the data, byte for byte.
///
/// AMQP does not tell empty data from none, nor a media type left out from the default.
pub fn event_envelope_binary(event: &Event, trace: &TraceContext, now: Timestamp) -> Envelope {
    let mut headers = binary::headers(event);
    headers.insert_trace(trace);
    Envelope {
        properties: properties(event, event.content_type(), now),
        headers,
        body: event.data.clone().unwrap_or_default(),
    }
}

fn properties(event: &Event, content_type: &str, now: Timestamp) -> Properties {
    Properties::ours(
        event.id.clone(),
        event.id.clone(),
        event.event_type.as_str(),
        content_type,
        now,
    )
}

enum Mode {
    StructuredJson,
    Protobuf,
    Binary,
}

fn mode_of(envelope: &Envelope) -> Result<Mode, EventRejection> {
    let essence = essence(envelope);
    if essence == STRUCTURED_JSON {
        Ok(Mode::StructuredJson)
    } else if essence == PROTOBUF {
        Ok(Mode::Protobuf)
    } else if essence.starts_with("application/cloudevents") {
        Err(EventRejection::new(
            RejectionCode::UnsupportedMode,
            Some("content_type"),
            format!(
                "content type `{essence}` is not supported: publish `{STRUCTURED_JSON}`, \
                 `{PROTOBUF}`, batches of either (`application/cloudevents-batch+json`), or in \
                 binary mode"
            ),
        ))
    } else if binary::has_attributes(&envelope.headers) {
        Ok(Mode::Binary)
    } else {
        Err(EventRejection::new(
            RejectionCode::NotACloudEvent,
            None,
            format!(
                "the message is not a CloudEvent: accepted are content type `{STRUCTURED_JSON}` \
                 with the event as a JSON object, `{PROTOBUF}`, or headers \
                 `cloudEvents_specversion`, `cloudEvents_id`, `cloudEvents_source`, \
                 `cloudEvents_type` and `cloudEvents_tenant` with the data as body"
            ),
        ))
    }
}

/// The media type of a message without its parameters.
fn essence(envelope: &Envelope) -> String {
    let content_type = envelope.properties.content_type.as_deref();
    content_type
        .and_then(|media_type| media_type.split(';').next())
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

fn check_size(bytes: usize, most: usize) -> Result<(), EventRejection> {
    if bytes <= most {
        return Ok(());
    }
    Err(EventRejection::new(
        RejectionCode::TooLarge,
        None,
        format!("the message has {bytes} bytes, and at most {most} are accepted"),
    ))
}

fn check_routing_key(routing_key: &str, event: &Event) -> Result<(), EventRejection> {
    let tenant = &event.tenant;
    let first_word = routing_key.split('.').next().unwrap_or_default();
    if first_word == tenant.as_str() {
        return Ok(());
    }
    Err(EventRejection::new(
        RejectionCode::TenantMismatch,
        Some("tenant"),
        format!(
            "`tenant` is `{tenant}`, but the routing key begins with `{}`: accepted is \
             `{tenant}.{}`",
            first_word.escape_debug(),
            event.event_type
        ),
    ))
}
