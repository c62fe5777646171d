//! What dispatchers say about flooded endpoints: their deliveries go straight to the delay line.
//!
//! A flood is absorbed at the door, before it fills a partition. Bounded, and forgotten after seconds:
//! a message that is lost or late costs nothing but that.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fanfare_model::{Delivery, Endpoint, EndpointId, Timestamp};

/// The most endpoints that are remembered. More are floods that come in by the usual way.
const MOST: usize = 10_000;

/// The longest that anything is believed, whatever the clock of the one who says it shows.
const LONGEST_BELIEF: Duration = Duration::from_secs(60);

/// The furthest that anybody is sent.
const FURTHEST: Duration = Duration::from_secs(8 * 3600);

/// The flooded endpoints. Cheap to clone; the clones are one.
#[derive(Clone, Default)]
pub struct Diversions(Arc<Known>);

#[derive(Default)]
struct Known {
    /// So that routing asks no lock while there are none.
    any: AtomicBool,
    endpoints: Mutex<HashMap<EndpointId, Diversion>>,
}

/// What is known of one flooded endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Diversion {
    /// The change of the endpoint that it is about.
    pub as_of: Timestamp,
    /// Deliveries come back one by one from here on,
    pub from: Timestamp,
    /// this far apart,
    pub spacing: Duration,
    /// until here. The others come back at times between this
    pub until: Timestamp,
    /// and this.
    pub latest: Timestamp,
    /// Until when it holds.
    pub expires: Timestamp,
}

impl Diversions {
    /// Remembers a diversion until it expires.
    pub fn add(&self, endpoint: EndpointId, diversion: Diversion, now: Timestamp) {
        let mut endpoints = self.endpoints();
        endpoints.retain(|_, known| known.expires > now);
        let believed = now + LONGEST_BELIEF;
        if endpoints.len() < MOST || endpoints.contains_key(&endpoint) {
            let dealt = endpoints
                .get(&endpoint)
                .filter(|known| known.as_of == diversion.as_of)
                .map(|known| known.from);
            // The lane does not know of the slots that were dealt here.
            let from = diversion.from.max(dealt.unwrap_or(diversion.from));
            let expires = diversion.expires.min(believed);
            endpoints.insert(
                endpoint,
                Diversion {
                    from,
                    expires,
                    ..diversion
                },
            );
        }
        self.0.any.store(!endpoints.is_empty(), Ordering::Release);
    }

    /// Whether no endpoint is known to be flooded.
    pub(crate) fn are_none(&self) -> bool {
        !self.0.any.load(Ordering::Acquire)
    }

    /// Until when a new delivery waits; `None` when it goes to its partition. `chance` is from 0 to 1.
    ///
    /// One that waits anyway is left alone, and one with a deadline should not miss it here.
    pub(crate) fn wait_of(
        &self,
        delivery: &Delivery,
        endpoint: &Endpoint,
        chance: f64,
        now: Timestamp,
    ) -> Option<Timestamp> {
        if delivery.wait.is_some() || delivery.deadline.is_some() {
            return None;
        }
        let mut endpoints = self.endpoints();
        let known = endpoints.get_mut(&endpoint.id)?;
        if known.expires <= now || known.as_of != endpoint.updated_at {
            endpoints.remove(&endpoint.id);
            self.0.any.store(!endpoints.is_empty(), Ordering::Release);
            return None;
        }
        let slot = known.from.max(now);
        let until = if slot < known.until {
            known.from = slot + known.spacing;
            slot
        } else {
            let from = known.until.max(now);
            let span = Duration::try_from(known.latest.duration_since(from)).unwrap_or_default();
            from + span.mul_f64(chance)
        };
        (until > now).then_some(until.min(now + FURTHEST))
    }

    fn endpoints(&self) -> MutexGuard<'_, HashMap<EndpointId, Diversion>> {
        self.0
            .endpoints
            .lock()
            .expect("nobody panics while holding the diversions")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fanfare_model::{Event, TraceContext};
    use uuid::Uuid;

    use super::*;
    use crate::decide::tests::{at, endpoint};

    fn diversion(expires: i64) -> Diversion {
        Diversion {
            as_of: at(0),
            from: at(110),
            spacing: Duration::from_secs(2),
            until: at(114),
            latest: at(154),
            expires: at(expires),
        }
    }

    fn delivery(endpoint: &Endpoint) -> Delivery {
        let event = Arc::new(Event::for_tests("t", "s", "1", "a", b"{}"));
        Delivery::new(event, endpoint.id, 1, TraceContext::default(), at(100))
    }

    #[test]
    fn a_flooded_endpoint_is_kept_away_until_that_expires_or_the_endpoint_changes() {
        let flooded = endpoint(1, "t", "*", fanfare_model::EndpointState::Active);
        let other = endpoint(2, "t", "*", fanfare_model::EndpointState::Active);
        let changed = Endpoint {
            updated_at: at(1),
            ..flooded.clone()
        };
        let late = Delivery {
            deadline: Some(at(1000)),
            ..delivery(&flooded)
        };
        let waiting = delivery(&flooded).waiting(at(500), at(100));
        for (endpoint, owed, now, expected) in [
            (&flooded, delivery(&flooded), 100, Some(110)),
            (&flooded, delivery(&flooded), 109, Some(110)),
            // Nobody else is there at this moment.
            (&flooded, delivery(&flooded), 112, None),
            (&flooded, delivery(&flooded), 120, Some(137)),
            (&flooded, delivery(&flooded), 129, Some(141)),
            (&flooded, delivery(&flooded), 130, None),
            (&flooded, late, 100, None),
            (&flooded, waiting, 100, None),
            (&changed, delivery(&flooded), 100, None),
            (&other, delivery(&other), 100, None),
        ] {
            let diversions = Diversions::default();
            assert!(diversions.are_none());
            diversions.add(flooded.id, diversion(130), at(100));
            assert!(!diversions.are_none());
            let until = diversions.wait_of(&owed, endpoint, 0.5, at(now));
            // In whole seconds: halves are cut off.
            let until = until.map(|until| until.as_second());
            assert_eq!(until, expected, "{} {now}", endpoint.id);
        }
    }

    #[test]
    fn slots_are_dealt_one_by_one_and_when_none_is_left_by_chance() {
        let flooded = endpoint(1, "t", "*", fanfare_model::EndpointState::Active);
        let diversions = Diversions::default();
        let owed = delivery(&flooded);
        for (from, until, expected) in [
            (110, 114, [110, 112, 124]),
            // Told again, it goes on where it was,
            (111, 118, [114, 116, 127]),
            // unless the lane is further.
            (121, 124, [121, 123, 131]),
        ] {
            let told = Diversion {
                from: at(from),
                until: at(until),
                ..diversion(130)
            };
            diversions.add(flooded.id, told, at(100));
            let dealt = [(); 3].map(|()| {
                let until = diversions.wait_of(&owed, &flooded, 0.25, at(100));
                until.expect("it is kept away").as_second()
            });
            assert_eq!(dealt, expected, "{from} {until}");
        }
    }

    #[test]
    fn what_is_known_is_bounded_in_number_and_in_time() {
        let diversions = Diversions::default();
        let id = |n| EndpointId::from_uuid(Uuid::from_u128(n));
        for n in 0..MOST as u128 + 10 {
            diversions.add(id(n), diversion(1_000_000), at(100));
        }
        assert_eq!(diversions.endpoints().len(), MOST);
        diversions.add(id(1 << 64), diversion(1_000_000), at(160));
        assert_eq!(diversions.endpoints().len(), 1);
    }
}
