//! `fanfare outbox`: publishes what services keep in an outbox table of PostgreSQL.

use std::{fs, time::Duration};

use anyhow::Context as _;
use fanfare_model::PostgresUrl;
use fanfare_producer::{
    Producer,
    outbox::{
        self, OutboxStatus, Relay,
        sqlx::{PgPool, postgres::PgPoolOptions},
    },
};
use serde_json::Value;

use super::broker::connected;
use crate::{
    Config, OutboxArgs, OutboxCommand, OutboxRelayArgs, OutputFormat, Sources, clock,
    output::{self, Column, Row},
    signals::Signals,
};

/// What people wait for a command that cannot reach the database.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long rows stay locked while RabbitMQ does not confirm.
const CONFIRM_WITHIN: Duration = Duration::from_secs(15);

pub(crate) async fn run(
    format: OutputFormat,
    command: &OutboxCommand,
    sources: &Sources,
) -> anyhow::Result<()> {
    match command {
        OutboxCommand::Schema => output::print(outbox::SCHEMA.trim_end())?,
        OutboxCommand::CreateTable(args) => {
            let pool = pool(args).await?;
            let mut connection = pool.acquire().await.context("taking a connection")?;
            outbox::create_table(&mut connection).await?;
            output::note("the table `fanfare_outbox` is there")?;
        }
        OutboxCommand::Status(args) => {
            let status = outbox::status(&pool(args).await?).await?;
            output::print_one(format, &StatusRow(status))?;
        }
        OutboxCommand::Relay(args) => relay(args, sources).await?,
    }
    Ok(())
}

async fn relay(args: &OutboxRelayArgs, sources: &Sources) -> anyhow::Result<()> {
    let settings = Config::load(sources)?.settings;
    fanfare_telemetry::init_logs(&settings.telemetry).context("setting up logs")?;
    let signals = Signals::watch().context("watching for signals")?;
    let pool = pool(&args.outbox).await?;
    let broker = connected(&settings.broker, "fanfare outbox relay").await?;
    let producer = Producer::on(&broker, clock::system_clock()).confirm_within(CONFIRM_WITHIN);
    let relay = Relay::new(pool, producer).rows(args.rows);
    output::note("publishing what is in the outbox until Ctrl-C")?;
    let relaying = relay.run(signals.terminate.clone());
    // What is in hand when the second signal comes stays in the table.
    signals.abort.run_until_cancelled(relaying).await;
    broker.close().await;
    Ok(())
}

async fn pool(args: &OutboxArgs) -> anyhow::Result<PgPool> {
    let from_file: PostgresUrl;
    let url = match (&args.database, &args.database_file) {
        (Some(url), _) => url,
        (None, Some(path)) => {
            let reading = || format!("reading {}", path.display());
            let text = fs::read_to_string(path).with_context(reading)?;
            from_file = text.trim().parse().with_context(reading)?;
            &from_file
        }
        (None, None) => anyhow::bail!("one of --database and --database-file is needed"),
    };
    PgPoolOptions::new()
        .max_connections(4)
        .acquire_timeout(CONNECT_WITHIN)
        .connect(url.expose())
        .await
        .context("connecting to the database of the outbox")
}

struct StatusRow(OutboxStatus);

impl Row for StatusRow {
    const COLUMNS: &'static [Column<Self>] = &[
        Column {
            name: "waiting",
            value: |row| row.0.waiting.into(),
        },
        Column {
            name: "oldest_seconds",
            value: |row| Value::from(row.0.oldest.as_secs_f64().round()),
        },
        Column {
            name: "refused",
            value: |row| row.0.refused.into(),
        },
    ];
}
