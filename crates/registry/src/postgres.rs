//! Every statement of SQL: the registry in a PostgreSQL database, which several hosts may share.
//!
//! Rows in, rows out. What they mean, and what is encrypted in them, is known by `record.rs`.

use std::{borrow::Cow, str::FromStr, sync::LazyLock, time::Duration};

use async_trait::async_trait;
use fanfare_model::{DatabaseLocation, MigrationStep, PostgresUrl};
use futures_util::TryStreamExt as _;
use sqlx::{
    PgPool, PgTransaction,
    migrate::{Migrate as _, MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::sync::mpsc;

use crate::{
    KeyId, RegistryFault,
    backend::{ApiKeyRow, AuditQuery, AuditRow, Backend, EventTypeRow, StateRow, key_id, unsigned},
    migration,
    record::EndpointRow,
};

/// The history may be kept in the same database, so the registry's steps have a table of their own.
const STEPS_TABLE: &str = "registry_migrations";

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| Migrator {
    table_name: Cow::Borrowed(STEPS_TABLE),
    ..sqlx::migrate!("migrations/postgres")
});

/// Whoever holds this lock changes the schema. The number is `fanf` in ASCII.
const SCHEMA_LOCK: i64 = 0x6661_6e66;

/// How long a caller waits for a lock or a connection before it is told that the store is away.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct PostgresStore {
    location: DatabaseLocation,
    pub(crate) pool: PgPool,
}

impl PostgresStore {
    /// Connects to a database, which must exist.
    pub(crate) async fn connect(
        url: &PostgresUrl,
        location: &DatabaseLocation,
    ) -> Result<Self, RegistryFault> {
        let unavailable = |fault: sqlx::Error| RegistryFault::Unavailable {
            location: location.clone(),
            source: fault.into(),
        };
        let patience = format!("{}ms", PATIENCE.as_millis());
        let options = PgConnectOptions::from_str(url.expose())
            .map_err(unavailable)?
            .application_name("fanfare registry")
            .options([("lock_timeout", patience.as_str())]);
        // Every process reads rarely and writes more rarely; many processes share the server.
        let pool = PgPoolOptions::new()
            .max_connections(4)
            .acquire_timeout(PATIENCE)
            .connect_with(options)
            .await
            .map_err(unavailable)?;
        let location = location.clone();
        Ok(Self { location, pool })
    }

    fn unavailable(&self, fault: impl Into<sqlx::Error>) -> RegistryFault {
        RegistryFault::Unavailable {
            location: self.location.clone(),
            source: fault.into().into(),
        }
    }

    fn not_migrated(&self, fault: MigrateError) -> RegistryFault {
        RegistryFault::Unavailable {
            location: self.location.clone(),
            source: fault.into(),
        }
    }
}

#[async_trait]
impl Backend for PostgresStore {
    async fn close(&self) {
        self.pool.close().await;
    }

    async fn steps(&self) -> Result<Vec<MigrationStep>, RegistryFault> {
        let mut connection = self
            .pool
            .acquire()
            .await
            .map_err(|fault| self.unavailable(fault))?;
        let exists: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
            .bind(STEPS_TABLE)
            .fetch_one(&mut *connection)
            .await
            .map_err(|fault| self.unavailable(fault))?;
        let applied = if exists {
            let listed = connection.list_applied_migrations(STEPS_TABLE).await;
            listed.map_err(|fault| self.not_migrated(fault))?
        } else {
            Vec::new()
        };
        migration::judge(&MIGRATIONS, &applied, &self.location)
    }

    async fn migrate(&self) -> Result<(), RegistryFault> {
        // A role that may not change the schema can work with one that is up to date.
        if self.steps().await?.iter().all(|step| step.applied) {
            return Ok(());
        }
        let migrated: Result<(), MigrateError> = async {
            let mut change = self.pool.begin().await?;
            sqlx::query("SELECT pg_advisory_xact_lock($1)")
                .bind(SCHEMA_LOCK)
                .execute(&mut *change)
                .await?;
            MIGRATIONS.run_direct(None, &mut *change, false).await?;
            Ok(change.commit().await?)
        }
        .await;
        migrated.map_err(|fault| self.not_migrated(fault))
    }

