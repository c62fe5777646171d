//! The store of endpoints, and the snapshot that deliveries are decided by.
//!
//! [`Registry`] is the truth: a database that the API writes and that may be away. [`Snapshot`] is what
//! router and dispatcher read: immutable, in memory, found by tenant and event type without waiting.
//! [`keep_fresh`] brings the one into the other, and keeps an encrypted copy on disk, so that neither a
//! lost store nor a restart without it stops deliveries.
//!
//! No snapshot, no routing: [`Snapshots::current`] is `None` until the store answered or the file was
//! read, because "nothing known" must never look like "nobody wants this". A store that answers that
//! there are no endpoints is believed.

mod settings;

mod store;

mod api_key;
mod audit;
mod event_type;
mod new_endpoint;
mod operations;
mod record;
mod rotation;
mod sample;

mod backend;
mod migration;
mod operation_rows;
mod postgres;
mod sqlite;

mod freshness;
mod snapshot;

mod cipher;
mod error;
mod file;

pub use api_key::{ApiKey, ApiKeyId, NewApiKey};
pub use audit::{AuditEntry, AuditPage};
pub use cipher::{EncryptionKey, EncryptionKeyFault, KeyId};
pub use error::RegistryFault;
pub use event_type::{
    Catalogue, CatalogueFile, CataloguedType, InvalidEventType, NewEventType, REFERRAL_CATALOGUE,
    Uncatalogued, built_in_sample,
};
pub use freshness::{Snapshots, keep_fresh};
pub use migration::{migrate, migrations};
pub use new_endpoint::{InvalidEndpoint, NewEndpoint};
pub use operations::{
    NewOperation, Operation, OperationId, OperationItem, OperationPage, OperationState,
};
pub use rotation::Rotation;
pub use settings::Settings;
pub use snapshot::Snapshot;
pub use store::{EndpointFilter, EndpointPage, Registry};
