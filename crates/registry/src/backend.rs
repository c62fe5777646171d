//! What a database has to do for the registry: rows in, rows out. `sqlite.rs` and `postgres.rs` do it.

use async_trait::async_trait;
use fanfare_model::{DatabaseLocation, MigrationStep};
use tokio::sync::mpsc;

use crate::{
    KeyId, RegistryFault, operation_rows::OperationRows, postgres::PostgresStore,
    record::EndpointRow, sqlite::SqliteStore,
};

/// A row of the table `audit`.
#[derive(sqlx::FromRow)]
pub(crate) struct AuditRow {
    /// Given by the database: zero in one that is to be written.
    pub(crate) id: i64,
    pub(crate) at: i64,
    pub(crate) actor: String,
    pub(crate) action: String,
    pub(crate) subject: String,
    pub(crate) detail: String,
}

/// Which audit entries to read: those for which everything that is given holds.
#[derive(Default)]
pub(crate) struct AuditQuery {
    pub(crate) tenant: Option<String>,
    pub(crate) actor: Option<String>,
    pub(crate) action: Option<String>,
    pub(crate) subject: Option<String>,
    pub(crate) since: Option<i64>,
    pub(crate) until: Option<i64>,
    pub(crate) before: Option<i64>,
    pub(crate) limit: i64,
}

/// A row of the table `api_keys`.
#[derive(sqlx::FromRow)]
pub(crate) struct ApiKeyRow {
    pub(crate) id: Vec<u8>,
    pub(crate) name: String,
    pub(crate) hash: Vec<u8>,
    pub(crate) created_at: i64,
}

/// A row of the table `event_types`.
#[derive(sqlx::FromRow)]
pub(crate) struct EventTypeRow {
    pub(crate) name: String,
    pub(crate) definition: String,
    pub(crate) updated_at: i64,
}

/// A state that an endpoint is to get.
pub(crate) struct StateRow<'r> {
    pub(crate) tenant: &'r str,
    pub(crate) id: &'r [u8],
    pub(crate) state: &'r str,
    /// Only if the endpoint was last changed then.
    pub(crate) as_of: Option<i64>,
}

/// A database with the registry in it. Every change is one transaction with its audit entry.
#[async_trait]
pub(crate) trait Backend: OperationRows + Send + Sync {
    async fn close(&self);

    /// Every step of the schema that this release knows, or that the database already has.
    async fn steps(&self) -> Result<Vec<MigrationStep>, RegistryFault>;

    /// Takes the steps that are missing, if any are. Of several processes at once, one does.
    async fn migrate(&self) -> Result<(), RegistryFault>;

    /// Notes the key that the registry belongs to, which is `key` if this is the first time.
    async fn note_key(&self, key: KeyId) -> sqlx::Result<KeyId>;

    async fn version(&self) -> sqlx::Result<u64>;

    /// The version. Gives every endpoint of that version to `rows`, for as long as they are taken.
    async fn load(&self, rows: mpsc::Sender<EndpointRow>) -> sqlx::Result<u64>;

    async fn endpoint(&self, tenant: &str, id: &[u8]) -> sqlx::Result<Option<EndpointRow>>;

    /// Endpoints after `after`, of one tenant or of all, by id.
    async fn endpoints(
        &self,
        tenant: Option<&str>,
        after: &[u8],
        limit: u32,
    ) -> sqlx::Result<Vec<EndpointRow>>;

    async fn insert_endpoint(&self, row: &EndpointRow, audit: &AuditRow) -> sqlx::Result<()>;

    /// Whether there was one to delete.
    async fn delete_endpoint(
        &self,
        tenant: &str,
        id: &[u8],
        audit: &AuditRow,
    ) -> sqlx::Result<bool>;

    /// The endpoint as changed, if there was one and it is as expected.
    ///
    /// It is changed at the time of the audit entry, and always later than before: the time tells one
    /// change of an endpoint from the next, whatever the clocks of several hosts say.
    async fn set_state(
        &self,
        change: &StateRow<'_>,
        audit: &AuditRow,
    ) -> sqlx::Result<Option<EndpointRow>>;

    /// The endpoint with the settings and the sealed part of `row`, if there was one and it was last changed at
    /// `as_of`. Its state stays, and its time is chosen as [`Self::set_state`] does.
    async fn replace_endpoint(
        &self,
        row: &EndpointRow,
        as_of: i64,
        audit: &AuditRow,
    ) -> sqlx::Result<Option<EndpointRow>>;

    async fn insert_api_key(&self, row: &ApiKeyRow, audit: &AuditRow) -> sqlx::Result<()>;

    async fn api_keys_exist(&self) -> sqlx::Result<bool>;

    async fn api_key(&self, hash: &[u8]) -> sqlx::Result<Option<ApiKeyRow>>;

    /// The version, and every event type of that version, by name.
    async fn event_types(&self) -> sqlx::Result<(u64, Vec<EventTypeRow>)>;

    /// Adds or replaces. `Ok(false)` means that there are `most` others already.
    async fn put_event_type(
        &self,
        row: &EventTypeRow,
        most: i64,
        audit: &AuditRow,
    ) -> sqlx::Result<bool>;

    /// Whether there was one to delete.
    async fn delete_event_type(&self, name: &str, audit: &AuditRow) -> sqlx::Result<bool>;

    async fn insert_audit(&self, audit: &AuditRow) -> sqlx::Result<()>;

    /// The latest entries, newest first.
    async fn audit(&self, query: &AuditQuery) -> sqlx::Result<Vec<AuditRow>>;
}

/// Opens a database as it is; its schema may be an older one.
pub(crate) async fn connect(
    location: &DatabaseLocation,
) -> Result<Box<dyn Backend>, RegistryFault> {
    Ok(match location {
        DatabaseLocation::Sqlite(path) => Box::new(SqliteStore::connect(path).await?),
        DatabaseLocation::Postgres(url) => Box::new(PostgresStore::connect(url, location).await?),
    })
}

/// Opens a database, brings its schema up to date and checks the key.
pub(crate) async fn open(
    location: &DatabaseLocation,
    key: KeyId,
) -> Result<Box<dyn Backend>, RegistryFault> {
    let backend = connect(location).await?;
    backend.migrate().await?;
    let used = backend
        .note_key(key)
        .await
        .map_err(|source| RegistryFault::Query {
            doing: "noting the key",
            source,
        })?;
    if used == key {
        Ok(backend)
    } else {
        Err(RegistryFault::OtherKey { used, given: key })
    }
}

pub(crate) fn unsigned(version: i64) -> sqlx::Result<u64> {
    u64::try_from(version).map_err(|fault| sqlx::Error::Decode(fault.into()))
}

pub(crate) fn key_id(bytes: &[u8]) -> sqlx::Result<KeyId> {
    KeyId::from_bytes(bytes).ok_or_else(|| sqlx::Error::Decode("a key id has 4 bytes".into()))
}
