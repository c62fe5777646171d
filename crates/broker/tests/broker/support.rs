//! What the tests of this crate share.

use std::time::Duration;

use fanfare_broker::{
    Address, Broker, Inbox, Message, PublishFault, Publisher, Settings, Subscription,
};
use fanfare_model::PartitionKey;
use fanfare_testkit::{TestBroker, eventually};
use fanfare_wire::{Envelope, HeaderValue};
use futures_util::future::join_all;
use tokio::time;
use tokio_util::sync::CancellationToken;

/// Far more than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Makes a test of each function, on each version of RabbitMQ.
macro_rules! on_every_version {
    ($($fact:ident)*) => {
        $(mod $fact {
            #[tokio::test(flavor = "multi_thread")]
            async fn on_3_10() {
                super::$fact(fanfare_testkit::Version::V3_10).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn on_4_3() {
                super::$fact(fanfare_testkit::Version::V4_3).await;
            }
        })*
    };
}
pub(crate) use on_every_version;

pub(crate) async fn connected(settings: &Settings) -> Broker {
    Broker::connect(settings, "test", PATIENCE)
        .await
        .expect("the broker is there")
}

pub(crate) async fn connected_to(host: &TestBroker) -> Broker {
    connected(&host.settings()).await
}

/// A message that is told from others by its id.
pub(crate) fn envelope(id: &str) -> Envelope {
    let mut envelope = Envelope::default();
    envelope.properties.message_id = Some(id.to_owned());
    envelope.body = id.to_owned().into();
    envelope
}

pub(crate) fn id(message: &Message) -> &str {
    let id = message.envelope.properties.message_id.as_deref();
    id.expect("messages of these tests have ids")
}

/// How often the broker says that handling the message failed.
pub(crate) fn delivery_count(message: &Message) -> i64 {
    match message.envelope.headers.get("x-delivery-count") {
        Some(HeaderValue::Integer(count)) => *count,
        _ => 0,
    }
}

/// Publishes all at once and returns what became of each.
pub(crate) async fn publish_all(
    publisher: &Publisher,
    messages: impl IntoIterator<Item = (Address, Envelope)>,
) -> Vec<Result<(), PublishFault>> {
    let messages = messages.into_iter();
    join_all(messages.map(async |(address, envelope)| publisher.publish(&address, envelope).await))
        .await
}

/// Messages with the ids `0` to `count - 1` for the first partition, all confirmed.
pub(crate) async fn fill(broker: &Broker, count: usize) {
    let address = broker.topology().delivery_address(partition(broker));
    let messages = (0..count).map(|n| (address.clone(), envelope(&n.to_string())));
    for confirmed in publish_all(&broker.publisher(), messages).await {
        confirmed.expect("a partition takes messages");
    }
}

/// Receives from the first partition.
pub(crate) fn inbox_of_partition(broker: &Broker, prefetch: u16) -> Inbox {
    let queue = broker.topology().delivery_queue(partition(broker));
    broker.inbox(vec![Subscription::queue(queue, prefetch)])
}

/// Waits until a queue has this many messages to give out.
pub(crate) async fn depth_becomes(broker: &Broker, queue: &str, expected: u32) {
    let what = format!("{expected} messages in queue `{queue}`");
    eventually(PATIENCE, &what, async || {
        let depth = broker.depth(queue).await.expect("the queue exists");
        (depth == expected).then_some(())
    })
    .await;
}

/// Receives this many messages.
pub(crate) async fn take(inbox: &mut Inbox, count: usize) -> Vec<Message> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.push(next(inbox).await);
    }
    taken
}

/// The ids of messages as numbers, in the order of the messages.
pub(crate) fn numbers(messages: &[Message]) -> Vec<usize> {
    let number = |message| id(message).parse().expect("these ids are numbers");
    messages.iter().map(number).collect()
}

/// The first partition of a topology.
pub(crate) fn partition(broker: &Broker) -> PartitionKey {
    let first = broker.topology().partitions().next();
    first.expect("a topology has partitions")
}

/// The next message; panics when none comes.
pub(crate) async fn next(inbox: &mut Inbox) -> Message {
    let never = CancellationToken::new();
    time::timeout(PATIENCE, inbox.next_until(&never))
        .await
        .expect("a message comes")
        .expect("the broker handle is open")
}
