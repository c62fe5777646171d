//! How to reach RabbitMQ and what to call things there.

use std::{fmt, str::FromStr};

use fanfare_model::{PartitionCount, Secret};
use serde::{Deserialize, Serialize};

/// The `[broker]` section.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where RabbitMQ listens, with user and password: `amqp://user:password@host:5672/vhost`. Use `amqps` for TLS.
    #[serde(serialize_with = "redacted")]
    pub url: Secret,
    /// What the names of all exchanges and queues start with.
    pub prefix: Prefix,
    /// The number of delivery queues: at least eight times the number of dispatchers expected.
    pub partitions: PartitionCount,
    /// Counts changes of `partitions`.
    pub generation: u16,
    /// How many bytes of events may wait to be routed before publishers are told to slow down.
    pub events_max_bytes: u64,
    /// How many publishes may be unconfirmed at once, per process.
    pub max_unconfirmed: u16,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: Secret::new("amqp://guest:guest@127.0.0.1:5672/%2f".to_owned()),
            prefix: Prefix("fanfare.".to_owned()),
            partitions: PartitionCount::try_from(16).expect("16 partitions are allowed"),
            generation: 1,
            events_max_bytes: 1 << 30,
            max_unconfirmed: 1000,
        }
    }
}

fn redacted<S: serde::Serializer>(_: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str("[redacted]")
}

/// What the names of all exchanges and queues start with.
///
/// Invariant: at most 64 characters of `A-Z a-z 0-9 _ - .`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(String);

/// Why a text cannot begin the names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a prefix is at most 64 characters of A-Z, a-z, 0-9, `_`, `-` and `.`")]
pub struct InvalidPrefix;

impl FromStr for Prefix {
    type Err = InvalidPrefix;

    fn from_str(text: &str) -> Result<Self, InvalidPrefix> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
        if text.len() <= 64 && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidPrefix)
        }
    }
}

impl TryFrom<String> for Prefix {
    type Error = InvalidPrefix;

    fn try_from(text: String) -> Result<Self, InvalidPrefix> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.0
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
