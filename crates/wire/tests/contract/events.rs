//! Published events that are accepted, in both modes.

use std::ops::Range;

use bytes::Bytes;
use fanfare_model::{AttributeValue, Event, Timestamp, TraceContext};
use fanfare_wire::{
    Envelope, EventLimits, Headers, Properties, check_event, decode_event, decode_structured_json,
    encode_structured, event_envelope, event_envelope_binary, trace_of_event,
};
use proptest::prelude::*;

use crate::generators;

const LIMITS: EventLimits = EventLimits {
    max_event_bytes: 262_144,
};
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const OTHER_TRACE: &str = "00-5bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn now() -> Timestamp {
    Timestamp::from_millisecond(1_700_000_000_123).expect("in range")
}

fn structured(members: &str) -> Event {
    let body = format!(
        r#"{{"specversion":"1.0","id":"1","source":"/s","type":"a.b","tenant":"t",{members}}}"#
    );
    let body = Bytes::from(body);
    decode_structured_json(&body, None, &LIMITS).expect(members)
}

fn binary(headers: &[(&'static str, &str)], content_type: Option<&str>, body: &str) -> Envelope {
    let mut envelope = Envelope {
        properties: Properties {
            content_type: content_type.map(str::to_owned),
            ..Properties::default()
        },
        headers: Headers::default(),
        body: Bytes::copy_from_slice(body.as_bytes()),
    };
    for (name, value) in headers {
        envelope.headers.insert(*name, *value);
    }
    envelope
}

#[test]
fn the_data_of_a_structured_event_is_read_by_its_media_type() {
    for (members, data) in [
        (r#""subject":null"#, None),
        (r#""data":{"a": 1.0e5 }"#, Some(r#"{"a": 1.0e5 }"#)),
        (r#""data": [ 1 ] "#, Some("[ 1 ]")),
        (r#""data":"text""#, Some(r#""text""#)),
        (r#""data":null"#, Some("null")),
        (r#""data_base64":"WzFd""#, Some("[1]")),
        (
            r#""data":"\u00e4","datacontenttype":"text/plain""#,
            Some("ä"),
        ),
        (r#""datacontenttype":"text/plain","data":null"#, None),
        (r#""datacontenttype":"text/plain","data":"""#, Some("")),
        (
            r#""datacontenttype":"image/png","data_base64":"AAE=""#,
            Some("\0\u{1}"),
        ),
        (r#""data":1,"data_base64":null"#, Some("1")),
    ] {
        let event = structured(members);
        assert_eq!(event.data.as_deref(), data.map(str::as_bytes), "{members}");
    }
}

#[test]
fn extensions_keep_their_types() {
    let event = structured(r#""text":"x","flag":true,"number":-7,"none":null"#);
    let text = |text: &str| AttributeValue::Text(text.to_owned());
    let expected = [
        ("flag".to_owned(), AttributeValue::Boolean(true)),
        ("number".to_owned(), AttributeValue::Integer(-7)),
        ("text".to_owned(), text("x")),
    ];
    assert_eq!(event.extensions, expected.into());
}

#[test]
fn both_prefixes_make_a_binary_event() {
    for prefix in ["cloudEvents_", "cloudEvents:"] {
        let mut envelope = binary(&[("unrelated", "x")], Some("text/plain"), "data");
        for (name, value) in [
            ("specversion", "1.0"),
            ("id", "1"),
            ("source", "/s"),
            ("type", "a.b"),
            ("tenant", "t"),
            ("time", "2026-11-23T15:04:05Z"),
        ] {
            envelope.headers.insert(format!("{prefix}{name}"), value);
        }
        let second = fanfare_wire::HeaderValue::Timestamp(1_700_000_000);
        envelope
            .headers
            .insert(format!("{prefix}deliverafter"), second);
        let event = decode_event(&envelope, Some("t.a.b"), &LIMITS)
            .unwrap()
            .event;
        let mut expected = Event::for_tests("t", "/s", "1", "a.b", b"data");
        expected.data_content_type = Some("text/plain".to_owned());
        expected.time = Some("2026-11-23T15:04:05Z".parse().unwrap());
        let moment = AttributeValue::Text("2023-11-14T22:13:20Z".to_owned());
        expected
            .extensions
            .insert("deliverafter".to_owned(), moment);
        assert_eq!(event, expected);
    }
}

#[test]
fn the_tenant_may_come_from_the_address() {
    let tenant = "t".parse().unwrap();
    for members in ["", r#","tenant":"t""#] {
        let body =
            format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"a.b"{members}}}"#);
        let event = decode_structured_json(&body.into(), Some(&tenant), &LIMITS).unwrap();
        assert_eq!(event.tenant, tenant, "{members}");
    }
}

#[test]
fn a_trace_in_headers_wins_over_one_in_attributes() {
    let mut event = Event::for_tests("t", "/s", "1", "a.b", b"{}");
    let attribute = AttributeValue::Text(OTHER_TRACE.to_owned());
    event.extensions.insert("traceparent".to_owned(), attribute);
    for (header, expected) in [
        (Some(TRACE), TRACE),
        (Some("malformed"), OTHER_TRACE),
        (None, OTHER_TRACE),
    ] {
        let trace = trace_of_event(&event, header, None);
        assert_eq!(trace.traceparent.as_deref(), Some(expected), "{header:?}");
    }
}

#[test]
fn structured_data_is_written_so_that_people_can_read_it() {
    for (media_type, data, member) in [
        (
            "application/json",
            &b"\n{\"a\": 1}\n"[..],
            r#""data":{"a": 1}"#,
        ),
        (
            "application/json",
            b"{broken",
            r#""data_base64":"e2Jyb2tlbg==""#,
        ),
        ("text/plain", b"\"quoted\"", r#""data":"\"quoted\"""#),
        ("text/plain", b"\xff", r#""data_base64":"/w==""#),
    ] {
        let mut event = Event::for_tests("t", "/s", "1", "a.b", data);
        event.data_content_type = Some(media_type.to_owned());
        let json = String::from_utf8(encode_structured(&event).to_vec()).unwrap();
        assert!(json.contains(member), "{json}");
    }
}

#[test]
fn a_published_event_has_every_property() {
    let event = Event::for_tests("t", "/s", "1", "a.b", b"{}");
    let trace = TraceContext::from_headers(Some(TRACE), None);
    for (envelope, content_type) in [
        (
            event_envelope(&event, &trace, now()),
            "application/cloudevents+json",
        ),
        (
            event_envelope_binary(&event, &trace, now()),
            "application/json",
        ),
    ] {
        let expected = Properties {
            message_id: Some("1".to_owned()),
            correlation_id: Some("1".to_owned()),
            message_type: Some("a.b".to_owned()),
            content_type: Some(content_type.to_owned()),
            app_id: Some("fanfare".to_owned()),
            timestamp: Some(Timestamp::from_second(1_700_000_000).unwrap()),
        };
        assert_eq!(envelope.properties, expected);
        assert_eq!(envelope.headers.text("traceparent"), Some(TRACE));
    }
}

#[test]
fn data_is_never_copied_out_of_the_message() {
    let event = Event::for_tests("t", "/s", "1", "a.b", b"{\"some\":\"data\"}");
    let trace = TraceContext::default();
    for envelope in [
        event_envelope(&event, &trace, now()),
        event_envelope_binary(&event, &trace, now()),
    ] {
        let decoded = decode_event(&envelope, None, &LIMITS).unwrap().event;
        let within = address_range(&decoded.data.unwrap());
        let whole = address_range(&envelope.body);
        assert!(whole.start <= within.start && within.end <= whole.end);
    }
}

fn address_range(bytes: &Bytes) -> Range<*const u8> {
    bytes.as_ptr_range()
}

proptest! {
    #[test]
    fn a_structured_event_reads_back(
        event in generators::event(), trace in generators::trace(), now in generators::moment(),
    ) {
        prop_assert_eq!(check_event(&event), Ok(()));
        let envelope = event_envelope(&event, &trace, now);
        let key = format!("{}.{}", event.tenant, event.event_type);
        let decoded = decode_event(&envelope, Some(&key), &LIMITS);
        let decoded = decoded.map_err(|fault| TestCaseError::fail(fault.to_string()))?;
        let mut expected = event;
        generators::without_binary(&mut expected.extensions);
        prop_assert_eq!(decoded.event, expected);
        prop_assert_eq!(decoded.trace, trace);
    }

    #[test]
    fn a_binary_event_reads_back(
        event in generators::event(), trace in generators::trace(), now in generators::moment(),
    ) {
        let envelope = event_envelope_binary(&event, &trace, now);
        let decoded = decode_event(&envelope, None, &LIMITS);
        let decoded = decoded.map_err(|fault| TestCaseError::fail(fault.to_string()))?;
        let mut expected = event;
        expected.data_content_type = Some(expected.content_type().to_owned());
        prop_assert_eq!(decoded.event, expected);
        prop_assert_eq!(decoded.trace, trace);
    }

    #[test]
    fn whatever_is_published_is_an_event_or_a_rejection(
        body in generators::body(),
        headers in generators::headers(),
        content_type in proptest::option::of("application/(cloudevents\\+json|json)|\\PC{0,20}"),
        key in "\\PC{0,10}",
    ) {
        let properties = Properties { content_type, ..Properties::default() };
        let envelope = Envelope { properties, headers, body };
        if let Err(rejection) = decode_event(&envelope, Some(&key), &LIMITS) {
            prop_assert!(!rejection.detail.is_empty());
        }
    }

    #[test]
    fn a_damaged_event_is_read_or_rejected(
        event in generators::event(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut body = encode_structured(&event).to_vec();
        let at = at.index(body.len());
        body[at] = byte;
        if let Ok(event) = decode_structured_json(&body.into(), None, &LIMITS) {
            prop_assert_eq!(check_event(&event), Ok(()));
        }
    }
}
