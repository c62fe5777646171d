//! Receivers that are down, back, or gone for good, and what operators are told of them.

use std::time::Duration;

use fanfare_model::{DisabledReason, EndpointState, Schedule};
use fanfare_testkit::{Behaviour, ReceivedRequest, Receiver, TestBroker, Version, eventually};
use fanfare_tests::{PATIENCE, Pipeline, on_each_rabbitmq};

use crate::delivery::event;

on_each_rabbitmq!(
    an_endpoint_that_is_gone_is_disabled_and_operators_are_told,
    failures_in_a_row_disable_an_endpoint_by_its_own_rule,
    a_receiver_that_looks_down_is_asked_once_and_its_return_is_told,
    what_a_damaged_endpoint_is_owed_is_kept,
);

/// Waits until operators were told this many things, and returns the bodies in order.
async fn told(receiver: &Receiver, many: usize) -> Vec<String> {
    let body = |request: &ReceivedRequest| String::from_utf8(request.body.to_vec()).unwrap();
    eventually(PATIENCE, "news for operators", async || {
        let requests = receiver.requests();
        let news = requests.iter().filter(|request| request.path == "/ops");
        let mut news: Vec<_> = news.map(body).collect();
        news.sort();
        (news.len() >= many).then_some(news)
    })
    .await
}

async fn an_endpoint_that_is_gone_is_disabled_and_operators_are_told(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    receiver.behave("/gone", Behaviour::status(410));
    let names = ["endpoint.*", "delivery.*"];
    pipeline
        .register("t", &receiver.url("/ops"), &names, |_| {})
        .await;
    pipeline
        .register("t", &receiver.url("/all"), &["*"], |_| {})
        .await;
    let gone = pipeline
        .register("t", &receiver.url("/gone"), &["*"], |_| {})
        .await;
    let amqp = pipeline.plain_amqp().await;
    amqp.publish_event("t.a", &event("1", "a")).await;

    let news = told(&receiver, 2).await;
    let id = gone.id.to_string();
    for (news, event_type, reason) in [
        (&news[0], "delivery.dead_lettered", "gone"),
        (&news[1], "endpoint.disabled", "gone"),
    ] {
        for part in [event_type, reason, &id] {
            assert!(news.contains(part), "{part} is not in {news}");
        }
    }
    let state = pipeline.state_of(&gone).await;
    let EndpointState::Disabled { reason, .. } = state else {
        panic!("{state:?}")
    };
    assert_eq!(reason, DisabledReason::Gone);
    pipeline.stop().await;
    // Whoever asked for everything is not told: neither the endpoint itself nor its neighbour.
    let paths = receiver.requests();
    let count = |path| paths.iter().filter(|request| request.path == path).count();
    assert_eq!((count("/all"), count("/gone"), count("/ops")), (1, 1, 2));
    assert_eq!(amqp.depth("fanfare.dead-letters").await, Some(1));
}

async fn failures_in_a_row_disable_an_endpoint_by_its_own_rule(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    receiver.behave("/bad", Behaviour::status(404));
    let url = receiver.url("/bad");
    let bad = pipeline
        .register("t", &url, &["*"], |new| {
            new.disable_after = "3 failures".parse().unwrap();
            new.schedule = Schedule::from_seconds(vec![0; 10]).unwrap();
        })
        .await;
    let amqp = pipeline.plain_amqp().await;
    amqp.publish_event("t.a", &event("1", "a")).await;
    pipeline.expect_depth("fanfare.dead-letters", 1).await;
    let letter = amqp.get("fanfare.dead-letters").await.unwrap();
    assert_eq!(letter.headers["x-fanfare-reason"], "disabled");
    eventually(PATIENCE, "the registry to know", async || {
        let state = pipeline.state_of(&bad).await;
        (state.name() == "disabled").then_some(())
    })
    .await;
    assert_eq!(receiver.count(), 3);

    // Enabled, it begins anew.
    receiver.behave("/bad", Behaviour::status(200));
    pipeline.set_state(&bad, EndpointState::Active).await;
    amqp.publish_event("t.a", &event("2", "a")).await;
    receiver.expect_requests(4, PATIENCE).await;
    pipeline.stop().await;
}

async fn a_receiver_that_looks_down_is_asked_once_and_its_return_is_told(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    receiver.behave("/down", Behaviour::status(503));
    pipeline
        .register("t", &receiver.url("/ops"), &["endpoint.*"], |_| {})
        .await;
    let url = receiver.url("/down");
    let down = pipeline
        .register("t", &url, &["a"], |new| {
            new.schedule = Schedule::from_seconds(vec![0; 20]).unwrap();
        })
        .await;
    let amqp = pipeline.plain_amqp().await;
    amqp.publish_event("t.a", &event("1", "a")).await;
    let requests = receiver.expect_requests(8, PATIENCE).await;
    receiver.behave("/down", Behaviour::status(200));
    let opened = requests[7].instant;

    let news = told(&receiver, 1).await;
    assert!(news[0].contains("endpoint.recovered"), "{news:?}");
    assert!(news[0].contains(&down.id.to_string()), "{news:?}");
    pipeline.stop().await;
    let requests = receiver.requests();
    let asked = requests.iter().filter(|request| request.path == "/down");
    let instants: Vec<_> = asked.map(|request| request.instant).collect();
    assert_eq!(instants.len(), 9);
    assert!(instants[8] - opened >= Duration::from_secs(5), "early");
}

/// As a snapshot has one: what it is owed waits as a dead letter for its row to be mended.
async fn what_a_damaged_endpoint_is_owed_is_kept(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    let url = receiver.url("/a");
    let endpoint = pipeline.register("t", &url, &["a"], |_| {}).await;
    let damaged = EndpointState::Disabled {
        reason: DisabledReason::Damaged,
        since: endpoint.created_at,
    };
    pipeline.set_state(&endpoint, damaged).await;
    let amqp = pipeline.plain_amqp().await;
    amqp.publish_event("t.a", &event("1", "a")).await;
    pipeline.expect_depth("fanfare.dead-letters", 1).await;
    let letter = amqp.get("fanfare.dead-letters").await.unwrap();
    assert_eq!(letter.headers["x-fanfare-reason"], "disabled");
    assert_eq!(
        pipeline.counter("fanfare_router_damaged_endpoints").await,
        1.0
    );
    pipeline.stop().await;
    assert_eq!(receiver.count(), 0);
}
