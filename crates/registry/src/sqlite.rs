//! Every statement of SQL: the registry in a SQLite file.
//!
//! Rows in, rows out. What they mean, and what is encrypted in them, is known by `record.rs`.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use fanfare_model::{DatabaseLocation, MigrationStep};
use futures_util::TryStreamExt as _;
use sqlx::{
    Connection, SqliteConnection, SqlitePool, SqliteTransaction,
    migrate::{AppliedMigration, Migrate as _, MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::mpsc;

use crate::{
    KeyId, RegistryFault,
    backend::{ApiKeyRow, AuditQuery, AuditRow, Backend, EventTypeRow, StateRow, key_id, unsigned},
    file::temporary_beside,
    migration,
    record::EndpointRow,
};

pub(crate) static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

pub(crate) struct SqliteStore {
    path: PathBuf,
    pub(crate) pool: SqlitePool,
}

impl SqliteStore {
    /// Opens the file, which is made if there is none.
    pub(crate) async fn connect(path: &Path) -> Result<Self, RegistryFault> {
        let unavailable = |source| unavailable(path, source);
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
        let path = path.to_owned();
        Ok(Self { path, pool })
    }

    async fn try_steps(&self) -> Result<Vec<AppliedMigration>, MigrateError> {
        let mut connection = self.pool.acquire().await?;
        let exists: Option<i64> = sqlx::query_scalar(
            "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '_sqlx_migrations'",
        )
        .fetch_optional(&mut *connection)
        .await?;
        match exists {
            Some(_) => {
                connection
                    .list_applied_migrations(&MIGRATIONS.table_name)
                    .await
            }
            None => Ok(Vec::new()),
        }
    }

    async fn try_migrate(&self) -> Result<(), MigrateError> {
        // One transaction, so that of several processes that start at once one migrates.
        let mut change = self.begin_change().await?;
        // `Migrator::run` would do the same, but its future cannot be proven `Send` over a transaction.
        MIGRATIONS.run_direct(None, &mut *change, false).await?;
        Ok(change.commit().await?)
    }

    /// A transaction that writes.
    ///
    /// It takes the write lock at once: one that read first and asked for the lock later could only fail
    /// when another had written in between (SQLite, "BEGIN TRANSACTION").
    pub(crate) async fn begin_change(&self) -> sqlx::Result<SqliteTransaction<'static>> {
        self.pool.begin_with("BEGIN IMMEDIATE").await
    }
}

#[async_trait]
impl Backend for SqliteStore {
    async fn close(&self) {
        self.pool.close().await;
    }

    async fn steps(&self) -> Result<Vec<MigrationStep>, RegistryFault> {
        let applied = self.try_steps().await;
        let applied = applied.map_err(|fault| unavailable(&self.path, fault.into()))?;
        let location = DatabaseLocation::Sqlite(self.path.clone());
        migration::judge(&MIGRATIONS, &applied, &location)
    }

    async fn migrate(&self) -> Result<(), RegistryFault> {
        if self.steps().await?.iter().all(|step| step.applied) {
            return Ok(());
        }
        let migrated = self.try_migrate().await;
        migrated.map_err(|fault| unavailable(&self.path, fault.into()))
    }

    async fn note_key(&self, key: KeyId) -> sqlx::Result<KeyId> {
        let mut change = self.begin_change().await?;
        let used: Vec<u8> = sqlx::query_scalar(
            "UPDATE registry_meta SET key_id = COALESCE(key_id, $1) RETURNING key_id",
        )
        .bind(key.as_bytes())
        .fetch_one(&mut *change)
        .await?;
        change.commit().await?;
        key_id(&used)
    }

    async fn version(&self) -> sqlx::Result<u64> {
        let version: i64 = sqlx::query_scalar("SELECT version FROM registry_meta")
            .fetch_one(&self.pool)
            .await?;
        unsigned(version)
    }

    async fn load(&self, rows: mpsc::Sender<EndpointRow>) -> sqlx::Result<u64> {
        // In WAL mode a transaction reads the state of its first statement throughout.
        let mut reading = self.pool.begin().await?;
        let version: i64 = sqlx::query_scalar("SELECT version FROM registry_meta")
            .fetch_one(&mut *reading)
            .await?;
        let mut stored = sqlx::query_as("SELECT * FROM endpoints ORDER BY id").fetch(&mut *reading);
        while let Some(row) = stored.try_next().await? {
            if rows.send(row).await.is_err() {
                break;
            }
        }
        drop(stored);
        reading.commit().await?;
        unsigned(version)
    }

    async fn endpoint(&self, tenant: &str, id: &[u8]) -> sqlx::Result<Option<EndpointRow>> {
        sqlx::query_as("SELECT * FROM endpoints WHERE tenant = $1 AND id = $2")
            .bind(tenant)
            .bind(id)
            .fetch_optional(&self.pool)
            .await
    }

    async fn endpoints(
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

    async fn insert_endpoint(&self, row: &EndpointRow, audit: &AuditRow) -> sqlx::Result<()> {
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

    async fn delete_endpoint(
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

    async fn set_state(
        &self,
        change: &StateRow<'_>,
        audit: &AuditRow,
    ) -> sqlx::Result<Option<EndpointRow>> {
        let mut transaction = self.begin_change().await?;
        let changed: Option<EndpointRow> = sqlx::query_as(
            "UPDATE endpoints SET state = $1, updated_at = MAX($2, updated_at + 1)
             WHERE tenant = $3 AND id = $4 AND ($5 IS NULL OR updated_at = $5)
             RETURNING *",
        )
        .bind(change.state)
        .bind(audit.at)
        .bind(change.tenant)
        .bind(change.id)
        .bind(change.as_of)
        .fetch_optional(&mut *transaction)
        .await?;
        if changed.is_some() {
            bump_version(&mut transaction).await?;
            insert_audit(&mut transaction, audit).await?;
            transaction.commit().await?;
        }
        Ok(changed)
    }

    async fn replace_endpoint(
        &self,
        row: &EndpointRow,
        as_of: i64,
        audit: &AuditRow,
    ) -> sqlx::Result<Option<EndpointRow>> {
        let mut change = self.begin_change().await?;
        let changed: Option<EndpointRow> = sqlx::query_as(
            "UPDATE endpoints SET settings = $1, sealed = $2, updated_at = MAX($3, updated_at + 1)
             WHERE tenant = $4 AND id = $5 AND updated_at = $6
             RETURNING *",
        )
        .bind(&row.settings)
        .bind(&row.sealed)
        .bind(audit.at)
        .bind(&row.tenant)
        .bind(&row.id)
        .bind(as_of)
        .fetch_optional(&mut *change)
        .await?;
        if changed.is_some() {
            bump_version(&mut change).await?;
            insert_audit(&mut change, audit).await?;
            change.commit().await?;
        }
        Ok(changed)
    }

    async fn insert_api_key(&self, row: &ApiKeyRow, audit: &AuditRow) -> sqlx::Result<()> {
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

    async fn api_keys_exist(&self) -> sqlx::Result<bool> {
        let found: Option<i64> = sqlx::query_scalar("SELECT 1 FROM api_keys LIMIT 1")
            .fetch_optional(&self.pool)
            .await?;
        Ok(found.is_some())
    }

    async fn api_key(&self, hash: &[u8]) -> sqlx::Result<Option<ApiKeyRow>> {
        sqlx::query_as("SELECT * FROM api_keys WHERE hash = $1")
            .bind(hash)
            .fetch_optional(&self.pool)
            .await
    }

    async fn event_types(&self) -> sqlx::Result<(u64, Vec<EventTypeRow>)> {
        let mut reading = self.pool.begin().await?;
        let version: i64 = sqlx::query_scalar("SELECT version FROM registry_meta")
            .fetch_one(&mut *reading)
            .await?;
        let rows =
            sqlx::query_as("SELECT name, definition, updated_at FROM event_types ORDER BY name")
                .fetch_all(&mut *reading)
                .await?;
        reading.commit().await?;
        Ok((unsigned(version)?, rows))
    }

    async fn put_event_type(
        &self,
        row: &EventTypeRow,
        most: i64,
        audit: &AuditRow,
    ) -> sqlx::Result<bool> {
        let mut change = self.begin_change().await?;
        sqlx::query(
            "INSERT INTO event_types (name, definition, updated_at) VALUES ($1, $2, $3)
             ON CONFLICT (name) DO UPDATE SET definition = $2, updated_at = $3",
        )
        .bind(&row.name)
        .bind(&row.definition)
        .bind(row.updated_at)
        .execute(&mut *change)
        .await?;
        let count: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM event_types")
            .fetch_one(&mut *change)
            .await?;
        if count > most {
            return Ok(false);
        }
        bump_version(&mut change).await?;
        insert_audit(&mut change, audit).await?;
        change.commit().await?;
        Ok(true)
    }

    async fn delete_event_type(&self, name: &str, audit: &AuditRow) -> sqlx::Result<bool> {
        let mut change = self.begin_change().await?;
        let done = sqlx::query("DELETE FROM event_types WHERE name = $1")
            .bind(name)
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

    async fn insert_audit(&self, audit: &AuditRow) -> sqlx::Result<()> {
        let mut change = self.begin_change().await?;
        insert_audit(&mut change, audit).await?;
        change.commit().await
    }

    async fn audit(&self, query: &AuditQuery) -> sqlx::Result<Vec<AuditRow>> {
        sqlx::query_as(
            "SELECT id, at, actor, action, subject, detail FROM audit
             WHERE ($1 IS NULL OR detail ->> '$.tenant' = $1)
               AND ($2 IS NULL OR actor = $2)
               AND ($3 IS NULL OR action = $3 OR substr(action, 1, length($3) + 1) = $3 || '.')
               AND ($4 IS NULL OR subject = $4)
               AND ($5 IS NULL OR at >= $5)
               AND ($6 IS NULL OR at < $6)
               AND ($7 IS NULL OR id < $7)
             ORDER BY id DESC LIMIT $8",
        )
        .bind(&query.tenant)
        .bind(&query.actor)
        .bind(&query.action)
        .bind(&query.subject)
        .bind(query.since)
        .bind(query.until)
        .bind(query.before)
        .bind(query.limit)
        .fetch_all(&self.pool)
        .await
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

fn unavailable(path: &Path, source: BoxError) -> RegistryFault {
    RegistryFault::Unavailable {
        location: DatabaseLocation::Sqlite(path.to_owned()),
        source,
    }
}

async fn bump_version(change: &mut SqliteTransaction<'static>) -> sqlx::Result<()> {
    sqlx::query("UPDATE registry_meta SET version = version + 1")
        .execute(&mut **change)
        .await?;
    Ok(())
}

pub(crate) async fn insert_audit(
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
