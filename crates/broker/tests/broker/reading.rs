//! The journal is read to its end by whoever stops waiting now and then, and a lock has one owner.

use std::time::Duration;

use fanfare_testkit::{TestBroker, Version, eventually};
use tokio::time;

use crate::support::{PATIENCE, connected_to, envelope, on_every_version, publish_all};

on_every_version! {
    a_reader_that_stops_waiting_now_and_then_reads_everything_once
    a_lock_has_one_owner_until_it_is_released_or_lost
}

async fn a_reader_that_stops_waiting_now_and_then_reads_everything_once(version: Version) {
    const COUNT: u64 = 500;
    let host = TestBroker::new(version);
    let broker = connected_to(&host).await;
    let address = broker.topology().journal_address();
    let messages = (0..COUNT).map(|n| (address.clone(), envelope(&n.to_string())));
    for published in publish_all(&broker.publisher(), messages).await {
        published.unwrap();
    }
    let mut reader = broker.read_journal(0).await.unwrap();
    let (mut next, deadline) = (0, time::Instant::now() + PATIENCE);
    while next < COUNT {
        assert!(time::Instant::now() < deadline, "{next} of {COUNT} read");
        // Polled once: whatever it waits for, it is dropped there.
        let Ok(message) = time::timeout(Duration::ZERO, reader.next()).await else {
            time::timeout(Duration::from_millis(1), std::future::pending::<()>())
                .await
                .ok();
            continue;
        };
        assert_eq!(message.expect("the stream is not lost").offset, next);
        next += 1;
    }
    reader.close().await;
    broker.close().await;
}

async fn a_lock_has_one_owner_until_it_is_released_or_lost(version: Version) {
    let host = TestBroker::new(version);
    let (one, other) = (connected_to(&host).await, connected_to(&host).await);
    let held = one.lock("work").await.unwrap().expect("it is free");
    assert!(held.is_held());
    assert!(other.lock("work").await.unwrap().is_none());
    let elsewhere = other.lock("other work").await.unwrap();
    elsewhere.expect("another lock is free").release().await;
    held.release().await;
    let held = other.lock("work").await.unwrap().expect("it was released");
    other.close().await;
    assert!(!held.is_held());
    eventually(PATIENCE, "the lock of a lost connection", async || {
        one.lock("work").await.unwrap()
    })
    .await;
    one.close().await;
}
