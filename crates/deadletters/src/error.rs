//! What can go wrong with an operation on resting messages.

use fanfare_broker::{BrokerFault, Place, PublishFault};
use fanfare_journal::HistoryFault;
use fanfare_registry::{OperationId, RegistryFault};

/// A fault of an operation on resting messages. Nothing was lost: what is not done yet is still in its queue.
#[derive(Debug, thiserror::Error)]
pub enum DeadLettersFault {
    /// The broker refused or failed.
    #[error("using the queue `{place}`")]
    Broker {
        /// Which queue.
        place: Place,
        /// What went wrong.
        source: BrokerFault,
    },
    /// The store in which operations are kept refused or failed.
    #[error("using the store of operations")]
    Store(#[from] RegistryFault),
    /// The index of dead letters refused or failed.
    #[error("using the index of dead letters")]
    Index(#[from] HistoryFault),
    /// RabbitMQ did not confirm what an operation published.
    #[error("publishing for an operation")]
    Publish(#[source] PublishFault),
    /// RabbitMQ did not confirm in time; the operation goes on when it is run again.
    #[error("RabbitMQ did not confirm within {0:?}")]
    Unconfirmed(std::time::Duration),
    /// What is kept of an operation cannot be understood here.
    #[error("operation `{id}` cannot be read here: {why}")]
    Unreadable {
        /// Which operation.
        id: OperationId,
        /// What is wrong with it.
        why: String,
    },
    /// The place has no such action.
    #[error("{why}")]
    Refused {
        /// What would be accepted.
        why: String,
    },
}

impl DeadLettersFault {
    pub(crate) fn broker(place: Place) -> impl Fn(BrokerFault) -> Self {
        move |source| Self::Broker { place, source }
    }

    /// Whether the same call may succeed later without anyone changing anything here.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Broker { source, .. } => source.is_transient(),
            Self::Store(fault) => fault.is_transient(),
            Self::Index(fault) => fault.is_transient(),
            Self::Publish(fault) => fault.is_transient(),
            Self::Unconfirmed(_) => true,
            Self::Unreadable { .. } | Self::Refused { .. } => false,
        }
    }
}
