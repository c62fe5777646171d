//! The history in a SQLite file of its own.
//!
//! Apart from the registry's: what is recorded takes the write lock often, and grows to another size.

use std::{fs::DirBuilder, io, os::unix::fs::DirBuilderExt as _, path::Path, time::Duration};

use sqlx::{
    Connection as _, SqliteConnection, SqlitePool,
    migrate::{AppliedMigration, Migrate as _, MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tempfile::NamedTempFile;

use crate::HistoryFault;

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// How long a caller waits for a lock or a connection before it is told that the store is away.
const PATIENCE: Duration = Duration::from_secs(5);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Opens the file, which is made if there is none. Its schema may be an older one.
pub(super) async fn connect(path: &Path) -> Result<SqlitePool, HistoryFault> {
    let unavailable = |source: BoxError| HistoryFault::Unavailable {
        database: path.display().to_string(),
        source,
    };
    create_if_missing(path).await.map_err(unavailable)?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        // A crash of the machine may undo the last transactions, whole ones only. The journal's offset is
        // undone with them, so they are recorded again.
        .synchronous(SqliteSynchronous::Normal)
        // 32 MiB for each connection, so that the inner pages of the indexes stay in memory.
        .pragma("cache_size", "-32768")
        .busy_timeout(PATIENCE);
    // Readers do not wait for the writer in WAL mode, so a few connections serve them all.
    SqlitePoolOptions::new()
        .max_connections(4)
        .acquire_timeout(PATIENCE)
        .connect_with(options)
        .await
        .map_err(|fault| unavailable(fault.into()))
}

pub(super) async fn migrate(pool: &SqlitePool) -> Result<(), MigrateError> {
    // One transaction, so that of several processes that start at once one migrates.
    let mut change = pool.begin_with("BEGIN IMMEDIATE").await?;
    // `Migrator::run` would do the same, but its future cannot be proven `Send` over a transaction.
    MIGRATIONS.run_direct(None, &mut *change, false).await?;
    Ok(change.commit().await?)
}

/// The steps that the database has.
pub(super) async fn applied(pool: &SqlitePool) -> Result<Vec<AppliedMigration>, MigrateError> {
    let mut connection = pool.acquire().await?;
    let exists: Option<i64> = sqlx::query_scalar(
        "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '_sqlx_migrations'",
    )
    .fetch_optional(&mut *connection)
    .await?;
    match exists {
        Some(_) => {
            let table = &MIGRATIONS.table_name;
            connection.list_applied_migrations(table).await
        }
        None => Ok(Vec::new()),
    }
}

/// Makes the database in WAL mode before it has its name, because SQLite lets nobody wait for a change of mode.
///
/// Its owner alone can read it, and SQLite gives the files beside it the same mode.
async fn create_if_missing(path: &Path) -> Result<(), BoxError> {
    if path.exists() {
        return Ok(());
    }
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    // Only the path is kept: to close another handle of a database drops SQLite's locks on it
    // (SQLite, "How To Corrupt An SQLite Database File", section 2.2).
    let unnamed = NamedTempFile::new_in(folder)?.into_temp_path();
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
