//! Puts deliveries that go to the same place at the same time into one message.
//!
//! Never waits to fill a bundle: while few publishes to a place are under way, what comes is published at
//! once; what comes meanwhile leaves together with the next one, or as soon as it fills a bundle.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use fanfare_model::{Clock, Delivery};
use fanfare_wire::encode_bundle;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use crate::{Address, PublishFault, Publisher};

/// While so many publishes to one place are under way, what does not fill a bundle waits. Enough to keep
/// the broker busy between a publish and its confirm; more would only make the bundles smaller.
const UNDER_WAY: usize = 4;

/// What a bundle of several deliveries may hold in bytes, so that one message stays quick to move.
const BUNDLE_BYTES: usize = 128 * 1024;

/// Bundles and publishes. Cheap to clone; the clones are one.
///
/// All deliveries that are given to it for one address have to be of one partition.
#[derive(Clone)]
pub struct Bundler(Arc<Inner>);

struct Inner {
    publisher: Publisher,
    clock: Clock,
    most_deliveries: usize,
    places: Mutex<HashMap<Address, Waiting>>,
    publishing: TaskTracker,
}

#[derive(Default)]
struct Waiting {
    deliveries: VecDeque<Item>,
    /// One is about to be under way.
    starting: bool,
    under_way: usize,
}

impl Waiting {
    /// Whether to publish what has come so far. The publisher's own window bounds full bundles.
    fn may_leave(&self, most_deliveries: usize) -> bool {
        let count = self.deliveries.len();
        count > 0 && (count >= most_deliveries || self.under_way < UNDER_WAY)
    }
}

struct Item {
    delivery: Delivery,
    published: oneshot::Sender<Result<(), PublishFault>>,
}

impl Bundler {
    /// Puts at most so many deliveries into one message.
    pub fn new(publisher: Publisher, clock: Clock, most_deliveries: usize) -> Self {
        Self(Arc::new(Inner {
            publisher,
            clock,
            most_deliveries: most_deliveries.max(1),
            places: Mutex::default(),
            publishing: TaskTracker::new(),
        }))
    }

    /// Publishes a delivery, alone or with others; `Ok` means that the broker has it.
    pub async fn publish(&self, address: Address, delivery: Delivery) -> Result<(), PublishFault> {
        let (published, outcome) = oneshot::channel();
        let item = Item {
            delivery,
            published,
        };
        self.add(address, item);
        outcome.await.unwrap_or(Err(PublishFault::Closed))
    }

    fn add(&self, address: Address, item: Item) {
        let mut places = self.places();
        if let Some(waiting) = places.get_mut(&address) {
            waiting.deliveries.push_back(item);
            self.start(waiting, &address);
        } else {
            let waiting = places.entry(address.clone()).or_default();
            waiting.deliveries.push_back(item);
            self.start(waiting, &address);
        }
    }

    /// Starts a publish if one may be under way. What it takes is decided when it runs: whatever the
    /// others that are ready now have added by then goes along.
    fn start(&self, waiting: &mut Waiting, address: &Address) {
        if waiting.starting || !waiting.may_leave(self.0.most_deliveries) {
            return;
        }
        waiting.starting = true;
        let publishing = self.clone().publish_bundle(address.clone());
        self.0.publishing.spawn(publishing);
    }

    async fn publish_bundle(self, address: Address) {
        let bundle = {
            let mut places = self.places();
            let Some(waiting) = places.get_mut(&address) else {
                return;
            };
            let bundle = take_bundle(&mut waiting.deliveries, self.0.most_deliveries);
            waiting.starting = false;
            waiting.under_way += 1;
            self.start(waiting, &address);
            bundle
        };
        let (deliveries, waiters): (Vec<_>, Vec<_>) = bundle
            .into_iter()
            .map(|item| (item.delivery, item.published))
            .unzip();
        let envelope = encode_bundle(&deliveries, self.0.clock.now());
        drop(deliveries);
        let result = self.0.publisher.publish_patiently(&address, envelope).await;
        for waiter in waiters {
            // Whoever gave up waiting leaves what this follows from unacknowledged, so it is done again.
            drop(waiter.send(result.clone()));
        }
        if let Some(waiting) = self.places().get_mut(&address) {
            waiting.under_way -= 1;
            self.start(waiting, &address);
        }
    }

    fn places(&self) -> MutexGuard<'_, HashMap<Address, Waiting>> {
        self.0
            .places
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
    fn what_does_not_fill_a_bundle_waits_for_others() {
        for (count, under_way, most, expected) in [
            (0, 0, 16, false),
            (1, 0, 16, true),
            (1, UNDER_WAY - 1, 16, true),
            (15, UNDER_WAY, 16, false),
            (16, UNDER_WAY, 16, true),
            (17, 100, 16, true),
            (1, 100, 1, true),
        ] {
            let waiting = Waiting {
                deliveries: items(&vec![10; count]),
                starting: false,
                under_way,
            };
            assert_eq!(
                waiting.may_leave(most),
                expected,
                "{count} {under_way} {most}"
            );
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
