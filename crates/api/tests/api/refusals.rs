//! Requests that are not carried out.

use reqwest::{Method, header::HeaderName};
use serde_json::json;

use crate::support::{Server, problem};

const EVENTS: &str = "/v1/tenants/t/events";
const ENDPOINTS: &str = "/v1/tenants/t/endpoints";
const EVENT: &str = r#"{"specversion":"1.0","id":"1","source":"s","type":"a.b"}"#;

async fn check(
    server: &Server,
    (method, path): (Method, &str),
    (media_type, body): (&str, &str),
    (status, code, field): (u16, &str, &str),
) {
    let mut request = server.call(method.clone(), path).body(body.to_owned());
    if !media_type.is_empty() {
        request = request.header("content-type", media_type);
    }
    let response = request.send().await.unwrap();
    let fields: Vec<_> = [field.to_owned()]
        .into_iter()
        .filter(|f| !f.is_empty())
        .collect();
    let expected = (status, code.to_owned(), fields);
    assert_eq!(
        problem(response).await,
        expected,
        "{method} {path} {body:.300}"
    );
}

#[tokio::test]
async fn an_event_that_is_not_accepted_is_refused_with_its_reason() {
    let server = Server::without_broker().await;
    let long = format!(r#"{{"data":"{}"}}"#, "x".repeat(270_000));
    let too_long = "x".repeat(1_300_000);
    let ce = "application/cloudevents+json";
    for (media_type, body, expected) in [
        ("", EVENT, (415, "unsupported_media_type", "Content-Type")),
        (
            "text/plain",
            EVENT,
            (415, "unsupported_media_type", "Content-Type"),
        ),
        (ce, "", (400, "malformed_json", "")),
        (ce, "[]", (400, "malformed_json", "")),
        (
            "application/json; charset=utf-8",
            "{",
            (400, "malformed_json", ""),
        ),
        (ce, "{}", (400, "missing_attribute", "specversion")),
        (ce, r#"{"id":"1","id":"2"}"#, (400, "malformed_json", "")),
        (
            ce,
            r#"{"specversion":"1.0","id":"1","type":"a"}"#,
            (400, "missing_attribute", "source"),
        ),
        (
            ce,
            r#"{"specversion":"1.0","source":"s","type":"a b"}"#,
            (400, "invalid_attribute", "type"),
        ),
        (
            ce,
            r#"{"specversion":"1.0","id":"1","source":"s","type":"a","tenant":"u"}"#,
            (400, "tenant_mismatch", "tenant"),
        ),
        (ce, &long, (413, "too_large", "")),
        (ce, &too_long, (413, "too_large", "")),
    ] {
        check(
            &server,
            (Method::POST, EVENTS),
            (media_type, body),
            expected,
        )
        .await;
    }
}

#[tokio::test]
async fn an_event_in_another_mode_is_refused_with_its_reason() {
    let server = Server::without_broker().await;
    for (media_type, body, expected) in [
        (
            "application/cloudevents+avro",
            "[]",
            (415, "unsupported_media_type", "Content-Type"),
        ),
        (
            "application/cloudevents-batch+json",
            "{}",
            (400, "malformed_json", ""),
        ),
        (
            "application/cloudevents-batch+json",
            "[{}, 1]",
            (400, "batch_rejected", ""),
        ),
        (
            "application/cloudevents+protobuf",
            "\u{0}",
            (400, "malformed_protobuf", ""),
        ),
    ] {
        let place = (Method::POST, EVENTS);
        check(&server, place, (media_type, body), expected).await;
    }
}

#[tokio::test]
async fn an_idempotency_key_that_does_not_fit_is_refused() {
    let server = Server::without_broker().await;
    for (key, code) in [
        ("2", "idempotency_key_mismatch"),
        ("", "invalid_request"),
        (&*"x".repeat(256), "invalid_request"),
    ] {
        let request = server.publish(&serde_json::from_str(EVENT).unwrap());
        let response = request.header("idempotency-key", key).send().await.unwrap();
        let expected = (400, code.to_owned(), vec!["Idempotency-Key".to_owned()]);
        assert_eq!(problem(response).await, expected, "{key:?}");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_not_accepted_is_refused_naming_the_member() {
    let server = Server::without_broker().await;
    for (member, value) in [
        ("url", json!("https://127.0.0.1/")),
        ("url", json!("http://[::1]/")),
        ("url", json!("https://localhost/")),
        ("url", json!("https://example.com:22/")),
        ("url", json!("ftp://example.com/")),
        ("url", json!("https://user:password@example.com/")),
        ("url", json!(null)),
        ("url", json!(5)),
        ("event_types", json!(null)),
        ("event_types", json!([])),
        ("event_types[0]", json!(["a*"])),
        ("description", json!("x".repeat(501))),
        ("rate", json!("50")),
        ("max_in_flight", json!(0)),
        ("max_in_flight", json!("many")),
        ("timeout", json!(31)),
        ("timeout", json!(-1)),
        ("schedule", json!([])),
        (
            "schedule",
            json!({"base": 5, "factor": 2, "cap": 1, "attempts": 3}),
        ),
        ("disable_after", json!({"failing_for": 0})),
        ("success", json!("ok")),
        ("permanent", json!("99")),
        ("headers", json!([])),
        ("headers.x", json!({"x": 5})),
        ("headers.host", json!({"host": "x"})),
        ("headers.x-a", json!({"X-A": "1", "x-a": "2"})),
        ("secret", json!("whsec_short")),
        ("secret", json!(5)),
        ("colour", json!("red")),
    ] {
        let mut body = json!({"url": "https://example.com/", "event_types": ["*"]});
        let name = member.split(['.', '[']).next().unwrap();
        body[name] = value;
        let expected = (400, "invalid_request", member);
        let sent = ("application/json", &*body.to_string());
        check(&server, (Method::POST, ENDPOINTS), sent, expected).await;
    }
    for (body, code, field) in [
        ("{", "malformed_json", ""),
        ("{} {}", "malformed_json", ""),
        ("[]", "invalid_request", ""),
        (
            r#"{"url":"https://a.b/","url":"https://c.d/"}"#,
            "invalid_request",
            "url",
        ),
    ] {
        let sent = ("application/json", body);
        check(&server, (Method::POST, ENDPOINTS), sent, (400, code, field)).await;
    }
    let sent = ("text/plain", "{}");
    let expected = (415, "unsupported_media_type", "Content-Type");
    check(&server, (Method::POST, ENDPOINTS), sent, expected).await;
    let listed = server.get(ENDPOINTS).await.text().await.unwrap();
    assert_eq!(listed, r#"{"items":[],"next":null}"#);
}

#[tokio::test]
async fn paths_and_queries_that_lead_nowhere_are_refused() {
    let server = Server::without_broker().await;
    let absent = "/v1/tenants/t/endpoints/ep_00000000000000000000000000000001";
    for (method, path, expected) in [
        (Method::GET, "/", (404, "no_such_route", "")),
        (Method::GET, "/v1/tenants", (404, "no_such_route", "")),
        (Method::DELETE, EVENTS, (405, "method_not_allowed", "")),
        (Method::GET, absent, (404, "no_such_endpoint", "")),
        (Method::DELETE, absent, (404, "no_such_endpoint", "")),
        (
            Method::GET,
            "/v1/tenants/t/endpoints/ep_1",
            (400, "invalid_request", "endpoint"),
        ),
        (
            Method::GET,
            "/v1/tenants/t.u/endpoints",
            (400, "invalid_request", "tenant"),
        ),
        (
            Method::GET,
            "/v1/tenants/%ff/endpoints",
            (400, "invalid_request", "tenant"),
        ),
        (
            Method::GET,
            "/v1/tenants/t/endpoints?limit=0",
            (400, "invalid_request", "limit"),
        ),
        (
            Method::GET,
            "/v1/tenants/t/endpoints?limit=201",
            (400, "invalid_request", "limit"),
        ),
        (
            Method::GET,
            "/v1/tenants/t/endpoints?after=x",
            (400, "invalid_request", "after"),
        ),
        (
            Method::GET,
            "/v1/tenants/t/endpoints?page=2",
            (400, "invalid_request", "page"),
        ),
    ] {
        check(&server, (method, path), ("", ""), expected).await;
    }
    let response = server.call(Method::DELETE, EVENTS).send().await.unwrap();
    assert_eq!(response.headers()["allow"], "POST,GET,HEAD");
}

#[tokio::test]
async fn nothing_of_a_tenant_is_told_without_a_key() {
    let server = Server::without_broker().await;
    let unknown = format!("Bearer ffk_{}", "A".repeat(43));
    let known = server.key.clone();
    for authorization in [
        String::new(),
        known.clone(),
        format!("Basic {known}"),
        "Bearer".to_owned(),
        format!("Bearer {known}x"),
        format!("Bearer ffk_{}", "A".repeat(10_000)),
        unknown,
    ] {
        for path in [EVENTS, ENDPOINTS] {
            let request = server.call_without_key(Method::POST, path);
            let name = HeaderName::from_static("authorization");
            let response = request.header(name, &authorization).send().await.unwrap();
            let scheme = response.headers().get("www-authenticate").cloned();
            assert_eq!(scheme.unwrap(), r#"Bearer realm="fanfare""#);
            let expected = (
                401,
                "unauthorized".to_owned(),
                vec!["Authorization".to_owned()],
            );
            assert_eq!(problem(response).await, expected, "{authorization:.20}");
        }
    }
    let request = server.call_without_key(Method::GET, ENDPOINTS);
    let response = request.header("authorization", format!("bearer {known}"));
    assert_eq!(response.send().await.unwrap().status(), 200);
}
