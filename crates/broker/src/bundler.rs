//! Puts deliveries that go to the same place at the same time into one message.
//!
//! Never waits to fill a bundle for a partition: while few publishes are under way, what comes is published at
//! once; what comes meanwhile leaves together when one of them is done, or as soon as it fills a bundle. What
//! goes to the delay line waits there anyway, and gathers for a moment before.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use fanfare_model::{Clock, Delivery};
use fanfare_wire::encode_bundle;
use tokio::{sync::oneshot, time};
use tokio_util::task::TaskTracker;

use crate::{Address, PublishFault, Publisher};

/// While so many publishes are under way that fill no bundle, what fills none waits. Enough to keep the
/// broker busy between a publish and its confirm; more would only make the bundles smaller.
const UNDER_WAY: usize = 8;

/// How long what goes to the delay line gathers.
const GATHERING: Duration = Duration::from_millis(50);

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
    waiting: Mutex<Waiting>,
    publishing: TaskTracker,
}

/// What is not published yet.
#[derive(Default)]
struct Waiting {
    places: HashMap<Address, Place>,
    /// The places that wait for a publish to be done, in the order that they came.
    in_line: VecDeque<Address>,
    /// The publishes under way that count.
    under_way: usize,
}

/// What waits to be published to one address.
#[derive(Default)]
struct Place {
    items: VecDeque<Item>,
    /// It is in line, or gathers, or is about to be emptied.
    is_seen_to: bool,
}

struct Item {
    delivery: Delivery,
    published: oneshot::Sender<Result<(), PublishFault>>,
}

/// How the next bundle of a place leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Departure {
    /// At once, because it is full. It does not count: the publisher's own window bounds these.
    Full,
    /// At once, with what is here. It counts.
    Now,
    /// When one that counts is done.
    InTurn,
    /// When it has gathered. It does not count.
    Gathered,
}

impl Place {
    /// `None` when there is nothing to leave, or it is seen to.
    fn departure(&self, is_wait: bool, under_way: usize, most: usize) -> Option<Departure> {
        match self.items.len() {
            0 => None,
            count if count >= most => Some(Departure::Full),
            _ if self.is_seen_to => None,
            _ if is_wait => Some(Departure::Gathered),
            _ if under_way < UNDER_WAY => Some(Departure::Now),
            _ => Some(Departure::InTurn),
        }
    }
}

impl Bundler {
    /// Puts at most so many deliveries into one message.
    pub fn new(publisher: Publisher, clock: Clock, most_deliveries: usize) -> Self {
        Self(Arc::new(Inner {
            publisher,
            clock,
            most_deliveries: most_deliveries.max(1),
            waiting: Mutex::default(),
            publishing: TaskTracker::new(),
        }))
    }

    /// Publishes a delivery, alone or with others; `Ok` means that the broker has it.
    pub async fn publish(&self, address: Address, delivery: Delivery) -> Result<(), PublishFault> {
        // Nobody to wait for, and nobody else to tell.
        if self.0.most_deliveries == 1 {
            return Box::pin(self.publish_together(&address, vec![delivery])).await;
        }
        let (published, outcome) = oneshot::channel();
        let item = Item {
            delivery,
            published,
        };
        self.add(address, item);
        outcome.await.unwrap_or(Err(PublishFault::Closed))
    }

    fn add(&self, address: Address, item: Item) {
        let mut waiting = self.waiting();
        if let Some(place) = waiting.places.get_mut(&address) {
            place.items.push_back(item);
        } else {
            let place = waiting.places.entry(address.clone()).or_default();
            place.items.push_back(item);
        }
        self.start(&mut waiting, &address);
    }

