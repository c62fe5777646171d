//! The arguments of `fanfare outbox`.

use std::path::PathBuf;

use clap::Subcommand;
use fanfare_model::PostgresUrl;

/// The commands of `fanfare outbox`.
#[derive(Debug, Clone, Subcommand)]
pub enum OutboxCommand {
    /// Create the table, unless it is there
    CreateTable(OutboxArgs),
    /// Print the SQL that creates the table
    Schema,
    /// Publish what services put into the table, until told to stop
    Relay(OutboxRelayArgs),
    /// Tell how many events wait in the table
    Status(OutboxArgs),
}

/// Arguments of `fanfare outbox relay`.
#[derive(Debug, Clone, clap::Args)]
pub struct OutboxRelayArgs {
    /// Where the table is.
    #[command(flatten)]
    pub outbox: OutboxArgs,
    /// How many events are taken at once; when the relay dies, these are repeated
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub rows: u16,
}

/// Which database holds the table.
#[derive(Debug, Clone, clap::Args)]
pub struct OutboxArgs {
    /// The database, such as `postgresql://user:password@host:5432/database`
    #[arg(long, value_name = "URL", required_unless_present = "database_file")]
    pub database: Option<PostgresUrl>,
    /// A file that holds the URL, so that the password is in no list of processes
    #[arg(long, value_name = "FILE", conflicts_with = "database")]
    pub database_file: Option<PathBuf>,
}
