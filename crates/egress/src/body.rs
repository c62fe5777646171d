//! What the body of a request is, in each format.
//!
//! Pure. Sources: Standard Webhooks 1.0, section "Payload structure"; CloudEvents 1.0.2, "HTTP Protocol
//! Binding", sections 3.1 and 3.2.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use fanfare_model::{BodyFormat, Event, Timestamp};
use fanfare_wire::encode_structured;
use serde_json::value::RawValue;

/// A body, and the headers that tell what it is.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) content_type: Option<String>,
    /// The event's attributes, where they are no part of the bytes.
    pub(crate) attributes: Vec<(String, String)>,
    pub(crate) bytes: Bytes,
}

/// Why an event cannot be written in a format.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyFault {
    /// The media type promises JSON.
    #[error("the data is not the JSON that its content type promises")]
    NotJson { source: serde_json::Error },
    /// The media type promises text.
    #[error("the data is not the UTF-8 text that its content type promises")]
    NotText { source: std::str::Utf8Error },
}

/// The event in a format. `first_seen` stands in for the time of an event without one.
pub(crate) fn of(
    event: &Event,
    format: BodyFormat,
    first_seen: Timestamp,
) -> Result<Body, BodyFault> {
    let typed = |content_type: &str, bytes| Body {
        content_type: Some(content_type.to_owned()),
        attributes: Vec::new(),
        bytes,
    };
    let data = || event.data.clone().unwrap_or_default();
    Ok(match format {
        BodyFormat::Standard => typed("application/json", standard(event, first_seen)?),
        BodyFormat::Raw => typed(event.content_type(), data()),
        BodyFormat::CloudEventsStructured => {
            let content_type = "application/cloudevents+json; charset=utf-8";
            typed(content_type, encode_structured(event))
        }
        BodyFormat::CloudEventsBinary => Body {
            content_type: event.data_content_type.clone(),
            attributes: attributes(event),
            bytes: data(),
        },
    })
}

/// The attributes of an event as headers of HTTP.
fn attributes(event: &Event) -> Vec<(String, String)> {
    let texts = [
        ("specversion", Some("1.0")),
        ("id", Some(&*event.id)),
        ("source", Some(&*event.source)),
        ("type", Some(event.event_type.as_str())),
        ("tenant", Some(event.tenant.as_str())),
        ("subject", event.subject.as_deref()),
        ("time", event.time.as_ref().map(|time| time.as_str())),
        ("dataschema", event.data_schema.as_deref()),
    ];
    let texts = texts
        .into_iter()
        .filter_map(|(name, text)| Some((name, Cow::Borrowed(text?))));
    let extensions = event.extensions.iter();
    let extensions = extensions.map(|(name, value)| (name.as_str(), value.as_text()));
    texts
        .chain(extensions)
        .map(|(name, text)| (format!("ce-{name}"), percent_encoded(&text)))
        .collect()
}

/// A text as the value of a header (CloudEvents, "HTTP Protocol Binding", section 3.1.3.2).
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'"' | b'%' => encoded.push_str(&format!("%{byte:02X}")),
            0x21..=0x7e => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// `{"type":…,"timestamp":…,"data":…}`, with JSON data byte for byte as the producer sent it.
fn standard(event: &Event, first_seen: Timestamp) -> Result<Bytes, BodyFault> {
    let timestamp = match &event.time {
        Some(time) => Cow::Borrowed(time.as_str()),
        None => Cow::Owned(first_seen.to_string()),
    };
    let data = data(event)?;
    let mut body = Vec::with_capacity(data.len() + 128);
    body.extend_from_slice(b"{\"type\":");
    body.extend_from_slice(json_text(event.event_type.as_str()).as_bytes());
    body.extend_from_slice(b",\"timestamp\":");
    body.extend_from_slice(json_text(&timestamp).as_bytes());
    body.extend_from_slice(b",\"data\":");
    body.extend_from_slice(&data);
    body.push(b'}');
    Ok(body.into())
}

