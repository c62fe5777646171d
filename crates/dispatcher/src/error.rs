//! Why a dispatcher ends.

use fanfare_model::PartitionKey;

/// A fault that another dispatcher, or this one after a restart, may not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DispatcherFault {
    /// Deliveries in hand are neither attempted nor settled.
    #[error("nothing of partition `{partition}` was settled for longer than any attempt takes")]
    Stuck {
        /// The partition.
        partition: PartitionKey,
    },
}
