//! Events in protobuf mode, as any program encodes them that has the CloudEvents schema.

use bytes::Bytes;
use fanfare_model::{AttributeValue, Event, TraceContext};
use fanfare_wire::{
    Envelope, EventLimits, EventRejection, Properties, RejectionCode, check_event, decode_event,
    event_envelope_protobuf,
};
use proptest::{collection, prelude::*};

use crate::generators;

const LIMITS: EventLimits = EventLimits {
    max_event_bytes: 262_144,
};

/// A field of length-delimited bytes.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).expect("these tests have short fields");
    assert!(length < 128, "the length would need two bytes");
    [&[number << 3 | 2, length], content].concat()
}

/// An attribute whose value is this field.
fn attribute(name: &str, value: &[u8]) -> Vec<u8> {
    field(5, &[field(1, name.as_bytes()), field(2, value)].concat())
}

fn text(name: &str, text: &str) -> Vec<u8> {
    attribute(name, &field(3, text.as_bytes()))
}

/// A valid event written by hand, with these fields after it.
fn with(fields: &[Vec<u8>]) -> Bytes {
    let event = [
        field(1, b"1"),
        field(2, b"/s"),
        field(3, b"1.0"),
        field(4, b"a.b"),
        text("tenant", "t"),
    ];
    [event.concat(), fields.concat()].concat().into()
}

fn decode(body: Bytes) -> Result<Event, EventRejection> {
    let envelope = Envelope {
        properties: Properties {
            content_type: Some("application/cloudevents+protobuf".to_owned()),
            ..Properties::default()
        },
        body,
        ..Envelope::default()
    };
    decode_event(&envelope, None, &LIMITS).map(|decoded| decoded.event)
}

#[test]
fn the_data_comes_in_three_forms_and_stays_byte_for_byte() {
    let octets = text("datacontenttype", "application/octet-stream");
    let plain = text("datacontenttype", "text/plain");
    let any = [field(1, b"type.example/m"), field(2, b"\x08\x01")].concat();
    for (fields, media_type, schema, data) in [
        (vec![], None, None, None),
        (vec![field(6, b"{ }")], None, None, Some(&b"{ }"[..])),
        (
            vec![octets, field(6, b"\x00\xff")],
            Some("application/octet-stream"),
            None,
            Some(b"\x00\xff"),
        ),
        (
            vec![plain, field(7, b"text")],
            Some("text/plain"),
            None,
            Some(b"text"),
        ),
        (
            vec![field(8, &any)],
            Some("application/protobuf"),
            Some("type.example/m"),
            Some(b"\x08\x01"),
        ),
        (
            vec![text("dataschema", "urn:mine"), field(8, &any)],
            Some("application/protobuf"),
            Some("urn:mine"),
            Some(b"\x08\x01"),
        ),
    ] {
        let event = decode(with(&fields)).unwrap();
        assert_eq!(event.data_content_type.as_deref(), media_type);
        assert_eq!(event.data_schema.as_deref(), schema);
        assert_eq!(event.data.as_deref(), data);
    }
}

#[test]
fn every_kind_of_attribute_is_read() {
    let moment = [
        0x08, 0x80, 0xe2, 0xcf, 0xaa, 0x06, 0x10, 0x80, 0xca, 0xb5, 0xee, 0x01,
    ];
    let event = decode(with(&[
        attribute("flag", &[1 << 3, 1]),
        attribute("number", &[2 << 3, 7]),
        attribute("bytes", &field(4, b"\x00\xff")),
        attribute("uri", &field(5, b"urn:a")),
        attribute("reference", &field(6, b"/b")),
        attribute("time", &field(7, &moment)),
    ]))
    .unwrap();
    let text = |text: &str| AttributeValue::Text(text.to_owned());
    let bytes = Bytes::from_static(b"\x00\xff");
    let expected = [
        ("flag".to_owned(), AttributeValue::Boolean(true)),
        ("number".to_owned(), AttributeValue::Integer(7)),
        ("bytes".to_owned(), AttributeValue::Binary(bytes)),
        ("uri".to_owned(), text("urn:a")),
        ("reference".to_owned(), text("/b")),
    ];
    assert_eq!(event.extensions, expected.into());
    let time = event.time.unwrap();
    assert_eq!(time.as_str(), "2023-11-14T22:13:20.5Z");
}

#[test]
fn an_event_in_protobuf_is_told_what_is_wrong() {
    use RejectionCode::{InvalidAttribute, InvalidData, MalformedProtobuf, MissingAttribute};
    let stamp = |nanos: &[u8]| attribute("at", &field(7, &[&[0x10][..], nanos].concat()));
    for (body, code, field) in [
        (Bytes::from_static(b"\xff"), MalformedProtobuf, None),
        (Bytes::from_static(b"{}"), MalformedProtobuf, None),
        (Bytes::new(), MissingAttribute, Some("specversion")),
        (with(&[text("id", "2")]), InvalidAttribute, Some("id")),
        (with(&[attribute("x", b"")]), InvalidAttribute, Some("x")),
        (with(&[text("Upper", "1")]), InvalidAttribute, Some("Upper")),
        (with(&[text("data", "1")]), InvalidAttribute, Some("data")),
        // 2,000,000,000 and -1 nanoseconds.
        (
            with(&[stamp(&[0x80, 0xa8, 0xd6, 0xb9, 0x07])]),
            InvalidAttribute,
            Some("at"),
        ),
        (
            with(&[stamp(&[
                0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
            ])]),
            InvalidAttribute,
            Some("at"),
        ),
        (with(&[self::field(6, b"{")]), InvalidData, Some("data")),
        (with(&[self::field(7, b"text")]), InvalidData, Some("data")),
    ] {
        let rejection = decode(body.clone()).expect_err("it is wrong");
        assert_eq!(rejection.code, code, "{body:?}: {rejection}");
        assert_eq!(rejection.field.as_deref(), field, "{rejection}");
    }
}

proptest! {
    #[test]
    fn an_event_in_protobuf_reads_back_unchanged(
        event in generators::event(), trace in generators::trace(), now in generators::moment(),
    ) {
        let envelope = event_envelope_protobuf(&event, &trace, now);
        let key = format!("{}.{}", event.tenant, event.event_type);
        let decoded = decode_event(&envelope, Some(&key), &LIMITS);
        let decoded = decoded.map_err(|fault| TestCaseError::fail(fault.to_string()))?;
        prop_assert_eq!(decoded.event, event);
        prop_assert_eq!(decoded.trace, trace);
    }

    #[test]
    fn a_damaged_event_in_protobuf_is_read_or_rejected(
        event in generators::event(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let now = "2026-11-23T15:04:05Z".parse().unwrap();
        let mut body = event_envelope_protobuf(&event, &TraceContext::default(), now).body.to_vec();
        let at = at.index(body.len());
        body[at] = byte;
        body.truncate(cut.index(body.len() + 1));
        if let Ok(event) = decode(body.into()) {
            prop_assert_eq!(check_event(&event), Ok(()));
        }
    }

    #[test]
    fn any_bytes_are_an_event_in_protobuf_or_a_rejection(
        body in collection::vec(any::<u8>(), 0..300),
    ) {
        if let Err(rejection) = decode(body.into()) {
            prop_assert!(!rejection.detail.is_empty());
        }
    }
}
