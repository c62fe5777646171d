//! Every statement of SQL: the registry in a SQLite file.
//!
//! Rows in, rows out. What they mean, and what is encrypted in them, is known by `record.rs`.

use std::{io, path::Path, time::Duration};

use sqlx::{
    Connection, SqliteConnection, SqlitePool, SqliteTransaction,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::{KeyId, RegistryFault, file::temporary_beside, record::EndpointRow};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// A row of the table `audit`.
#[derive(sqlx::FromRow)]
pub(crate) struct AuditRow {
    pub(crate) at: i64,
    pub(crate) actor: String,
    pub(crate) action: String,
    pub(crate) subject: String,
    pub(crate) detail: String,
}

/// A row of the table `api_keys`.
#[derive(sqlx::FromRow)]
pub(crate) struct ApiKeyRow {
    pub(crate) id: Vec<u8>,
    pub(crate) name: String,
    pub(crate) hash: Vec<u8>,
    pub(crate) created_at: i64,
}

pub(crate) struct SqliteStore {
    pool: SqlitePool,
}

impl SqliteStore {
    /// Opens the file, which is made if there is none, and brings its schema up to date.
    ///
    /// The first key to open a registry is noted in it; another key is refused from then on.
    pub(crate) async fn open(path: &Path, key: KeyId) -> Result<Self, RegistryFault> {
        let unavailable = |source: BoxError| RegistryFault::Unavailable {
            path: path.to_owned(),
            source,
        };
        create_if_missing(path).await.map_err(unavailable)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(PATIENCE);
        // Readers do not wait for the writer in WAL mode, so a few connections serve them all.
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .acquire_timeout(PATIENCE)
            .connect_with(options)
            .await
            .map_err(|fault| unavailable(fault.into()))?;
        let store = Self { pool };
        let used = store.prepare(key).await.map_err(|fault| {
            if let MigrateError::VersionMissing(found) = fault {
                newer_schema(path, found)
            } else {
                unavailable(fault.into())
            }
        })?;
        if used == key {
            Ok(store)
        } else {
            Err(RegistryFault::OtherKey { used, given: key })
        }
    }

    /// Migrates, and returns the key that the registry belongs to.
    async fn prepare(&self, key: KeyId) -> Result<KeyId, MigrateError> {
        // One transaction, so that of several processes that start at once one migrates.
        let mut change = self.begin_change().await?;
        // `Migrator::run` would do the same, but its future cannot be proven `Send` over a transaction.
        MIGRATIONS.run_direct(None, &mut *change, false).await?;
        let used = note_key(&mut change, key).await?;
        change.commit().await?;
        Ok(used)
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }

    pub(crate) async fn version(&self) -> sqlx::Result<u64> {
        let version: i64 = sqlx::query_scalar("SELECT version FROM registry_meta")
            .fetch_one(&self.pool)
            .await?;
        unsigned(version)
    }

    /// The version and every endpoint of that version.
    pub(crate) async fn load(&self) -> sqlx::Result<(u64, Vec<EndpointRow>)> {
        // In WAL mode a transaction reads the state of its first statement throughout.
        let mut reading = self.pool.begin().await?;
        let version: i64 = sqlx::query_scalar("SELECT version FROM registry_meta")
            .fetch_one(&mut *reading)
            .await?;
        let rows = sqlx::query_as("SELECT * FROM endpoints ORDER BY id")
            .fetch_all(&mut *reading)
            .await?;
        reading.commit().await?;
        Ok((unsigned(version)?, rows))
    }

    pub(crate) async fn endpoint(
        &self,
        tenant: &str,
        id: &[u8],
    ) -> sqlx::Result<Option<EndpointRow>> {
        sqlx::query_as("SELECT * FROM endpoints WHERE tenant = $1 AND id = $2")
            .bind(tenant)
            .bind(id)
            .fetch_optional(&self.pool)
            .await
    }

    /// Endpoints after `after`, of one tenant or of all, by id.
    pub(crate) async fn endpoints(
        &self,
        tenant: Option<&str>,
        after: &[u8],
        limit: u32,
    ) -> sqlx::Result<Vec<EndpointRow>> {
        let query = match tenant {
            Some(tenant) => sqlx::query_as(
                "SELECT * FROM endpoints WHERE id > $1 AND tenant = $3 ORDER BY id LIMIT $2",
            )
            .bind(after)
            .bind(i64::from(limit))
            .bind(tenant),
            None => sqlx::query_as("SELECT * FROM endpoints WHERE id > $1 ORDER BY id LIMIT $2")
                .bind(after)
                .bind(i64::from(limit)),
        };
        query.fetch_all(&self.pool).await
    }

    pub(crate) async fn insert_endpoint(
        &self,
        row: &EndpointRow,
        audit: &AuditRow,
    ) -> sqlx::Result<()> {
        let mut change = self.begin_change().await?;
        sqlx::query(
            "INSERT INTO endpoints (id, tenant, state, settings, sealed, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(&row.id)
        .bind(&row.tenant)
        .bind(&row.state)
        .bind(&row.settings)
        .bind(&row.sealed)
        .bind(row.created_at)
        .bind(row.updated_at)
        .execute(&mut *change)
        .await?;
        bump_version(&mut change).await?;
        insert_audit(&mut change, audit).await?;
        change.commit().await
    }

    /// Whether there was one to delete.
    pub(crate) async fn delete_endpoint(
        &self,
        tenant: &str,
        id: &[u8],
        audit: &AuditRow,
    ) -> sqlx::Result<bool> {
        let mut change = self.begin_change().await?;
        let done = sqlx::query("DELETE FROM endpoints WHERE tenant = $1 AND id = $2")
            .bind(tenant)
            .bind(id)
            .execute(&mut *change)
            .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        bump_version(&mut change).await?;
        insert_audit(&mut change, audit).await?;
        change.commit().await?;
        Ok(true)
    }

    /// The endpoint as changed, if there was one. It is changed at the time of the audit entry.
    pub(crate) async fn set_state(
        &self,
        tenant: &str,
        id: &[u8],
        state: &str,
        audit: &AuditRow,
    ) -> sqlx::Result<Option<EndpointRow>> {
        let mut change = self.begin_change().await?;
        let changed: Option<EndpointRow> = sqlx::query_as(
            "UPDATE endpoints SET state = $1, updated_at = $2 WHERE tenant = $3 AND id = $4
             RETURNING *",
        )
        .bind(state)
        .bind(audit.at)
        .bind(tenant)
        .bind(id)
        .fetch_optional(&mut *change)
        .await?;
        if changed.is_some() {
            bump_version(&mut change).await?;
            insert_audit(&mut change, audit).await?;
            change.commit().await?;
        }
        Ok(changed)
    }

    pub(crate) async fn insert_api_key(
        &self,
        row: &ApiKeyRow,
        audit: &AuditRow,
    ) -> sqlx::Result<()> {
        let mut change = self.begin_change().await?;
        sqlx::query("INSERT INTO api_keys (id, name, hash, created_at) VALUES ($1, $2, $3, $4)")
            .bind(&row.id)
            .bind(&row.name)
            .bind(&row.hash)
            .bind(row.created_at)
            .execute(&mut *change)
            .await?;
        insert_audit(&mut change, audit).await?;
        change.commit().await
    }

    pub(crate) async fn api_keys_exist(&self) -> sqlx::Result<bool> {
        let found: Option<i64> = sqlx::query_scalar("SELECT 1 FROM api_keys LIMIT 1")
            .fetch_optional(&self.pool)
            .await?;
        Ok(found.is_some())
    }

    pub(crate) async fn api_key(&self, hash: &[u8]) -> sqlx::Result<Option<ApiKeyRow>> {
        sqlx::query_as("SELECT * FROM api_keys WHERE hash = $1")
            .bind(hash)
            .fetch_optional(&self.pool)
            .await
    }

    /// The latest changes, newest first.
    pub(crate) async fn audit(&self, limit: u32) -> sqlx::Result<Vec<AuditRow>> {
        sqlx::query_as(
            "SELECT at, actor, action, subject, detail FROM audit ORDER BY id DESC LIMIT $1",
        )
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await
    }

    /// A transaction that writes.
    ///
    /// It takes the write lock at once: one that read first and asked for the lock later could only fail
    /// when another had written in between (SQLite, "BEGIN TRANSACTION").
    async fn begin_change(&self) -> sqlx::Result<SqliteTransaction<'static>> {
        self.pool.begin_with("BEGIN IMMEDIATE").await
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How long a caller waits for a lock or a connection before it is told that the store is away.
const PATIENCE: Duration = Duration::from_secs(5);

/// Makes the database in WAL mode before it has its name, because SQLite lets nobody wait for a change of mode.
///
/// Its owner alone can read it, and SQLite gives the files beside it the same mode.
async fn create_if_missing(path: &Path) -> Result<(), BoxError> {
    if path.exists() {
        return Ok(());
    }
    // Only the path is kept: to close another handle of a database drops SQLite's locks on it
    // (SQLite, "How To Corrupt An SQLite Database File", section 2.2).
    let unnamed = temporary_beside(path)?.into_temp_path();
    let options = SqliteConnectOptions::new()
        .filename(&unnamed)
        .journal_mode(SqliteJournalMode::Wal);
    let database = SqliteConnection::connect_with(&options).await?;
    database.close().await?;
    match unnamed.persist_noclobber(path) {
        // Someone else made it in the meantime.
        Err(fault) if fault.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => Ok(made?),
    }
}

fn newer_schema(path: &Path, found: i64) -> RegistryFault {
    RegistryFault::NewerSchema {
        path: path.to_owned(),
        found,
        known: MIGRATIONS
            .iter()
            .map(|step| step.version)
            .max()
            .unwrap_or(0),
    }
}

/// The key that the registry was first opened with, which is `key` if this is the first time.
async fn note_key(change: &mut SqliteTransaction<'static>, key: KeyId) -> sqlx::Result<KeyId> {
    let used: Vec<u8> = sqlx::query_scalar(
        "UPDATE registry_meta SET key_id = COALESCE(key_id, $1) RETURNING key_id",
    )
    .bind(key.as_bytes())
    .fetch_one(&mut **change)
    .await?;
    KeyId::from_bytes(&used).ok_or_else(|| sqlx::Error::Decode("a key id has 4 bytes".into()))
}

async fn bump_version(change: &mut SqliteTransaction<'static>) -> sqlx::Result<()> {
    sqlx::query("UPDATE registry_meta SET version = version + 1")
        .execute(&mut **change)
        .await?;
    Ok(())
}

async fn insert_audit(
    change: &mut SqliteTransaction<'static>,
    audit: &AuditRow,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO audit (at, actor, action, subject, detail) VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(audit.at)
    .bind(&audit.actor)
    .bind(&audit.action)
    .bind(&audit.subject)
    .bind(&audit.detail)
    .execute(&mut **change)
    .await?;
    Ok(())
}

fn unsigned(version: i64) -> sqlx::Result<u64> {
    u64::try_from(version).map_err(|fault| sqlx::Error::Decode(fault.into()))
}
