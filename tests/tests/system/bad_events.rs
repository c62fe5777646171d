//! Messages that are no events are kept with a reason that a person understands.

use std::collections::BTreeMap;

use fanfare_testkit::{Receiver, TestBroker, Version};
use fanfare_tests::{PATIENCE, Pipeline, on_each_rabbitmq};

use crate::delivery::event;

on_each_rabbitmq!(malformed_events_are_rejected_with_a_reason_and_block_nobody);

const JSON: &str = "application/cloudevents+json";

async fn malformed_events_are_rejected_with_a_reason_and_block_nobody(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    pipeline
        .register("t", &receiver.url("/a"), &["*"], |_| {})
        .await;
    let amqp = pipeline.plain_amqp().await;

    let large = format!(
        r#"{{"specversion":"1.0","id":"1","source":"/s","type":"a","tenant":"t","data":"{}"}}"#,
        "x".repeat(2 << 20)
    );
    let no_source = r#"{"specversion":"1.0","id":"1","type":"a","tenant":"t"}"#;
    let other_tenant = event("1", "a").replace(r#""tenant":"t""#, r#""tenant":"u""#);
    let rows: [(&str, &str, &str, &str, &[&str]); 5] = [
        (JSON, "t.a", "{\"id\":", "malformed_json", &["JSON"]),
        (JSON, "t.a", no_source, "missing_attribute", &["source"]),
        (
            JSON,
            "t.a",
            &other_tenant,
            "tenant_mismatch",
            &["`t`", "`u`"],
        ),
        (JSON, "t.a", &large, "too_large", &["262144"]),
        (
            "text/plain",
            "t.a",
            "hello",
            "not_a_cloudevent",
            &[JSON, "cloudEvents_"],
        ),
    ];
    for (content_type, routing_key, body, ..) in &rows {
        amqp.publish(
            ("fanfare.events", routing_key),
            content_type,
            &[],
            body.as_bytes(),
        )
        .await;
    }
    pipeline.expect_depth("fanfare.rejected", 5).await;
    let mut kept: BTreeMap<String, (String, Vec<u8>)> = BTreeMap::new();
    while let Some(message) = amqp.get("fanfare.rejected").await {
        let (code, detail) = (
            &message.headers["x-fanfare-reason"],
            &message.headers["x-fanfare-detail"],
        );
        kept.insert(code.clone(), (detail.clone(), message.body));
    }
    for (_, _, body, code, parts) in &rows {
        let (detail, kept_body) = kept
            .get(*code)
            .unwrap_or_else(|| panic!("no {code}: {kept:?}"));
        for part in *parts {
            assert!(detail.contains(part), "{code}: {detail}");
        }
        assert_eq!(kept_body, body.as_bytes(), "{code}: the body is kept");
    }

    amqp.publish_event("t.a", &event("good", "a")).await;
    receiver.expect_requests(1, PATIENCE).await;
    pipeline.stop().await;
}
