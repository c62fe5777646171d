//! The history in PostgreSQL, in a schema of its own: attempts in a partition for each day, written by COPY.

use std::{str::FromStr as _, time::Duration};

use fanfare_model::PostgresUrl;
use sqlx::{
    AssertSqlSafe, PgPool, PgTransaction,
    migrate::{AppliedMigration, Migrate as _, MigrateError, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::{
    HistoryFault,
    rows::{MICROS_A_DAY, NewAttempt},
    statement::Value,
};

pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// Apart from the registry, which may live in the same database.
const SCHEMA: &str = "fanfare_history";

/// How long a caller waits for a connection before it is told that the store is away.
const PATIENCE: Duration = Duration::from_secs(5);

/// Makes migrations, and the making and dropping of partitions, wait for each other. Any number will do.
const LOCK: i64 = 0x0066_616e_6661_7265;

/// Connects to the database as it is; its schema may be an older one.
pub(super) async fn connect(url: &PostgresUrl) -> Result<PgPool, HistoryFault> {
    let database = fanfare_model::DatabaseLocation::Postgres(url.clone()).to_string();
    let unavailable = |source| HistoryFault::Unavailable {
        database: database.clone(),
        source,
    };
    let options =
        PgConnectOptions::from_str(url.expose()).map_err(|fault| unavailable(fault.into()))?;
    let options = options
        .application_name("fanfare history")
        // Every search reads from one place of an index. PostgreSQL would sometimes spend a second on compiling one.
        .options([("search_path", SCHEMA), ("jit", "off")]);
    PgPoolOptions::new()
        .max_connections(8)
        .acquire_timeout(PATIENCE)
        .connect_with(options)
        .await
        .map_err(|fault| unavailable(fault.into()))
}

pub(super) async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    // One transaction, so that of several processes that start at once one migrates.
    let mut change = pool.begin().await?;
    lock(&mut change).await?;
    let create = format!("CREATE SCHEMA IF NOT EXISTS {SCHEMA}");
    sqlx::query(AssertSqlSafe(create))
        .execute(&mut *change)
        .await?;
    MIGRATIONS.run_direct(None, &mut *change, false).await?;
    Ok(change.commit().await?)
}

/// The steps that the database has.
pub(super) async fn applied(pool: &PgPool) -> Result<Vec<AppliedMigration>, MigrateError> {
    let mut connection = pool.acquire().await?;
    let table = &MIGRATIONS.table_name;
    let exists: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(format!("{SCHEMA}.{table}"))
        .fetch_one(&mut *connection)
        .await?;
    match exists {
        true => connection.list_applied_migrations(table).await,
        false => Ok(Vec::new()),
    }
}

async fn lock(change: &mut PgTransaction<'static>) -> sqlx::Result<()> {
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(LOCK)
        .execute(&mut **change)
        .await?;
    Ok(())
}

/// Makes the partitions of these days where there are none.
pub(super) async fn make_partitions(pool: &PgPool, days: &[i64]) -> sqlx::Result<()> {
    let existing = partitions(pool).await?;
    let missing = days.iter().filter(|day| !existing.contains(day));
    let missing: Vec<_> = missing.collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut change = pool.begin().await?;
    lock(&mut change).await?;
    for day in missing {
        let (from, to) = (day * MICROS_A_DAY, (day + 1) * MICROS_A_DAY);
        let name = partition_name(*day);
        let create = format!(
            "CREATE TABLE IF NOT EXISTS {name} PARTITION OF attempts FOR VALUES FROM ({from}) TO ({to})"
        );
        sqlx::query(AssertSqlSafe(create))
            .execute(&mut *change)
            .await?;
    }
    change.commit().await
}

/// Drops the partitions of days that ended before this moment.
pub(super) async fn drop_partitions(pool: &PgPool, moment: i64) -> sqlx::Result<()> {
    let old = partitions(pool).await?.into_iter();
    for day in old.filter(|day| (day + 1) * MICROS_A_DAY <= moment) {
        let drop = format!("DROP TABLE IF EXISTS {}", partition_name(day));
        sqlx::query(AssertSqlSafe(drop)).execute(pool).await?;
    }
    Ok(())
}

async fn partitions(pool: &PgPool) -> sqlx::Result<Vec<i64>> {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'attempts'::regclass",
    )
    .fetch_all(pool)
    .await?;
    let days = names.iter().filter_map(|name| {
        let day = name.rsplit("attempts_day_").next()?;
        day.replace('m', "-").parse().ok()
    });
    Ok(days.collect())
}

/// The day is counted from 1970, so that no calendar is needed.
fn partition_name(day: i64) -> String {
    format!("attempts_day_{day}").replace('-', "m")
}

/// Writes attempts by COPY, which is the quickest way into PostgreSQL.
pub(super) async fn copy_attempts(
    change: &mut PgTransaction<'static>,
    attempts: &[NewAttempt],
) -> sqlx::Result<()> {
    if attempts.is_empty() {
        return Ok(());
    }
    let columns = NewAttempt::COLUMNS.join(", ");
    let into = format!("COPY attempts ({columns}) FROM STDIN");
    let mut copy = change.copy_in_raw(&into).await?;
    let mut text = String::new();
    for attempt in attempts {
        for (index, value) in attempt.values().into_iter().enumerate() {
            if index > 0 {
                text.push('\t');
            }
            push_copied(&mut text, &value);
        }
        text.push('\n');
    }
    copy.send(text.into_bytes()).await?;
    copy.finish().await?;
    Ok(())
}

/// A value in COPY's text format (PostgreSQL, "COPY", section "Text Format").
fn push_copied(text: &mut String, value: &Value) {
    use std::fmt::Write as _;
    match value {
        Value::Integer(None) | Value::Text(None) | Value::Bytes(None) => text.push_str("\\N"),
        Value::Integer(Some(number)) => {
            write!(text, "{number}").expect("a string takes all");
        }
        Value::Bytes(Some(bytes)) => {
            text.push_str("\\\\x");
            for byte in bytes {
                write!(text, "{byte:02x}").expect("a string takes all");
            }
        }
        Value::Text(Some(written)) => {
            for character in written.chars() {
                match character {
                    '\\' => text.push_str("\\\\"),
                    '\t' => text.push_str("\\t"),
                    '\n' => text.push_str("\\n"),
                    '\r' => text.push_str("\\r"),
                    other => text.push(other),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_copy_reads_them() {
        for (value, expected) in [
            (Value::from(-7), "-7"),
            (Value::Text(None), "\\N"),
            (Value::from("a\tb\\c\r\nd"), "a\\tb\\\\c\\r\\nd"),
            (Value::Bytes(Some(vec![0, 255])), "\\\\x00ff"),
        ] {
            let mut text = String::new();
            push_copied(&mut text, &value);
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_partition_is_named_by_its_day() {
        assert_eq!(partition_name(20_781), "attempts_day_20781");
        assert_eq!(partition_name(-3), "attempts_day_m3");
    }
}
