//! Arguments of `fanfare event-types`.

use clap::Subcommand;
use fanfare_model::EventType;

use super::DataSource;

/// The commands of `fanfare event-types`.
#[derive(Debug, Clone, Subcommand)]
pub enum EventTypesCommand {
    /// List the catalogue
    List,
    /// Show one event type, with its schema and its sample
    Show(OneEventTypeArgs),
    /// Add or replace one event type
    Put(PutEventTypeArgs),
    /// Remove one event type from the catalogue
    Delete(OneEventTypeArgs),
    /// Add or replace every event type of a catalogue file
    Load(LoadEventTypesArgs),
}

/// Which event type is meant.
#[derive(Debug, Clone, clap::Args)]
pub struct OneEventTypeArgs {
    /// Its name
    #[arg(value_name = "TYPE")]
    pub name: EventType,
}

/// Arguments of `fanfare event-types put`.
#[derive(Debug, Clone, clap::Args)]
pub struct PutEventTypeArgs {
    /// Its name
    #[arg(value_name = "TYPE")]
    pub name: EventType,
    /// What it means
    #[arg(long, default_value = "")]
    pub description: String,
    /// The JSON Schema of its data: itself, `@file`, or `-` for stdin
    #[arg(long, value_name = "SCHEMA")]
    pub schema: Option<DataSource>,
    /// Data as such an event has it: itself, `@file`, or `-` for stdin
    #[arg(long, value_name = "DATA")]
    pub sample: Option<DataSource>,
    /// Refuse events that are published over HTTP and do not fit the schema
    #[arg(long, requires = "schema")]
    pub enforce: bool,
}

/// Arguments of `fanfare event-types load`.
#[derive(Debug, Clone, clap::Args)]
pub struct LoadEventTypesArgs {
    /// A catalogue: `@file`, `-` for stdin, or `referral` for the one that comes with Fanfare
    #[arg(default_value = "referral")]
    pub catalogue: DataSource,
    /// Refuse events that are published over HTTP and do not fit their schema
    #[arg(long)]
    pub enforce: bool,
}
