//! Receiving: prefetch, lost connections, deleted queues, and closing.

use std::collections::BTreeSet;

use fanfare_testkit::{PlainAmqp, TestBroker, Version, eventually};
use fanfare_wire::Envelope;
use tokio_util::sync::CancellationToken;

use crate::support::{
    PATIENCE, connected_to, depth_becomes, envelope, fill, id, inbox_of_partition, next, numbers,
    on_every_version, partition, take,
};

on_every_version! {
    no_more_messages_are_out_than_the_prefetch_allows
    a_lost_connection_brings_back_what_was_not_settled_and_nothing_else
    a_queue_that_is_deleted_is_subscribed_again_once_it_is_back
    closing_hands_back_what_was_not_received
    closing_waits_for_what_is_still_being_handled
    closing_takes_every_acknowledgement_along
    a_shutdown_ends_the_wait_for_messages
    announcements_reach_every_process
}

async fn no_more_messages_are_out_than_the_prefetch_allows(version: Version) {
    let host = TestBroker::new(version);
    let broker = connected_to(&host).await;
    let queue = broker.topology().delivery_queue(partition(&broker));
    fill(&broker, 10).await;
    let mut inbox = inbox_of_partition(&broker, 3);
    let mut held = take(&mut inbox, 3).await;
    assert_eq!(numbers(&held), [0, 1, 2]);
    for ready in (0..7).rev() {
        assert!(inbox.try_next().is_none());
        depth_becomes(&broker, &queue, ready + u32::from(held.len() == 3)).await;
        if held.len() == 3 {
            held.remove(0).receipt.settle();
        }
        held.push(next(&mut inbox).await);
    }
    for message in held {
        message.receipt.settle();
    }
    inbox.close().await;
    assert_eq!(broker.depth(&queue).await.unwrap(), 0);
    broker.close().await;
}

async fn a_lost_connection_brings_back_what_was_not_settled_and_nothing_else(version: Version) {
    let host = TestBroker::new(version);
    let broker = connected_to(&host).await;
    fill(&broker, 9).await;
    let mut inbox = inbox_of_partition(&broker, 6);
    let mut held = take(&mut inbox, 6).await;
    for message in held.drain(..3) {
        message.receipt.settle();
    }
    // That more come shows that the broker knows of the three.
    held.extend(take(&mut inbox, 3).await);
    assert_eq!(numbers(&held), [3, 4, 5, 6, 7, 8]);

    host.drop_connections(2).await;
    eventually(PATIENCE, "void receipts", async || {
        held.iter().all(|m| m.receipt.is_void()).then_some(())
    })
    .await;
    for message in held {
        message.receipt.settle();
    }
    let again = take(&mut inbox, 6).await;
    assert!(again.iter().all(|message| message.redelivered));
    let came: BTreeSet<_> = numbers(&again).into_iter().collect();
    assert_eq!(came, (3..9).collect());
    for message in again {
        message.receipt.settle();
    }
    inbox.close().await;
    let queue = broker.topology().delivery_queue(partition(&broker));
    assert_eq!(broker.depth(&queue).await.unwrap(), 0);
    broker.close().await;
}

async fn a_queue_that_is_deleted_is_subscribed_again_once_it_is_back(version: Version) {
    let host = TestBroker::new(version);
    let broker = connected_to(&host).await;
    let queue = broker.topology().delivery_queue(partition(&broker));
    fill(&broker, 1).await;
    let mut inbox = inbox_of_partition(&broker, 5);
    let held = next(&mut inbox).await;
    let plain = PlainAmqp::connect(host.url()).await;
    plain.delete_queue(&queue).await;
    eventually(PATIENCE, "a void receipt", async || {
        held.receipt.is_void().then_some(())
    })
    .await;
    drop(held);

    connected_to(&host).await.close().await;
    fill(&broker, 3).await;
    let messages = take(&mut inbox, 3).await;
    assert_eq!(numbers(&messages), [0, 1, 2]);
    for message in messages {
        message.receipt.settle();
    }
    inbox.close().await;
    assert_eq!(broker.depth(&queue).await.unwrap(), 0);
    broker.close().await;
}

