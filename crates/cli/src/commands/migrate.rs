//! `fanfare migrate`: brings databases up to the schema of this release, when the operator chooses to.

use anyhow::Context as _;
use fanfare_model::{DatabaseLocation, MigrationStep};

use crate::{
    Config, MigrateArgs, OutputFormat, Sources,
    output::{self, Column, Row},
};

pub(crate) async fn run(
    format: OutputFormat,
    args: &MigrateArgs,
    sources: &Sources,
) -> anyhow::Result<()> {
    let settings = Config::load(sources)?.settings;
    let mut rows = registry(&settings.registry, args.dry_run).await?;
    rows.extend(history(&settings.history, args.dry_run).await?);
    output::print_rows(format, &rows)?;
    let count = |state| rows.iter().filter(|row| row.state == state).count();
    output::note(&match (count(State::Pending), count(State::AppliedNow)) {
        (0, 0) => "every database is up to date".to_owned(),
        (0, taken) => format!("{taken} steps were taken"),
        (pending, _) => format!("{pending} steps are pending: run without --dry-run to take them"),
    })?;
    Ok(())
}

async fn registry(
    settings: &fanfare_registry::Settings,
    dry_run: bool,
) -> anyhow::Result<Vec<Step>> {
    let steps = fanfare_registry::migrations(settings).await;
    let steps = steps.context("looking at the registry")?;
    if !dry_run {
        let migrated = fanfare_registry::migrate(settings).await;
        migrated.context("migrating the registry")?;
    }
    Ok(rows("registry", &settings.database, steps, dry_run))
}

async fn history(settings: &fanfare_journal::Settings, dry_run: bool) -> anyhow::Result<Vec<Step>> {
    let steps = fanfare_journal::migrations(settings).await;
    let steps = steps.context("looking at the history")?;
    if !dry_run {
        let migrated = fanfare_journal::migrate(settings).await;
        migrated.context("migrating the history")?;
    }
    Ok(rows("history", &settings.database, steps, dry_run))
}

fn rows(
    store: &'static str,
    database: &DatabaseLocation,
    steps: Vec<MigrationStep>,
    dry_run: bool,
) -> Vec<Step> {
    let step = |step: MigrationStep| Step {
        store,
        database: database.to_string(),
        version: step.version,
        description: step.description,
        state: match step.applied {
            true => State::Applied,
            false if dry_run => State::Pending,
            false => State::AppliedNow,
        },
    };
    steps.into_iter().map(step).collect()
}

/// A step of the schema of one database.
struct Step {
    store: &'static str,
    database: String,
    version: i64,
    description: String,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Applied,
    AppliedNow,
    Pending,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::AppliedNow => "applied_now",
            Self::Pending => "pending",
        }
    }
}

impl Row for Step {
    const COLUMNS: &'static [Column<Self>] = &[
        Column {
            name: "store",
            value: |step| step.store.into(),
        },
        Column {
            name: "database",
            value: |step| step.database.as_str().into(),
        },
        Column {
            name: "version",
            value: |step| step.version.into(),
        },
        Column {
            name: "description",
            value: |step| step.description.as_str().into(),
        },
        Column {
            name: "state",
            value: |step| step.state.name().into(),
        },
    ];
}
