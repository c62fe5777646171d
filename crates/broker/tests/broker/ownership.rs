//! One owner of a partition at a time.

use fanfare_broker::{Broker, Inbox, Subscription};
use fanfare_testkit::{TestBroker, Version, eventually};

use crate::support::{
    PATIENCE, connected_to, fill, next, numbers, on_every_version, partition, take,
};

on_every_version! {
    one_inbox_alone_gets_the_messages_of_a_partition_and_the_other_takes_over
    a_higher_priority_takes_over_from_4_0_on
}

/// Waits until the broker knows the subscription.
async fn inbox(host: &TestBroker, broker: &Broker, (priority, nth): (i32, usize)) -> Inbox {
    let queue = broker.topology().delivery_queue(partition(broker));
    let subscription = Subscription::queue(queue.clone(), 5).with_priority(priority);
    let inbox = broker.inbox(vec![subscription]);
    eventually(PATIENCE, "a consumer", async || {
        (host.consumers(&queue) == nth).then_some(())
    })
    .await;
    inbox
}

async fn settle_all(inbox: &mut Inbox, count: usize) -> Vec<usize> {
    let mut came = Vec::new();
    for _ in 0..count {
        let message = next(inbox).await;
        came.extend(numbers(std::slice::from_ref(&message)));
        message.receipt.settle();
    }
    came
}

async fn one_inbox_alone_gets_the_messages_of_a_partition_and_the_other_takes_over(
    version: Version,
) {
    let host = TestBroker::new(version);
    let broker = connected_to(&host).await;
    let mut first = inbox(&host, &broker, (7, 1)).await;
    let mut second = inbox(&host, &broker, (7, 2)).await;
    fill(&broker, 20).await;
    assert_eq!(settle_all(&mut first, 20).await, Vec::from_iter(0..20));
    assert!(second.try_next().is_none());
    first.close().await;
    fill(&broker, 20).await;
    assert_eq!(settle_all(&mut second, 20).await, Vec::from_iter(0..20));
    second.close().await;
    broker.close().await;
}

async fn a_higher_priority_takes_over_from_4_0_on(version: Version) {
    let host = TestBroker::new(version);
    let broker = connected_to(&host).await;
    let mut first = inbox(&host, &broker, (1, 1)).await;
    fill(&broker, 1).await;
    let held = take(&mut first, 1).await;
    let mut second = inbox(&host, &broker, (i32::MAX, 2)).await;
    fill(&broker, 3).await;
    match version {
        Version::V3_10 => {
            assert_eq!(settle_all(&mut first, 3).await, [0, 1, 2]);
            assert!(second.try_next().is_none());
            drop(held);
        }
        Version::V4_3 => {
            // The old owner gets nothing new, and the new one nothing until the old one is done.
            assert!(first.try_next().is_none() && second.try_next().is_none());
            for message in held {
                message.receipt.settle();
            }
            assert_eq!(settle_all(&mut second, 3).await, [0, 1, 2]);
            assert!(first.try_next().is_none());
        }
    }
    first.close().await;
    second.close().await;
    broker.close().await;
}
