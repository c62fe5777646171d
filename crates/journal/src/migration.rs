//! The steps of the schema of the history: which are taken, which are missing, and which are from the future.

use fanfare_model::{DatabaseLocation, MigrationStep};
use sqlx::migrate::{AppliedMigration, MigrateError};

use crate::{HistoryFault, Settings, store::Store};

/// The steps that the history's database has and lacks. Changes nothing, and makes no file.
pub async fn migrations(settings: &Settings) -> Result<Vec<MigrationStep>, HistoryFault> {
    let location = &settings.database;
    if let Some(path) = location.sqlite_file()
        && !path.exists()
    {
        return steps(location, &[]);
    }
    let store = Store::connect(location).await?;
    let steps = store.steps(location).await;
    store.close().await;
    steps
}

/// Brings the history's database up to date.
///
/// Whoever opens the history does the same; this is for operators who want to choose the moment.
pub async fn migrate(settings: &Settings) -> Result<(), HistoryFault> {
    Store::open(&settings.database).await?.close().await;
    Ok(())
}

/// The known steps, each with whether it is among those applied. A step of a newer release is refused.
pub(crate) fn steps(
    location: &DatabaseLocation,
    applied: &[AppliedMigration],
) -> Result<Vec<MigrationStep>, HistoryFault> {
    let found = applied.iter().map(|step| step.version).max().unwrap_or(0);
    if found > newest(location) {
        return Err(refused(location, MigrateError::VersionMissing(found)));
    }
    let known = Store::migrations(location).iter();
    Ok(known
        .map(|step| MigrationStep {
            version: step.version,
            description: step.description.to_string(),
            applied: applied.iter().any(|taken| taken.version == step.version),
        })
        .collect())
}

/// Why a schema cannot be used.
pub(crate) fn refused(location: &DatabaseLocation, fault: MigrateError) -> HistoryFault {
    let database = location.to_string();
    if let MigrateError::VersionMissing(found) = fault {
        return HistoryFault::NewerSchema {
            database,
            found,
            known: newest(location),
        };
    }
    HistoryFault::Unavailable {
        database,
        source: fault.into(),
    }
}

fn newest(location: &DatabaseLocation) -> i64 {
    let versions = Store::migrations(location).iter().map(|step| step.version);
    versions.max().unwrap_or(0)
}
