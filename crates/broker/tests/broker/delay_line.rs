//! Waiting in the delay line and coming back.

use std::time::Duration;

use fanfare_broker::{Broker, Tier};
use fanfare_model::PartitionKey;
use fanfare_testkit::{TestBroker, Version};
use tokio::time::Instant;

use crate::support::{
    connected_to, depth_becomes, envelope, id, inbox_of_partition, next, on_every_version,
    partition, publish_all,
};

on_every_version! {
    a_delivery_comes_back_to_its_own_partition_not_before_its_time
    a_delivery_may_go_round_as_often_as_it_likes
    what_nobody_takes_on_its_return_does_not_hold_up_the_others
}

fn shortest(broker: &Broker) -> Tier {
    broker.topology().delay_line().tiers()[0]
}

async fn a_delivery_comes_back_to_its_own_partition_not_before_its_time(version: Version) {
    let host = TestBroker::new(version);
    let broker = connected_to(&host).await;
    let topology = broker.topology();
    let publisher = broker.publisher();
    let began = Instant::now();
    for key in topology.partitions() {
        let address = topology.delay_address(shortest(&broker), key);
        let published = publisher
            .publish(&address, envelope(&key.to_string()))
            .await;
        assert_eq!(published, Ok(()));
    }
    for key in topology.partitions() {
        let queue = topology.delivery_queue(key);
        let subscription = fanfare_broker::Subscription::queue(queue, 10);
        let mut inbox = broker.inbox(vec![subscription]);
        let message = next(&mut inbox).await;
        assert!(began.elapsed() >= Duration::from_secs(1));
        assert_eq!(id(&message), key.to_string());
        assert_eq!(message.routing_key, key.to_string());
        assert!(inbox.try_next().is_none());
        message.receipt.settle();
        inbox.close().await;
    }
    broker.close().await;
}

async fn a_delivery_may_go_round_as_often_as_it_likes(version: Version) {
    let host = TestBroker::new(version);
    let broker = connected_to(&host).await;
    let address = broker
        .topology()
        .delay_address(shortest(&broker), partition(&broker));
    let publisher = broker.publisher();
    let mut inbox = inbox_of_partition(&broker, 10);
    let began = Instant::now();
    let mut sent = envelope("one");
    for round in 1..=6 {
        publisher.publish(&address, sent).await.unwrap();
        let message = next(&mut inbox).await;
        assert!(began.elapsed() >= Duration::from_secs(round));
        sent = message.envelope;
        sent.headers.remove_prefix("x-");
        message.receipt.settle();
    }
    inbox.close().await;
    broker.close().await;
}

async fn what_nobody_takes_on_its_return_does_not_hold_up_the_others(version: Version) {
    let host = TestBroker::new(version);
    let broker = connected_to(&host).await;
    let (topology, key) = (broker.topology(), partition(&broker));
    let unknown = PartitionKey {
        generation: 9,
        ..key
    };
    // More than RabbitMQ's worker for dead letters holds at once, also with our node settings.
    let keys = (0..300).map(|_| unknown).chain([key]);
    let tier = shortest(&broker);
    let messages = keys.map(|key| {
        (
            topology.delay_address(tier, key),
            envelope(&key.to_string()),
        )
    });
    for answer in publish_all(&broker.publisher(), messages).await {
        assert_eq!(answer, Ok(()));
    }
    let mut inbox = inbox_of_partition(&broker, 10);
    let message = next(&mut inbox).await;
    assert_eq!(id(&message), key.to_string());
    message.receipt.settle();
    depth_becomes(&broker, &topology.unroutable_queue(), 300).await;
    inbox.close().await;
    broker.close().await;
}
