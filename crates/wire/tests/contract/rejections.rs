//! Published messages that are not accepted, and what their producers are told.

use bytes::Bytes;
use fanfare_model::{AttributeValue, Event, TraceContext};
use fanfare_wire::{
    Envelope, EventLimits, HeaderValue, Properties, RejectionCode, check_event, decode_event,
    decode_structured_json, event_envelope_binary,
};

const LIMITS: EventLimits = EventLimits {
    max_event_bytes: 262_144,
};

fn good() -> Event {
    Event::for_tests("t", "/s", "1", "a.b", b"{}")
}

/// A structured event with one member set to this JSON, or left out.
fn with_member(name: &str, json: Option<&str>) -> Bytes {
    let mut members = vec![
        ("specversion", r#""1.0""#),
        ("id", r#""1""#),
        ("source", r#""/s""#),
        ("type", r#""a.b""#),
        ("tenant", r#""t""#),
    ];
    members.retain(|(known, _)| *known != name);
    if let Some(json) = json {
        members.push((name, json));
    }
    let members: Vec<_> = members
        .iter()
        .map(|(name, json)| format!("\"{name}\":{json}"))
        .collect();
    format!("{{{}}}", members.join(",")).into()
}

#[test]
fn a_structured_event_is_told_which_member_is_wrong() {
    use RejectionCode::{InvalidAttribute, InvalidData, MissingAttribute};
    let long = format!("\"{}\"", "x".repeat(1025));
    for (name, json, code) in [
        ("specversion", None, MissingAttribute),
        ("specversion", Some(r#""0.3""#), InvalidAttribute),
        ("id", None, MissingAttribute),
        ("id", Some("null"), MissingAttribute),
        ("id", Some(r#""""#), InvalidAttribute),
        ("id", Some("7"), InvalidAttribute),
        ("id", Some(r#""a\nb""#), InvalidAttribute),
        ("id", Some(long.as_str()), InvalidAttribute),
        ("source", None, MissingAttribute),
        ("source", Some(r#""""#), InvalidAttribute),
        ("source", Some(long.as_str()), InvalidAttribute),
        ("type", None, MissingAttribute),
        ("type", Some(r#""a..b""#), InvalidAttribute),
        ("tenant", None, MissingAttribute),
        ("tenant", Some(r#""a.b""#), InvalidAttribute),
        ("subject", Some(r#""""#), InvalidAttribute),
        ("time", Some(r#""yesterday""#), InvalidAttribute),
        ("datacontenttype", Some(long.as_str()), InvalidAttribute),
        ("deliverafter", Some(r#""soon""#), InvalidAttribute),
        ("deliverbefore", Some("1700000000"), InvalidAttribute),
        ("Upper", Some("1"), InvalidAttribute),
        ("snake_case", Some("1"), InvalidAttribute),
        ("morethantwentyletters", Some("1"), InvalidAttribute),
        ("", Some("1"), InvalidAttribute),
        ("number", Some("1.5"), InvalidAttribute),
        ("number", Some("2147483648"), InvalidAttribute),
        ("object", Some("{}"), InvalidAttribute),
        ("data_base64", Some(r#""?""#), InvalidData),
        ("data_base64", Some("[]"), InvalidData),
    ] {
        let body = with_member(name, json);
        let rejection = decode_structured_json(&body, None, &LIMITS).expect_err(name);
        assert_eq!(rejection.code, code, "{name} {json:?}: {rejection}");
        assert_eq!(rejection.field.as_deref(), Some(name), "{rejection}");
        let sentence = rejection.to_string();
        assert!(sentence.contains(&format!("`{name}`")), "{sentence}");
    }
}

#[test]
fn a_body_that_is_no_json_object_is_malformed() {
    for body in [
        "",
        "{",
        "[]",
        "\"text\"",
        r#"{"id":"1","id":"2"}"#,
        r#"{"data":1,"data":2}"#,
        "{\"id\":\"\u{1}\"}",
        "{} {}",
    ] {
        let body = Bytes::from_static(body.as_bytes());
        let rejection = decode_structured_json(&body, None, &LIMITS).unwrap_err();
        assert_eq!(rejection.code, RejectionCode::MalformedJson, "{body:?}");
    }
    let not_utf8 = Bytes::from_static(b"{\"data\":\"\xff\"}");
    let rejection = decode_structured_json(&not_utf8, None, &LIMITS).unwrap_err();
    assert_eq!(rejection.code, RejectionCode::MalformedJson);
}

#[test]
fn data_must_be_what_its_media_type_says() {
    for members in [
        r#""data_base64":"e2Jyb2tlbg==""#,
        r#""data_base64":"""#,
        r#""datacontenttype":"text/plain","data":{}"#,
        r#""data":1,"data_base64":"MQ==""#,
    ] {
        let body = format!(
            r#"{{"specversion":"1.0","id":"1","source":"/s","type":"a.b","tenant":"t",{members}}}"#
        );
        let rejection = decode_structured_json(&body.into(), None, &LIMITS).unwrap_err();
        assert_eq!(rejection.code, RejectionCode::InvalidData, "{members}");
    }
    let mut event = good();
    event.data = Some(Bytes::from_static(b"{\"a\":}"));
    let rejection = check_event(&event).unwrap_err();
    assert_eq!(rejection.code, RejectionCode::InvalidData);
}

#[test]
fn a_binary_event_is_told_which_header_is_wrong() {
    let text = |text: &str| HeaderValue::Text(text.to_owned());
    for (header, value, field) in [
        ("cloudEvents_id", HeaderValue::Integer(1), "id"),
        ("cloudEvents:id", text("1"), "id"),
        ("cloudEvents_specversion", text("2.0"), "specversion"),
        (
            "cloudEvents_datacontenttype",
            text("text/plain"),
            "datacontenttype",
        ),
        ("cloudEvents_data", text("x"), "data"),
        ("cloudEvents_Upper", text("x"), "Upper"),
        (
            "cloudEvents_number",
            HeaderValue::Integer(1 << 31),
            "number",
        ),
        ("cloudEvents_table", HeaderValue::Other, "table"),
        (
            "cloudEvents_deliverafter",
            HeaderValue::Timestamp(i64::MAX),
            "deliverafter",
        ),
    ] {
        let now = "2026-11-23T15:04:05Z".parse().unwrap();
        let mut envelope = event_envelope_binary(&good(), &TraceContext::default(), now);
        envelope.headers.insert(header, value);
        let rejection = decode_event(&envelope, None, &LIMITS).expect_err(header);
        assert_eq!(rejection.code, RejectionCode::InvalidAttribute, "{header}");
        assert_eq!(rejection.field.as_deref(), Some(field), "{rejection}");
    }
}

#[test]
fn other_messages_are_told_what_would_be_accepted() {
    for (content_type, code) in [
        (None, RejectionCode::NotACloudEvent),
        (Some("application/json"), RejectionCode::NotACloudEvent),
        (
            Some("application/cloudevents+avro"),
            RejectionCode::UnsupportedMode,
        ),
        // A batch is split before its events are read; inside a batch there is none.
        (
            Some("application/cloudevents-batch+json"),
            RejectionCode::UnsupportedMode,
        ),
        (
            Some("Application/CloudEvents+JSON; charset=utf-8"),
            RejectionCode::MalformedJson,
        ),
    ] {
        let envelope = Envelope {
            properties: Properties {
                content_type: content_type.map(str::to_owned),
                ..Properties::default()
            },
            ..Envelope::default()
        };
        let rejection = decode_event(&envelope, None, &LIMITS).unwrap_err();
        assert_eq!(rejection.code, code, "{content_type:?}: {rejection}");
        if code != RejectionCode::MalformedJson {
            assert!(rejection.detail.contains("application/cloudevents+json"));
        }
    }
}

#[test]
fn only_the_tenants_own_routing_key_is_accepted() {
    let now = "2026-11-23T15:04:05Z".parse().unwrap();
    let envelope = event_envelope_binary(&good(), &TraceContext::default(), now);
    for (key, accepted) in [
        (None, true),
        (Some("t.a.b"), true),
        (Some("t"), true),
        (Some("other.a.b"), false),
        (Some("t2.a.b"), false),
        (Some(""), false),
    ] {
        let verdict = decode_event(&envelope, key, &LIMITS);
        let code = verdict.err().map(|rejection| rejection.code);
        let expected = (!accepted).then_some(RejectionCode::TenantMismatch);
        assert_eq!(code, expected, "{key:?}");
    }
    let body = with_member("id", Some("\"1\""));
    let rejection =
        decode_structured_json(&body, Some(&"other".parse().unwrap()), &LIMITS).unwrap_err();
    assert_eq!(rejection.code, RejectionCode::TenantMismatch);
}

#[test]
fn a_deadline_before_the_schedule_is_refused() {
    let mut event = good();
    for (name, moment) in [
        ("deliverafter", "2026-11-23T15:04:05Z"),
        ("deliverbefore", "2026-11-23T15:04:05Z"),
    ] {
        let moment = AttributeValue::Text(moment.to_owned());
        event.extensions.insert(name.to_owned(), moment);
    }
    let rejection = check_event(&event).unwrap_err();
    assert_eq!(rejection.field.as_deref(), Some("deliverbefore"));
    let later = AttributeValue::Text("2026-11-23T15:04:06Z".to_owned());
    event.extensions.insert("deliverbefore".to_owned(), later);
    assert_eq!(check_event(&event), Ok(()));
}

#[test]
fn an_extension_cannot_pose_as_an_attribute() {
    for name in ["id", "tenant", "data", "specversion", "datacontenttype"] {
        let mut event = good();
        let value = AttributeValue::Text("x".to_owned());
        event.extensions.insert(name.to_owned(), value);
        let rejection = check_event(&event).expect_err(name);
        assert_eq!(rejection.field.as_deref(), Some(name));
    }
}

#[test]
fn size_is_bounded_as_a_whole_and_for_attributes() {
    let now = "2026-11-23T15:04:05Z".parse().unwrap();
    let envelope = event_envelope_binary(&good(), &TraceContext::default(), now);
    let size = envelope.size();
    for (max_event_bytes, accepted) in [(size, true), (size - 1, false)] {
        let verdict = decode_event(&envelope, None, &EventLimits { max_event_bytes });
        let code = verdict.err().map(|rejection| rejection.code);
        assert_eq!(code, (!accepted).then_some(RejectionCode::TooLarge));
    }
    let mut event = good();
    let large = AttributeValue::Text("x".repeat(32_768));
    event.extensions.insert("large".to_owned(), large);
    let rejection = check_event(&event).unwrap_err();
    assert_eq!(rejection.code, RejectionCode::TooLarge);
}

#[test]
fn a_rejection_never_repeats_more_than_a_little_of_the_message() {
    let name = "n".repeat(100_000);
    for body in [with_member(&name, Some("1")), format!("\"{name}\"").into()] {
        let rejection = decode_structured_json(&body, None, &LIMITS).unwrap_err();
        assert!(rejection.detail.chars().count() <= 500, "{rejection}");
        assert!(rejection.field.is_none_or(|field| field.len() <= 64));
    }
}