    /// Starts whatever may leave a place.
    fn start(&self, waiting: &mut Waiting, address: &Address) {
        let most = self.0.most_deliveries;
        while let Some(place) = waiting.places.get_mut(address)
            && let Some(departure) = place.departure(address.is_wait, waiting.under_way, most)
        {
            let (bundler, address) = (self.clone(), address.clone());
            let publishing = &self.0.publishing;
            place.is_seen_to |= departure != Departure::Full;
            match departure {
                Departure::Full => {
                    let bundle = take_bundle(&mut place.items, most);
                    publishing.spawn(async move { bundler.publish_bundle(&address, bundle).await });
                }
                Departure::Now => {
                    waiting.under_way += 1;
                    publishing.spawn(bundler.publish_and_start_next(address));
                }
                Departure::InTurn => waiting.in_line.push_back(address),
                Departure::Gathered => {
                    publishing.spawn(async move {
                        time::sleep(GATHERING).await;
                        bundler.publish_what_is_here(&address).await;
                    });
                }
            }
        }
    }

    async fn publish_and_start_next(self, address: Address) {
        self.publish_what_is_here(&address).await;
        let mut waiting = self.waiting();
        waiting.under_way -= 1;
        while waiting.under_way < UNDER_WAY
            && let Some(next) = waiting.in_line.pop_front()
        {
            if let Some(place) = waiting.places.get_mut(&next) {
                place.is_seen_to = false;
            }
            self.start(&mut waiting, &next);
        }
    }

    /// What that is, is decided when this runs: whatever others that are ready at the same time have added
    /// by then goes along.
    async fn publish_what_is_here(&self, address: &Address) {
        let bundle = {
            let mut waiting = self.waiting();
            let Some(place) = waiting.places.get_mut(address) else {
                return;
            };
            place.is_seen_to = false;
            let bundle = take_bundle(&mut place.items, self.0.most_deliveries);
            self.start(&mut waiting, address);
            bundle
        };
        self.publish_bundle(address, bundle).await;
    }

    /// Publishes a bundle and tells everybody who waits for it; nothing, if it is empty.
    async fn publish_bundle(&self, address: &Address, bundle: Vec<Item>) {
        if bundle.is_empty() {
            return;
        }
        let (deliveries, waiters): (Vec<_>, Vec<_>) = bundle
            .into_iter()
            .map(|item| (item.delivery, item.published))
            .unzip();
        let result = self.publish_together(address, deliveries).await;
        for waiter in waiters {
            // Whoever gave up waiting leaves what this follows from unacknowledged, so it is done again.
            drop(waiter.send(result.clone()));
        }
    }

    async fn publish_together(
        &self,
        address: &Address,
        deliveries: Vec<Delivery>,
    ) -> Result<(), PublishFault> {
        let envelope = encode_bundle(&deliveries, self.0.clock.now());
        drop(deliveries);
        self.0.publisher.publish_patiently(address, envelope).await
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0
            .waiting
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
    fn what_fills_no_bundle_waits_for_others_when_that_costs_nothing() {
        use Departure::{Full, Gathered, InTurn, Now};

        for (count, is_seen_to, is_wait, under_way, most, expected) in [
            (0, false, false, 0, 16, None),
            (1, false, false, 0, 16, Some(Now)),
            (1, false, false, UNDER_WAY - 1, 16, Some(Now)),
            (15, false, false, UNDER_WAY, 16, Some(InTurn)),
            (15, true, false, 0, 16, None),
            (16, false, false, UNDER_WAY, 16, Some(Full)),
            (17, true, false, 0, 16, Some(Full)),
            (1, false, false, UNDER_WAY, 1, Some(Full)),
            (0, false, true, 0, 16, None),
            (1, false, true, 0, 16, Some(Gathered)),
            (1, false, true, UNDER_WAY, 16, Some(Gathered)),
            (15, true, true, 0, 16, None),
            (16, true, true, 0, 16, Some(Full)),
        ] {
            let items = items(&vec![10; count]);
            let place = Place { items, is_seen_to };
            assert_eq!(
                place.departure(is_wait, under_way, most),
                expected,
                "{count} {is_seen_to} {is_wait} {under_way} {most}"
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
