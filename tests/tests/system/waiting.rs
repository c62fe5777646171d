//! What waits, waits at the broker, and is never early.

use std::time::Duration;

use fanfare_model::EndpointState;
use fanfare_testkit::{Behaviour, Receiver, TestBroker, Version};
use fanfare_tests::{PATIENCE, Pipeline, on_each_rabbitmq};

use crate::delivery::event;

on_each_rabbitmq!(
    a_scheduled_event_is_not_early_and_a_stale_one_is_a_dead_letter,
    a_rate_is_never_exceeded,
    a_hanging_endpoint_does_not_hold_up_its_neighbours,
    retry_after_holds_back_the_whole_endpoint,
    a_paused_endpoint_waits_in_the_delay_line,
);

async fn a_scheduled_event_is_not_early_and_a_stale_one_is_a_dead_letter(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    pipeline
        .register("t", &receiver.url("/a"), &["*"], |_| {})
        .await;
    let amqp = pipeline.plain_amqp().await;
    let now = fanfare_testkit::wall_clock().now();
    let after = now + Duration::from_secs(3);
    let with = |id: &str, name: &str, time| {
        event(id, "a").replace(r#","data""#, &format!(r#","{name}":"{time}","data""#))
    };
    amqp.publish_event("t.a", &with("1", "deliverafter", after))
        .await;
    amqp.publish_event(
        "t.a",
        &with("2", "deliverbefore", now - Duration::from_secs(1)),
    )
    .await;
    let requests = receiver.expect_requests(1, PATIENCE).await;
    assert!(
        requests[0].at >= after,
        "{} is before {after}",
        requests[0].at
    );
    pipeline.expect_depth("fanfare.dead-letters", 1).await;
    let letter = amqp.get("fanfare.dead-letters").await.unwrap();
    assert_eq!(letter.headers["x-fanfare-reason"], "expired");
    assert_eq!(letter.headers["x-fanfare-event-id"], "2");
    pipeline.stop().await;
}

async fn a_rate_is_never_exceeded(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    let url = receiver.url("/a");
    let rate = "10/s burst 3".parse().unwrap();
    pipeline
        .register("t", &url, &["*"], |new| new.rate = Some(rate))
        .await;
    let amqp = pipeline.plain_amqp().await;
    for id in 0..60 {
        amqp.publish_event("t.a", &event(&id.to_string(), "a"))
            .await;
    }
    let requests = receiver.expect_requests(60, PATIENCE).await;
    // Arrivals may be closer together than starts, by what the way to the receiver varies.
    let variation = Duration::from_millis(300);
    for (first, from) in requests.iter().enumerate() {
        for (last, to) in requests.iter().enumerate().skip(first) {
            let window = (to.instant - from.instant + variation).as_secs_f64();
            let arrivals = last - first + 1;
            let allowed = 10.0 * window + 3.0;
            assert!(
                arrivals as f64 <= allowed + 1e-6,
                "{arrivals} within {window} s"
            );
        }
    }
    pipeline.stop().await;
    assert_eq!(receiver.count(), 60);
}

async fn a_hanging_endpoint_does_not_hold_up_its_neighbours(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    receiver.behave("/hangs", Behaviour::slow(Duration::from_secs(3600)));
    let url = receiver.url("/hangs");
    pipeline.register("t", &url, &["flood"], |_| {}).await;
    // Enough neighbours that some of them share the partition of the hanging one.
    for number in 0..8 {
        let url = receiver.url(&format!("/healthy/{number}"));
        pipeline.register("t", &url, &["healthy"], |_| {}).await;
    }
    let amqp = pipeline.plain_amqp().await;
    for id in 0..1000 {
        amqp.publish_event("t.flood", &event(&format!("flood-{id}"), "flood"))
            .await;
    }
    amqp.publish_event("t.healthy", &event("1", "healthy"))
        .await;
    fanfare_testkit::eventually(PATIENCE, "the healthy endpoints' requests", async || {
        let requests = receiver.requests();
        let healthy = requests.iter().filter(|r| r.path.starts_with("/healthy"));
        (healthy.count() == 8).then_some(())
    })
    .await;
    let hanging = receiver
        .requests()
        .iter()
        .filter(|r| r.path == "/hangs")
        .count();
    assert!(
        hanging <= 32,
        "{hanging} requests to an endpoint that hangs"
    );
}

async fn retry_after_holds_back_the_whole_endpoint(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    let busy = Behaviour {
        headers: vec![("retry-after", "3".to_owned())],
        ..Behaviour::status(429)
    };
    receiver.behave("/a", busy);
    let url = receiver.url("/a");
    let schedule = fanfare_model::Schedule::from_seconds(vec![0, 0, 0, 0]).unwrap();
    pipeline
        .register("t", &url, &["*"], |new| new.schedule = schedule)
        .await;
    let amqp = pipeline.plain_amqp().await;
    amqp.publish_event("t.a", &event("1", "a")).await;
    let first = receiver.expect_requests(1, PATIENCE).await.remove(0);
    receiver.behave("/a", Behaviour::status(200));
    pipeline.expect_depth("fanfare.delay.2s", 1).await;
    amqp.publish_event("t.a", &event("2", "a")).await;
    let requests = receiver.expect_requests(3, PATIENCE).await;
    for request in &requests[1..] {
        let waited = request.instant - first.instant;
        assert!(
            waited >= Duration::from_secs(3),
            "early by {:?}",
            Duration::from_secs(3) - waited
        );
    }
    pipeline.stop().await;
}

async fn a_paused_endpoint_waits_in_the_delay_line(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    let endpoint = pipeline
        .register("t", &receiver.url("/a"), &["*"], |_| {})
        .await;
    pipeline.set_state(&endpoint, EndpointState::Paused).await;
    let amqp = pipeline.plain_amqp().await;
    amqp.publish_event("t.a", &event("1", "a")).await;
    // Half a minute is 32 s in the delay line: the tier that is long enough.
    pipeline.expect_depth("fanfare.delay.32s", 1).await;
    pipeline.stop().await;
    assert_eq!(receiver.count(), 0);
    assert_eq!(amqp.depth("fanfare.dead-letters").await, Some(0));
}
