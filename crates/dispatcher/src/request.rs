//! Builds the signed request for a delivery.
//!
//! Pure. The `standard` format: Standard Webhooks 1.0, sections "Payload structure" and "Webhook headers".

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use fanfare_model::{Delivery, Endpoint, Event, TargetUrl, Timestamp, sign_standard};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::value::RawValue;

/// A request that is ready to be sent, and is signed as it stands.
#[derive(Debug)]
pub(crate) struct SignedRequest {
    /// Where it goes.
    pub(crate) target: TargetUrl,
    /// Its headers, but the ones that belong to the connection or to Fanfare as a client.
    pub(crate) headers: HeaderMap,
    /// Its body: the signature covers exactly these bytes.
    pub(crate) body: Bytes,
}

/// Why no request can be built from a delivery.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildFault {
    /// The media type promises JSON.
    #[error("the data is not the JSON that its content type promises")]
    NotJson { source: serde_json::Error },
    /// The media type promises text.
    #[error("the data is not the UTF-8 text that its content type promises")]
    NotText { source: std::str::Utf8Error },
    /// Receivers could not tell the request from a forged one.
    #[error("the endpoint has no secret to sign with")]
    NoSecret,
    /// Something that HTTP does not carry.
    #[error("the value of header `{name}` cannot be sent")]
    Header { name: String },
}

/// Builds the request for the attempt that starts `now`.
pub(crate) fn build(
    endpoint: &Endpoint,
    delivery: &Delivery,
    now: Timestamp,
) -> Result<SignedRequest, BuildFault> {
    if endpoint.secrets.is_empty() {
        return Err(BuildFault::NoSecret);
    }
    let body = body(&delivery.event, delivery.first_seen)?;
    let id = delivery.id.to_string();
    let seconds = now.as_second().to_string();
    let signature = sign_standard(&endpoint.secrets, &id, now, &body);

    let mut headers = HeaderMap::new();
    for field in &endpoint.headers {
        let mut value = header_value(field.name(), field.value())?;
        // It may be a credential: this keeps it out of debug output and out of HPACK's table.
        value.set_sensitive(true);
        let name = HeaderName::from_bytes(field.name().as_bytes())
            .expect("the name of a header field is a token");
        headers.append(name, value);
    }
    // Ours come last and replace, so that no added header can pose as one.
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let trace = &delivery.trace;
    for (name, value) in [
        ("webhook-id", Some(id.as_str())),
        ("webhook-timestamp", Some(seconds.as_str())),
        ("webhook-signature", Some(signature.as_str())),
        ("traceparent", trace.traceparent.as_deref()),
        ("tracestate", trace.tracestate.as_deref()),
    ] {
        if let Some(value) = value {
            headers.insert(name, header_value(name, value)?);
        }
    }
    Ok(SignedRequest {
        target: endpoint.url.clone(),
        headers,
        body,
    })
}

fn header_value(name: &str, value: &str) -> Result<HeaderValue, BuildFault> {
    HeaderValue::from_str(value).map_err(|_| BuildFault::Header {
        name: name.to_owned(),
    })
}

