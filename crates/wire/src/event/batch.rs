//! Batches: several events in one message, which is split before anything else is done with it.
//!
//! Each event of a batch becomes a message of its own, as if it had been published alone. So each is
//! accepted or rejected by itself, and one that is rejected can be published again as it is kept.

use bytes::Bytes;
use prost::Message as _;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    EventLimits, PROTOBUF, STRUCTURED_JSON, check_size, essence,
    rejection::{EventRejection, RejectionCode},
};
use crate::{Envelope, Properties};

const BATCH_JSON: &str = "application/cloudevents-batch+json";
const BATCH_PROTOBUF: &str = "application/cloudevents-batch+protobuf";

/// The most events of a batch. A process that fails repeats whole messages, so this bounds repeats.
const MOST_EVENTS: usize = 1000;

/// Whether a message is a batch, by its content type.
pub fn is_batch(envelope: &Envelope) -> bool {
    [BATCH_JSON, BATCH_PROTOBUF].contains(&&*essence(envelope))
}

/// The events of a batch, each as a message of its own that [`decode_event`](super::decode_event) reads.
///
/// The messages share the batch's bytes. A batch may be empty. `Err` means that it cannot be split.
pub fn split_batch(
    envelope: &Envelope,
    limits: &EventLimits,
) -> Result<Vec<Envelope>, EventRejection> {
    check_size(envelope.size(), limits.max_batch_bytes())?;
    let (content_type, events) = if essence(envelope) == BATCH_JSON {
        (STRUCTURED_JSON, json_events(&envelope.body)?)
    } else {
        (PROTOBUF, protobuf_events(&envelope.body)?)
    };
    if events.len() > MOST_EVENTS {
        let detail = format!(
            "the batch has {} events, and at most {MOST_EVENTS} are accepted",
            events.len()
        );
        return Err(EventRejection::new(RejectionCode::TooLarge, None, detail));
    }
    let single = |(index, body)| alone(envelope, content_type, index, body);
    Ok(events.into_iter().enumerate().map(single).collect())
}

fn json_events(body: &Bytes) -> Result<Vec<Bytes>, EventRejection> {
    let events: Vec<&RawValue> = serde_json::from_slice(body).map_err(|fault| {
        let detail = format!("the body is not a JSON array of events: {fault}");
        EventRejection::new(RejectionCode::MalformedJson, None, detail)
    })?;
    let slice = |event: &RawValue| body.slice_ref(event.get().as_bytes());
    Ok(events.into_iter().map(slice).collect())
}

fn protobuf_events(body: &Bytes) -> Result<Vec<Bytes>, EventRejection> {
    /// `CloudEventBatch`, its events left as they are: bytes are encoded as embedded messages are.
    #[derive(prost::Message)]
    struct Events {
        #[prost(bytes = "bytes", repeated, tag = "1")]
        events: Vec<Bytes>,
    }
    let batch = Events::decode(body.clone()).map_err(|fault| {
        let detail = format!("the body is not an `io.cloudevents.v1.CloudEventBatch`: {fault}");
        EventRejection::new(RejectionCode::MalformedProtobuf, None, detail)
    })?;
    Ok(batch.events)
}

/// One event of a batch as its own message.
fn alone(batch: &Envelope, content_type: &str, index: usize, body: Bytes) -> Envelope {
    let id = batch.properties.message_id.as_ref();
    let id = id.map(|id| format!("{id}.{index}"));
    let mut headers = batch.headers.clone();
    if has_trace(content_type, &body) {
        // The headers tell of the batch, the event of itself.
        headers.remove_prefix("traceparent");
        headers.remove_prefix("tracestate");
    }
    Envelope {
        properties: Properties {
            message_id: id.filter(|id| id.len() <= 255),
            content_type: Some(content_type.to_owned()),
            ..batch.properties.clone()
        },
        headers,
        body,
    }
}

/// Whether an event names its own trace. Looks for the name alone where the event is no JSON: the
/// decoder reads it in any case, and a trace is no more than a hint.
fn has_trace(content_type: &str, body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Traced<'a> {
        #[serde(borrow)]
        traceparent: Option<&'a RawValue>,
    }
    if content_type == STRUCTURED_JSON {
        let traced = serde_json::from_slice::<Traced<'_>>(body);
        return traced.is_ok_and(|traced| traced.traceparent.is_some());
    }
    let name = b"traceparent";
    body.windows(name.len()).any(|window| window == name)
}