/// The event's data as a JSON value: JSON as it is, text as a string, anything else as a string of base64.
///
/// The media type alone decides, never the bytes, so that a receiver knows beforehand what it gets.
fn data(event: &Event) -> Result<Cow<'_, [u8]>, BodyFault> {
    let json = event.has_json_data();
    let Some(data) = &event.data else {
        return Ok(Cow::Borrowed(b"null"));
    };
    if json && data.is_empty() {
        // An AMQP message without data still has a body, which is empty.
        Ok(Cow::Borrowed(b"null"))
    } else if json {
        serde_json::from_slice::<&RawValue>(data)
            .map_err(|source| BodyFault::NotJson { source })?;
        Ok(Cow::Borrowed(data))
    } else if is_text(event.content_type()) {
        let text = std::str::from_utf8(data).map_err(|source| BodyFault::NotText { source })?;
        Ok(Cow::Owned(json_text(text).into_bytes()))
    } else {
        Ok(Cow::Owned(json_text(&STANDARD.encode(data)).into_bytes()))
    }
}

/// Whether a media type means text: `text/…`, XML, or a form.
fn is_text(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    essence.starts_with("text/")
        || essence.ends_with("+xml")
        || essence == "application/xml"
        || essence == "application/x-www-form-urlencoded"
}

fn json_text(text: &str) -> String {
    serde_json::to_string(text).expect("text is always JSON")
}

#[cfg(test)]
mod tests {
    use fanfare_model::AttributeValue;
    use proptest::prelude::*;

    use super::*;
    use crate::request::tests::{at, event};

