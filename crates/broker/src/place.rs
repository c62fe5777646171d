//! The queues in which messages rest until somebody deals with them.

use std::{fmt, str::FromStr};

/// A queue in which messages rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// Deliveries that were given up on.
    DeadLetters,
    /// What was published and is no acceptable event.
    Rejected,
    /// What found a hole in the topology.
    Unroutable,
    /// Messages whose handling ended processes.
    Crashed,
}

impl Place {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::DeadLetters,
        Self::Rejected,
        Self::Unroutable,
        Self::Crashed,
    ];

    /// The name of its queue, without the prefix of the installation.
    pub fn name(self) -> &'static str {
        match self {
            Self::DeadLetters => "dead-letters",
            Self::Rejected => "rejected",
            Self::Unroutable => "unroutable",
            Self::Crashed => "crashed",
        }
    }

    /// The exchange that leads to it and nowhere else.
    pub(crate) fn exchange(self) -> &'static str {
        match self {
            Self::DeadLetters => "dead",
            Self::Rejected | Self::Unroutable | Self::Crashed => self.name(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let place = Self::ALL.into_iter().find(|place| place.name() == text);
        place.ok_or("accepted are `dead-letters`, `rejected`, `unroutable` and `crashed`")
    }
}
