//! What becomes of events.

use std::time::Duration;

use fanfare_testkit::{TestBroker, Version, eventually};
use fanfare_wire::{EventLimits, decode_event};
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
