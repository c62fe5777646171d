//! Bytes that a released version may have left in a queue. They must decode for ever.
//!
//! A failing test prints the new bytes in hexadecimal; `xxd -r -p` makes a file of them. Adding a file
//! is welcome; changing one breaks what waits in queues, unless no release ever wrote it.

use std::{fmt::Write as _, sync::Arc};

use bytes::Bytes;
use fanfare_model::{
    ActedDelivery, AttemptRecord, AttributeValue, DeadLetter, DeadLetterReason, Delivery,
    DeliveryAction, DeliveryState, EndpointId, Event, Failure, FailureClass, HandledDelivery,
    JournalBatch, JournalEntry, JournalWriterId, OwedDelivery, RoutedEvent, Timestamp,
    TraceContext,
};
use fanfare_wire::{
    Envelope, EventLimits, HeaderValue, Headers, Properties, decode_bundle, decode_dead_letter,
    decode_event, decode_journal_batch, encode_bundle, encode_dead_letter, encode_journal_batch,
    event_envelope, event_envelope_binary, event_envelope_protobuf,
};

macro_rules! golden {
    ($file:literal) => {
        &include_bytes!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../proto/golden/",
            $file
        ))[..]
    };
}

fn at(microsecond: i64) -> Timestamp {
    Timestamp::from_microsecond(microsecond).expect("in range")
}

fn trace() -> TraceContext {
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    TraceContext::from_headers(Some(traceparent), Some("vendor=value"))
}

/// An event with every attribute and every type of extension but bytes, which JSON turns into text.
fn event() -> Event {
    let data = br#"{ "reward": "mug", "points": 1.50 }"#;
    let text = |text: &str| AttributeValue::Text(text.to_owned());
    Event {
        subject: Some("subscriber/42".to_owned()),
        time: Some("2026-11-23T16:04:05.5+01:00".parse().expect("a time")),
        data_schema: Some("https://example.com/schemas/reward".to_owned()),
        extensions: [
            ("deliverbefore".to_owned(), text("2026-12-01T00:00:00Z")),
            ("flag".to_owned(), AttributeValue::Boolean(true)),
            ("number".to_owned(), AttributeValue::Integer(-7)),
        ]
        .into(),
        ..Event::for_tests("MF4c1b7e20", "/rewards", "evt-1", "reward.unlocked", data)
    }
}

fn delivery(event: &Arc<Event>, endpoint: u8) -> Delivery {
    let endpoint = EndpointId::from_bytes([endpoint; 16]);
    Delivery::new(
        Arc::clone(event),
        endpoint,
        12,
        trace(),
        at(1_700_000_000_000_001),
    )
}

/// A delivery with every field set.
fn worn_delivery() -> Delivery {
    let mut event = event();
    let bytes = AttributeValue::Binary(Bytes::from_static(b"\x00\xff"));
    event.extensions.insert("bytes".to_owned(), bytes);
    let failure = Failure {
        class: FailureClass::Status5xx,
        status: Some(503),
        error: "the receiver answered 503".to_owned(),
    };
    let failed_at = at(1_700_000_001_000_000);
    let mut delivery = delivery(&Arc::new(event), 1).after_failure(
        failure,
        failed_at,
        Some(at(1_700_000_006_000_000)),
    );
    delivery.replay = 2;
    delivery.last_start = Some(at(1_700_000_000_900_000));
    delivery
}

fn dead_letter() -> DeadLetter {
    DeadLetter {
        delivery: worn_delivery(),
        reason: DeadLetterReason::Exhausted,
        since: at(1_700_000_002_000_000),
    }
}

fn check(file: &str, new: &[u8], golden: &[u8]) {
    let hex = new.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("a string takes all");
        hex
    });
    assert!(new == golden, "{file} would now be {hex}");
}

fn message(content_type: &str, headers: Headers, body: &'static [u8]) -> Envelope {
    Envelope {
        properties: Properties {
            content_type: Some(content_type.to_owned()),
            ..Properties::default()
        },
        headers,
        body: Bytes::from_static(body),
    }
}

#[test]
fn a_bundle_of_one_is_unchanged() {
    let golden = golden!("bundle-of-one.bin");
    let delivery = worn_delivery();
    let new = encode_bundle(std::slice::from_ref(&delivery), at(0));
    check("bundle-of-one.bin", &new.body, golden);
    let old = message("", Headers::default(), golden);
    assert_eq!(decode_bundle(&old).unwrap(), [delivery]);
}

#[test]
fn a_bundle_of_three_that_share_an_event_is_unchanged() {
    let golden = golden!("bundle-of-three.bin");
    let event = Arc::new(event());
    let deliveries = [1, 2, 3].map(|endpoint| delivery(&event, endpoint));
    let new = encode_bundle(&deliveries, at(0));
    check("bundle-of-three.bin", &new.body, golden);
    let old = message("", Headers::default(), golden);
    assert_eq!(decode_bundle(&old).unwrap(), deliveries);
}

#[test]
fn a_dead_letter_record_is_unchanged() {
    let golden = golden!("dead-letter-record.bin");
    let new = encode_dead_letter(&dead_letter());
    let record = new.headers.bytes("x-fanfare-record").unwrap();
    check("dead-letter-record.bin", &record, golden);
    let mut headers = Headers::default();
    headers.insert("x-fanfare-record", Bytes::from_static(golden));
    let old = Envelope { headers, ..new };
    assert_eq!(decode_dead_letter(&old).unwrap(), dead_letter());
}

