//! The database of the history: SQLite or PostgreSQL behind one set of calls.
//!
//! Statements are written in the words that both share; what differs is here and in the two files beside.

mod postgres;
mod sqlite;

use fanfare_model::{DatabaseLocation, MigrationStep};
use sqlx::{
    AssertSqlSafe, FromRow, PgPool, PgTransaction, Postgres, Sqlite, SqlitePool, SqliteTransaction,
    migrate::Migrator, postgres::PgRow, sqlite::SqliteRow,
};

use crate::{HistoryFault, migration, rows::NewAttempt, statement::Statement};

/// A row that either database can give.
pub(crate) trait Row:
    for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{
}

impl<T> Row for T where T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{}

pub(crate) enum Store {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// A transaction that writes.
pub(crate) enum Change {
    Sqlite(SqliteTransaction<'static>),
    Postgres(PgTransaction<'static>),
}

macro_rules! fetch_all {
    ($database:ty, $statement:expr, $executor:expr) => {{
        let (sql, arguments) = $statement.into_parts::<$database>()?;
        sqlx::query_as_with(AssertSqlSafe(sql), arguments)
            .fetch_all($executor)
            .await
    }};
}

impl Store {
    /// Opens the database, and brings its schema up to date.
    pub(crate) async fn open(location: &DatabaseLocation) -> Result<Self, HistoryFault> {
        let store = Self::connect(location).await?;
        store.migrate(location).await?;
        Ok(store)
    }

    /// Opens the database as it is; its schema may be an older one.
    pub(crate) async fn connect(location: &DatabaseLocation) -> Result<Self, HistoryFault> {
        match location {
            DatabaseLocation::Sqlite(path) => sqlite::connect(path).await.map(Self::Sqlite),
            DatabaseLocation::Postgres(url) => postgres::connect(url).await.map(Self::Postgres),
        }
    }

    /// Brings the schema up to date.
    pub(crate) async fn migrate(&self, location: &DatabaseLocation) -> Result<(), HistoryFault> {
        let migrated = match self {
            Self::Sqlite(pool) => sqlite::migrate(pool).await,
            Self::Postgres(pool) => postgres::migrate(pool).await,
        };
        migrated.map_err(|fault| migration::refused(location, fault))
    }

    /// The steps of the schema that the database has and lacks.
    pub(crate) async fn steps(
        &self,
        location: &DatabaseLocation,
    ) -> Result<Vec<MigrationStep>, HistoryFault> {
        let applied = match self {
            Self::Sqlite(pool) => sqlite::applied(pool).await,
            Self::Postgres(pool) => postgres::applied(pool).await,
        };
        let applied = applied.map_err(|fault| migration::refused(location, fault))?;
        migration::steps(location, &applied)
    }

    /// The steps that this release knows.
    pub(crate) fn migrations(location: &DatabaseLocation) -> &'static Migrator {
        match location {
            DatabaseLocation::Sqlite(_) => &sqlite::MIGRATIONS,
            DatabaseLocation::Postgres(_) => &postgres::MIGRATIONS,
        }
    }

    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }

    pub(crate) async fn fetch<R: Row>(&self, statement: Statement) -> sqlx::Result<Vec<R>> {
        match self {
            Self::Sqlite(pool) => fetch_all!(Sqlite, statement, pool),
            Self::Postgres(pool) => fetch_all!(Postgres, statement, pool),
        }
    }

    /// Begins a transaction that writes. Of two that record, the second waits for the first.
    pub(crate) async fn begin(&self) -> sqlx::Result<Change> {
        match self {
            // It takes the write lock at once: one that read first and asked for the lock later could
            // only fail when another had written in between (SQLite, "BEGIN TRANSACTION").
            Self::Sqlite(pool) => pool.begin_with("BEGIN IMMEDIATE").await.map(Change::Sqlite),
            Self::Postgres(pool) => pool.begin().await.map(Change::Postgres),
        }
    }

    /// Makes room for attempts of these days, counted from 1970.
    pub(crate) async fn prepare_days(&self, days: &[i64]) -> sqlx::Result<()> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(pool) => postgres::make_partitions(pool, days).await,
        }
    }

    /// Whether attempts are kept in a partition for each day, and removed with it.
    pub(crate) fn has_days(&self) -> bool {
        match self {
            Self::Sqlite(_) => false,
            Self::Postgres(_) => true,
        }
    }

    /// Drops the partitions of days before this moment, where there are any.
    pub(crate) async fn drop_days_before(&self, moment: i64) -> sqlx::Result<()> {
        match self {
            Self::Sqlite(_) => Ok(()),
            Self::Postgres(pool) => postgres::drop_partitions(pool, moment).await,
        }
    }
}

impl Change {
    pub(crate) async fn fetch<R: Row>(&mut self, statement: Statement) -> sqlx::Result<Vec<R>> {
        match self {
            Self::Sqlite(change) => fetch_all!(Sqlite, statement, &mut **change),
            Self::Postgres(change) => fetch_all!(Postgres, statement, &mut **change),
        }
    }

    /// How many rows it changed.
    pub(crate) async fn execute(&mut self, statement: Statement) -> sqlx::Result<u64> {
        match self {
            Self::Sqlite(change) => {
                let (sql, arguments) = statement.into_parts::<Sqlite>()?;
                let done = sqlx::query_with(AssertSqlSafe(sql), arguments);
                Ok(done.execute(&mut **change).await?.rows_affected())
            }
            Self::Postgres(change) => {
                let (sql, arguments) = statement.into_parts::<Postgres>()?;
                let done = sqlx::query_with(AssertSqlSafe(sql), arguments);
                Ok(done.execute(&mut **change).await?.rows_affected())
            }
        }
    }

    /// How many rows one statement may bring: both databases have a bound on the values of a statement, and
    /// beyond a few hundred rows nothing is gained.
    pub(crate) fn rows_at_once(&self) -> usize {
        match self {
            Self::Sqlite(_) => 100,
            Self::Postgres(_) => 1000,
        }
    }

    pub(crate) async fn insert_attempts(&mut self, attempts: &[NewAttempt]) -> sqlx::Result<()> {
        if let Self::Postgres(change) = self {
            return postgres::copy_attempts(change, attempts).await;
        }
        let columns = NewAttempt::COLUMNS.join(", ");
        for page in attempts.chunks(self.rows_at_once()) {
            let mut insert = Statement::new(&format!("INSERT INTO attempts ({columns}) VALUES "));
            insert.bind_rows(page.iter().map(NewAttempt::values));
            self.execute(insert).await?;
        }
        Ok(())
    }

    pub(crate) async fn commit(self) -> sqlx::Result<()> {
        match self {
            Self::Sqlite(change) => change.commit().await,
            Self::Postgres(change) => change.commit().await,
        }
    }
}
