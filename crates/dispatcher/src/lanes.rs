//! The lanes of all endpoints that had deliveries lately.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use fanfare_model::EndpointId;

use crate::lane::Lane;

/// How many lanes are made between two looks for ones that nobody uses any more.
const LOOK_EVERY: usize = 10_000;

/// The lanes, made as they are needed.
#[derive(Default)]
pub(crate) struct Lanes {
    lanes: Mutex<HashMap<EndpointId, Arc<Lane>>>,
}

impl Lanes {
    /// The lane of an endpoint. `exists` tells which endpoints are still registered.
    pub(crate) fn of(&self, id: EndpointId, exists: impl Fn(EndpointId) -> bool) -> Arc<Lane> {
        let mut lanes = self
            .lanes
            .lock()
            .expect("nobody panics while holding the lanes");
        if let Some(lane) = lanes.get(&id) {
            return Arc::clone(lane);
        }
        if lanes.len() % LOOK_EVERY == LOOK_EVERY - 1 {
            lanes.retain(|id, lane| exists(*id) || Arc::strong_count(lane) > 1);
        }
        Arc::clone(lanes.entry(id).or_insert_with(|| Arc::new(Lane::new())))
    }
}
