//! Tests of what messages that rest look like.

use std::sync::Arc;

use fanfare_broker::{Held, HeldTag, Place};
use fanfare_deadletters::{Entry, Found};
use fanfare_model::{
    DeadLetter, DeadLetterReason, Delivery, EndpointId, Event, Failure, FailureClass, Timestamp,
    TraceContext,
};
use fanfare_wire::{Envelope, encode_dead_letter};
use serde_json::{Value, json};

use super::rows::Shown;
use crate::output;

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

fn held(envelope: Envelope) -> Held {
    Held {
        envelope,
        routing_key: String::new(),
        tag: HeldTag::for_tests(0),
    }
}

fn listed() -> Vec<Entry> {
    let long = "the receiver did not answer as it should have ".repeat(10);
    [
        dead_letter("1", Some(503), "the receiver answered 503"),
        dead_letter("2", None, &long),
        something_else(),
    ]
    .map(|envelope| Entry::of(Place::DeadLetters, &held(envelope)))
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
        ("last_class", json!("status_5xx")),
    ] {
        assert_eq!(first[name], expected, "{name}");
    }
    let other = &objects[2];
    for (name, expected) in [
        ("event_id", json!("m1")),
        ("reason", json!("unreadable")),
        ("tenant", json!(null)),
        ("last_error", json!(null)),
    ] {
        assert_eq!(other[name], expected, "{name}");
    }
    assert!(other["id"].as_str().unwrap().starts_with("msg_"));
}

#[test]
fn one_message_is_shown_with_its_headers_and_its_data() {
    let envelope = dead_letter("1", Some(503), "the receiver answered 503");
    let entry = Entry::of(Place::DeadLetters, &held(envelope.clone()));
    let shown = [Shown(Found {
        entry,
        headers: Some(envelope.headers),
        data: envelope.body,
        attempts: Vec::new(),
    })];
    let shown: Value = serde_json::from_str(&output::to_json(&output::Objects(&shown))).unwrap();
    let shown = &shown[0];
    assert_eq!(shown["message"]["attempts"], 1);
    assert_eq!(shown["headers"]["x-fanfare-last-status"], 503);
    assert_eq!(shown["data"], json!({}));
}
