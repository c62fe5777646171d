//! Dead letters read back, and any AMQP tool can understand one.

use std::sync::Arc;

use bytes::Bytes;
use fanfare_model::{
    DeadLetter, DeadLetterReason, Delivery, EndpointId, Event, Failure, FailureClass, Timestamp,
    TraceContext,
};
use fanfare_wire::{HeaderValue, decode_dead_letter, encode_dead_letter};
use proptest::prelude::*;

use crate::generators;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn dead_letter() -> DeadLetter {
    let event = Arc::new(Event::for_tests("t", "/s", "1", "a.b", b"{}"));
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let trace = TraceContext::from_headers(Some(trace), None);
    let failure = Failure {
        class: FailureClass::Status5xx,
        status: Some(503),
        error: "the receiver answered 503".to_owned(),
    };
    DeadLetter {
        delivery: Delivery::new(event, EndpointId::from_bytes([1; 16]), 7, trace, at(100))
            .after_failure(failure, at(200), None),
        reason: DeadLetterReason::Exhausted,
        since: at(300),
    }
}

#[test]
fn a_person_can_read_a_dead_letter() {
    let envelope = encode_dead_letter(&dead_letter());
    let delivery = dead_letter().delivery.id.to_string();
    for (name, expected) in [
        ("x-fanfare-tenant", "t"),
        ("x-fanfare-endpoint", "ep_01010101010101010101010101010101"),
        ("x-fanfare-delivery", &delivery),
        ("x-fanfare-event-type", "a.b"),
        ("x-fanfare-event-id", "1"),
        ("x-fanfare-event-source", "/s"),
        ("x-fanfare-reason", "exhausted"),
        ("x-fanfare-first-failed-at", "1970-01-01T00:03:20Z"),
        ("x-fanfare-last-failed-at", "1970-01-01T00:03:20Z"),
        ("x-fanfare-last-class", "status_5xx"),
        ("x-fanfare-last-error", "the receiver answered 503"),
        ("x-fanfare-dead-since", "1970-01-01T00:05:00Z"),
        (
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
    ] {
        assert_eq!(envelope.headers.text(name), Some(expected), "{name}");
    }
    for (name, expected) in [
        ("x-fanfare-attempts", 1),
        ("x-fanfare-replay", 0),
        ("x-fanfare-last-status", 503),
    ] {
        let expected = HeaderValue::Integer(expected);
        assert_eq!(envelope.headers.get(name), Some(&expected), "{name}");
    }
    assert_eq!(envelope.body, &b"{}"[..]);
    let properties = envelope.properties;
    assert_eq!(properties.message_id, Some(delivery));
    assert_eq!(properties.correlation_id.as_deref(), Some("1"));
    assert_eq!(properties.message_type.as_deref(), Some("a.b"));
    assert_eq!(properties.content_type.as_deref(), Some("application/json"));
    assert_eq!(properties.timestamp, Some(at(300)));
}

#[test]
fn no_data_and_empty_data_stay_apart() {
    for data in [None, Some(Bytes::new())] {
        let mut dead_letter = dead_letter();
        let mut event = (*dead_letter.delivery.event).clone();
        event.data = data;
        dead_letter.delivery.event = Arc::new(event);
        let received = decode_dead_letter(&encode_dead_letter(&dead_letter)).unwrap();
        assert_eq!(received, dead_letter);
    }
}

#[test]
fn a_body_is_data_even_if_the_record_denies_it() {
    let mut dead_letter = dead_letter();
    let mut event = (*dead_letter.delivery.event).clone();
    event.data = None;
    dead_letter.delivery.event = Arc::new(event);
    let mut envelope = encode_dead_letter(&dead_letter);
    envelope.body = Bytes::from_static(b"{}");
    let received = decode_dead_letter(&envelope).unwrap();
    assert_eq!(received.delivery.event.data, Some(envelope.body));
}

#[test]
fn what_is_no_dead_letter_is_refused_by_name() {
    let bytes = |bytes: &'static [u8]| HeaderValue::Bytes(Bytes::from_static(bytes));
    for (record, expected) in [
        (HeaderValue::Integer(1), "`x-fanfare-record` is missing"),
        (bytes(b"\xff"), "the dead-letter record is not readable"),
        (
            bytes(b""),
            "the dead-letter record has version 0, and only version 1 is known here",
        ),
        (bytes(&[0x08, 1]), "`event` is missing"),
        (
            bytes(&[0x08, 1, 0x12, 6, 0x0a, 1, b't', 0x22, 1, b'a']),
            "`delivery` is missing",
        ),
        // Bytes that are UTF-8 may come back from a broker as text.
        (
            HeaderValue::Text("\u{8}\u{1}".to_owned()),
            "`event` is missing",
        ),
    ] {
        let mut envelope = encode_dead_letter(&dead_letter());
        envelope.headers.insert("x-fanfare-record", record);
        let fault = decode_dead_letter(&envelope).unwrap_err();
        assert_eq!(fault.to_string(), expected);
    }
}

#[test]
fn the_headers_of_a_dead_letter_fit_a_frame() {
    let mut dead_letter = dead_letter();
    let mut event = (*dead_letter.delivery.event).clone();
    event.source = "s".repeat(1024);
    event.id = "i".repeat(255);
    event.subject = Some("x".repeat(31_000));
    assert_eq!(fanfare_wire::check_event(&event), Ok(()));
    dead_letter.delivery.event = Arc::new(event);
    let failures = dead_letter.delivery.failures.as_mut().unwrap();
    failures.last.error = "\u{10ffff}".repeat(100_000);
    // RabbitMQ's default `frame_max` is 131,072, and header names and values have a few bytes around them.
    assert!(encode_dead_letter(&dead_letter).headers.size() < 64_000);
}

proptest! {
    #[test]
    fn a_dead_letter_reads_back(dead_letter in generators::dead_letter()) {
        let received = decode_dead_letter(&encode_dead_letter(&dead_letter));
        let received = received.map_err(|fault| TestCaseError::fail(fault.to_string()))?;
        prop_assert_eq!(received, dead_letter);
    }

    #[test]
    fn any_message_is_a_dead_letter_or_a_fault(
        dead_letter in generators::dead_letter(), headers in generators::headers(),
        at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut envelope = encode_dead_letter(&dead_letter);
        let mut record = envelope.headers.bytes("x-fanfare-record").unwrap().to_vec();
        let at = at.index(record.len());
        record[at] = byte;
        envelope.headers.insert("x-fanfare-record", Bytes::from(record));
        if let Ok(received) = decode_dead_letter(&envelope) {
            // Only whether there is none or an empty one is told by the record alone.
            let data = received.delivery.event.data.as_deref().unwrap_or_default();
            prop_assert_eq!(data, &envelope.body[..]);
        }
        envelope.headers = headers;
        prop_assert!(decode_dead_letter(&envelope).is_err());
    }
}
