//! Publishing: confirms, returns, refusals, and brokers that go away.

use fanfare_broker::Subscription;
use fanfare_testkit::{TestBroker, Version};

use crate::support::{connected_to, envelope, id, next, on_every_version, partition};

on_every_version! {
    what_is_published_is_received_and_settled
}

async fn what_is_published_is_received_and_settled(version: Version) {
    let host = TestBroker::new(version);
    let broker = connected_to(&host).await;
    let (publisher, key) = (broker.publisher(), partition(&broker));
    let address = broker.topology().delivery_address(key);
    publisher.publish(&address, envelope("one")).await.unwrap();

    let queue = broker.topology().delivery_queue(key);
    let mut inbox = broker.inbox(vec![Subscription::queue(queue.clone(), 10)]);
    let message = next(&mut inbox).await;
    assert_eq!(id(&message), "one");
    message.receipt.settle();
    inbox.close().await;
    assert_eq!(broker.depth(&queue).await.unwrap(), 0);
    broker.close().await;
}
