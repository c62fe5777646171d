//! `kill -9` of the process that routes and dispatches.

use std::time::Duration;

use fanfare_producer::Producer;
use fanfare_testkit::{Behaviour, Ledger, Receiver, TestBroker, Version, eventually};
use fanfare_tests::{Program, on_each_rabbitmq};
use futures_util::{StreamExt as _, stream};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tempfile::TempDir;

use crate::support::{enter_arrivals, event, register, registry};

on_each_rabbitmq!(killing_router_and_dispatcher_loses_nothing);

const EVENTS: usize = 5000;
const ENDPOINTS: [&str; 3] = ["/a", "/b", "/c"];
const KILLS: u64 = 6;
const SEED: u64 = 20_261_123;
const ROUTER_PREFETCH: u64 = 300;
const PARTITION_PREFETCH: u64 = 256;
const PARTITIONS: u64 = 4;

async fn killing_router_and_dispatcher_loses_nothing(version: Version) {
    // What one kill can repeat: the deliveries in the dispatcher's unacknowledged messages (one each),
    // and the router's unacknowledged events times the fan-out.
    let bound =
        KILLS * (PARTITIONS * PARTITION_PREFETCH + ROUTER_PREFETCH * ENDPOINTS.len() as u64);
    eprintln!(
        "RabbitMQ {}: at most {bound} duplicates after {KILLS} kills",
        version.name()
    );

    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let home = TempDir::new().expect("a temporary directory can be made");
    let registry = registry(&home).await;
    for path in ENDPOINTS {
        receiver.behave(path, Behaviour::slow(Duration::from_millis(50)));
        register(&registry, &receiver.url(path), 64).await;
    }
    registry.close().await;

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
    let killing = async {
        let mut random = StdRng::seed_from_u64(SEED);
        let owed = EVENTS * ENDPOINTS.len();
        let mut moments: Vec<usize> = (0..KILLS)
            .map(|_| random.random_range(1..owed * 9 / 10))
            .collect();
        moments.sort_unstable();
        let start = || Program::serve("router,dispatcher", broker.url(), &home, &[]);
        let mut program = start();
        for moment in moments {
            let what = format!("{moment} requests");
            let reached = async || (receiver.count() >= moment).then_some(());
            eventually(Duration::from_secs(120), &what, reached).await;
            program.kill();
            program = start();
        }
        program
    };
    let ((), mut program) = tokio::join!(publishing, killing);

    let mut ledger = Ledger::default();
    for number in 0..EVENTS {
        for path in ENDPOINTS {
            ledger.owe(&number.to_string(), path);
        }
    }
    // The receiver may have more than is owed before it has everything: repeats come early.
    let everything = async || {
        if receiver.count() < EVENTS * ENDPOINTS.len() {
            return None;
        }
        let mut ledger = ledger.clone();
        enter_arrivals(&mut ledger, &receiver);
        ledger.report().missing.is_empty().then_some(ledger)
    };
    let ledger = eventually(Duration::from_secs(180), "every delivery", everything).await;
    assert_eq!(program.terminate(), Some(0), "the last one stops in order");
    let report = ledger.assert_balanced(bound);
    eprintln!(
        "RabbitMQ {}: {} owed, {} duplicates",
        version.name(),
        report.owed,
        report.duplicates
    );
    producer.close().await;
}
