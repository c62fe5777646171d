//! Builds the signed request for a delivery.
//!
//! Pure. What its body is, `body.rs` knows.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use fanfare_model::{
    Auth, Delivery, Endpoint, RequestOrigin, Secret, TargetUrl, TemplateFault, Timestamp,
};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use crate::body::{self, Body, BodyFault};

/// As many as the common formats have, with room for the ones that the client adds.
const COMMON_HEADERS: usize = 16;

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
    /// The data does not fit the format of the endpoint.
    #[error(transparent)]
    Body(#[from] BodyFault),
    /// The template of the endpoint cannot be rendered for this event.
    #[error(transparent)]
    Template(#[from] TemplateFault),
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
    if endpoint.signing_secrets(now).next().is_none() {
        return Err(BuildFault::NoSecret);
    }
    let id = delivery.id.to_string();
    let body = body(endpoint, delivery, &id)?;
    let seconds = now.as_second().to_string();
    let secrets = endpoint.signing_secrets(now);
    let signatures = endpoint.signature.sign(secrets, &id, now, &body.bytes);

    let mut headers = HeaderMap::with_capacity(COMMON_HEADERS + endpoint.headers.len());
    for field in &endpoint.headers {
        let mut value = header_value(field.name(), field.value())?;
        // It may be a credential: this keeps it out of debug output and out of HPACK's table.
        value.set_sensitive(true);
        headers.append(header_name(field.name())?, value);
    }
    if let Some(proof) = proof(endpoint.auth.as_deref()) {
        let mut value = header_value("authorization", proof.expose())?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    // Ours come last and replace, so that no added header can pose as one.
    let trace = &delivery.trace;
    let ours = [
        ("content-type", body.content_type.as_deref()),
        (
            "origin",
            endpoint.request_origin.as_ref().map(RequestOrigin::as_str),
        ),
        ("webhook-id", Some(id.as_str())),
        ("webhook-timestamp", Some(seconds.as_str())),
        ("traceparent", trace.traceparent.as_deref()),
        ("tracestate", trace.tracestate.as_deref()),
    ];
    let ours = ours
        .iter()
        .filter_map(|(name, value)| Some((*name, (*value)?)));
    let signatures = signatures
        .iter()
        .map(|(name, value)| (*name, value.as_str()));
    let attributes = body.attributes.iter();
    let attributes = attributes.map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in ours.chain(signatures).chain(attributes) {
        headers.insert(header_name(name)?, header_value(name, value)?);
    }
    Ok(SignedRequest {
        target: endpoint.url.clone(),
        headers,
        body: body.bytes,
    })
}

/// What the endpoint's template makes of the event, or else the event in the endpoint's format.
fn body(endpoint: &Endpoint, delivery: &Delivery, id: &str) -> Result<Body, BuildFault> {
    let (event, first_seen) = (&delivery.event, delivery.first_seen);
    let Some(template) = &endpoint.template else {
        return Ok(body::of(event, endpoint.format, first_seen)?);
    };
    let rendered = template.render(event, id, first_seen)?;
    Ok(Body {
        content_type: Some(rendered.media_type),
        attributes: Vec::new(),
        bytes: rendered.body.into(),
    })
}

/// What proves who calls, where that needs no one to be asked.
fn proof(auth: Option<&Auth>) -> Option<Secret> {
    match auth? {
        Auth::Basic { username, password } => {
            let pair = Secret::new(format!("{username}:{}", password.expose()));
            let encoded = STANDARD.encode(pair.expose());
            Some(Secret::new(format!("Basic {encoded}")))
        }
        Auth::Bearer { token } => Some(Secret::new(format!("Bearer {}", token.expose()))),
        Auth::OAuth2(_) => None,
    }
}

fn header_name(name: &str) -> Result<HeaderName, BuildFault> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| BuildFault::Header {
        name: name.to_owned(),
    })
}

