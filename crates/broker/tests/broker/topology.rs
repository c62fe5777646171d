//! Declaring and comparing the topology, and faults of connecting.

use std::time::Duration;

use fanfare_broker::{Broker, BrokerFault, Finding, Settings, Topology, Verdict};
use fanfare_testkit::{PlainAmqp, TestBroker, Version};

use crate::support::{PATIENCE, connected_to, on_every_version};

on_every_version! {
    declaring_twice_changes_nothing
    a_queue_with_other_arguments_stops_the_start_at_once
    a_check_tells_what_is_missing_and_what_differs_and_changes_nothing
    a_start_that_cannot_succeed_says_why
}

async fn found(settings: &Settings) -> Vec<Finding> {
    Topology::check(settings).await.expect("the broker answers")
}

async fn declaring_twice_changes_nothing(version: Version) {
    let host = TestBroker::new(version);
    let (first, second) = (connected_to(&host).await, connected_to(&host).await);
    let findings = found(&host.settings()).await;
    let all = host.topology();
    let expected = all.exchanges().len() + all.queues().len();
    assert_eq!(findings.len(), expected);
    for finding in findings {
        assert_eq!(finding.verdict, Verdict::AsListed, "{finding:?}");
    }
    first.close().await;
    second.close().await;
}

async fn a_queue_with_other_arguments_stops_the_start_at_once(version: Version) {
    let host = TestBroker::new(version);
    let plain = PlainAmqp::connect(host.url()).await;
    plain.declare_plain_queue("fanfare.events").await;
    // Patience beyond any test's: only a fault returned at once ends this.
    let patience = Duration::from_secs(24 * 3600);
    let fault = Broker::connect(&host.settings(), "test", patience).await;
    match fault.err() {
        Some(BrokerFault::Differs { what, .. }) => assert_eq!(what, "queue `fanfare.events`"),
        other => panic!("{other:?}"),
    }
}

async fn a_check_tells_what_is_missing_and_what_differs_and_changes_nothing(version: Version) {
    let host = TestBroker::new(version);
    let settings = host.settings();
    let plain = PlainAmqp::connect(host.url()).await;
    for finding in found(&settings).await {
        assert_eq!(finding.verdict, Verdict::Missing, "{finding:?}");
    }
    assert_eq!(plain.depth("fanfare.events").await, None);

    connected_to(&host).await.close().await;
    plain.delete_queue("fanfare.crashed").await;
    plain.delete_queue("fanfare.dead-letters").await;
    plain.declare_plain_queue("fanfare.dead-letters").await;
    for _ in 0..2 {
        for finding in found(&settings).await {
            let as_expected = match finding.name.as_str() {
                "fanfare.crashed" if finding.kind == "queue" => finding.verdict == Verdict::Missing,
                "fanfare.dead-letters" => matches!(finding.verdict, Verdict::Differs(_)),
                _ => finding.verdict == Verdict::AsListed,
            };
            assert!(as_expected, "{finding:?}");
        }
    }
    assert_eq!(plain.depth("fanfare.crashed").await, None);
}

async fn a_start_that_cannot_succeed_says_why(version: Version) {
    let host = TestBroker::new(version);
    let url = host.url();
    let (server, _) = url.rsplit_once('/').expect("the URL names a virtual host");
    for (url, patience, expected) in [
        ("http://localhost".to_owned(), PATIENCE, "not an AMQP URL"),
        (
            "amqp://127.0.0.1:1/%2f".to_owned(),
            Duration::ZERO,
            "no connection to RabbitMQ",
        ),
        (
            url.replace("guest:guest", "guest:wrong"),
            PATIENCE,
            "ACCESS_REFUSED",
        ),
        (format!("{server}/absent"), PATIENCE, "absent"),
    ] {
        let settings = Settings {
            url: url.clone().into(),
            ..host.settings()
        };
        let connected = Broker::connect(&settings, "test", patience).await;
        let fault = connected.err().expect("this cannot succeed");
        let fault = format!("{:#}", anyhow::Error::from(fault));
        assert!(fault.contains(expected), "{fault}");
        assert!(!fault.contains("wrong"), "{fault}");
    }
}
