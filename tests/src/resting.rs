//! Dead letters put where they rest without being attempted, and what their replays are owed.

use std::{collections::BTreeMap, sync::Arc};

use fanfare_broker::{Broker, Subscription};
use fanfare_model::{
    DeadLetter, DeadLetterReason, Delivery, DeliveryId, EndpointId, Event, Failure, FailureClass,
    Timestamp, TraceContext,
};
use fanfare_testkit::wall_clock;
use fanfare_wire::{decode_bundle, encode_dead_letter};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio_util::sync::CancellationToken;

/// The dead letter with this number, for an endpoint, given up on some minutes ago.
pub fn letter(number: usize, endpoint: u8) -> DeadLetter {
    let id = format!("event-{number}");
    let data = format!(r#"{{"number":{number}}}"#);
    let event = Event::for_tests("t", "/resting", &id, "a.b", data.as_bytes());
    let failure = Failure {
        class: FailureClass::Status5xx,
        status: Some(503),
        error: "the receiver answered 503".to_owned(),
    };
    let age = 120 + i64::try_from(number % 600).unwrap_or_default();
    let since = Timestamp::from_second(wall_clock().now().as_second() - age);
    let since = since.expect("this century");
    let endpoint = EndpointId::from_bytes([endpoint; 16]);
    let trace = TraceContext::default();
    let delivery = Delivery::new(Arc::new(event), endpoint, 1, trace, since);
    DeadLetter {
        delivery: delivery.after_failure(failure, since, None),
        reason: DeadLetterReason::Exhausted,
        since,
    }
}

/// Puts dead letters where they rest.
pub async fn bury(broker: &Broker, letters: impl IntoIterator<Item = DeadLetter>) {
    let publisher = broker.publisher();
    let address = broker.topology().dead_address();
    stream::iter(letters)
        .map(|letter| publisher.publish(&address, encode_dead_letter(&letter)))
        .buffer_unordered(500)
        .try_collect::<Vec<()>>()
        .await
        .expect("the broker is there");
}

/// What waits in the partitions: each delivery, its replay number, and how often it is there.
pub async fn owed(broker: &Broker) -> BTreeMap<(DeliveryId, u32), u64> {
    let topology = broker.topology();
    let mut owed = BTreeMap::new();
    for key in topology.partitions() {
        let queue = topology.delivery_queue(key);
        let depth = broker.depth(&queue).await.expect("the broker is there");
        let mut inbox = broker.inbox(vec![Subscription::queue(queue, 2000)]);
        for _ in 0..depth {
            let message = inbox.next_until(&CancellationToken::new()).await;
            let message = message.expect("nobody stops it");
            for delivery in decode_bundle(&message.envelope).expect("a bundle") {
                *owed.entry((delivery.id, delivery.replay)).or_default() += 1;
            }
            message.receipt.settle();
        }
        inbox.close().await;
    }
    owed
}