fn header_value(name: &str, value: &str) -> Result<HeaderValue, BuildFault> {
    HeaderValue::from_str(value).map_err(|_| BuildFault::Header {
        name: name.to_owned(),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{sync::Arc, time::Duration};

    use fanfare_model::{
        EndpointId, Event, HeaderField, RetiringSecret, SigningSecret, TraceContext,
        verify_standard,
    };
    use uuid::Uuid;

    use super::*;

    pub(crate) fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// An endpoint at this URL, with one secret and nothing else out of the ordinary.
    pub(crate) fn endpoint(url: &str) -> Endpoint {
        Endpoint::for_tests(1, "t", url)
    }

    pub(crate) fn delivery(event: Event) -> Delivery {
        let id = EndpointId::from_uuid(Uuid::from_u128(1));
        Delivery::new(Arc::new(event), id, 1, TraceContext::default(), at(100))
    }

    pub(crate) fn event(content_type: Option<&str>, data: Option<&[u8]>) -> Event {
        let mut event = Event::for_tests("t", "s", "1", "reward.unlocked", b"");
        event.data_content_type = content_type.map(str::to_owned);
        event.data = data.map(Bytes::copy_from_slice);
        event
    }

    #[test]
    fn headers_identify_sign_and_trace_the_request() {
        let mut endpoint = endpoint("https://a.example/hooks");
        endpoint.headers = vec![HeaderField::new("Authorization", "Bearer x").unwrap()];
        endpoint.secrets.push(SigningSecret::generate_private());
        endpoint.retiring = vec![RetiringSecret {
            secret: SigningSecret::generate(),
            until: at(1_000_001),
        }];
        endpoint.request_origin = Some("events.example.com".parse().unwrap());
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
            ("origin", "events.example.com"),
        ] {
            assert_eq!(header(name), value, "{name}");
        }
        assert_eq!(request.headers.len(), 8);
        assert!(!format!("{request:?}").contains("Bearer"));
        for secret in endpoint.signing_secrets(at(1_000_000)) {
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
    fn a_template_makes_the_body_that_is_signed() {
        let mut endpoint = endpoint("https://a.example/hooks");
        let form =
            r#"{"source": "n={{ data.n }}", "media_type": "application/x-www-form-urlencoded"}"#;
        endpoint.template = Some(serde_json::from_str(form).unwrap());
        let mut delivery = delivery(event(None, Some(br#"{"n": "a&b"}"#)));
        let request = build(&endpoint, &delivery, at(0)).unwrap();
        assert_eq!(request.body, "n=a%26b");
        let media_type = &request.headers["content-type"];
        assert_eq!(media_type, "application/x-www-form-urlencoded");

        delivery.event = Arc::new(event(None, Some(b"{}")));
        let fault = build(&endpoint, &delivery, at(0)).unwrap_err();
        let expected = "template, line 1, column 6: ";
        assert!(fault.to_string().starts_with(expected), "{fault}");
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

    #[test]
    fn other_senders_headers_stand_beside_ours() {
        for (scheme, header) in [
            ("github", "x-hub-signature-256"),
            ("stripe", "stripe-signature"),
            ("custom(header=x-a,timestamp=x-b)", "x-b"),
        ] {
            let mut endpoint = endpoint("https://a.example/hooks");
            endpoint.signature = scheme.parse().unwrap();
            endpoint.secrets = vec![SigningSecret::generate_text()];
            let delivery = delivery(event(None, Some(b"{}")));
            let request = build(&endpoint, &delivery, at(1_000_000)).unwrap();
            assert!(request.headers.contains_key(header), "{scheme}");
            assert!(request.headers.contains_key("webhook-id"));
            assert!(!request.headers.contains_key("webhook-signature"));
        }
    }

    #[test]
    fn credentials_are_sent_and_never_printed() {
        for (auth, sent) in [
            (
                r#"{"kind":"basic","username":"u","password":"hunter2"}"#,
                "Basic dTpodW50ZXIy",
            ),
            (r#"{"kind":"bearer","token":"hunter2"}"#, "Bearer hunter2"),
        ] {
            let mut endpoint = endpoint("https://a.example/");
            endpoint.auth = Some(serde_json::from_str(auth).unwrap());
            let request = build(&endpoint, &delivery(event(None, None)), at(0)).unwrap();
            assert_eq!(request.headers["authorization"], sent);
            let printed = format!("{request:?}");
            assert!(
                !printed.contains("hunter2") && !printed.contains("dTpod"),
                "{printed}"
            );
        }
    }
}
