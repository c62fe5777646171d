//! The router's settings.

use serde::{Deserialize, Serialize};

/// The `[router]` section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How many events may be in hand at once: 1 to 2000. After a crash, these are routed again.
    pub prefetch: u16,
    /// The most bytes that an event may have, headers included.
    pub max_event_bytes: usize,
    /// How many deliveries of one partition may share a message: 1 to 16. The router never waits to fill one, but for 50 ms where they wait in the delay line anyway.
    pub max_bundle: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            prefetch: 1000,
            max_event_bytes: 262_144,
            max_bundle: 16,
        }
    }
}
