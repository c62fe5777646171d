//! A delivery given up on.

use jiff::Timestamp;

use crate::{DeadLetterReason, Delivery};

/// A delivery given up on, kept in a queue until a person or a rule replays or discards it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The delivery as it was when it was given up, with its failures.
    pub delivery: Delivery,
    /// Why it was given up.
    pub reason: DeadLetterReason,
    /// When it was given up.
    pub since: Timestamp,
}
