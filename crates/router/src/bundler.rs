//! Puts deliveries of one partition that are in hand at the same time into one message.
//!
//! Never waits to fill a bundle: while few publishes of a partition are under way, what comes is
//! published at once; what comes meanwhile leaves together with the next one.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use fanfare_broker::{PublishFault, Publisher, Topology};
use fanfare_model::{Clock, Delivery, PartitionKey};
use fanfare_wire::encode_bundle;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

/// Publishes of one partition that may be under way at once. Enough to keep the broker busy between a
/// publish and its confirm; more would only make the bundles smaller.
const UNDER_WAY: usize = 4;

/// What a bundle of several deliveries may hold in bytes, so that one message stays quick to move.
const BUNDLE_BYTES: usize = 128 * 1024;

/// Bundles and publishes. Cheap to clone; the clones are one.
#[derive(Clone)]
pub(crate) struct Bundler(Arc<Inner>);

struct Inner {
    publisher: Publisher,
    topology: Arc<Topology>,
    clock: Clock,
    most_deliveries: usize,
    partitions: Mutex<HashMap<PartitionKey, Waiting>>,
    publishing: TaskTracker,
}

#[derive(Default)]
struct Waiting {
    deliveries: VecDeque<Item>,
    under_way: usize,
}

struct Item {
    delivery: Delivery,
    published: oneshot::Sender<Result<(), PublishFault>>,
}

impl Bundler {
    pub(crate) fn new(
        publisher: Publisher,
        topology: Arc<Topology>,
        clock: Clock,
        most_deliveries: usize,
    ) -> Self {
        Self(Arc::new(Inner {
            publisher,
            topology,
            clock,
            most_deliveries: most_deliveries.max(1),
            partitions: Mutex::default(),
            publishing: TaskTracker::new(),
        }))
    }

    /// Publishes a delivery that is due, alone or with others; `Ok` means that the broker has it.
    pub(crate) async fn publish(&self, delivery: Delivery) -> Result<(), PublishFault> {
        let key = self.0.topology.partition_of(delivery.endpoint);
        let (published, outcome) = oneshot::channel();
        let item = Item {
            delivery,
            published,
        };
        self.partitions()
            .entry(key)
            .or_default()
            .deliveries
            .push_back(item);
        self.pump(key);
        outcome.await.unwrap_or(Err(PublishFault::Closed))
    }

    /// Starts as many publishes as may be under way.
    fn pump(&self, key: PartitionKey) {
        let mut partitions = self.partitions();
        let waiting = partitions.entry(key).or_default();
        while waiting.under_way < UNDER_WAY {
            let bundle = take_bundle(&mut waiting.deliveries, self.0.most_deliveries);
            if bundle.is_empty() {
                return;
            }
            waiting.under_way += 1;
            self.0
                .publishing
                .spawn(self.clone().publish_bundle(key, bundle));
        }
    }

    async fn publish_bundle(self, key: PartitionKey, bundle: Vec<Item>) {
        let (deliveries, waiters): (Vec<_>, Vec<_>) = bundle
            .into_iter()
            .map(|item| (item.delivery, item.published))
            .unzip();
        let envelope = encode_bundle(&deliveries, self.0.clock.now());
        drop(deliveries);
        let address = self.0.topology.delivery_address(key);
        let result = self.0.publisher.publish_patiently(&address, envelope).await;
        for waiter in waiters {
            // Whoever gave up waiting leaves its event unacknowledged, so it is routed again.
            drop(waiter.send(result.clone()));
        }
        if let Some(waiting) = self.partitions().get_mut(&key) {
            waiting.under_way -= 1;
        }
        self.pump(key);
    }

    fn partitions(&self) -> MutexGuard<'_, HashMap<PartitionKey, Waiting>> {
        self.0
            .partitions
            .lock()
            .expect("nobody panics while holding the bundles")
    }
}

/// Takes the next bundle: at most so many deliveries, and no more bytes than a bundle may hold unless
/// a single delivery has more.
fn take_bundle(waiting: &mut VecDeque<Item>, most_deliveries: usize) -> Vec<Item> {
    let mut bundle = Vec::new();
    let mut bytes = 0;
    while let Some(next) = waiting.front() {
        bytes += next.delivery.event.size();
        let full = bundle.len() == most_deliveries || (bytes > BUNDLE_BYTES && !bundle.is_empty());
        if full {
            break;
        }
        bundle.extend(waiting.pop_front());
    }
    bundle
}

#[cfg(test)]
mod tests {
    use fanfare_model::{EndpointId, Event, Timestamp, TraceContext};
    use uuid::Uuid;

    use super::*;

    fn items(sizes: &[usize]) -> VecDeque<Item> {
        let item = |size: &usize| {
            let data = format!("\"{}\"", "x".repeat(*size));
            let event = Event::for_tests("t", "s", "1", "a", data.as_bytes());
            let endpoint = EndpointId::from_uuid(Uuid::from_u128(1));
            let trace = TraceContext::default();
            let now = Timestamp::UNIX_EPOCH;
            Item {
                delivery: Delivery::new(Arc::new(event), endpoint, 1, trace, now),
                published: oneshot::channel().0,
            }
        };
        sizes.iter().map(item).collect()
    }

    fn bundles(sizes: &[usize], most: usize) -> Vec<usize> {
        let mut waiting = items(sizes);
        let mut taken = Vec::new();
        loop {
            let bundle = take_bundle(&mut waiting, most);
            if bundle.is_empty() {
                return taken;
            }
            taken.push(bundle.len());
        }
    }

    #[test]
    fn a_bundle_has_bounds_in_deliveries_and_in_bytes() {
        const LARGE: usize = 100 * 1024;
        for (sizes, most, expected) in [
            (vec![], 16, vec![]),
            (vec![10; 3], 16, vec![3]),
            (vec![10; 33], 16, vec![16, 16, 1]),
            (vec![10; 3], 1, vec![1, 1, 1]),
            (vec![LARGE; 3], 16, vec![1, 1, 1]),
            (vec![10, LARGE, LARGE, 10], 16, vec![2, 2]),
            (vec![2 * LARGE, 10], 16, vec![1, 1]),
        ] {
            assert_eq!(bundles(&sizes, most), expected, "{sizes:?} {most}");
        }
    }
}
