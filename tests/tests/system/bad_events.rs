//! Messages that are no events are kept with a reason that a person understands.

use std::collections::BTreeMap;

use fanfare_testkit::{Receiver, TestBroker, Version};
use fanfare_tests::{PATIENCE, Pipeline, on_each_rabbitmq};

use crate::delivery::event;

on_each_rabbitmq!(malformed_events_are_rejected_with_a_reason_and_block_nobody);

const JSON: &str = "application/cloudevents+json";

/// What is published, the code it is rejected with, and what the reason must name.
struct Row {
    content_type: &'static str,
    body: String,
    code: &'static str,
    names: &'static [&'static str],
}

fn rows() -> Vec<Row> {
    let no_source = r#"{"specversion":"1.0","id":"1","type":"a","tenant":"t"}"#;
    let other_tenant = event("1", "a").replace(r#""tenant":"t""#, r#""tenant":"u""#);
    let large = format!(
        r#"{{"specversion":"1.0","id":"1","source":"/s","type":"a","tenant":"t","data":"{}"}}"#,
        "x".repeat(2 << 20)
    );
    let row = |content_type, body: &str, code, names| Row {
        content_type,
        body: body.to_owned(),
        code,
        names,
    };
    vec![
        row(JSON, "{\"id\":", "malformed_json", &["JSON"]),
        row(JSON, no_source, "missing_attribute", &["source"]),
        row(JSON, &other_tenant, "tenant_mismatch", &["`t`", "`u`"]),
        row(JSON, &large, "too_large", &["262144"]),
        row(
            "text/plain",
            "hello",
            "not_a_cloudevent",
            &[JSON, "cloudEvents_"],
        ),
    ]
}

async fn malformed_events_are_rejected_with_a_reason_and_block_nobody(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    pipeline
        .register("t", &receiver.url("/a"), &["*"], |_| {})
        .await;
    let amqp = pipeline.plain_amqp().await;
    for row in rows() {
        let address = ("fanfare.events", "t.a");
        amqp.publish(address, row.content_type, &[], row.body.as_bytes())
            .await;
    }
    pipeline.expect_depth("fanfare.rejected", 5).await;

    let mut kept = BTreeMap::new();
    while let Some(message) = amqp.get("fanfare.rejected").await {
        let code = message.headers["x-fanfare-reason"].clone();
        kept.insert(
            code,
            (message.headers["x-fanfare-detail"].clone(), message.body),
        );
    }
    for row in rows() {
        let (detail, body) = &kept[row.code];
        for name in row.names {
            assert!(detail.contains(name), "{}: {detail}", row.code);
        }
        assert_eq!(body, row.body.as_bytes(), "{}: the body is kept", row.code);
    }

    amqp.publish_event("t.a", &event("good", "a")).await;
    receiver.expect_requests(1, PATIENCE).await;
    pipeline.stop().await;
}
