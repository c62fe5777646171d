//! What becomes of events.

use std::time::Duration;

use fanfare_model::{AttributeValue, Event, TraceContext};
use fanfare_testkit::{TestBroker, Version, eventually};
use fanfare_wire::{EventLimits, decode_event, encode_structured, event_envelope_protobuf};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Server, problem};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn event() -> Value {
    json!({
        "specversion": "1.0",
        "source": "https://example.com/rewards",
        "type": "reward.unlocked",
        "data": {"reward": 31},
    })
}

#[tokio::test]
async fn an_accepted_event_is_in_the_queue_with_its_trace() {
    let rabbit = TestBroker::new(Version::V4_3);
    let server = Server::start(&rabbit.settings(), |api| {
        api.settings.request_timeout = Duration::from_secs(60);
    })
    .await;
    let mut with_id = event();
    with_id["id"] = json!("2");
    let mut ids = Vec::new();
    for (event, key) in [
        (event(), Some("1")),
        (with_id.clone(), None),
        (with_id, Some("2")),
        (event(), None),
    ] {
        let mut request = server.publish(&event).header("traceparent", TRACE);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 202);
        let accepted: Value = response.json().await.unwrap();
        assert_eq!(accepted["source"], event["source"]);
        assert_eq!(accepted["type"], event["type"]);
        assert_eq!(accepted["tenant"], "t");
        ids.push(accepted["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids[..3], ["1", "2", "2"]);
    assert_eq!(ids[3].len(), 36);

    let queue = rabbit.topology().events_queue();
    let stored = server.broker.peek(&queue, 10).await.unwrap();
    let limits = EventLimits::default();
    let mut stored_ids = Vec::new();
    for envelope in &stored {
        let decoded = decode_event(envelope, Some("t.reward.unlocked"), &limits).unwrap();
        assert_eq!(decoded.trace.traceparent.as_deref(), Some(TRACE));
        assert_eq!(
            decoded.event.data.as_deref(),
            Some(&br#"{"reward":31}"#[..])
        );
        stored_ids.push(decoded.event.id);
    }
    assert_eq!(stored_ids, ids);
    server.broker.close().await;
}

#[tokio::test]
async fn a_full_queue_is_told_as_too_many_requests() {
    let rabbit = TestBroker::new(Version::V4_3);
    let settings = fanfare_broker::Settings {
        events_max_bytes: 1000,
        ..rabbit.settings()
    };
    let server = Server::start(&settings, |api| {
        api.settings.request_timeout = Duration::from_secs(60);
    })
    .await;
    let mut large = event();
    large["data"] = json!("x".repeat(900));
    let refused = eventually(Duration::from_secs(30), "a refusal", async || {
        let response = server.publish(&large).send().await.unwrap();
        (response.status() != 202).then_some(response)
    });
    let refused = refused.await;
    assert_eq!(refused.headers()["retry-after"], "1");
    let (status, code, _) = problem(refused).await;
    assert_eq!((status, &*code), (429, "overloaded"));
    server.broker.close().await;
}

#[tokio::test]
async fn without_rabbitmq_the_caller_is_told_the_id_to_repeat_with() {
    let server = Server::without_broker().await;
    for key in [Some("mine"), None] {
        let request = server.publish(&event());
        let request = match key {
            Some(key) => request.header("idempotency-key", key),
            None => request,
        };
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "1");
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["code"], "unconfirmed");
        let id = body["event_id"].as_str().unwrap();
        assert_eq!(id.len(), key.map_or(36, str::len), "{id}");
    }
}

#[tokio::test]
async fn every_mode_of_a_cloudevent_is_taken_in_and_its_data_is_unchanged() {
    let rabbit = TestBroker::new(Version::V4_3);
    let server = Server::start(&rabbit.settings(), |api| {
        api.settings.request_timeout = Duration::from_secs(60);
    })
    .await;
    let mut expected = Event::for_tests("t", "/s", "1", "reward.unlocked", b"\x00\xff{");
    expected.data_content_type = Some("application/octet-stream".to_owned());
    let flag = AttributeValue::Text("a \u{20ac}".to_owned());
    expected.extensions.insert("flag".to_owned(), flag);
    let now = "2026-11-23T15:04:05Z".parse().unwrap();
    let protobuf = event_envelope_protobuf(&expected, &TraceContext::default(), now).body;
    let post = |content_type: &str, body: bytes::Bytes| {
        let request = server.call(Method::POST, "/v1/tenants/t/events");
        request.header("content-type", content_type).body(body)
    };
    let binary = post("application/octet-stream", expected.data.clone().unwrap())
        .header("ce-specversion", "1.0")
        .header("ce-source", "/s")
        .header("ce-type", "reward.unlocked")
        .header("ce-flag", "a%20%E2%82%AC")
        .header("idempotency-key", "1");
    for request in [
        post("application/cloudevents+json", encode_structured(&expected)),
        post("application/cloudevents+protobuf", protobuf),
        binary,
    ] {
        let response = request.send().await.unwrap();
        let status = response.status();
        assert_eq!(status, 202, "{}", response.text().await.unwrap());
    }
    let queue = rabbit.topology().events_queue();
    let stored = server.broker.peek(&queue, 10).await.unwrap();
    assert_eq!(stored.len(), 3);
    for envelope in &stored {
        let decoded = decode_event(envelope, None, &EventLimits::default()).unwrap();
        assert_eq!(decoded.event, expected);
    }
    server.broker.close().await;
}

#[tokio::test]
async fn each_event_of_a_batch_is_stored_or_refused_by_itself() {
    let rabbit = TestBroker::new(Version::V4_3);
    let server = Server::start(&rabbit.settings(), |api| {
        api.settings.request_timeout = Duration::from_secs(60);
    })
    .await;
    let publish = |events: Value| {
        server
            .call(Method::POST, "/v1/tenants/t/events")
            .header("content-type", "application/cloudevents-batch+json")
            .header("idempotency-key", "key")
            .body(events.to_string())
            .send()
    };
    let mut with_id = event();
    with_id["id"] = json!("mine");
    let whole = publish(json!([event(), with_id])).await.unwrap();
    assert_eq!(whole.status(), 202);
    let whole: Value = whole.json().await.unwrap();
    let ids = |body: &Value| -> Vec<Value> {
        let events = body["events"].as_array().unwrap().iter();
        events.map(|item| item["event"]["id"].clone()).collect()
    };
    assert_eq!(ids(&whole), [json!("key.0"), json!("mine")]);

    let mut other_tenant = event();
    other_tenant["tenant"] = json!("u");
    let partly = publish(json!([{}, event(), other_tenant])).await.unwrap();
    assert_eq!(partly.status(), 400);
    let partly: Value = partly.json().await.unwrap();
    assert_eq!(partly["code"], "batch_rejected");
    assert_eq!(ids(&partly), [json!(null), json!("key.1"), json!(null)]);
    let items = &partly["events"];
    assert_eq!(items[0]["status"], 400);
    assert_eq!(items[0]["code"], "missing_attribute");
    assert_eq!(items[0]["errors"][0]["field"], "specversion");
    assert_eq!(items[1]["status"], 202);
    assert_eq!(items[2]["code"], "tenant_mismatch");

    let empty = publish(json!([])).await.unwrap();
    assert_eq!(empty.status(), 202);
    let queue = rabbit.topology().events_queue();
    let stored = server.broker.peek(&queue, 10).await.unwrap();
    assert_eq!(stored.len(), 3);
    server.broker.close().await;
}

#[tokio::test]
async fn a_batch_without_rabbitmq_is_to_be_repeated() {
    let server = Server::without_broker().await;
    let request = server.call(Method::POST, "/v1/tenants/t/events");
    let response = request
        .header("content-type", "application/cloudevents-batch+json")
        .body(json!([event(), {}]).to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "1");
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["code"], "batch_unfinished");
    assert_eq!(body["events"][0]["code"], "unconfirmed");
    assert_eq!(body["events"][0]["event_id"].as_str().unwrap().len(), 36);
    assert_eq!(body["events"][1]["status"], 400);
}
