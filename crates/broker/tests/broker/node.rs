//! Nodes that crash, and nodes that run out of memory.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
};

use fanfare_broker::{QueueKind, QueueSpec};
use fanfare_testkit::{Node, Version, eventually};
use futures_util::{StreamExt as _, stream};
use tokio::time;

use crate::support::{
    PATIENCE, connected, envelope, fill, id, inbox_of_partition, next, on_every_version, partition,
    publish_all, take,
};

on_every_version! {
    a_crash_of_the_broker_loses_nothing_that_was_published_or_waits
    a_memory_alarm_holds_publishes_back_while_settled_messages_are_acknowledged
}

async fn a_crash_of_the_broker_loses_nothing_that_was_published_or_waits(version: Version) {
    let node = Node::start(version).await;
    let broker = connected(&node.settings()).await;
    let (topology, key) = (broker.topology(), partition(&broker));
    let kept = |queue: &&QueueSpec| queue.kind == QueueKind::Quorum;
    for queue in topology.queues().iter().filter(kept) {
        node.keeps_queue(&queue.name).await;
    }
    let publisher = broker.publisher();
    // Long enough that most still wait when the node dies.
    let tier = topology.delay_line().tiers()[3];
    let waiting = (0..50).map(|n| {
        (
            topology.delay_address(tier, key),
            envelope(&format!("delayed-{n}")),
        )
    });
    for answer in publish_all(&publisher, waiting).await {
        assert_eq!(answer, Ok(()));
    }

    let address = topology.delivery_address(key);
    let back = AtomicBool::new(false);
    let publishing = stream::iter(0..)
        .take_while(|_| std::future::ready(!back.load(Ordering::Relaxed)))
        .map(async |n: u32| {
            let id = format!("direct-{n}");
            publisher.publish(&address, envelope(&id)).await.unwrap();
            id
        })
        .buffer_unordered(300)
        .collect::<BTreeSet<_>>();
    let crash = async {
        eventually(PATIENCE, "an unconfirmed publish", async || {
            (publisher.status().unconfirmed() > 0).then_some(())
        })
        .await;
        node.kill().await;
        node.start_again().await;
        let connected = broker.wait_until_connected();
        time::timeout(PATIENCE, connected)
            .await
            .expect("the broker is back");
        back.store(true, Ordering::Relaxed);
    };
    let (mut owed, ()) = tokio::join!(publishing, crash);
    assert!(publisher.status().published_again() > 0);
    owed.extend((0..50).map(|n| format!("delayed-{n}")));

    let mut inbox = inbox_of_partition(&broker, 500);
    while !owed.is_empty() {
        let message = next(&mut inbox).await;
        owed.remove(id(&message));
        message.receipt.settle();
    }
    inbox.close().await;
    broker.close().await;
}

async fn a_memory_alarm_holds_publishes_back_while_settled_messages_are_acknowledged(
    version: Version,
) {
    let node = Node::start(version).await;
    let broker = connected(&node.settings()).await;
    let queue = broker.topology().delivery_queue(partition(&broker));
    let address = broker.topology().delivery_address(partition(&broker));
    fill(&broker, 10).await;
    let mut inbox = inbox_of_partition(&broker, 10);
    let held = take(&mut inbox, 10).await;

    let watermark = "set_vm_memory_high_watermark";
    node.control(&[watermark, "0.0001"]).await;
    let publisher = broker.publisher();
    let publishing = publisher.publish(&address, envelope("patient"));
    let meanwhile = async {
        eventually(PATIENCE, "a blocked publisher", async || {
            publisher.status().is_blocked().then_some(())
        })
        .await;
        assert!(!broker.is_ready());
        for message in held {
            message.receipt.settle();
        }
        inbox.close().await;
        assert_eq!(broker.depth(&queue).await.unwrap(), 0);
        assert_eq!(publisher.status().unconfirmed(), 1);
        node.control(&[watermark, "0.9"]).await;
    };
    let (published, ()) = tokio::join!(publishing, meanwhile);
    assert_eq!(published, Ok(()));
    assert_eq!(broker.depth(&queue).await.unwrap(), 1);
    broker.close().await;
}
