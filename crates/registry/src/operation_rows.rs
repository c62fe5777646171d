//! The statements about operations on kept messages, which both databases understand alike.

use async_trait::async_trait;
use sqlx::{PgTransaction, Postgres, QueryBuilder, Sqlite};

use crate::{
    backend::AuditRow,
    operations::{OperationItemRow, OperationRow},
    postgres::{self, PostgresStore},
    sqlite::{self, SqliteStore},
};

/// How long it is kept which messages an operation dealt with; the operation itself stays. In microseconds.
const ITEMS_KEPT: i64 = 90 * 24 * 3600 * 1_000_000;

/// What a database has to do for operations: rows in, rows out.
#[async_trait]
pub(crate) trait OperationRows {
    /// The operation as asked for, or the one that was asked for under the same key before.
    async fn insert_operation(
        &self,
        row: &OperationRow,
        audit: &AuditRow,
    ) -> sqlx::Result<OperationRow>;

    async fn operation(&self, id: &[u8]) -> sqlx::Result<Option<OperationRow>>;

    /// Operations older than `before`, newest first.
    async fn operations(
        &self,
        open_only: bool,
        before: &[u8],
        limit: u32,
    ) -> sqlx::Result<Vec<OperationRow>>;

    /// Those of the messages that are noted for the operation.
    async fn known_items(&self, operation: &[u8], messages: &[String])
    -> sqlx::Result<Vec<String>>;

    /// Notes messages and counts those that were not noted before; notes how far it has come, if that is given.
    async fn insert_items(
        &self,
        operation: &[u8],
        checkpoint: Option<&str>,
        items: &[OperationItemRow],
        now: i64,
    ) -> sqlx::Result<Option<OperationRow>>;

    async fn items(
        &self,
        operation: &[u8],
        after: &str,
        limit: u32,
    ) -> sqlx::Result<Vec<OperationItemRow>>;

    /// The operation as it is then. What operations that ended long ago dealt with is forgotten.
    async fn end_operation(
        &self,
        id: &[u8],
        state: &str,
        audit: &AuditRow,
    ) -> sqlx::Result<Option<OperationRow>>;
}