/// `{"type":…,"timestamp":…,"data":…}`, with JSON data byte for byte as the producer sent it.
fn body(event: &Event, first_seen: Timestamp) -> Result<Bytes, BuildFault> {
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
fn data(event: &Event) -> Result<Cow<'_, [u8]>, BuildFault> {
    let json = event.has_json_data();
    let Some(data) = &event.data else {
        return Ok(Cow::Borrowed(b"null"));
    };
    if json && data.is_empty() {
        // An AMQP message without data still has a body, which is empty.
        Ok(Cow::Borrowed(b"null"))
    } else if json {
        serde_json::from_slice::<&RawValue>(data)
            .map_err(|source| BuildFault::NotJson { source })?;
        Ok(Cow::Borrowed(data))
    } else if is_text(event.content_type()) {
        let text = std::str::from_utf8(data).map_err(|source| BuildFault::NotText { source })?;
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
pub(crate) mod tests {
    use std::{sync::Arc, time::Duration};

    use fanfare_model::{
        DisableAfter, EndpointId, EndpointState, HeaderField, Schedule, SigningSecret, StatusSet,
        TraceContext, verify_standard,
    };
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    pub(crate) fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// An endpoint at this URL, with one secret and nothing else out of the ordinary.
    pub(crate) fn endpoint(url: &str) -> Endpoint {
        Endpoint {
            id: EndpointId::from_uuid(Uuid::from_u128(1)),
            tenant: "t".parse().unwrap(),
            url: url.parse().unwrap(),
            description: String::new(),
            event_types: vec!["*".parse().unwrap()],
            state: EndpointState::Active,
            rate: None,
            max_in_flight: Endpoint::DEFAULT_MAX_IN_FLIGHT,
            timeout: Endpoint::DEFAULT_TIMEOUT,
            schedule: Schedule::default(),
            success: StatusSet::success(),
            permanent: StatusSet::none(),
            disable_after: DisableAfter::default(),
            headers: Vec::new(),
            secrets: vec![SigningSecret::generate()],
            created_at: at(0),
            updated_at: at(0),
        }
    }

    pub(crate) fn delivery(event: Event) -> Delivery {
        let id = EndpointId::from_uuid(Uuid::from_u128(1));
        Delivery::new(Arc::new(event), id, 1, TraceContext::default(), at(100))
    }

    fn event(content_type: Option<&str>, data: Option<&[u8]>) -> Event {
        let mut event = Event::for_tests("t", "s", "1", "reward.unlocked", b"");
        event.data_content_type = content_type.map(str::to_owned);
        event.data = data.map(Bytes::copy_from_slice);
        event
    }

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
            let body = body(&event, at(100)).unwrap();
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
            let verdict = body(&event(json, Some(data.as_bytes())), at(0));
            assert!(
                matches!(verdict, Err(BuildFault::NotJson { .. })),
                "{data:?}"
            );
        }
        let verdict = body(&event(json, Some(b"\"\xff\"")), at(0));
        assert!(matches!(verdict, Err(BuildFault::NotJson { .. })));
        let verdict = body(&event(Some("text/plain"), Some(b"\xff")), at(0));
        assert!(matches!(verdict, Err(BuildFault::NotText { .. })));
    }

    #[test]
    fn the_time_is_the_events_own_where_it_has_one() {
        let mut event = event(None, None);
        event.time = Some("2026-11-23T15:04:05.120+01:00".parse().unwrap());
        let body = body(&event, at(100)).unwrap();
        let parsed: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(parsed["timestamp"], "2026-11-23T15:04:05.120+01:00");
    }

    #[test]
    fn headers_identify_sign_and_trace_the_request() {
        let mut endpoint = endpoint("https://a.example/hooks");
        endpoint.headers = vec![HeaderField::new("Authorization", "Bearer x").unwrap()];
        endpoint.secrets.push(SigningSecret::generate());
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut delivery = delivery(event(None, Some(b"{}")));
        delivery.trace = TraceContext::from_headers(Some(parent), Some("a=b"));
        let request = build(&endpoint, &delivery, at(1_000_000)).unwrap();

        let header = |name: &str| request.headers[name].to_str().unwrap();
        for (name, value) in [
            ("content-type", "application/json"),
            ("webhook-id", &delivery.id.to_string()),
            ("webhook-timestamp", "1000000"),
            ("authorization", "Bearer x"),
            ("traceparent", parent),
            ("tracestate", "a=b"),
        ] {
            assert_eq!(header(name), value, "{name}");
        }
        assert_eq!(request.headers.len(), 7);
        assert!(!format!("{request:?}").contains("Bearer"));
        for secret in &endpoint.secrets {
            let signed = (
                header("webhook-id"),
                header("webhook-timestamp"),
                header("webhook-signature"),
            );
            let verdict =
                verify_standard(secret, signed, &request.body, at(1_000_000), Duration::ZERO);
            assert_eq!(verdict, Ok(()));
        }
    }

    #[test]
    fn what_cannot_be_signed_or_sent_is_not_built() {
        let mut unsigned = endpoint("https://a.example/");
        unsigned.secrets.clear();
        let mut traced = delivery(event(None, None));
        let verdict = build(&unsigned, &traced, at(0));
        assert!(matches!(verdict, Err(BuildFault::NoSecret)));

        traced.trace.traceparent = Some("x\r\ny: z".to_owned());
        let verdict = build(&endpoint("https://a.example/"), &traced, at(0));
        assert!(matches!(verdict, Err(BuildFault::Header { .. })));
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
            let body = body(&event, at(0)).unwrap();
            let parsed: serde_json::Value = serde_json::from_slice(&body).unwrap();
            prop_assert_eq!(&parsed["type"], &event_type);
            let tail = [written.as_bytes(), b"}"].concat();
            prop_assert!(body.ends_with(&tail));

            event.data_content_type = Some("text/plain".to_owned());
            event.data = Some(Bytes::from(text.clone()));
            let body = super::body(&event, at(0)).unwrap();
            let parsed: serde_json::Value = serde_json::from_slice(&body).unwrap();
            prop_assert_eq!(&parsed["data"], &text);
        }
    }
}
