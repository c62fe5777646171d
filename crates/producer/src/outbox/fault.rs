//! Faults of the outbox.

use fanfare_wire::EventRejection;

/// Why an outbox did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum OutboxFault {
    /// The event is not one that Fanfare accepts; nothing was written. Mend it.
    #[error("the event was not enqueued: {0}")]
    Invalid(EventRejection),
    /// The database refused or did not answer.
    #[error("asking the database of the outbox")]
    Database(#[source] sqlx::Error),
}

impl OutboxFault {
    /// Whether doing the same again later may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Invalid(_) => false,
            // What PostgreSQL answers stays so, unless it is PostgreSQL that is in trouble or in doubt.
            Self::Database(sqlx::Error::Database(answer)) => {
                let classes = ["08", "40", "53", "55", "57"];
                let code = answer.code().unwrap_or_default();
                classes.iter().any(|class| code.starts_with(class))
            }
            Self::Database(_) => true,
        }
    }
}