#[test]
fn a_structured_event_is_unchanged() {
    let golden = golden!("event-structured.json");
    let new = event_envelope(&event(), &trace(), at(0));
    check("event-structured.json", &new.body, golden);
    let old = message("application/cloudevents+json", new.headers, golden);
    let decoded = decode_event(&old, None, &EventLimits::default()).unwrap();
    assert_eq!((decoded.event, decoded.trace), (event(), trace()));
}

/// It waits in outboxes, too.
#[test]
fn an_event_in_protobuf_is_unchanged() {
    let golden = golden!("event-protobuf.bin");
    let mut event = event();
    let bytes = AttributeValue::Binary(Bytes::from_static(b"\x00\xff"));
    event.extensions.insert("bytes".to_owned(), bytes);
    let new = event_envelope_protobuf(&event, &trace(), at(0));
    check("event-protobuf.bin", &new.body, golden);
    let old = message("application/cloudevents+protobuf", new.headers, golden);
    let decoded = decode_event(&old, None, &EventLimits::default()).unwrap();
    assert_eq!((decoded.event, decoded.trace), (event, trace()));
}

/// A batch with an entry of every kind and every state.
fn journal_batch() -> JournalBatch {
    JournalBatch {
        writer: JournalWriterId {
            name: "dispatcher a".to_owned(),
            epoch: 1_700_000_000_000_000,
        },
        sequence: 7,
        written_at: at(1_700_000_000_000_003),
        dropped: 2,
        is_last: true,
        entries: journal_entries(),
    }
}

fn journal_entries() -> Vec<JournalEntry> {
    let event = Arc::new(event());
    let (one, moment) = (delivery(&event, 1), at(1_700_000_000_000_002));
    let handled = |state, attempt| {
        JournalEntry::Handled(HandledDelivery {
            delivery: one.id,
            endpoint: one.endpoint,
            event: (&*event).into(),
            replay: 1,
            at: moment,
            attempt,
            failed_attempts: 3,
            state,
        })
    };
    let attempt = |failure| AttemptRecord {
        number: 4,
        started_at: moment,
        took_micros: 1234,
        status: Some(503),
        failure,
        error: "the receiver answered 503".to_owned(),
    };
    let reason = DeadLetterReason::Exhausted;
    vec![
        JournalEntry::Routed(RoutedEvent {
            event: Arc::clone(&event),
            data_left_out: true,
            at: moment,
            trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned()),
            owed: vec![OwedDelivery {
                id: one.id,
                endpoint: one.endpoint,
                not_before: Some(moment),
                is_told: false,
            }],
        }),
        handled(
            DeliveryState::Retrying { at: moment },
            Some(attempt(Some(FailureClass::Status5xx))),
        ),
        handled(DeliveryState::Delivered, Some(attempt(None))),
        handled(DeliveryState::DeadLettered { reason }, None),
        handled(DeliveryState::Discarded, None),
        JournalEntry::Acted(ActedDelivery {
            delivery: one.id,
            endpoint: one.endpoint,
            event: (&*event).into(),
            replay: 2,
            at: moment,
            action: DeliveryAction::Replayed,
            actor: "someone".to_owned(),
            operation: "op-1".to_owned(),
        }),
    ]
}

#[test]
fn a_journal_batch_is_unchanged() {
    let golden = golden!("journal-batch.bin");
    let new = encode_journal_batch(&journal_batch());
    check("journal-batch.bin", &new.body, golden);
    let old = message("", Headers::default(), golden);
    assert_eq!(decode_journal_batch(&old).unwrap(), journal_batch());
}

/// A message in binary mode as text: one header a line, an empty line, the body.
#[test]
fn a_binary_event_is_unchanged() {
    let golden = golden!("event-binary.txt");
    let new = event_envelope_binary(&event(), &trace(), at(0));
    let mut text = String::new();
    for (name, value) in new.headers.iter() {
        match value {
            HeaderValue::Text(value) => writeln!(text, "{name}: text {value}").unwrap(),
            HeaderValue::Integer(value) => writeln!(text, "{name}: integer {value}").unwrap(),
            HeaderValue::Boolean(value) => writeln!(text, "{name}: boolean {value}").unwrap(),
            HeaderValue::Bytes(_) | HeaderValue::Timestamp(_) | HeaderValue::Other => {
                panic!("the event has no such attribute")
            }
        }
    }
    text.push('\n');
    text.push_str(std::str::from_utf8(&new.body).unwrap());
    check("event-binary.txt", text.as_bytes(), golden);

    let (head, body) = std::str::from_utf8(golden)
        .unwrap()
        .split_once("\n\n")
        .unwrap();
    let mut headers = Headers::default();
    for line in head.lines() {
        let (name, value) = line.split_once(": ").unwrap();
        let value = match value.split_once(' ').unwrap() {
            ("text", value) => HeaderValue::Text(value.to_owned()),
            ("integer", value) => HeaderValue::Integer(value.parse().unwrap()),
            (_, value) => HeaderValue::Boolean(value.parse().unwrap()),
        };
        headers.insert(name, value);
    }
    let old = message("application/json", headers, body.as_bytes());
    let decoded = decode_event(&old, None, &EventLimits::default()).unwrap();
    assert_eq!((decoded.event, decoded.trace), (event(), trace()));
}