    async fn note_key(&self, key: KeyId) -> sqlx::Result<KeyId> {
        let used: Option<Vec<u8>> = sqlx::query_scalar("SELECT key_id FROM registry_meta")
            .fetch_one(&self.pool)
            .await?;
        let used = match used {
            Some(used) => used,
            None => {
                sqlx::query_scalar(
                    "UPDATE registry_meta SET key_id = COALESCE(key_id, $1) RETURNING key_id",
                )
                .bind(key.as_bytes())
                .fetch_one(&self.pool)
                .await?
            }
        };
        key_id(&used)
    }

    async fn version(&self) -> sqlx::Result<u64> {
        let version: i64 = sqlx::query_scalar("SELECT version FROM registry_meta")
            .fetch_one(&self.pool)
            .await?;
        unsigned(version)
    }

    async fn load(&self, rows: mpsc::Sender<EndpointRow>) -> sqlx::Result<u64> {
        // Both statements see the same state (PostgreSQL, "Repeatable Read Isolation Level").
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        let mut reading = self.pool.begin_with(begin).await?;
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
        let mut change = self.pool.begin().await?;
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
        let mut change = self.pool.begin().await?;
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
        let mut transaction = self.pool.begin().await?;
        // Under "read committed" a second writer waits for the first, and then looks at the row again.
        let changed: Option<EndpointRow> = sqlx::query_as(
            "UPDATE endpoints SET state = $1, updated_at = GREATEST($2, updated_at + 1)
             WHERE tenant = $3 AND id = $4 AND ($5::BIGINT IS NULL OR updated_at = $5)
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
        let mut change = self.pool.begin().await?;
        let changed: Option<EndpointRow> = sqlx::query_as(
            "UPDATE endpoints SET settings = $1, sealed = $2, updated_at = GREATEST($3, updated_at + 1)
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
        let mut change = self.pool.begin().await?;
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
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM api_keys)")
            .fetch_one(&self.pool)
            .await
    }

    async fn api_key(&self, hash: &[u8]) -> sqlx::Result<Option<ApiKeyRow>> {
        sqlx::query_as("SELECT * FROM api_keys WHERE hash = $1")
            .bind(hash)
            .fetch_optional(&self.pool)
            .await
    }

    async fn event_types(&self) -> sqlx::Result<(u64, Vec<EventTypeRow>)> {
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        let mut reading = self.pool.begin_with(begin).await?;
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
        let mut change = self.pool.begin().await?;
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
        let mut change = self.pool.begin().await?;
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
        let mut change = self.pool.begin().await?;
        insert_audit(&mut change, audit).await?;
        change.commit().await
    }

    async fn audit(&self, query: &AuditQuery) -> sqlx::Result<Vec<AuditRow>> {
        sqlx::query_as(
            "SELECT id, at, actor, action, subject, detail FROM audit
             WHERE ($1::TEXT IS NULL OR detail::JSONB ->> 'tenant' = $1)
               AND ($2::TEXT IS NULL OR actor = $2)
               AND ($3::TEXT IS NULL OR action = $3 OR starts_with(action, $3 || '.'))
               AND ($4::TEXT IS NULL OR subject = $4)
               AND ($5::BIGINT IS NULL OR at >= $5)
               AND ($6::BIGINT IS NULL OR at < $6)
               AND ($7::BIGINT IS NULL OR id < $7)
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

/// Locks the row until the end of the transaction, so that changes of endpoints follow one another.
async fn bump_version(change: &mut PgTransaction<'static>) -> sqlx::Result<()> {
    sqlx::query("UPDATE registry_meta SET version = version + 1")
        .execute(&mut **change)
        .await?;
    Ok(())
}

pub(crate) async fn insert_audit(
    change: &mut PgTransaction<'static>,
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