macro_rules! operation_rows {
    ($store:ty, $database:ty, $begin:path, $insert_audit:path) => {
        #[async_trait]
        impl OperationRows for $store {
    async fn insert_operation(
        &self,
        row: &OperationRow,
        audit: &AuditRow,
    ) -> sqlx::Result<OperationRow> {
        let mut change = $begin(self).await?;
        let known: Option<OperationRow> =
            sqlx::query_as("SELECT * FROM operations WHERE request_key = $1")
                .bind(&row.request_key)
                .fetch_optional(&mut *change)
                .await?;
        if let Some(known) = known {
            return Ok(known);
        }
        let inserted = sqlx::query_as(
            "INSERT INTO operations (id, request_key, place, action, filter, pace, actor, why,
                                     state, expected, resolved, requested_at, changed_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) RETURNING *",
        )
        .bind(&row.id)
        .bind(&row.request_key)
        .bind(&row.place)
        .bind(&row.action)
        .bind(&row.filter)
        .bind(&row.pace)
        .bind(&row.actor)
        .bind(&row.why)
        .bind(&row.state)
        .bind(row.expected)
        .bind(row.resolved)
        .bind(row.requested_at)
        .bind(row.changed_at)
        .fetch_one(&mut *change)
        .await?;
        $insert_audit(&mut change, audit).await?;
        change.commit().await?;
        Ok(inserted)
    }

    async fn operation(&self, id: &[u8]) -> sqlx::Result<Option<OperationRow>> {
        sqlx::query_as("SELECT * FROM operations WHERE id = $1")
            .bind(id)
            .fetch_optional(&self.pool)
            .await
    }

    async fn operations(
        &self,
        open_only: bool,
        before: &[u8],
        limit: u32,
    ) -> sqlx::Result<Vec<OperationRow>> {
        let query = if open_only {
            sqlx::query_as(
                "SELECT * FROM operations WHERE state IN ('pending', 'running') AND id < $1
                 ORDER BY id DESC LIMIT $2",
            )
        } else {
            sqlx::query_as("SELECT * FROM operations WHERE id < $1 ORDER BY id DESC LIMIT $2")
        };
        query
            .bind(before)
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await
    }

    async fn known_items(
        &self,
        operation: &[u8],
        messages: &[String],
    ) -> sqlx::Result<Vec<String>> {
        let mut query: QueryBuilder<$database> =
            QueryBuilder::new("SELECT message FROM operation_items WHERE operation = ");
        query.push_bind(operation).push(" AND message IN (");
        let mut listed = query.separated(", ");
        for message in messages {
            listed.push_bind(message);
        }
        query.push(")");
        query.build_query_scalar().fetch_all(&self.pool).await
    }

    async fn insert_items(
        &self,
        operation: &[u8],
        checkpoint: Option<&str>,
        items: &[OperationItemRow],
        now: i64,
    ) -> sqlx::Result<Option<OperationRow>> {
        let mut change = $begin(self).await?;
        let mut new = 0;
        for item in items {
            let inserted = sqlx::query(
                "INSERT INTO operation_items (operation, message, at, summary)
                 VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
            )
            .bind(operation)
            .bind(&item.message)
            .bind(item.at)
            .bind(&item.summary)
            .execute(&mut *change)
            .await?;
            new += inserted.rows_affected();
        }
        let row = sqlx::query_as(
            "UPDATE operations SET resolved = resolved + $2, changed_at = $3,
                    checkpoint = COALESCE($4, checkpoint),
                    state = CASE state WHEN 'pending' THEN 'running' ELSE state END
             WHERE id = $1 RETURNING *",
        )
        .bind(operation)
        .bind(i64::try_from(new).unwrap_or(i64::MAX))
        .bind(now)
        .bind(checkpoint)
        .fetch_optional(&mut *change)
        .await?;
        change.commit().await?;
        Ok(row)
    }

    async fn items(
        &self,
        operation: &[u8],
        after: &str,
        limit: u32,
    ) -> sqlx::Result<Vec<OperationItemRow>> {
        sqlx::query_as(
            "SELECT message, at, summary FROM operation_items
             WHERE operation = $1 AND message > $2 ORDER BY message LIMIT $3",
        )
        .bind(operation)
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await
    }

    async fn end_operation(
        &self,
        id: &[u8],
        state: &str,
        audit: &AuditRow,
    ) -> sqlx::Result<Option<OperationRow>> {
        let mut change = $begin(self).await?;
        let ended: Option<OperationRow> = sqlx::query_as(
            "UPDATE operations SET state = $2, changed_at = $3
             WHERE id = $1 AND state IN ('pending', 'running') RETURNING *",
        )
        .bind(id)
        .bind(state)
        .bind(audit.at)
        .fetch_optional(&mut *change)
        .await?;
        if ended.is_some() {
            $insert_audit(&mut change, audit).await?;
        }
        sqlx::query(
            "DELETE FROM operation_items WHERE operation IN (
                 SELECT id FROM operations
                 WHERE state IN ('done', 'cancelled') AND changed_at < $1)",
        )
        .bind(audit.at - ITEMS_KEPT)
        .execute(&mut *change)
        .await?;
        let row = sqlx::query_as("SELECT * FROM operations WHERE id = $1")
            .bind(id)
            .fetch_optional(&mut *change)
            .await?;
        change.commit().await?;
        Ok(row)
    }
}
    };
}

operation_rows!(
    SqliteStore,
    Sqlite,
    SqliteStore::begin_change,
    sqlite::insert_audit
);
operation_rows!(PostgresStore, Postgres, begin, postgres::insert_audit);

async fn begin(store: &PostgresStore) -> sqlx::Result<PgTransaction<'static>> {
    store.pool.begin().await
}
