//! The way of an event through the whole program.

use std::time::Duration;

use fanfare_cli::Ending;
use fanfare_model::{DisabledReason, EndpointState, Schedule};
use fanfare_testkit::{Behaviour, Receiver, TestBroker, Version, eventually};
use fanfare_tests::{PATIENCE, Pipeline, on_each_rabbitmq};

on_each_rabbitmq!(
    an_event_reaches_every_endpoint_that_wants_it_signed_and_traced,
    a_failing_endpoint_is_retried_and_ends_as_a_dead_letter,
    a_410_ends_at_once_and_a_disabled_endpoint_keeps_what_is_owed,
    a_deleted_endpoint_is_owed_nothing,
    a_repeat_of_a_producer_is_delivered_once,
    a_stop_lets_attempts_in_flight_finish,
);

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

pub(crate) fn event(id: &str, event_type: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"/test","type":"{event_type}","tenant":"t","data":{{"n": 1}}}}"#
    )
}

async fn an_event_reaches_every_endpoint_that_wants_it_signed_and_traced(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    let rewards = pipeline
        .register("t", &receiver.url("/rewards"), &["reward.*"], |_| {})
        .await;
    let all = pipeline
        .register("t", &receiver.url("/all"), &["*"], |_| {})
        .await;
    pipeline
        .register("t", &receiver.url("/other"), &["subscriber.*"], |_| {})
        .await;
    pipeline
        .register("u", &receiver.url("/stranger"), &["*"], |_| {})
        .await;

    let amqp = pipeline.plain_amqp().await;
    let address = ("fanfare.events", "t.reward.unlocked");
    let headers = [("traceparent", TRACE)];
    let body = event("1", "reward.unlocked");
    amqp.publish(
        address,
        "application/cloudevents+json",
        &headers,
        body.as_bytes(),
    )
    .await;

    let mut requests = receiver.expect_requests(2, PATIENCE).await;
    requests.sort_by(|a, b| a.path.cmp(&b.path));
    let paths: Vec<_> = requests
        .iter()
        .map(|request| request.path.as_str())
        .collect();
    assert_eq!(paths, ["/all", "/rewards"]);
    for (request, endpoint) in requests.iter().zip([&all, &rewards]) {
        request.assert_signed_by(&endpoint.secrets[0]);
        let body = std::str::from_utf8(&request.body).unwrap();
        assert!(
            body.starts_with(r#"{"type":"reward.unlocked","timestamp":""#),
            "{body}"
        );
        assert!(body.ends_with(r#","data":{"n": 1}}"#), "{body}");
        assert_eq!(request.header("traceparent"), TRACE);
        assert_eq!(request.header("content-type"), "application/json");
    }
    assert_ne!(requests[0].id(), requests[1].id());
    assert_eq!(pipeline.stop().await, Ending::Orderly);
    assert_eq!(receiver.count(), 2);
}

async fn a_failing_endpoint_is_retried_and_ends_as_a_dead_letter(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    receiver.behave("/broken", Behaviour::status(503));
    let url = receiver.url("/broken");
    let schedule = Schedule::from_seconds(vec![0, 1, 1]).unwrap();
    let endpoint = pipeline
        .register("t", &url, &["*"], |new| new.schedule = schedule)
        .await;

    let amqp = pipeline.plain_amqp().await;
    amqp.publish_event("t.reward.sent", &event("1", "reward.sent"))
        .await;
    let attempts = receiver.expect_requests(3, PATIENCE).await;
    for pair in attempts.windows(2) {
        assert_eq!(pair[0].id(), pair[1].id(), "the id stays the same");
        assert!(
            pair[1].instant - pair[0].instant >= Duration::from_secs(1),
            "a retry was early"
        );
    }
    pipeline.expect_depth("fanfare.dead-letters", 1).await;
    let letter = amqp.get("fanfare.dead-letters").await.unwrap();
    let endpoint = endpoint.id.to_string();
    for (name, value) in [
        ("x-fanfare-tenant", "t"),
        ("x-fanfare-endpoint", endpoint.as_str()),
        ("x-fanfare-event-type", "reward.sent"),
        ("x-fanfare-event-id", "1"),
        ("x-fanfare-reason", "exhausted"),
        ("x-fanfare-attempts", "3"),
        ("x-fanfare-last-status", "503"),
    ] {
        assert_eq!(
            letter.headers.get(name).map(String::as_str),
            Some(value),
            "{name}"
        );
    }
    assert_eq!(letter.body, br#"{"n": 1}"#);
    assert_eq!(letter.content_type.as_deref(), Some("application/json"));
    pipeline.stop().await;
}

async fn a_410_ends_at_once_and_a_disabled_endpoint_keeps_what_is_owed(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    receiver.behave("/gone", Behaviour::status(410));
    pipeline
        .register("t", &receiver.url("/gone"), &["a"], |_| {})
        .await;
    let disabled = pipeline
        .register("t", &receiver.url("/disabled"), &["b"], |_| {})
        .await;
    let state = EndpointState::Disabled {
        reason: DisabledReason::Requested,
        since: disabled.created_at,
    };
    pipeline.set_state(&disabled, state).await;

    let amqp = pipeline.plain_amqp().await;
    amqp.publish_event("t.a", &event("1", "a")).await;
    pipeline.expect_depth("fanfare.dead-letters", 1).await;
    // From here on the receiver is known to be gone, and is not asked again.
    amqp.publish_event("t.a", &event("2", "a")).await;
    amqp.publish_event("t.b", &event("3", "b")).await;
    pipeline.expect_depth("fanfare.dead-letters", 3).await;
    let mut reasons = Vec::new();
    while let Some(letter) = amqp.get("fanfare.dead-letters").await {
        let header = |name: &str| letter.headers[name].clone();
        reasons.push((header("x-fanfare-event-id"), header("x-fanfare-reason")));
    }
    reasons.sort();
    let expected = [("1", "gone"), ("2", "gone"), ("3", "disabled")];
    assert!(
        reasons
            .iter()
            .map(|(a, b)| (a.as_str(), b.as_str()))
            .eq(expected),
        "{reasons:?}"
    );
    assert_eq!(receiver.count(), 1);
    pipeline.stop().await;
}

async fn a_deleted_endpoint_is_owed_nothing(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    let schedule = Schedule::from_seconds(vec![0, 4]).unwrap();
    receiver.behave("/a", Behaviour::status(500));
    let url = receiver.url("/a");
    let endpoint = pipeline
        .register("t", &url, &["*"], |new| new.schedule = schedule)
        .await;
    let amqp = pipeline.plain_amqp().await;
    amqp.publish_event("t.a", &event("1", "a")).await;
    pipeline.expect_depth("fanfare.delay.4s", 1).await;
    pipeline.delete(&endpoint.tenant, endpoint.id).await;
    // The retry finds no endpoint; a stop settles what is in hand, and nothing is left anywhere.
    pipeline.expect_depth("fanfare.delay.4s", 0).await;
    assert_eq!(pipeline.stop().await, Ending::Orderly);
    assert_eq!(receiver.count(), 1);
    assert_eq!(amqp.depth("fanfare.dead-letters").await, Some(0));
}

async fn a_repeat_of_a_producer_is_delivered_once(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    pipeline
        .register("t", &receiver.url("/a"), &["*"], |_| {})
        .await;
    let amqp = pipeline.plain_amqp().await;
    for _ in 0..3 {
        amqp.publish_event("t.a", &event("1", "a")).await;
        receiver.expect_requests(1, PATIENCE).await;
    }
    // The same endpoint takes them in order, so the last one shows that the repeats were dropped.
    amqp.publish_event("t.a", &event("2", "a")).await;
    let requests = receiver.expect_requests(2, PATIENCE).await;
    assert_ne!(requests[0].id(), requests[1].id());
    pipeline.stop().await;
    assert_eq!(receiver.count(), 2);
}

async fn a_stop_lets_attempts_in_flight_finish(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    receiver.behave("/slow", Behaviour::slow(Duration::from_millis(500)));
    let url = receiver.url("/slow");
    let partition = broker.topology();
    let endpoint = pipeline
        .register("t", &url, &["*"], |new| new.max_in_flight = 2)
        .await;
    let amqp = pipeline.plain_amqp().await;
    for id in 0..6 {
        amqp.publish_event("t.a", &event(&id.to_string(), "a"))
            .await;
    }
    receiver.expect_requests(2, PATIENCE).await;
    assert_eq!(pipeline.stop().await, Ending::Orderly);
    // What was answered is settled, what was not started is back in its queue, nothing is both. What was
    // handed back is counted a moment later, and what was put off is back in a second.
    let queue = partition.delivery_queue(partition.partition_of(endpoint.id));
    let everything = async || {
        let queued = amqp.depth(&queue).await? as usize;
        let unrouted = amqp.depth("fanfare.events").await? as usize;
        let sum = receiver.count() + queued + unrouted;
        assert!(sum <= 6, "{queued} queued, {unrouted} unrouted");
        (sum == 6).then_some(())
    };
    eventually(PATIENCE, "each event answered or in a queue", everything).await;
}
