//! Dead letters: deliveries given up on, in a form that any AMQP tool can show.
//!
//! The body is the event's data, the headers say what happened, and one binary header holds the whole
//! delivery, from which it is replayed. Only that header and the body are read back.

use std::sync::Arc;

use bytes::Bytes;
use fanfare_model::DeadLetter;
use prost::Message as _;

use crate::{
    DecodeFault, Envelope, Headers, Properties,
    conversion::{
        VERSION, bounded_error, check_size, delivery_from_proto, delivery_to_proto,
        event_from_proto, event_to_proto, moment,
    },
    proto,
};

const RECORD: &str = "x-fanfare-record";

/// The message that keeps a dead letter.
///
/// Moments travel in whole microseconds, error texts up to 500 characters.
pub fn encode_dead_letter(dead_letter: &DeadLetter) -> Envelope {
    let delivery = &dead_letter.delivery;
    let event = &delivery.event;
    let mut headers = readable_headers(dead_letter);
    headers.insert_trace(&delivery.trace);
    let record = proto::DeadLetterRecord {
        version: VERSION,
        event: Some(event_to_proto(event)),
        has_data: event.data.is_some(),
        delivery: Some(delivery_to_proto(delivery, 0)),
        reason: dead_letter.reason.name().to_owned(),
        since: dead_letter.since.as_microsecond(),
    };
    headers.insert(RECORD, Bytes::from(record.encode_to_vec()));
    Envelope {
        properties: Properties::ours(
            delivery.id.to_string(),
            event.id.clone(),
            event.event_type.as_str(),
            event.content_type(),
            dead_letter.since,
        ),
        headers,
        body: event.data.clone().unwrap_or_default(),
    }
}

/// The dead letter that a message keeps. The data shares the message's bytes.
pub fn decode_dead_letter(envelope: &Envelope) -> Result<DeadLetter, DecodeFault> {
    check_size(envelope.size())?;
    let record = envelope
        .headers
        .bytes(RECORD)
        .ok_or(DecodeFault::Missing { name: RECORD })?;
    let record =
        proto::DeadLetterRecord::decode(record).map_err(|source| DecodeFault::Malformed {
            what: "dead-letter record",
            source,
        })?;
    if record.version != VERSION {
        return Err(DecodeFault::UnknownVersion {
            what: "dead-letter record",
            version: record.version,
        });
    }
    let event = record.event.ok_or(DecodeFault::Missing { name: "event" })?;
    // A body is data whatever a damaged record says; `has_data` tells empty data from none.
    let has_data = record.has_data || !envelope.body.is_empty();
    let event = event_from_proto(proto::Event {
        data: has_data.then(|| envelope.body.clone()),
        ..event
    })?;
    let delivery = record
        .delivery
        .ok_or(DecodeFault::Missing { name: "delivery" })?;
    let reason = record.reason.parse();
    Ok(DeadLetter {
        delivery: delivery_from_proto(delivery, Arc::new(event))?,
        reason: reason.map_err(|_| DecodeFault::InvalidField {
            field: "reason",
            expected: "a dead-letter reason",
        })?,
        since: moment("since", record.since)?,
    })
}

/// What a person needs to understand the dead letter.
fn readable_headers(dead_letter: &DeadLetter) -> Headers {
    let delivery = &dead_letter.delivery;
    let event = &delivery.event;
    let mut headers = Headers::default();
    headers
        .insert("x-fanfare-tenant", event.tenant.as_str())
        .insert("x-fanfare-endpoint", delivery.endpoint.to_string())
        .insert("x-fanfare-delivery", delivery.id.to_string())
        .insert("x-fanfare-event-type", event.event_type.as_str())
        .insert("x-fanfare-event-id", event.id.as_str())
        .insert("x-fanfare-event-source", event.source.as_str())
        .insert("x-fanfare-reason", dead_letter.reason.name())
        .insert("x-fanfare-attempts", i64::from(delivery.failed_attempts))
        .insert("x-fanfare-replay", i64::from(delivery.replay))
        .insert("x-fanfare-dead-since", dead_letter.since.to_string());
    if let Some(failures) = &delivery.failures {
        headers
            .insert("x-fanfare-first-failed-at", failures.first_at.to_string())
            .insert("x-fanfare-last-failed-at", failures.last_at.to_string())
            .insert("x-fanfare-last-class", failures.last.class.name())
            .insert("x-fanfare-last-error", bounded_error(&failures.last.error));
        if let Some(status) = failures.last.status {
            headers.insert("x-fanfare-last-status", i64::from(status));
        }
    }
    headers
}
