//! Rejected messages: what was published and is no event, kept with the reason.

use fanfare_model::Timestamp;

use crate::{Envelope, EventRejection, HeaderValue, Headers, Properties, envelope::whole_seconds};

/// The most bytes of a producer's headers that are kept. All headers travel in one frame, which has
/// 128 KiB by default.
const MAX_KEPT_HEADER_BYTES: usize = 65_536;

/// Headers that are the broker's to set, ours, or an instruction to route copies elsewhere.
const DROPPED_PREFIXES: [&str; 6] = [
    "x-death",
    "x-first-death",
    "x-last-death",
    "x-delivery-count",
    "x-acquired-count",
    "x-fanfare-",
];
const DROPPED_NAMES: [&str; 2] = ["CC", "BCC"];

/// The message that keeps a rejected one: as its producer sent it, with the reason in headers.
///
/// Headers that AMQP could not carry again, and those beyond 64 KiB, are left out.
pub fn encode_rejected(
    original: &Envelope,
    routing_key: &str,
    rejection: &EventRejection,
    now: Timestamp,
) -> Envelope {
    let mut headers = kept_headers(&original.headers);
    headers
        .insert("x-fanfare-reason", rejection.code.name())
        .insert("x-fanfare-detail", rejection.detail.as_str())
        .insert("x-fanfare-routing-key", routing_key)
        .insert("x-fanfare-rejected-at", now.to_string());
    if let Some(field) = &rejection.field {
        headers.insert("x-fanfare-field", field.as_str());
    }
    Envelope {
        properties: Properties {
            timestamp: original
                .properties
                .timestamp
                .or_else(|| Some(whole_seconds(now))),
            ..original.properties.clone()
        },
        headers,
        body: original.body.clone(),
    }
}

fn kept_headers(original: &Headers) -> Headers {
    let dropped = |name: &str| {
        DROPPED_NAMES.contains(&name)
            || DROPPED_PREFIXES
                .iter()
                .any(|prefix| name.starts_with(prefix))
    };
    let mut room = MAX_KEPT_HEADER_BYTES;
    original
        .clone()
        .into_iter()
        .filter(|(name, value)| !dropped(name) && *value != HeaderValue::Other)
        .filter(|(name, value)| {
            let left = room.checked_sub(name.len() + value.size());
            room = left.unwrap_or(room);
            left.is_some()
        })
        .collect()
}
