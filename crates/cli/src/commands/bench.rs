//! `fanfare bench`: what Fanfare delivers and what that costs, beside a bare pipeline on the same broker in
//! the same minutes.
//!
//! The receiver is always another process. Where the two are compared, publisher, router and dispatcher are in
//! this one and get the same load; only what stands between publish and POST differs.

mod arrivals;
mod history;
mod load;
mod population;
mod process;
mod report;
mod scenarios;
pub(crate) mod sink;
mod skeleton;
mod subject;
mod waiting;

use anyhow::Context as _;
use fanfare_broker::Settings;
use fanfare_model::{Clock, DatabaseLocation, Secret};

use self::{
    arrivals::Arrivals,
    process::Watched,
    report::Report,
    subject::{Audience, Home, MAX_IN_FLIGHT},
};
use crate::{BenchArgs, Config, OutputFormat, Scenario, Sources, clock, output::note};

/// Events before every measured run, which open connections and fill caches.
const WARM_UP: u64 = 1000;

/// The number of events that the sizes of other scenarios go by.
pub(crate) const EVENTS: u64 = 20_000;

/// What every scenario needs.
struct Bench {
    broker: Settings,
    broker_process: Option<Watched>,
    /// Where the history is measured beside SQLite.
    postgres: Option<DatabaseLocation>,
    clock: Clock,
    arrivals: Arrivals,
    events: u64,
}

/// Runs the scenarios round by round and prints the report.
pub(crate) async fn run(
    format: OutputFormat,
    args: &BenchArgs,
    sources: &Sources,
) -> anyhow::Result<()> {
    let mut config = Config::load(sources)?.settings;
    if let Some(url) = &args.amqp {
        config.broker.url = Secret::new(url.clone());
    }
    config.telemetry.log_filter = "warn".to_owned().try_into()?;
    fanfare_telemetry::init_logs(&config.telemetry).context("setting up logs")?;
    let mut bench = Bench {
        broker: config.broker,
        broker_process: args.broker_pid.map(Watched),
        postgres: args.postgres.clone(),
        clock: clock::system_clock(),
        arrivals: Arrivals::start().await?,
        events: args.events,
    };
    note(&format!(
        "{} events of {} bytes, at most {} of them under way, at most {MAX_IN_FLIGHT} requests in flight to an endpoint",
        args.events,
        load::EVENT_BYTES,
        load::IN_FLIGHT,
    ))?;

    // The first run warms broker and disk up and is not counted.
    let (events, arrivals) = (bench.events / 4 + 1, &mut bench.arrivals);
    skeleton::run(&bench.broker, events, arrivals, &bench.clock).await?;
    let mut report = Report::default();
    for round in 1..=args.rounds {
        for scenario in &args.scenarios {
            note(&format!("round {round} of {}: {scenario:?}", args.rounds))?;
            bench
                .measure(*scenario, &mut report)
                .await
                .with_context(|| format!("measuring {scenario:?}"))?;
        }
    }
    bench.arrivals.stop().await?;
    Ok(report.print(format)?)
}

impl Bench {
    async fn measure(&mut self, scenario: Scenario, report: &mut Report) -> anyhow::Result<()> {
        match scenario {
            Scenario::Throughput => scenarios::throughput(self, report).await,
            Scenario::Latency => scenarios::latency(self, report).await,
            Scenario::Backlog => waiting::backlog(self, report).await,
            Scenario::RetryStorm => waiting::retry_storm(self, report).await,
            Scenario::Flood => waiting::flood(self, report).await,
            Scenario::Processes => population::processes(self, report).await,
            Scenario::Journal => history::journal(self, report).await,
            Scenario::History => history::history(self, report).await,
        }
    }

    /// A registry with this audience.
    async fn home(&self, audience: Audience) -> anyhow::Result<Home> {
        Home::new(&self.broker, audience, &self.arrivals.url(""), &self.clock).await
    }

    /// A size that was chosen for [`EVENTS`], for as many events as are asked for.
    fn scaled(&self, size: u64) -> u64 {
        (size * self.events / EVENTS).max(10)
    }
}
