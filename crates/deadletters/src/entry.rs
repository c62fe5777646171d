//! What a message that rests says of itself, read from its properties and headers alone.

use std::fmt::Write as _;

use fanfare_broker::{Held, Place};
use fanfare_model::{DeliveryId, Timestamp, TraceContext};
use fanfare_wire::{Envelope, HeaderValue, is_bundle};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Why a message rests among dead letters that is none.
pub(crate) const UNREADABLE: &str = "unreadable";

/// A message that rests, without its payload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// What it is asked for by: of a dead letter the delivery's id, of another message a digest of it.
    pub id: String,
    /// Since when it rests, as far as it says.
    pub since: Option<Timestamp>,
    /// Whose event it is.
    pub tenant: Option<String>,
    /// Whom it was for.
    pub endpoint: Option<String>,
    /// The type of the event.
    pub event_type: Option<String>,
    /// The id of the event, or of the message.
    pub event_id: Option<String>,
    /// Where the event happened.
    pub event_source: Option<String>,
    /// Why it rests.
    pub reason: String,
    /// More about the reason, for people.
    pub detail: Option<String>,
    /// How many attempts failed in the last replay.
    pub attempts: Option<i64>,
    /// How many times it was replayed.
    pub replay: u32,
    /// When the first attempt failed.
    pub first_failed_at: Option<Timestamp>,
    /// When the last attempt failed.
    pub last_failed_at: Option<Timestamp>,
    /// The class of the last failure.
    pub last_class: Option<String>,
    /// The last status.
    pub last_status: Option<i64>,
    /// The last error.
    pub last_error: Option<String>,
    /// The trace that the producer began.
    pub trace_id: Option<String>,
    /// The routing key it was published with.
    pub routing_key: String,
    /// The media type of the payload.
    pub content_type: Option<String>,
    /// The bytes of the payload, where that was looked at.
    pub bytes: Option<usize>,
}

impl Entry {
    /// What a message of this place says of itself.
    pub fn of(place: Place, message: &Held) -> Self {
        let Held {
            envelope,
            routing_key,
            ..
        } = message;
        let delivery = envelope.headers.text("x-fanfare-delivery");
        match delivery.filter(|id| id.parse::<DeliveryId>().is_ok()) {
            Some(id) if place == Place::DeadLetters => Self::of_dead_letter(envelope, id),
            Some(_) | None => Self::of_other(place, envelope, routing_key),
        }
    }

    /// What it is recognised by across passes: a replay that fails again is another message.
    pub(crate) fn key(&self) -> String {
        format!("{}/{}", self.id, self.replay)
    }

    /// The delivery that a dead letter is about; none for a message that somebody else put there.
    pub(crate) fn delivery(&self) -> Option<DeliveryId> {
        self.id.parse().ok()
    }

    fn of_dead_letter(envelope: &Envelope, id: &str) -> Self {
        let read = Reader(envelope);
        Self {
            id: id.to_owned(),
            since: read.moment("x-fanfare-dead-since"),
            tenant: read.text("x-fanfare-tenant"),
            endpoint: read.text("x-fanfare-endpoint"),
            event_type: read.text("x-fanfare-event-type"),
            event_id: read.text("x-fanfare-event-id"),
            event_source: read.text("x-fanfare-event-source"),
            reason: read.text("x-fanfare-reason").unwrap_or_default(),
            attempts: read.number("x-fanfare-attempts"),
            replay: read.replay(),
            first_failed_at: read.moment("x-fanfare-first-failed-at"),
            last_failed_at: read.moment("x-fanfare-last-failed-at"),
            last_class: read.text("x-fanfare-last-class"),
            last_status: read.number("x-fanfare-last-status"),
            last_error: read.text("x-fanfare-last-error"),
            ..Self::bare(envelope, String::new())
        }
    }

