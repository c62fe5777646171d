//! `kill -9` of the process that routes and dispatches.

use std::time::Duration;

use fanfare_producer::Producer;
use fanfare_testkit::{Behaviour, Ledger, Receiver, TestBroker, Version, eventually};
use fanfare_tests::{Program, on_each_rabbitmq, open_registry};
use futures_util::{StreamExt as _, stream};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tempfile::TempDir;

use crate::support::{enter_arrivals, event, register};

on_each_rabbitmq!(killing_router_and_dispatcher_loses_nothing);

const EVENTS: usize = 5000;
const ENDPOINTS: [&str; 3] = ["/a", "/b", "/c"];
const KILLS: u64 = 6;
const SEED: u64 = 20_261_123;
/// Smaller than by default, so that the bound is far below what is owed.
const ROUTER_PREFETCH: u64 = 64;
const MAX_IN_HAND: u64 = 256;

async fn killing_router_and_dispatcher_loses_nothing(version: Version) {
    // What one kill can repeat: the deliveries that the dispatcher has in hand, and the router's
    // unacknowledged events times the fan-out.
    let bound = KILLS * (MAX_IN_HAND + ROUTER_PREFETCH * ENDPOINTS.len() as u64);
    let name = version.name();
    eprintln!("RabbitMQ {name}: at most {bound} duplicates after {KILLS} kills");

    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let home = TempDir::new().expect("a temporary directory can be made");
    register_all(&home, &receiver).await;
    let producer = Producer::connect(&broker.settings(), "kills")
        .await
        .expect("it connects");
    let publishing = stream::iter(0..EVENTS).for_each_concurrent(200, |number| {
        let producer = &producer;
        async move {
            producer
                .publish(&event(number))
                .await
                .expect("the broker is there")
        }
    });
    let (prefetch, in_hand) = (ROUTER_PREFETCH.to_string(), MAX_IN_HAND.to_string());
    let settings = [
        ("FANFARE__ROUTER__PREFETCH", prefetch.as_str()),
        ("FANFARE__DISPATCHER__MAX_IN_HAND", in_hand.as_str()),
    ];
    let start = || Program::serve("router,dispatcher", broker.url(), &home, &settings);
    let ((), mut program) = tokio::join!(publishing, kill_at_seeded_moments(start, &receiver));

    let ledger = everything_arrived(&receiver).await;
    assert_eq!(program.terminate(), Some(0), "the last one stops in order");
    let report = ledger.assert_balanced(bound);
    eprintln!(
        "RabbitMQ {name}: {} owed, {} duplicates",
        report.owed, report.duplicates
    );
    producer.close().await;
}

async fn register_all(home: &TempDir, receiver: &Receiver) {
    let registry = open_registry(home).await;
    for path in ENDPOINTS {
        receiver.behave(path, Behaviour::slow(Duration::from_millis(50)));
        register(&registry, &receiver.url(path), 64).await;
    }
    registry.close().await;
}

/// Kills the program each time the receiver has had so many requests, and starts it again.
async fn kill_at_seeded_moments(start: impl Fn() -> Program, receiver: &Receiver) -> Program {
    let mut random = StdRng::seed_from_u64(SEED);
    let latest = EVENTS * ENDPOINTS.len() * 9 / 10;
    let mut moments: Vec<usize> = (0..KILLS).map(|_| random.random_range(1..latest)).collect();
    moments.sort_unstable();
    let mut program = start();
    for moment in moments {
        let what = format!("{moment} requests");
        let reached = async || (receiver.count() >= moment).then_some(());
        eventually(Duration::from_secs(120), &what, reached).await;
        program.kill();
        program = start();
    }
    program
}

/// Waits until every endpoint has every event; some may come twice before others come at all.
async fn everything_arrived(receiver: &Receiver) -> Ledger {
    let mut owed = Ledger::default();
    for number in 0..EVENTS {
        for path in ENDPOINTS {
            owed.owe(&number.to_string(), path);
        }
    }
    let complete = async || {
        if receiver.count() < EVENTS * ENDPOINTS.len() {
            return None;
        }
        let mut ledger = owed.clone();
        enter_arrivals(&mut ledger, receiver);
        ledger.report().missing.is_empty().then_some(ledger)
    };
    eventually(Duration::from_secs(180), "every delivery", complete).await
}
