//! What can go wrong with a replay of history.

use std::time::Duration;

use fanfare_broker::{BrokerFault, PublishFault};
use fanfare_deadletters::DeadLettersFault;
use fanfare_journal::HistoryFault;
use fanfare_model::{EndpointId, TenantId};
use fanfare_registry::{OperationId, RegistryFault};

/// A fault of a replay of history. What is not done yet is done when the operation is run again.
#[derive(Debug, thiserror::Error)]
pub enum ReplayFault {
    /// The request is not one that can be carried out.
    #[error("{why}")]
    Refused {
        /// The member of the request.
        field: &'static str,
        /// What would be accepted.
        why: String,
    },
    /// The tenant has no such endpoint.
    #[error("tenant `{tenant}` has no endpoint `{endpoint}`")]
    NoSuchEndpoint {
        /// The tenant.
        tenant: TenantId,
        /// The endpoint.
        endpoint: EndpointId,
    },
    /// Whatever is published to the endpoint would be a dead letter at once.
    #[error("endpoint `{endpoint}` is disabled: enable it first")]
    EndpointDisabled {
        /// The endpoint.
        endpoint: EndpointId,
    },
    /// The history does not hold the event.
    #[error("the history of tenant `{tenant}` holds no event `{id}`")]
    NoSuchEvent {
        /// The tenant.
        tenant: TenantId,
        /// The event's id.
        id: String,
    },
    /// The history did not answer.
    #[error("reading the history")]
    History(#[from] HistoryFault),
    /// The store in which operations are kept refused or failed.
    #[error("using the store of operations")]
    Store(#[from] RegistryFault),
    /// The broker refused or failed, or did not confirm what was published.
    #[error("using RabbitMQ")]
    Broker(#[from] BrokerFault),
    /// What was published was not taken.
    #[error("publishing deliveries")]
    Publish(#[from] PublishFault),
    /// RabbitMQ did not confirm in time.
    #[error("RabbitMQ did not confirm within {0:?}")]
    Unconfirmed(Duration),
    /// The dead letters that were replayed could not be asked to be discarded.
    #[error("clearing the dead letters that were replayed")]
    DeadLetters(#[from] DeadLettersFault),
    /// The connection was lost by which this process was the only one to run the operation.
    #[error("operation `{0}` is not this process' any more")]
    LockLost(OperationId),
    /// What is kept of an operation cannot be understood here.
    #[error("operation `{id}` cannot be read here: {why}")]
    Unreadable {
        /// Which operation.
        id: OperationId,
        /// What is wrong with it.
        why: String,
    },
}

impl ReplayFault {
    pub(crate) fn refused(field: &'static str, why: &str) -> Self {
        Self::Refused {
            field,
            why: why.to_owned(),
        }
    }

    /// Whether the same call may succeed later without anyone changing anything here.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused { .. }
            | Self::NoSuchEndpoint { .. }
            | Self::EndpointDisabled { .. }
            | Self::NoSuchEvent { .. }
            | Self::Unreadable { .. } => false,
            Self::History(fault) => fault.is_transient(),
            Self::Store(fault) => fault.is_transient(),
            Self::Broker(fault) => fault.is_transient(),
            Self::Publish(fault) => fault.is_transient(),
            Self::DeadLetters(fault) => fault.is_transient(),
            Self::Unconfirmed(_) | Self::LockLost(_) => true,
        }
    }
}
