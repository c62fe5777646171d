//! Partitions change their owner in order: nothing is lost and nothing is repeated.

use std::time::Duration;

use fanfare_cli::{Ending, Role};
use fanfare_producer::Producer;
use fanfare_testkit::{Behaviour, Ledger, Receiver, TestBroker, Version, eventually};
use fanfare_tests::{Fleet, Member, PATIENCE, on_each_rabbitmq};
use futures_util::{StreamExt as _, stream};

use crate::support::{enter_arrivals, event};

on_each_rabbitmq!(
    a_dispatcher_that_leaves_under_load_repeats_nothing,
    a_slow_rate_holds_while_its_owner_changes,
);

const EVENTS: usize = 1500;
const ENDPOINTS: [&str; 3] = ["/a", "/b", "/c"];
const LEAVES: usize = 4;

async fn a_dispatcher_that_leaves_under_load_repeats_nothing(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let fleet = Fleet::new(broker.settings());
    for path in ENDPOINTS {
        receiver.behave(path, Behaviour::slow(Duration::from_millis(20)));
        let url = receiver.url(path);
        fleet.register(&url, |new| new.max_in_flight = 32).await;
    }
    let producer = Producer::connect(&broker.settings(), "hand-over").await;
    let producer = producer.expect("it connects");
    let publishing = stream::iter(0..EVENTS).for_each_concurrent(200, |number| {
        let producer = &producer;
        async move {
            let published = producer.publish(&event(number)).await;
            published.expect("the broker is there");
        }
    });
    let moving = move_partitions(&fleet, &receiver);
    let ((), (router, dispatchers)) = tokio::join!(publishing, moving);

    let owed = everything();
    let complete = async || {
        let mut ledger = owed.clone();
        enter_arrivals(&mut ledger, &receiver);
        ledger.report().missing.is_empty().then_some(())
    };
    eventually(Duration::from_secs(120), "every delivery", complete).await;
    for (_, dispatcher) in dispatchers {
        assert_eq!(dispatcher.leave().await, Ending::Orderly);
    }
    assert_eq!(router.leave().await, Ending::Orderly);
    producer.close().await;
    // Counted at the very end, so that a late repeat shows too.
    let mut ledger = owed;
    enter_arrivals(&mut ledger, &receiver);
    let report = ledger.report();
    eprintln!(
        "RabbitMQ {}: {LEAVES} leaves, {} owed, {} duplicates",
        version.name(),
        report.owed,
        report.duplicates
    );
    ledger.assert_balanced(0);
}

async fn a_slow_rate_holds_while_its_owner_changes(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let fleet = Fleet::new(broker.settings());
    let interval = Duration::from_secs(3);
    let url = receiver.url("/a");
    fleet
        .register(&url, |new| {
            new.rate = Some("20/min".parse().expect("a rate"))
        })
        .await;
    let producer = Producer::connect(&broker.settings(), "slow-rate").await;
    let producer = producer.expect("it connects");
    for number in 0..4 {
        let published = producer.publish(&event(number)).await;
        published.expect("the broker is there");
    }
    let router = fleet.join("router", &[Role::Router]).await;
    let mut present = fleet.join("a", &[Role::Dispatcher]).await;
    for (number, id) in ["b", "c", "d"].into_iter().enumerate() {
        receiver.expect_requests(number + 1, PATIENCE).await;
        let next = fleet.join(id, &[Role::Dispatcher]).await;
        assert_eq!(present.leave().await, Ending::Orderly);
        present = next;
    }
    let requests = receiver.expect_requests(4, PATIENCE).await;
    for pair in requests.windows(2) {
        let apart = pair[1].instant.duration_since(pair[0].instant);
        // What a request takes on its way may differ.
        assert!(apart >= interval - Duration::from_millis(100), "{apart:?}");
    }
    assert_eq!(present.leave().await, Ending::Orderly);
    assert_eq!(router.leave().await, Ending::Orderly);
    producer.close().await;
}

/// Starts a router and two dispatchers, of which one leaves and comes back as requests arrive.
async fn move_partitions(
    fleet: &Fleet,
    receiver: &Receiver,
) -> (Member, Vec<(&'static str, Member)>) {
    let router = fleet.join("router", &[Role::Router]).await;
    let mut dispatchers = Vec::new();
    for id in ["a", "b"] {
        dispatchers.push((id, fleet.join(id, &[Role::Dispatcher]).await));
    }
    for leave in 1..=LEAVES {
        let moment = EVENTS * ENDPOINTS.len() * leave / (LEAVES + 1);
        let what = format!("{moment} requests");
        let reached = async || (receiver.count() >= moment).then_some(());
        eventually(Duration::from_secs(120), &what, reached).await;
        let (id, leaving) = dispatchers.remove(0);
        assert_eq!(leaving.leave().await, Ending::Orderly);
        dispatchers.push((id, fleet.join(id, &[Role::Dispatcher]).await));
    }
    (router, dispatchers)
}

fn everything() -> Ledger {
    let mut owed = Ledger::default();
    for number in 0..EVENTS {
        for path in ENDPOINTS {
            owed.owe(&number.to_string(), path);
        }
    }
    owed
}
