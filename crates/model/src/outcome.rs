//! What the receiver did with an attempt: data, never an error of ours.

use std::{fmt, str::FromStr, time::Duration};

use crate::{Failure, StatusSet};

/// What became of one HTTP request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver answered with a status.
    Answered {
        /// The status code.
        status: u16,
        /// How long the receiver asked us to stay away, if it did.
        retry_after: Option<Duration>,
    },
    /// No complete answer came in time.
    TimedOut,
    /// The name of the receiver could not be resolved.
    NameNotResolved {
        /// What the resolver said.
        detail: String,
    },
    /// No connection could be made, or it broke before an answer came.
    NotConnected {
        /// What the network said.
        detail: String,
    },
    /// The TLS handshake failed.
    TlsFailed {
        /// What was wrong with it.
        detail: String,
    },
    /// The server of tokens that the endpoint names gave none; the receiver was not called.
    NoToken {
        /// Which server, and why.
        detail: String,
    },
    /// The egress guard forbids the address; nothing was dialled.
    Blocked {
        /// Which address or name, and why.
        detail: String,
    },
    /// The request could not be built from the delivery.
    Unbuildable {
        /// What could not be built, and why.
        detail: String,
    },
}

impl Outcome {
    /// The failure that it is; `None` for a success.
    pub fn failure(&self, success: &StatusSet) -> Option<Failure> {
        let (class, status, error) = match self {
            Self::Answered { status, .. } if success.contains(*status) => return None,
            Self::Answered { status, .. } => (
                FailureClass::of_status(*status),
                Some(*status),
                format!("the receiver answered {status}"),
            ),
            Self::TimedOut => {
                let error = "the receiver did not answer in time".to_owned();
                (FailureClass::Timeout, None, error)
            }
            Self::NameNotResolved { detail } => (FailureClass::Dns, None, detail.clone()),
            Self::NotConnected { detail } => (FailureClass::Connect, None, detail.clone()),
            Self::TlsFailed { detail } => (FailureClass::Tls, None, detail.clone()),
            Self::NoToken { detail } => (FailureClass::Token, None, detail.clone()),
            Self::Blocked { detail } => (FailureClass::Blocked, None, detail.clone()),
            Self::Unbuildable { detail } => (FailureClass::Template, None, detail.clone()),
        };
        Some(Failure {
            class,
            status,
            error,
        })
    }
}

/// The class of a failure or of a dead letter, as metrics and headers name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureClass {
    /// The name could not be resolved.
    Dns,
    /// No connection, or it broke.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// No complete answer in time.
    Timeout,
    /// No token to call the receiver with.
    Token,
    /// A redirect, or another 1xx or 3xx.
    Status3xx,
    /// A 4xx but 410 and 429, or a 2xx outside the success set.
    Status4xx,
    /// Too many requests.
    Status429,
    /// A 5xx.
    Status5xx,
    /// A forbidden address.
    Blocked,
    /// The receiver said that it is gone for good (410).
    Gone,
    /// The deadline passed.
    Expired,
    /// No attempt is left.
    Exhausted,
    /// The endpoint is disabled.
    Disabled,
    /// The request could not be built.
    Template,
    /// Handling it made a process end, repeatedly.
    Crashed,
}

const CLASS_NAMES: [(FailureClass, &str); 16] = [
    (FailureClass::Dns, "dns"),
    (FailureClass::Connect, "connect"),
    (FailureClass::Tls, "tls"),
    (FailureClass::Timeout, "timeout"),
    (FailureClass::Token, "token"),
    (FailureClass::Status3xx, "status_3xx"),
    (FailureClass::Status4xx, "status_4xx"),
    (FailureClass::Status429, "status_429"),
    (FailureClass::Status5xx, "status_5xx"),
    (FailureClass::Blocked, "blocked"),
    (FailureClass::Gone, "gone"),
    (FailureClass::Expired, "expired"),
    (FailureClass::Exhausted, "exhausted"),
    (FailureClass::Disabled, "disabled"),
    (FailureClass::Template, "template"),
    (FailureClass::Crashed, "crashed"),
];

impl FailureClass {
    /// Every class.
    pub fn all() -> impl Iterator<Item = Self> {
        CLASS_NAMES.into_iter().map(|(class, _)| class)
    }

    /// The name in metrics, headers and history.
    pub fn name(self) -> &'static str {
        CLASS_NAMES
            .iter()
            .find(|(class, _)| *class == self)
            .map(|(_, name)| *name)
            .expect("every class is listed")
    }

    /// The class of an answer that is no success.
    pub fn of_status(status: u16) -> Self {
        match status {
            410 => Self::Gone,
            429 => Self::Status429,
            500..=599 => Self::Status5xx,
            100..=199 | 300..=399 => Self::Status3xx,
            _ => Self::Status4xx,
        }
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for FailureClass {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        CLASS_NAMES
            .iter()
            .find(|(_, name)| *name == text)
            .map(|(class, _)| *class)
            .ok_or("not a failure class")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_read_back_what_they_print() {
        for (class, name) in CLASS_NAMES {
            assert_eq!(class.name(), name);
            assert_eq!(name.parse(), Ok(class));
        }
    }

    #[test]
    fn statuses_fall_into_classes() {
        for (status, class) in [
            (101, FailureClass::Status3xx),
            (204, FailureClass::Status4xx),
            (302, FailureClass::Status3xx),
            (404, FailureClass::Status4xx),
            (410, FailureClass::Gone),
            (429, FailureClass::Status429),
            (503, FailureClass::Status5xx),
        ] {
            assert_eq!(FailureClass::of_status(status), class, "{status}");
        }
    }
}