    fn of_other(place: Place, envelope: &Envelope, routing_key: &str) -> Self {
        let read = Reader(envelope);
        let key = read.text("x-fanfare-routing-key");
        let routing_key = key.unwrap_or_else(|| routing_key.to_owned());
        // What came over the exchange `events` has the key `<tenant>.<type>`.
        let event = (!is_bundle(envelope)).then(|| routing_key.split_once('.'));
        let (tenant, event_type) = event.flatten().unzip();
        let reason = match place {
            Place::DeadLetters => UNREADABLE.to_owned(),
            Place::Rejected => read
                .text("x-fanfare-reason")
                .or_else(|| read.text("x-first-death-reason"))
                .unwrap_or_else(|| "unknown".to_owned()),
            Place::Unroutable | Place::Crashed => place.name().to_owned(),
        };
        Self {
            id: digest(envelope, &routing_key),
            since: read
                .moment("x-fanfare-rejected-at")
                .or(envelope.properties.timestamp),
            tenant: tenant.map(str::to_owned),
            event_type: event_type.map(str::to_owned),
            event_id: envelope.properties.message_id.clone(),
            reason,
            detail: read.text("x-fanfare-detail"),
            ..Self::bare(envelope, routing_key)
        }
    }

    fn bare(envelope: &Envelope, routing_key: String) -> Self {
        let traceparent = envelope.headers.text("traceparent");
        let trace = TraceContext::from_headers(traceparent, None);
        Self {
            trace_id: trace.trace_id().map(str::to_owned),
            routing_key,
            content_type: envelope.properties.content_type.clone(),
            bytes: Some(envelope.body.len()),
            ..Self::default()
        }
    }
}

struct Reader<'e>(&'e Envelope);

impl Reader<'_> {
    fn text(&self, name: &str) -> Option<String> {
        self.0.headers.text(name).map(str::to_owned)
    }

    fn moment(&self, name: &str) -> Option<Timestamp> {
        self.0.headers.text(name)?.parse().ok()
    }

    fn number(&self, name: &str) -> Option<i64> {
        match self.0.headers.get(name)? {
            HeaderValue::Integer(number) => Some(*number),
            HeaderValue::Text(_)
            | HeaderValue::Bytes(_)
            | HeaderValue::Boolean(_)
            | HeaderValue::Timestamp(_)
            | HeaderValue::Other => None,
        }
    }

    fn replay(&self) -> u32 {
        let replay = self.number("x-fanfare-replay").unwrap_or_default();
        u32::try_from(replay).unwrap_or_default()
    }
}

/// Names a message that has no name of its own which could be relied on.
fn digest(envelope: &Envelope, routing_key: &str) -> String {
    let mut hash = Sha256::new();
    let rejected_at = envelope.headers.text("x-fanfare-rejected-at");
    let id = envelope.properties.message_id.as_deref();
    let texts = [routing_key, id.unwrap_or(""), rejected_at.unwrap_or("")].map(str::as_bytes);
    for part in texts.into_iter().chain([&*envelope.body]) {
        // The length keeps ("a", "bc") apart from ("ab", "c").
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut name = "msg_".to_owned();
    for byte in &hash.finalize()[..16] {
        write!(name, "{byte:02x}").expect("writing to a string does not fail");
    }
    name
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A dead letter as headers tell of it.
    pub(crate) fn dead_letter(tenant: &str, reason: &str, since: i64) -> Entry {
        Entry {
            id: DeliveryId::from_bytes([1; 16]).to_string(),
            since: Timestamp::from_second(since).ok(),
            tenant: Some(tenant.to_owned()),
            endpoint: Some("ep_00000000000000000000000000000001".to_owned()),
            event_type: Some("reward.granted".to_owned()),
            reason: reason.to_owned(),
            ..Entry::bare(&Envelope::default(), String::new())
        }
    }

    #[test]
    fn messages_that_differ_in_anything_have_other_digests() {
        let envelope = |id: &str, body: &'static [u8]| {
            let mut envelope = Envelope::default();
            envelope.properties.message_id = Some(id.to_owned());
            envelope.body = body.into();
            envelope
        };
        let base = digest(&envelope("a", b"bc"), "t.x");
        assert_eq!(base, digest(&envelope("a", b"bc"), "t.x"));
        assert_eq!(base.len(), 36);
        for other in [
            digest(&envelope("ab", b"c"), "t.x"),
            digest(&envelope("a", b"b"), "t.x"),
            digest(&envelope("a", b"bc"), "t.y"),
        ] {
            assert_ne!(base, other);
        }
    }
}
