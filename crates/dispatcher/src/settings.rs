//! The dispatcher's settings.

use fanfare_egress::EgressSettings;
use serde::{Deserialize, Serialize};

/// The `[dispatcher]` section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// A name that stays the same when this dispatcher restarts; the host name when empty. Partitions are assigned by it.
    pub id: String,
    /// How many messages of one partition RabbitMQ gives out before the first is settled: 1 to 2000.
    pub prefetch: u16,
    /// How many deliveries may be in hand at once, over all partitions. After a crash, at most these are repeated.
    pub max_in_hand: u16,
    /// How many bytes of events may be worked on at once.
    pub memory_budget: u32,
    /// How many settled deliveries are remembered, to recognise repeats of them.
    pub seen_window: usize,
    /// How receivers are called.
    pub egress: EgressSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            id: String::new(),
            prefetch: 256,
            max_in_hand: 4096,
            memory_budget: 256 << 20,
            seen_window: 100_000,
            egress: EgressSettings::default(),
        }
    }
}
