//! What becomes of a delivery. Every delivery ends in exactly one settlement at a time.

use std::{fmt, str::FromStr};

use jiff::Timestamp;

use crate::{Failure, FailureClass};

/// What becomes of a delivery after it was handled once.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a settlement that is not carried out leaves its message unacknowledged"]
pub enum Settlement {
    /// The receiver has it.
    Delivered,
    /// Wait after a failed attempt; counts as an attempt.
    Retry {
        /// Not earlier than this.
        at: Timestamp,
        /// What failed.
        failure: Failure,
    },
    /// Wait for a reason that is not the delivery's own; counts as nothing.
    Defer {
        /// Not earlier than this.
        until: Timestamp,
        /// Why it waits.
        why: DeferReason,
    },
    /// Given up on; kept until a person or a rule replays or discards it.
    DeadLetter {
        /// Why it was given up.
        reason: DeadLetterReason,
        /// The last failure, if this handling was one.
        failure: Option<Failure>,
    },
    /// Not owed any more.
    Discard {
        /// Why not.
        reason: DiscardReason,
    },
}

/// Why a delivery was given up on: the `x-fanfare-reason` of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeadLetterReason {
    /// No attempt was left.
    Exhausted,
    /// The receiver answered with a status that the endpoint declares permanent.
    Refused,
    /// The receiver said that it is gone for good (410).
    Gone,
    /// The egress guard forbids the endpoint's address.
    Blocked,
    /// The deadline of the event passed.
    Expired,
    /// The endpoint is disabled.
    Disabled,
    /// The request could not be built from the event.
    Template,
    /// Handling it made a process end, repeatedly.
    Crashed,
}

const REASON_NAMES: [(DeadLetterReason, &str); 8] = [
    (DeadLetterReason::Exhausted, "exhausted"),
    (DeadLetterReason::Refused, "refused"),
    (DeadLetterReason::Gone, "gone"),
    (DeadLetterReason::Blocked, "blocked"),
    (DeadLetterReason::Expired, "expired"),
    (DeadLetterReason::Disabled, "disabled"),
    (DeadLetterReason::Template, "template"),
    (DeadLetterReason::Crashed, "crashed"),
];

impl DeadLetterReason {
    /// The name in headers, metrics and history.
    pub fn name(self) -> &'static str {
        REASON_NAMES
            .iter()
            .find(|(reason, _)| *reason == self)
            .map(|(_, name)| *name)
            .expect("every reason is listed")
    }
}

impl fmt::Display for DeadLetterReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DeadLetterReason {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        REASON_NAMES
            .iter()
            .find(|(_, name)| *name == text)
            .map(|(reason, _)| *reason)
            .ok_or("not a dead-letter reason")
    }
}

/// Why a delivery waits without having failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeferReason {
    /// Its time has not come: `deliverafter`, or the rest of a wait.
    NotDue,
    /// The endpoint is over its rate.
    OverRate,
    /// The endpoint is over its share of requests in flight.
    OverShare,
    /// The endpoint is paused.
    Paused,
    /// The endpoint asked us to stay away.
    HeldBack,
    /// The endpoint's circuit is open: its receiver looks down.
    CircuitOpen,
    /// A copy of it is in flight.
    InFlight,
    /// It was routed by a newer registry than the one known here.
    RegistryBehind,
}

impl DeferReason {
    /// The name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotDue => "not_due",
            Self::OverRate => "over_rate",
            Self::OverShare => "over_share",
            Self::Paused => "paused",
            Self::HeldBack => "held_back",
            Self::CircuitOpen => "circuit_open",
            Self::InFlight => "in_flight",
            Self::RegistryBehind => "registry_behind",
        }
    }
}

/// Why a delivery is not owed any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DiscardReason {
    /// The endpoint was deleted.
    EndpointDeleted,
    /// A copy of it was settled here before.
    SeenBefore,
}

impl DiscardReason {
    /// The name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::EndpointDeleted => "endpoint_deleted",
            Self::SeenBefore => "seen_before",
        }
    }
}

impl DeadLetterReason {
    /// The failure class that stands for the reason where no attempt failed.
    pub fn class(self) -> FailureClass {
        match self {
            Self::Exhausted => FailureClass::Exhausted,
            Self::Refused => FailureClass::Status4xx,
            Self::Gone => FailureClass::Gone,
            Self::Blocked => FailureClass::Blocked,
            Self::Expired => FailureClass::Expired,
            Self::Disabled => FailureClass::Disabled,
            Self::Template => FailureClass::Template,
            Self::Crashed => FailureClass::Crashed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_read_back_what_they_print() {
        for (reason, name) in REASON_NAMES {
            assert_eq!(reason.name(), name);
            assert_eq!(name.parse(), Ok(reason));
        }
        assert!("tired".parse::<DeadLetterReason>().is_err());
    }
}
