//! `fanfare bench`: how much Fanfare delivers, beside a bare pipeline on the same broker in the same minutes.
//!
//! Both have publisher, router and dispatcher in this process and the receiver in another one, and get the
//! same load; only what stands between publish and POST differs.

mod arrivals;
mod load;
mod product;
mod report;
pub(crate) mod sink;
mod skeleton;

use std::time::Duration;

use anyhow::Context as _;
use fanfare_broker::Settings;
use fanfare_model::{Clock, Secret};

use self::{
    arrivals::Arrivals,
    report::{Pair, Report},
};
use crate::{BenchArgs, Config, OutputFormat, Sources, clock, output::note};

/// Events before every measured run, which open connections and fill caches.
const WARM_UP: u64 = 1000;

/// At this rate latency is what one event takes, not what it waits for others.
const PACED_PER_SECOND: u32 = 100;
const PACED_LASTING: Duration = Duration::from_secs(10);

/// Runs the pairs, then the paced events, and prints the report.
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
    let clock = clock::system_clock();
    let mut arrivals = Arrivals::start().await?;
    note(&format!(
        "{} events of {} bytes, at most {} under way, at most {} requests in flight",
        args.events,
        load::EVENT_BYTES,
        load::IN_FLIGHT,
        product::MAX_IN_FLIGHT
    ))?;

    // The first pair warms broker and disk up and is not counted.
    pair(
        0,
        args.events / 4 + 1,
        &config.broker,
        &mut arrivals,
        &clock,
    )
    .await?;
    let mut pairs = Vec::new();
    for number in 1..=args.pairs {
        let pair = pair(number, args.events, &config.broker, &mut arrivals, &clock).await?;
        pairs.push(pair);
    }
    let (rate, lasting) = (PACED_PER_SECOND, PACED_LASTING);
    note(&format!("{rate} events per second for {lasting:?}"))?;
    let latencies =
        product::latencies(&config.broker, rate, lasting, &mut arrivals, &clock).await?;
    arrivals.stop().await?;
    Ok(Report { pairs, latencies }.print(format)?)
}

async fn pair(
    number: u32,
    events: u64,
    broker: &Settings,
    arrivals: &mut Arrivals,
    clock: &Clock,
) -> anyhow::Result<Pair> {
    let skeleton = skeleton::run(broker, events, arrivals, clock)
        .await
        .context("measuring the skeleton")?;
    let fanfare = product::run(broker, events, arrivals, clock)
        .await
        .context("measuring Fanfare")?;
    let pair = Pair {
        number,
        skeleton,
        fanfare,
    };
    let name = if number == 0 {
        "warm-up".to_owned()
    } else {
        format!("pair {number}")
    };
    note(&format!(
        "{name}: skeleton {:.0} per second, Fanfare {:.0}, ratio {:.2}",
        skeleton.rate,
        fanfare.rate,
        pair.ratio()
    ))?;
    Ok(pair)
}
