//! How messages end: acknowledged in runs, handed back, suspected, given up on.

use std::{collections::BTreeSet, panic};

use fanfare_broker::{Inbox, Message};
use fanfare_testkit::{TestBroker, Version, eventually};
use rand::seq::SliceRandom as _;
use tokio::task::JoinSet;

use crate::support::{
    PATIENCE, connected_to, delivery_count, depth_becomes, fill, id, inbox_of_partition, next,
    numbers, on_every_version, partition, take,
};

on_every_version! {
    settled_messages_are_gone_from_the_total
    messages_settled_in_any_order_are_gone_and_those_handed_back_come_again
    a_message_is_acknowledged_when_all_its_parts_are_settled
    what_counts_towards_the_delivery_limit_is_as_documented
    a_message_that_always_fails_ends_in_crashed
}

async fn settled_messages_are_gone_from_the_total(version: Version) {
    let host = TestBroker::new(version);
    let broker = connected_to(&host).await;
    let queue = broker.topology().delivery_queue(partition(&broker));
    fill(&broker, 100).await;
    let mut inbox = inbox_of_partition(&broker, 100);
    let messages = take(&mut inbox, 100).await;
    let total_becomes = async |expected| {
        let what = format!("{expected} messages in all");
        eventually(PATIENCE, &what, async || {
            (host.messages(&queue) == Some(expected)).then_some(())
        })
        .await;
    };
    total_becomes(100).await;
    assert_eq!(broker.depth(&queue).await.unwrap(), 0);
    for message in messages {
        message.receipt.settle();
    }
    total_becomes(0).await;
    inbox.close().await;
    broker.close().await;
}

async fn messages_settled_in_any_order_are_gone_and_those_handed_back_come_again(version: Version) {
    let host = TestBroker::new(version);
    let broker = connected_to(&host).await;
    let queue = broker.topology().delivery_queue(partition(&broker));
    fill(&broker, 300).await;
    let mut inbox = inbox_of_partition(&broker, 300);
    let mut messages = take(&mut inbox, 300).await;
    messages.shuffle(&mut rand::rng());
    let mut expected = BTreeSet::new();
    for message in messages {
        let number: usize = id(&message).parse().unwrap();
        if number.is_multiple_of(3) {
            expected.insert(number);
            drop(message);
        } else {
            message.receipt.settle();
        }
    }
    let again = take(&mut inbox, expected.len()).await;
    let came: BTreeSet<_> = numbers(&again).into_iter().collect();
    assert_eq!(came, expected);
    for message in again {
        assert!(message.redelivered);
        message.receipt.settle();
    }
    inbox.close().await;
    depth_becomes(&broker, &queue, 0).await;
    broker.close().await;
}

async fn a_message_is_acknowledged_when_all_its_parts_are_settled(version: Version) {
    let host = TestBroker::new(version);
    let broker = connected_to(&host).await;
    let queue = broker.topology().delivery_queue(partition(&broker));
    fill(&broker, 1).await;
    let mut inbox = inbox_of_partition(&broker, 1);
    let mut parts = next(&mut inbox).await.receipt.split(3);
    parts.remove(0).settle();
    parts.remove(0).settle();
    drop(parts);
    let again = next(&mut inbox).await;
    assert!(again.redelivered);
    for part in again.receipt.split(3) {
        part.settle();
    }
    inbox.close().await;
    assert_eq!(broker.depth(&queue).await.unwrap(), 0);
    broker.close().await;
}

/// Panics while it holds the message, as a handler with a bug would.
async fn panic_with(message: Message) {
    let mut handlers = JoinSet::new();
    handlers.spawn(async move {
        let _held = message;
        // Unlike `panic!`, this prints nothing.
        panic::resume_unwind(Box::new("a handler fails"));
    });
    let ended = handlers.join_next().await.unwrap();
    assert!(ended.is_err_and(|fault| fault.is_panic()));
}

async fn what_counts_towards_the_delivery_limit_is_as_documented(version: Version) {
    let host = TestBroker::new(version);
    let broker = connected_to(&host).await;
    fill(&broker, 1).await;
    let mut inbox = inbox_of_partition(&broker, 1);
    let count = async |inbox: &mut Inbox| {
        let message = next(inbox).await;
        (delivery_count(&message), message)
    };
    let (first, message) = count(&mut inbox).await;
    message.receipt.hand_back();
    let (after_nack, message) = count(&mut inbox).await;
    panic_with(message).await;
    let (after_panic, message) = count(&mut inbox).await;
    host.drop_connections(2).await;
    let (after_loss, again) = count(&mut inbox).await;
    drop(message);
    again.receipt.settle();
    let expected = match version {
        Version::V3_10 => [0, 1, 2, 3],
        Version::V4_3 => [0, 0, 1, 2],
    };
    assert_eq!([first, after_nack, after_panic, after_loss], expected);
    inbox.close().await;
    broker.close().await;
}

async fn a_message_that_always_fails_ends_in_crashed(version: Version) {
    let host = TestBroker::new(version);
    let broker = connected_to(&host).await;
    let crashed = broker.topology().crashed_queue();
    fill(&broker, 1).await;
    let mut inbox = inbox_of_partition(&broker, 1);
    // Given out once, and again as often as the delivery limit allows.
    for _ in 0..21 {
        panic_with(next(&mut inbox).await).await;
    }
    depth_becomes(&broker, &crashed, 1).await;
    assert!(inbox.try_next().is_none());
    let found = broker.peek(&crashed, 1).await.unwrap();
    assert_eq!(found[0].properties.message_id.as_deref(), Some("0"));
    inbox.close().await;
    broker.close().await;
}
