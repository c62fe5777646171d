//! The lanes of all endpoints that had deliveries lately.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use fanfare_model::{EndpointId, Timestamp};

use crate::lane::{Bounds, Lane};

/// So many lanes are kept without a look for ones that nobody needs any more.
const FEW: usize = 1000;

/// The lanes, made as they are needed.
pub(crate) struct Lanes {
    known: Mutex<Known>,
    bounds: Bounds,
}

struct Known {
    lanes: HashMap<EndpointId, Arc<Lane>>,
    /// The next look is due at so many: twice those that were needed at the last one, so that looking costs each new
    /// lane the same, however many there are.
    look_at: usize,
}

impl Lanes {
    /// `bounds` holds for each lane.
    pub(crate) fn new(bounds: Bounds) -> Self {
        let known = Mutex::new(Known {
            lanes: HashMap::new(),
            look_at: FEW,
        });
        Self { known, bounds }
    }

    /// The lane of an endpoint. `exists` tells which endpoints are still registered.
    pub(crate) fn of(
        &self,
        id: EndpointId,
        now: Timestamp,
        exists: impl Fn(EndpointId) -> bool,
    ) -> Arc<Lane> {
        let mut known = self.known();
        if let Some(lane) = known.lanes.get(&id) {
            return Arc::clone(lane);
        }
        if known.lanes.len() >= known.look_at {
            let is_needed = |id, lane: &Arc<Lane>| {
                Arc::strong_count(lane) > 1 || (exists(id) && !lane.is_as_new(now))
            };
            known.lanes.retain(|id, lane| is_needed(*id, lane));
            known.look_at = (known.lanes.len() * 2).max(FEW);
        }
        let lane = Arc::new(Lane::new(self.bounds));
        known.lanes.insert(id, Arc::clone(&lane));
        lane
    }

    /// The lane of an endpoint, if it has one.
    pub(crate) fn get(&self, id: EndpointId) -> Option<Arc<Lane>> {
        self.known().lanes.get(&id).cloned()
    }

    /// The last starts that still matter to a rate, of some endpoints.
    pub(crate) fn unsettled_starts(
        &self,
        of: impl Fn(EndpointId) -> bool,
        now: Timestamp,
    ) -> Vec<(EndpointId, Timestamp)> {
        let known = self.known();
        let lanes = known.lanes.iter().filter(|(id, _)| of(**id));
        lanes
            .filter_map(|(id, lane)| Some((*id, lane.unsettled_start(now)?)))
            .collect()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known
            .lock()
            .expect("nobody panics while holding the lanes")
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::samples::at;

    fn bounds() -> Bounds {
        Bounds {
            bytes: 1,
            messages: 1,
            in_flight: 1,
        }
    }

    fn id(number: usize) -> EndpointId {
        EndpointId::from_uuid(Uuid::from_u128(number as u128))
    }

    #[test]
    fn lanes_that_nobody_needs_are_not_kept_for_long() {
        let (lanes, now) = (Lanes::new(bounds()), at(0));
        let held = lanes.of(id(0), now, |_| true);
        for number in 1..100 * FEW {
            lanes.of(id(number), now, |_| true);
            assert!(lanes.known().lanes.len() <= FEW);
        }
        let same = lanes.get(id(0)).expect("what is held is kept");
        assert!(Arc::ptr_eq(&held, &same));
    }

    #[test]
    fn the_more_lanes_are_needed_the_rarer_are_the_looks() {
        let (lanes, now) = (Lanes::new(bounds()), at(0));
        let mut held = Vec::new();
        let mut looks = 0;
        for number in 0..8 * FEW {
            let before = lanes.known().look_at;
            held.push(lanes.of(id(number), now, |_| true));
            looks += usize::from(lanes.known().look_at != before);
        }
        assert_eq!(lanes.known().lanes.len(), 8 * FEW);
        assert_eq!(looks, 3);
    }
}
