//! Producers and receivers that have nothing of ours: pika and the public `standardwebhooks` library.

use fanfare_model::Schedule;
use fanfare_testkit::{Behaviour, Receiver, TestBroker, Version};
use fanfare_tests::{PATIENCE, Pipeline, on_each_rabbitmq, python};

use crate::delivery::event;

on_each_rabbitmq!(
    an_event_from_pika_arrives_and_standardwebhooks_verifies_it,
    pika_reads_a_dead_letter_and_understands_it,
);

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

async fn an_event_from_pika_arrives_and_standardwebhooks_verifies_it(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    let endpoint = pipeline
        .register("t", &receiver.url("/a"), &["*"], |_| {})
        .await;

    let arguments = [pipeline.amqp_url(), "t", "reward.unlocked", "31", TRACE];
    python(
        "publish_event.py",
        &arguments,
        br#"{"reward": {"id": 31, "title": "Free month"}}"#,
    );

    let request = receiver.expect_requests(1, PATIENCE).await.remove(0);
    let secret = endpoint.secrets[0].reveal();
    let arguments = [
        secret.as_str(),
        request.id(),
        request.header("webhook-timestamp"),
        request.header("webhook-signature"),
    ];
    let payload = python("verify_webhook.py", &arguments, &request.body);
    let payload: serde_json::Value = serde_json::from_str(&payload).unwrap();
    assert_eq!(payload["type"], "reward.unlocked");
    assert_eq!(payload["data"]["reward"]["title"], "Free month");
    assert_eq!(request.header("traceparent"), TRACE);
    pipeline.stop().await;
}

async fn pika_reads_a_dead_letter_and_understands_it(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    receiver.behave("/a", Behaviour::status(500));
    let once = Schedule::from_seconds(vec![0]).unwrap();
    let url = receiver.url("/a");
    let endpoint = pipeline
        .register("t", &url, &["*"], |new| new.schedule = once)
        .await;
    pipeline
        .plain_amqp()
        .await
        .publish_event("t.a", &event("1", "a"))
        .await;
    pipeline.expect_depth("fanfare.dead-letters", 1).await;

    let letter = python(
        "read_dead_letter.py",
        &[pipeline.amqp_url(), "fanfare.dead-letters"],
        b"",
    );
    let letter: serde_json::Value = serde_json::from_str(&letter).unwrap();
    let headers = &letter["headers"];
    assert_eq!(headers["x-fanfare-tenant"], "t");
    assert_eq!(headers["x-fanfare-endpoint"], endpoint.id.to_string());
    assert_eq!(headers["x-fanfare-event-type"], "a");
    assert_eq!(headers["x-fanfare-event-id"], "1");
    assert_eq!(headers["x-fanfare-reason"], "exhausted");
    assert_eq!(headers["x-fanfare-attempts"], 1);
    assert_eq!(headers["x-fanfare-last-status"], 500);
    assert_eq!(headers["x-fanfare-last-error"], "the receiver answered 500");
    assert_eq!(letter["body"], r#"{"n": 1}"#);
    // Looking changed nothing.
    pipeline.expect_depth("fanfare.dead-letters", 1).await;
    pipeline.stop().await;
}
