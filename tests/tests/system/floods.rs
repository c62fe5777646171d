//! A flood of one endpoint is absorbed at the door, and forgotten when the endpoint changes.

use std::time::Duration;

use fanfare_model::EndpointState;
use fanfare_testkit::{Receiver, TestBroker, Version, eventually};
use fanfare_tests::{PATIENCE, Pipeline, on_each_rabbitmq};
use futures_util::future::join_all;

use crate::delivery::event;

on_each_rabbitmq!(a_flood_goes_straight_to_the_delay_line_until_the_endpoint_changes);

async fn a_flood_goes_straight_to_the_delay_line_until_the_endpoint_changes(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    let endpoint = pipeline
        .register("t", &receiver.url("/a"), &["*"], |_| {})
        .await;
    pipeline.set_state(&endpoint, EndpointState::Paused).await;
    let amqp = pipeline.plain_amqp().await;
    let mut published = 0;
    eventually(PATIENCE, "a flood that routers divert", async || {
        let events = (published..published + 1000).map(|id| event(&id.to_string(), "a"));
        let events: Vec<_> = events.collect();
        join_all(events.iter().map(|event| amqp.publish_event("t.a", event))).await;
        published += 1000;
        let diverted = pipeline.counter("fanfare_router_diverted_total").await;
        (diverted > 0.0).then_some(())
    })
    .await;
    assert!(pipeline.counter("fanfare_dispatcher_floods_total").await >= 1.0);
    // Else what is still on its way would be a flood of the endpoint that is resumed.
    eventually(PATIENCE, "all of them to wait", async || {
        let diverted = pipeline.counter("fanfare_router_diverted_total").await;
        let settled = pipeline
            .counter("fanfare_dispatcher_settlements_total")
            .await;
        (diverted + settled >= f64::from(published)).then_some(())
    })
    .await;
    // What was diverted waits for half a minute at least. What comes after the resume does not.
    pipeline.set_state(&endpoint, EndpointState::Active).await;
    let last = event("last", "a").replace(r#""n": 1"#, r#""n": "last""#);
    amqp.publish_event("t.a", &last).await;
    eventually(Duration::from_secs(20), "the last event", async || {
        let requests = receiver.requests();
        let last = |body: &[u8]| String::from_utf8_lossy(body).contains("last");
        requests.iter().any(|r| last(&r.body)).then_some(())
    })
    .await;
    pipeline.stop().await;
}
