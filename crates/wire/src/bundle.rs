//! Bundles: the deliveries of one partition that travel from router to dispatcher in one message.

use std::sync::Arc;

use bytes::Bytes;
use fanfare_model::{Delivery, Event, Timestamp};
use prost::Message as _;

use crate::{
    DecodeFault, Envelope, Headers, Properties,
    conversion::{
        VERSION, check_size, delivery_from_proto, delivery_to_proto, event_from_proto,
        event_to_proto,
    },
    proto,
};

const MESSAGE_TYPE: &str = "fanfare.bundle.v1";
const CONTENT_TYPE: &str = "application/vnd.fanfare.bundle+protobuf";

/// The message that carries these deliveries.
///
/// Deliveries that share their event in memory share it on the wire. Moments travel in whole
/// microseconds, error texts up to 500 characters. The message id is the delivery's; of several, the
/// first one's and how many follow, such as `dlv_…+2`.
pub fn encode_bundle(deliveries: &[Delivery], now: Timestamp) -> Envelope {
    let mut events: Vec<&Arc<Event>> = Vec::new();
    let mut encoded = Vec::with_capacity(deliveries.len());
    for delivery in deliveries {
        // From the end: the deliveries of an event mostly follow each other.
        let known = events
            .iter()
            .rposition(|known| Arc::ptr_eq(known, &delivery.event));
        let index = known.unwrap_or_else(|| {
            events.push(&delivery.event);
            events.len() - 1
        });
        let index = u32::try_from(index).expect("a bundle holds fewer than 2^32 events");
        encoded.push(delivery_to_proto(delivery, index));
    }
    let body = proto::Bundle {
        version: VERSION,
        events: events.iter().copied().map(whole_event).collect(),
        deliveries: encoded,
    };

    let mut headers = Headers::default();
    if let [single] = deliveries {
        headers.insert_trace(&single.trace);
    }
    Envelope {
        properties: properties(deliveries, &events, now),
        headers,
        body: body.encode_to_vec().into(),
    }
}

/// Whether a message says of itself that it is a bundle.
pub fn is_bundle(envelope: &Envelope) -> bool {
    envelope.properties.message_type.as_deref() == Some(MESSAGE_TYPE)
        && envelope.properties.content_type.as_deref() == Some(CONTENT_TYPE)
}

/// The deliveries in a message. Those of one event share it, and its data shares the message's bytes.
pub fn decode_bundle(envelope: &Envelope) -> Result<Vec<Delivery>, DecodeFault> {
    check_size(envelope.body.len())?;
    let bundle = proto::Bundle::decode(Bytes::clone(&envelope.body)).map_err(|source| {
        DecodeFault::Malformed {
            what: "bundle",
            source,
        }
    })?;
    if bundle.version != VERSION {
        return Err(DecodeFault::UnknownVersion {
            what: "bundle",
            version: bundle.version,
        });
    }
    if bundle.deliveries.is_empty() {
        return Err(DecodeFault::Empty);
    }
    let events = bundle
        .events
        .into_iter()
        .map(|event| event_from_proto(event).map(Arc::new))
        .collect::<Result<Vec<_>, _>>()?;
    bundle
        .deliveries
        .into_iter()
        .map(|delivery| {
            let index = delivery.event;
            let event = usize::try_from(index)
                .ok()
                .and_then(|index| events.get(index))
                .ok_or(DecodeFault::NoSuchEvent { index })?;
            delivery_from_proto(delivery, Arc::clone(event))
        })
        .collect()
}

fn whole_event(event: &Arc<Event>) -> proto::Event {
    proto::Event {
        data: event.data.clone(),
        ..event_to_proto(event)
    }
}

fn properties(deliveries: &[Delivery], events: &[&Arc<Event>], now: Timestamp) -> Properties {
    let message_id = match deliveries {
        [] => "empty".to_owned(),
        [single] => single.id.to_string(),
        [first, rest @ ..] => format!("{}+{}", first.id, rest.len()),
    };
    let correlation_id = match events {
        [event] => event.id.clone(),
        [] | [_, _, ..] => message_id.clone(),
    };
    Properties::ours(message_id, correlation_id, MESSAGE_TYPE, CONTENT_TYPE, now)
}
