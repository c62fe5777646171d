//! Tests of what a listing of dead letters looks like, and of what it counts.

use std::{sync::Arc, time::Duration};

use fanfare_model::{
    DeadLetterReason, Delivery, EndpointId, Event, Failure, FailureClass, TraceContext,
};
use fanfare_testkit::{TestBroker, Version};
use fanfare_wire::{Envelope, encode_dead_letter};

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn dead_letter(id: &str, status: Option<u16>, error: &str) -> Envelope {
    let event = Event::for_tests("MF4c1b7e20", "/shop", id, "reward.granted", b"{}");
    let endpoint = "ep_019ac0ffee007000800000000000002a".parse::<EndpointId>();
    let (seen, since) = (at("2026-11-23T12:00:00Z"), at("2026-11-23T13:04:05.678Z"));
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let trace = TraceContext::from_headers(Some(trace), None);
    let failure = Failure {
        class: FailureClass::Status5xx,
        status,
        error: error.to_owned(),
    };
    let delivery = Delivery::new(Arc::new(event), endpoint.unwrap(), 7, trace, seen);
    encode_dead_letter(&DeadLetter {
        delivery: delivery.after_failure(failure, since, None),
        reason: DeadLetterReason::Exhausted,
        since,
    })
}

fn something_else() -> Envelope {
    let mut other = Envelope::default();
    other.properties.message_id = Some("m1".to_owned());
    other
        .headers
        .insert("x-by", "somebody")
        .insert("x-count", 3);
    other
}

fn listed() -> Vec<Listed> {
    let long = "the receiver did not answer as it should have ".repeat(10);
    [
        dead_letter("1", Some(503), "the receiver answered 503"),
        dead_letter("2", None, &long),
        something_else(),
    ]
    .map(Listed::from)
    .into()
}

#[test]
fn a_table_reads_well_at_100_columns() {
    let table = output::table(&listed());
    insta::assert_snapshot!(table);
    let widest = table.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(100), "{widest:?}\n{table}");
    assert!(table.contains("ep_019ac0ffee007000800000000000002a"));
}

#[test]
fn scripts_get_everything_that_is_known() {
    let objects = output::to_json(&output::Objects(&listed()));
    let objects: Value = serde_json::from_str(&objects).unwrap();
    let first = &objects[0];
    for (name, expected) in [
        ("since", json!("2026-11-23T13:04:05.678Z")),
        ("tenant", json!("MF4c1b7e20")),
        ("type", json!("reward.granted")),
        ("source", json!("/shop")),
        ("event_id", json!("1")),
        ("endpoint", json!("ep_019ac0ffee007000800000000000002a")),
        ("reason", json!("exhausted")),
        ("attempts", json!(1)),
        ("replay", json!(0)),
        ("last_status", json!(503)),
        ("last_error", json!("the receiver answered 503")),
        ("trace_id", json!("4bf92f3577b34da6a3ce929d0e0e4736")),
        ("headers", json!(null)),
    ] {
        assert_eq!(first[name], expected, "{name}");
    }
    let other = &objects[2];
    for (name, expected) in [
        ("id", json!("m1")),
        ("reason", json!("unreadable")),
        ("tenant", json!(null)),
        ("last_error", json!("`x-fanfare-record` is missing")),
        ("headers", json!({"x-by": "somebody", "x-count": 3})),
    ] {
        assert_eq!(other[name], expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_says_how_many_there_are() {
    let host = TestBroker::new(Version::V4_3);
    let patience = Duration::from_secs(30);
    let broker = Broker::connect(&host.settings(), "test", patience)
        .await
        .unwrap();
    let address = broker.topology().dead_address();
    for id in ["1", "2", "3"] {
        let envelope = dead_letter(id, None, "no answer");
        broker
            .publisher()
            .publish(&address, envelope)
            .await
            .unwrap();
    }
    let (listed, depth) = look(&broker, 2).await.unwrap();
    assert_eq!((listed.len(), depth), (2, 3));
    broker.close().await;
}