    #[test]
    fn data_becomes_json_by_its_media_type() {
        const HEAD: &str =
            r#"{"type":"reward.unlocked","timestamp":"1970-01-01T00:01:40Z","data":"#;
        for (content_type, data, expected) in [
            (None, None, "null"),
            (Some("text/plain"), None, "null"),
            (None, Some(""), "null"),
            (None, Some("{\"a\": 1.0e2 }"), "{\"a\": 1.0e2 }"),
            (None, Some(" [1,\n2]\t"), " [1,\n2]\t"),
            (
                Some("application/vnd.x+json"),
                Some("\"\\u00e9\""),
                "\"\\u00e9\"",
            ),
            (None, Some("{\"a\":1,\"a\":2}"), "{\"a\":1,\"a\":2}"),
            (Some("text/plain"), Some("a \"b\"\n"), r#""a \"b\"\n""#),
            (Some("Text/Plain; charset=utf-8"), Some(""), "\"\""),
            (Some("application/soap+xml"), Some("<a/>"), "\"<a/>\""),
            (Some("application/octet-stream"), Some("abc"), "\"YWJj\""),
            (Some(""), Some("abc"), "\"YWJj\""),
        ] {
            let event = event(content_type, data.map(str::as_bytes));
            let body = standard(&event, at(100)).unwrap();
            assert_eq!(
                body,
                format!("{HEAD}{expected}}}"),
                "{content_type:?} {data:?}"
            );
        }
    }

    #[test]
    fn data_that_breaks_its_promise_is_not_sent() {
        let json = Some("application/json");
        for data in [
            "{",
            "{}}",
            "nul",
            "{\"a\":1},\"b\":2",
            "\u{feff}{}",
            "{} {}",
        ] {
            let verdict = standard(&event(json, Some(data.as_bytes())), at(0));
            assert!(
                matches!(verdict, Err(BodyFault::NotJson { .. })),
                "{data:?}"
            );
        }
        let verdict = standard(&event(json, Some(b"\"\xff\"")), at(0));
        assert!(matches!(verdict, Err(BodyFault::NotJson { .. })));
        let verdict = standard(&event(Some("text/plain"), Some(b"\xff")), at(0));
        assert!(matches!(verdict, Err(BodyFault::NotText { .. })));
    }

    #[test]
    fn the_time_is_the_events_own_where_it_has_one() {
        let mut event = event(None, None);
        event.time = Some("2026-11-23T15:04:05.120+01:00".parse().unwrap());
        let body = standard(&event, at(100)).unwrap();
        let parsed: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(parsed["timestamp"], "2026-11-23T15:04:05.120+01:00");
    }

    #[test]
    fn a_raw_body_is_the_data_byte_for_byte() {
        for (content_type, data, sent) in [
            (None, Some(&b" {\"a\":\t1}"[..]), "application/json"),
            (Some("application/json"), Some(b"{"), "application/json"),
            (Some("image/png"), Some(b"\xff\x00"), "image/png"),
            (Some("text/plain"), None, "text/plain"),
        ] {
            let body = of(&event(content_type, data), BodyFormat::Raw, at(0)).unwrap();
            assert_eq!(body.bytes, data.unwrap_or_default());
            assert_eq!(body.content_type.as_deref(), Some(sent));
        }
    }

    #[test]
    fn a_binary_cloudevent_has_every_attribute_as_a_header() {
        let mut event = event(Some("image/png"), Some(b"\xff\x00"));
        event.subject = Some("Ünï \"100%\"".to_owned());
        event.time = Some("2026-11-23T15:04:05Z".parse().unwrap());
        let extensions = [
            ("count", AttributeValue::Integer(7)),
            ("flag", AttributeValue::Boolean(true)),
            ("bytes", AttributeValue::Binary(Bytes::from_static(b"\xff"))),
        ];
        event.extensions = extensions
            .map(|(name, value)| (name.to_owned(), value))
            .into();
        let body = of(&event, BodyFormat::CloudEventsBinary, at(0)).unwrap();
        assert_eq!(body.content_type.as_deref(), Some("image/png"));
        assert_eq!(body.bytes, &b"\xff\x00"[..]);
        let expected = [
            ("ce-specversion", "1.0"),
            ("ce-id", "1"),
            ("ce-source", "s"),
            ("ce-type", "reward.unlocked"),
            ("ce-tenant", "t"),
            ("ce-subject", "%C3%9Cn%C3%AF%20%22100%25%22"),
            ("ce-time", "2026-11-23T15:04:05Z"),
            ("ce-bytes", "/w=="),
            ("ce-count", "7"),
            ("ce-flag", "true"),
        ];
        let pairs = body.attributes.iter();
        let pairs = pairs.map(|(name, value)| (name.as_str(), value.as_str()));
        assert_eq!(pairs.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_structured_cloudevent_reads_back_as_it_was() {
        for (content_type, data) in [
            (None, Some(&b"{\"a\":  1}"[..])),
            (Some("text/plain"), Some("grüß".as_bytes())),
            (Some("image/png"), Some(b"\xff\x00")),
            (None, None),
        ] {
            let mut sent = event(content_type, data);
            sent.subject = Some("s".to_owned());
            let body = of(&sent, BodyFormat::CloudEventsStructured, at(0)).unwrap();
            let limits = fanfare_wire::EventLimits::default();
            let read = fanfare_wire::decode_structured_json(&body.bytes, None, &limits);
            assert_eq!(read.unwrap(), sent);
        }
    }

    proptest! {
        #[test]
        fn the_body_is_json_whatever_the_type_and_keeps_the_data(
            event_type in "[!-~&&[^.*#]]{1,40}",
            text in ".{0,40}",
            numbers in proptest::collection::vec(any::<f64>(), 0..9),
        ) {
            let written = serde_json::to_string_pretty(&(&text, numbers)).unwrap();
            let mut event = event(None, Some(written.as_bytes()));
            event.event_type = event_type.parse().unwrap();
            let body = standard(&event, at(0)).unwrap();
            let parsed: serde_json::Value = serde_json::from_slice(&body).unwrap();
            prop_assert_eq!(&parsed["type"], &event_type);
            let tail = [written.as_bytes(), b"}"].concat();
            prop_assert!(body.ends_with(&tail));

            event.data_content_type = Some("text/plain".to_owned());
            event.data = Some(Bytes::from(text.clone()));
            let body = standard(&event, at(0)).unwrap();
            let parsed: serde_json::Value = serde_json::from_slice(&body).unwrap();
            prop_assert_eq!(&parsed["data"], &text);
        }
    }
}
