//! Batches: each event of one is read as if it had been published alone.

use bytes::Bytes;
use fanfare_model::{Event, TraceContext};
use fanfare_wire::{
    Envelope, EventLimits, Properties, RejectionCode, decode_event, encode_structured,
    event_envelope_protobuf, is_batch, split_batch,
};
use proptest::{collection, prelude::*};

use crate::generators;

const LIMITS: EventLimits = EventLimits {
    max_event_bytes: 1000,
};
const JSON: &str = "application/cloudevents-batch+json";
const PROTOBUF: &str = "application/cloudevents-batch+protobuf";
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const OTHER_TRACE: &str = "00-5bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn batch(content_type: &str, body: impl Into<Bytes>) -> Envelope {
    Envelope {
        properties: Properties {
            content_type: Some(content_type.to_owned()),
            message_id: Some("b".to_owned()),
            ..Properties::default()
        },
        body: body.into(),
        ..Envelope::default()
    }
}

fn event(id: &str) -> String {
    format!(r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":"a","tenant":"t"}}"#)
}

#[test]
fn a_batch_is_known_by_its_content_type() {
    for (content_type, expected) in [
        (JSON, true),
        (PROTOBUF, true),
        ("Application/CloudEvents-Batch+JSON; charset=utf-8", true),
        ("application/cloudevents+json", false),
        ("application/cloudevents-batch+avro", false),
        ("", false),
    ] {
        assert_eq!(is_batch(&batch(content_type, "")), expected);
    }
}

#[test]
fn each_event_of_a_batch_is_judged_by_itself() {
    let body = format!("[{}, 7 ,{{}},\n{}]", event("1"), event("2"));
    let whole = batch(JSON, body);
    let events = split_batch(&whole, &LIMITS).unwrap();
    let verdicts: Vec<_> = events
        .iter()
        .map(|event| {
            let decoded = decode_event(event, Some("t.a"), &LIMITS);
            decoded.map(|decoded| decoded.event.id).map_err(|r| r.code)
        })
        .collect();
    let expected = [
        Ok("1".to_owned()),
        Err(RejectionCode::MalformedJson),
        Err(RejectionCode::MissingAttribute),
        Ok("2".to_owned()),
    ];
    assert_eq!(verdicts, expected);
    let ids: Vec<_> = events
        .iter()
        .map(|event| event.properties.message_id.as_deref().unwrap())
        .collect();
    assert_eq!(ids, ["b.0", "b.1", "b.2", "b.3"]);
    // A rejected one can be published again as it is.
    assert_eq!(&events[1].body[..], b"7");
    let content_type = events[1].properties.content_type.as_deref();
    assert_eq!(content_type, Some("application/cloudevents+json"));
    let within = events[3].body.as_ptr_range();
    let all = whole.body.as_ptr_range();
    assert!(all.start <= within.start && within.end <= all.end, "copied");
}

#[test]
fn a_batch_that_cannot_be_split_is_told_why() {
    use RejectionCode::{MalformedJson, MalformedProtobuf, TooLarge};
    let many = format!("[{}]", ["1"; 1001].join(","));
    for (content_type, body, code) in [
        (JSON, Bytes::new(), MalformedJson),
        (JSON, Bytes::from_static(b"{}"), MalformedJson),
        (JSON, Bytes::from_static(b"[{}"), MalformedJson),
        (JSON, Bytes::from_static(b"[] []"), MalformedJson),
        (JSON, many.into(), TooLarge),
        (JSON, vec![b' '; 4001].into(), TooLarge),
        (PROTOBUF, Bytes::from_static(b"[]"), MalformedProtobuf),
        (
            PROTOBUF,
            Bytes::from_static(b"\x0a\x05x"),
            MalformedProtobuf,
        ),
    ] {
        let rejection = split_batch(&batch(content_type, body), &LIMITS).unwrap_err();
        assert_eq!(rejection.code, code, "{rejection}");
    }
    for (content_type, body) in [(JSON, "[]"), (PROTOBUF, "")] {
        assert_eq!(split_batch(&batch(content_type, body), &LIMITS), Ok(vec![]));
    }
}

#[test]
fn a_reason_names_the_event_of_the_batch() {
    let events = split_batch(&batch(JSON, "[{}]"), &LIMITS).unwrap();
    let rejection = decode_event(&events[0], None, &LIMITS).unwrap_err();
    let told = rejection.in_batch(0).to_string();
    assert!(told.starts_with("event 0 of the batch"), "{told}");
    assert!(told.contains("`specversion` is missing"), "{told}");
}

#[test]
fn an_events_own_trace_wins_over_that_of_its_batch() {
    let mut traced = Event::for_tests("t", "/s", "1", "a", b"{}");
    let attribute = fanfare_model::AttributeValue::Text(OTHER_TRACE.to_owned());
    traced
        .extensions
        .insert("traceparent".to_owned(), attribute);
    let now = "2026-11-23T15:04:05Z".parse().unwrap();
    let encoded = event_envelope_protobuf(&traced, &TraceContext::default(), now).body;
    let json = encode_structured(&traced);
    let json = format!("[{},{}]", event("2"), std::str::from_utf8(&json).unwrap());
    for (batch, expected) in [
        (batch(JSON, json), vec![TRACE, OTHER_TRACE]),
        (batch(PROTOBUF, of_protobuf(&[encoded])), vec![OTHER_TRACE]),
    ] {
        let mut batch = batch;
        batch.headers.insert("traceparent", TRACE);
        let events = split_batch(&batch, &LIMITS).unwrap();
        let traces = events.iter().map(|event| {
            let decoded = decode_event(event, None, &LIMITS).unwrap();
            decoded.trace.traceparent.unwrap()
        });
        assert_eq!(traces.collect::<Vec<_>>(), expected);
    }
}

/// The message that has these events in field 1.
fn of_protobuf(events: &[Bytes]) -> Bytes {
    let mut body = Vec::new();
    for event in events {
        body.push(1 << 3 | 2);
        let mut length = event.len();
        while length > 127 {
            body.push(u8::try_from(length & 127).expect("seven bits") | 128);
            length >>= 7;
        }
        body.push(u8::try_from(length).expect("seven bits"));
        body.extend_from_slice(event);
    }
    body.into()
}

proptest! {
    #[test]
    fn a_batch_in_protobuf_reads_back(
        events in collection::vec(generators::event(), 0..4), now in generators::moment(),
    ) {
        let limits = EventLimits::default();
        let trace = TraceContext::default();
        let encoded = events.iter().map(|event| event_envelope_protobuf(event, &trace, now).body);
        let batch = batch(PROTOBUF, of_protobuf(&encoded.collect::<Vec<_>>()));
        let read = split_batch(&batch, &limits).unwrap();
        let read = read.iter().map(|event| decode_event(event, None, &limits).unwrap().event);
        prop_assert_eq!(read.collect::<Vec<_>>(), events);
    }

    #[test]
    fn whatever_claims_to_be_a_batch_is_split_or_rejected(
        body in generators::body(), is_json in any::<bool>(),
    ) {
        let content_type = if is_json { JSON } else { PROTOBUF };
        match split_batch(&batch(content_type, body), &LIMITS) {
            Ok(events) => for event in events {
                if let Err(rejection) = decode_event(&event, None, &LIMITS) {
                    prop_assert!(!rejection.detail.is_empty());
                }
            },
            Err(rejection) => prop_assert!(!rejection.detail.is_empty()),
        }
    }
}
