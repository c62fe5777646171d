//! RabbitMQ stopped for a while, and killed, while events are published.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fanfare_producer::Producer;
use fanfare_testkit::{Ledger, Node, Receiver, Version, eventually};
use fanfare_tests::{Pipeline, on_each_rabbitmq};
use futures_util::{StreamExt as _, stream};

use crate::support::{enter_arrivals, event};

on_each_rabbitmq!(an_outage_of_rabbitmq_loses_nothing_confirmed);

const EVENTS: usize = 2000;
const OUTAGE: Duration = Duration::from_secs(20);

async fn an_outage_of_rabbitmq_loses_nothing_confirmed(version: Version) {
    let (node, receiver) = (Node::start(version).await, Receiver::start().await);
    let pipeline = Pipeline::start(node.settings()).await;
    pipeline
        .register("t", &receiver.url("/a"), &["*"], |_| {})
        .await;
    // Two outages, each repeating at most what was unacknowledged or unconfirmed then.
    let settings = node.settings();
    let held = u64::from(settings.partitions.get()) * 256 + 300;
    let bound = 2 * (held + u64::from(settings.max_unconfirmed));
    eprintln!("RabbitMQ {}: at most {bound} duplicates", version.name());

    let producer = Producer::connect(&settings, "outage")
        .await
        .expect("it connects");
    let producer = producer.confirm_within(Duration::from_secs(300));
    let (confirmed, ledger) = (AtomicUsize::new(0), Arc::new(Mutex::new(Ledger::default())));
    let publishing = stream::iter(0..EVENTS).for_each_concurrent(20, |number| {
        let (producer, confirmed, ledger) = (&producer, &confirmed, &ledger);
        async move {
            // A publisher waits for as long as it was told to; an error would say what to do.
            producer
                .publish(&event(number))
                .await
                .expect("the outages end in time");
            ledger
                .lock()
                .expect("nobody panics")
                .owe(&number.to_string(), "/a");
            confirmed.fetch_add(1, Ordering::Relaxed);
        }
    });
    let failing = async {
        let reached = async |count| {
            let what = format!("{count} confirmed events");
            let ask = async || (confirmed.load(Ordering::Relaxed) >= count).then_some(());
            eventually(Duration::from_secs(120), &what, ask).await;
        };
        reached(400).await;
        node.stop_for(OUTAGE).await;
        reached(1200).await;
        node.kill().await;
        node.start_again().await;
    };
    tokio::join!(publishing, failing);

    let ledger = ledger.lock().expect("nobody panics").clone();
    let complete = async || {
        let mut ledger = ledger.clone();
        enter_arrivals(&mut ledger, &receiver);
        ledger.report().missing.is_empty().then_some(ledger)
    };
    let ledger = eventually(Duration::from_secs(300), "every confirmed event", complete).await;
    let report = ledger.assert_balanced(bound);
    eprintln!(
        "RabbitMQ {}: {} owed, {} duplicates",
        version.name(),
        report.owed,
        report.duplicates
    );
    producer.close().await;
    pipeline.stop().await;
}
