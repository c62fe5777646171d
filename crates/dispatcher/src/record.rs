//! What the journal is told of an attempt.

use std::time::Duration;

use fanfare_model::{AttemptRecord, Delivery, Failure, Outcome, Timestamp};

/// What the journal says of an attempt.
pub(crate) fn record_of(
    delivery: &Delivery,
    outcome: &Outcome,
    failure: Option<Failure>,
    started_at: Timestamp,
    took: Duration,
) -> AttemptRecord {
    let (failed, error) = match failure {
        Some(Failure { class, error, .. }) => (Some(class), error),
        None => (None, String::new()),
    };
    AttemptRecord {
        number: delivery.next_attempt(),
        started_at,
        took_micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        status: match outcome {
            Outcome::Answered { status, .. } => Some(*status),
            Outcome::TimedOut
            | Outcome::NameNotResolved { .. }
            | Outcome::NotConnected { .. }
            | Outcome::TlsFailed { .. }
            | Outcome::NoToken { .. }
            | Outcome::Blocked { .. }
            | Outcome::Unbuildable { .. } => None,
        },
        failure: failed,
        error,
    }
}
