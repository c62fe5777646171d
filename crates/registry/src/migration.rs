//! The steps of a database's schema: which are taken, which are missing, and which are from the future.

use fanfare_model::{DatabaseLocation, MigrationStep};
use sqlx::migrate::{AppliedMigration, MigrateError, Migrator};

use crate::{RegistryFault, Settings, backend};

/// The steps that the registry's database has and lacks. Changes nothing, and makes no file.
pub async fn migrations(settings: &Settings) -> Result<Vec<MigrationStep>, RegistryFault> {
    if let Some(path) = settings.database.sqlite_file()
        && !path.exists()
    {
        return Ok(steps(&crate::sqlite::MIGRATIONS, &[]));
    }
    let backend = backend::connect(&settings.database).await?;
    let steps = backend.steps().await;
    backend.close().await;
    steps
}

/// Brings the registry's database up to date, and returns the steps that this took.
///
/// Whoever opens the registry does the same; this is for operators who want to choose the moment.
pub async fn migrate(settings: &Settings) -> Result<Vec<MigrationStep>, RegistryFault> {
    let backend = backend::connect(&settings.database).await?;
    let migrated = async {
        let before = backend.steps().await?;
        backend.migrate().await?;
        Ok(before.into_iter().filter(|step| !step.applied).collect())
    };
    let taken = migrated.await;
    backend.close().await;
    taken
}

/// What is to be done about a database that has these steps.
pub(crate) fn judge(
    known: &Migrator,
    applied: &[AppliedMigration],
    location: &DatabaseLocation,
) -> Result<Vec<MigrationStep>, RegistryFault> {
    let newest = known.iter().map(|step| step.version).max().unwrap_or(0);
    let found = applied.iter().map(|step| step.version).max().unwrap_or(0);
    if found > newest {
        return Err(RegistryFault::NewerSchema {
            location: location.clone(),
            found,
            known: newest,
        });
    }
    for taken in applied {
        let same = known
            .iter()
            .find(|step| step.version == taken.version)
            .is_some_and(|step| step.checksum == taken.checksum);
        if !same {
            return Err(RegistryFault::Damaged {
                what: format!("the schema of the registry `{location}`"),
                source: MigrateError::VersionMismatch(taken.version).into(),
            });
        }
    }
    Ok(steps(known, applied))
}

fn steps(known: &Migrator, applied: &[AppliedMigration]) -> Vec<MigrationStep> {
    let step = |step: &sqlx::migrate::Migration| MigrationStep {
        version: step.version,
        description: step.description.to_string(),
        applied: applied.iter().any(|taken| taken.version == step.version),
    };
    known.iter().map(step).collect()
}