async fn closing_hands_back_what_was_not_received(version: Version) {
    let host = TestBroker::new(version);
    let broker = connected_to(&host).await;
    let queue = broker.topology().delivery_queue(partition(&broker));
    fill(&broker, 20).await;
    let mut inbox = inbox_of_partition(&broker, 10);
    for message in take(&mut inbox, 2).await {
        message.receipt.settle();
    }
    inbox.close().await;
    depth_becomes(&broker, &queue, 18).await;

    let mut other = inbox_of_partition(&broker, 18);
    let rest = take(&mut other, 18).await;
    let came: BTreeSet<_> = numbers(&rest).into_iter().collect();
    assert_eq!(came, (2..20).collect());
    for message in rest {
        message.receipt.settle();
    }
    other.close().await;
    assert_eq!(broker.depth(&queue).await.unwrap(), 0);
    broker.close().await;
}

async fn closing_waits_for_what_is_still_being_handled(version: Version) {
    let host = TestBroker::new(version);
    let broker = connected_to(&host).await;
    let queue = broker.topology().delivery_queue(partition(&broker));
    fill(&broker, 2).await;
    let mut inbox = inbox_of_partition(&broker, 1);
    let held = next(&mut inbox).await;
    let mut other = inbox_of_partition(&broker, 1);
    let settle_after_the_hand_over = async {
        // The next owner starts when this one has cancelled, and does not wait for what is held.
        let message = next(&mut other).await;
        assert_eq!((id(&held), id(&message)), ("0", "1"));
        assert!(!held.receipt.is_void());
        held.receipt.settle();
        message.receipt.settle();
    };
    tokio::join!(inbox.close(), settle_after_the_hand_over);
    other.close().await;
    assert_eq!(broker.depth(&queue).await.unwrap(), 0);
    broker.close().await;
}

async fn closing_takes_every_acknowledgement_along(version: Version) {
    let host = TestBroker::new(version);
    let broker = connected_to(&host).await;
    let queue = broker.topology().delivery_queue(partition(&broker));
    fill(&broker, 300).await;
    let mut inbox = inbox_of_partition(&broker, 300);
    let held = take(&mut inbox, 300).await;
    // With every other one unsettled, each acknowledgement is a command of its own.
    let (mut settled, mut back) = (Vec::new(), Vec::new());
    for (number, message) in held.into_iter().enumerate() {
        let side = if number % 2 == 0 {
            &mut settled
        } else {
            &mut back
        };
        side.push(message);
    }
    for message in settled {
        message.receipt.settle();
    }
    drop(back);
    inbox.close().await;
    depth_becomes(&broker, &queue, 150).await;
    broker.close().await;
}

async fn a_shutdown_ends_the_wait_for_messages(version: Version) {
    let host = TestBroker::new(version);
    let broker = connected_to(&host).await;
    let mut inbox = inbox_of_partition(&broker, 1);
    let shutdown = CancellationToken::new();
    let (message, ()) = tokio::join!(inbox.next_until(&shutdown), async { shutdown.cancel() });
    assert!(message.is_none());
    broker.close().await;
    assert!(inbox.next_until(&CancellationToken::new()).await.is_none());
}

async fn announcements_reach_every_process(version: Version) {
    let host = TestBroker::new(version);
    let brokers = [connected_to(&host).await, connected_to(&host).await];
    let address = brokers[0].topology().control_address();
    let publisher = brokers[0].publisher();
    // Nobody listens yet, and that is no fault.
    let published = publisher.publish(&address, Envelope::default()).await;
    assert_eq!(published, Ok(()));
    for (inbox, news) in brokers
        .each_ref()
        .map(|b| (b.control_inbox(), b.publisher()))
    {
        let mut inbox = inbox;
        let message = eventually(PATIENCE, "an announcement", async || {
            // RabbitMQ refuses a message when one of the queues it is for goes away meanwhile.
            let envelope = envelope("news");
            news.publish_patiently(&address, envelope).await.unwrap();
            inbox.try_next()
        })
        .await;
        assert_eq!(id(&message), "news");
        message.receipt.settle();
        inbox.close().await;
    }
    for broker in brokers {
        broker.close().await;
    }
}
