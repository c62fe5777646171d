//! Every mode of a CloudEvent, alone and in batches, from AMQP to the receiver.

use std::collections::BTreeMap;

use fanfare_model::{Event, TraceContext};
use fanfare_testkit::{Receiver, TestBroker, Version, wall_clock};
use fanfare_tests::{PATIENCE, Pipeline, on_each_rabbitmq};
use fanfare_wire::{event_envelope, event_envelope_binary, event_envelope_protobuf};

use crate::delivery::event;

on_each_rabbitmq!(
    an_event_arrives_whatever_mode_it_is_published_in,
    each_event_of_a_batch_arrives_or_is_kept_with_its_reason,
);

async fn an_event_arrives_whatever_mode_it_is_published_in(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    let url = receiver.url("/a");
    pipeline.register("t", &url, &["*"], |_| {}).await;
    let (trace, now) = (TraceContext::default(), wall_clock().now());
    let address = |event: &Event| {
        let topology = broker.topology();
        topology.event_address(&event.tenant, &event.event_type)
    };
    // No JSON and no UTF-8, so that only what is handed on byte for byte survives.
    let event = |id: &str| {
        let mut event = Event::for_tests("t", "/modes", id, "a.b", b"\x00\xff\xfe{");
        event.data_content_type = Some("application/octet-stream".to_owned());
        event
    };
    let (structured, protobuf, binary) = (event("s"), event("p"), event("b"));
    let messages = vec![
        (
            address(&structured),
            event_envelope(&structured, &trace, now),
        ),
        (
            address(&protobuf),
            event_envelope_protobuf(&protobuf, &trace, now),
        ),
        (
            address(&binary),
            event_envelope_binary(&binary, &trace, now),
        ),
    ];
    let settings = broker.settings();
    let published = fanfare_broker::publish_plainly(&settings, messages).await;
    published.unwrap();
    for request in receiver.expect_requests(3, PATIENCE).await {
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(body["data"], "AP/+ew==", "the data is in base64");
    }
    pipeline.stop().await;
}

async fn each_event_of_a_batch_arrives_or_is_kept_with_its_reason(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    let url = receiver.url("/a");
    pipeline.register("t", &url, &["*"], |_| {}).await;
    let amqp = pipeline.plain_amqp().await;
    let publish = async |body: String| {
        let address = ("fanfare.events", "t.batch");
        let content_type = "application/cloudevents-batch+json";
        amqp.publish(address, content_type, &[], body.as_bytes())
            .await;
    };
    let other_tenant = event("3", "a").replace(r#""tenant":"t""#, r#""tenant":"u""#);
    let good = [event("1", "a"), event("2", "a")];
    let batch = [&good[0], r#"{"id":"9"}"#, &other_tenant, &good[1]];
    publish(format!("[{}]", batch.join(","))).await;
    publish("[]".to_owned()).await;
    publish("{}".to_owned()).await;

    receiver.expect_requests(2, PATIENCE).await;
    pipeline.expect_depth("fanfare.rejected", 3).await;
    pipeline.expect_depth("fanfare.events", 0).await;
    let mut kept = BTreeMap::new();
    while let Some(message) = amqp.get("fanfare.rejected").await {
        let reason = message.headers["x-fanfare-reason"].clone();
        kept.insert(reason, message);
    }
    for (reason, body, names) in [
        ("missing_attribute", r#"{"id":"9"}"#, "event 1 of the batch"),
        ("tenant_mismatch", &other_tenant, "event 2 of the batch"),
        ("malformed_json", "{}", "not a JSON array"),
    ] {
        let message = &kept[reason];
        assert_eq!(message.body, body.as_bytes(), "{reason}");
        let detail = &message.headers["x-fanfare-detail"];
        assert!(detail.contains(names), "{detail}");
    }
    assert_eq!(receiver.count(), 2, "each event arrived once");
    pipeline.stop().await;
}
