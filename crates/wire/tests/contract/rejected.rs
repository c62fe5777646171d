//! Rejected messages keep what their producer sent, and carry the reason.

use bytes::Bytes;
use fanfare_model::Timestamp;
use fanfare_wire::{Envelope, EventLimits, HeaderValue, Properties, decode_event, encode_rejected};
use proptest::prelude::*;

use crate::generators;

fn now() -> Timestamp {
    Timestamp::from_second(1_700_000_000).expect("in range")
}

fn original() -> Envelope {
    Envelope {
        properties: Properties {
            message_id: Some("m".to_owned()),
            content_type: Some("text/plain".to_owned()),
            ..Properties::default()
        },
        body: Bytes::from_static(b"hello"),
        ..Envelope::default()
    }
}

#[test]
fn a_rejected_message_says_why() {
    let mut original = original();
    original
        .headers
        .insert("kept", "yes")
        .insert("cloudEvents_id", "1")
        .insert("x-fanfare-reason", "forged")
        .insert("x-fanfare-anything", "forged")
        .insert("x-death", HeaderValue::Other)
        .insert("x-first-death-queue", "events")
        .insert("x-delivery-count", 3)
        .insert("CC", "elsewhere")
        .insert("table", HeaderValue::Other);
    let rejection = decode_event(&original, None, &EventLimits::default()).unwrap_err();
    let rejected = encode_rejected(&original, "t.a", &rejection, now());

    assert_eq!(rejected.body, original.body);
    assert_eq!(
        rejected.properties.message_id,
        original.properties.message_id
    );
    assert_eq!(
        rejected.properties.content_type,
        original.properties.content_type
    );
    assert_eq!(rejected.properties.timestamp, Some(now()));
    let expected = [
        ("kept", "yes"),
        ("cloudEvents_id", "1"),
        ("x-fanfare-reason", "missing_attribute"),
        (
            "x-fanfare-detail",
            "`specversion` is missing: accepted is `1.0`",
        ),
        ("x-fanfare-routing-key", "t.a"),
        ("x-fanfare-rejected-at", "2023-11-14T22:13:20Z"),
        ("x-fanfare-field", "specversion"),
    ];
    let headers: Vec<_> = rejected
        .headers
        .iter()
        .map(|(name, _)| (name, rejected.headers.text(name).unwrap()))
        .collect();
    assert_eq!(headers, expected);
}

#[test]
fn a_header_that_would_not_fit_is_left_out() {
    let mut original = original();
    original
        .headers
        .insert("large", "x".repeat(70_000))
        .insert("small", "y");
    let rejection = decode_event(&original, None, &EventLimits::default()).unwrap_err();
    let rejected = encode_rejected(&original, "", &rejection, now());
    assert_eq!(rejected.headers.get("large"), None);
    assert_eq!(rejected.headers.text("small"), Some("y"));
}

proptest! {
    #[test]
    fn any_rejected_message_can_be_sent(
        headers in generators::headers(), body in generators::body(), key in "\\PC{0,60}",
    ) {
        let envelope = Envelope { headers, body, ..Envelope::default() };
        if let Err(rejection) = decode_event(&envelope, Some(&key), &EventLimits::default()) {
            let rejected = encode_rejected(&envelope, &key, &rejection, now());
            prop_assert!(rejected.headers.iter().all(|(_, value)| *value != HeaderValue::Other));
            prop_assert_eq!(rejected.headers.text("x-fanfare-reason"), Some(rejection.code.name()));
        }
    }
}
