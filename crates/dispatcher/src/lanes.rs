//! The lanes of all endpoints that had deliveries lately.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use fanfare_model::{EndpointId, Timestamp};

use crate::lane::{Bounds, Lane};

/// How many lanes are made between two looks for ones that nobody needs any more.
const LOOK_EVERY: usize = 10_000;

/// The lanes, made as they are needed.
pub(crate) struct Lanes {
    lanes: Mutex<HashMap<EndpointId, Arc<Lane>>>,
    bounds: Bounds,
}

impl Lanes {
    /// `bounds` holds for each lane.
    pub(crate) fn new(bounds: Bounds) -> Self {
        let lanes = Mutex::default();
        Self { lanes, bounds }
    }

    /// The lane of an endpoint. `exists` tells which endpoints are still registered.
    pub(crate) fn of(
        &self,
        id: EndpointId,
        now: Timestamp,
        exists: impl Fn(EndpointId) -> bool,
    ) -> Arc<Lane> {
        let mut lanes = self
            .lanes
            .lock()
            .expect("nobody panics while holding the lanes");
        if let Some(lane) = lanes.get(&id) {
            return Arc::clone(lane);
        }
        if lanes.len() % LOOK_EVERY == LOOK_EVERY - 1 {
            let is_needed = |id, lane: &Arc<Lane>| {
                Arc::strong_count(lane) > 1 || (exists(id) && !lane.is_as_new(now))
            };
            lanes.retain(|id, lane| is_needed(*id, lane));
        }
        Arc::clone(
            lanes
                .entry(id)
                .or_insert_with(|| Arc::new(Lane::new(self.bounds))),
        )
    }

    /// The lane of an endpoint, if it has one.
    pub(crate) fn get(&self, id: EndpointId) -> Option<Arc<Lane>> {
        let lanes = self
            .lanes
            .lock()
            .expect("nobody panics while holding the lanes");
        lanes.get(&id).cloned()
    }

    /// The last starts that still matter to a rate, of some endpoints.
    pub(crate) fn unsettled_starts(
        &self,
        of: impl Fn(EndpointId) -> bool,
        now: Timestamp,
    ) -> Vec<(EndpointId, Timestamp)> {
        let lanes = self
            .lanes
            .lock()
            .expect("nobody panics while holding the lanes");
        let lanes = lanes.iter().filter(|(id, _)| of(**id));
        lanes
            .filter_map(|(id, lane)| Some((*id, lane.unsettled_start(now)?)))
            .collect()
    }
}
