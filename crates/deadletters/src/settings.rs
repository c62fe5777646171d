//! How fast and how far operations on resting messages go, and what is done without being asked for.

use std::time::Duration;

use fanfare_model::Rate;
use serde::{Deserialize, Serialize};

/// The `[dead_letters]` section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How fast replays enter the pipeline at most, unless the one who asks says otherwise. Each endpoint's own rate holds besides.
    pub replay_pace: Rate,
    /// The longest queue of which a pass holds everything in hand and moves nothing. Of a longer one it moves what stays to the tail.
    pub hold_at_most: u32,
    /// The most messages that a list, a count or a group looks at.
    pub look_at_most: u32,
    /// Whether an endpoint's dead letters are replayed when its receiver answers again, or when it is enabled.
    pub replay_on_recovery: bool,
    /// After how many days dead letters are discarded, with a record of each; 0 for never.
    pub discard_after_days: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            replay_pace: "500/s".parse().expect("a rate"),
            hold_at_most: 100_000,
            look_at_most: 200_000,
            replay_on_recovery: false,
            discard_after_days: 0,
        }
    }
}

/// How many messages are published, noted and acknowledged together: the most that a process which dies
/// in the middle repeats.
pub(crate) const WINDOW: usize = 250;

/// How long a pass may take. RabbitMQ takes back what is in hand for 30 minutes (`consumer_timeout`);
/// what is left then is for the next pass, which follows at once.
pub(crate) const LONGEST_PASS: Duration = Duration::from_secs(600);

/// How long an operation waits for RabbitMQ's confirms.
pub(crate) const CONFIRM_WITHIN: Duration = Duration::from_secs(30);
