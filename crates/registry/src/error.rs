//! What can go wrong with the registry.

use std::{io, path::PathBuf};

use fanfare_model::{DatabaseLocation, InvalidStateChange};

use crate::{EncryptionKeyFault, InvalidEndpoint, InvalidEventType, KeyId};

/// A fault of the registry.
#[derive(Debug, thiserror::Error)]
pub enum RegistryFault {
    /// There is no usable encryption key.
    #[error("the registry has no usable encryption key")]
    EncryptionKey(#[from] EncryptionKeyFault),
    /// The database cannot be opened, at least not now.
    #[error("opening the registry `{location}`")]
    Unavailable {
        /// The database.
        location: DatabaseLocation,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database was changed by a later release, which this one would damage.
    #[error(
        "the registry `{location}` was written by a newer release (schema {found}, this one knows \
         {known}): upgrade, or restore a backup from before"
    )]
    NewerSchema {
        /// The database.
        location: DatabaseLocation,
        /// The schema that was found.
        found: i64,
        /// The newest schema that this release knows.
        known: i64,
    },
    /// The secrets cannot be read with the configured key.
    #[error(
        "the secrets were encrypted with another key (id {used}; the configured one has id {given})"
    )]
    OtherKey {
        /// The key that encrypted.
        used: KeyId,
        /// The key that was configured.
        given: KeyId,
    },
    /// The database refused or did not answer.
    #[error("{doing} in the registry")]
    Query {
        /// What was being done, such as `reading endpoints`.
        doing: &'static str,
        /// What went wrong.
        source: sqlx::Error,
    },
    /// Something stored cannot be understood.
    #[error("{what} is damaged")]
    Damaged {
        /// What was being read.
        what: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The snapshot file cannot be read or written.
    #[error("using the snapshot file `{}`", path.display())]
    SnapshotFile {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The endpoint to be created is not acceptable.
    #[error("the endpoint is not acceptable")]
    Invalid(#[from] InvalidEndpoint),
    /// The event type cannot be put into the catalogue.
    #[error("the event type is not acceptable")]
    InvalidEventType(#[from] InvalidEventType),
    /// The state of the endpoint cannot be changed so.
    #[error("the state of the endpoint cannot be changed so")]
    State(#[from] InvalidStateChange),
    /// Others changed the endpoint again and again while this change was made.
    #[error("others keep changing the endpoint")]
    Contended,
}

impl RegistryFault {
    /// Whether the same call may succeed later without anyone changing anything here.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { .. }
            | Self::Query { .. }
            | Self::SnapshotFile { .. }
            | Self::Contended => true,
            Self::EncryptionKey(_)
            | Self::NewerSchema { .. }
            | Self::OtherKey { .. }
            | Self::Damaged { .. }
            | Self::Invalid(_)
            | Self::InvalidEventType(_)
            | Self::State(_) => false,
        }
    }
}
