//! What has waited: a backlog that a dispatcher finds when it starts, and deliveries that fail at first.

use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{self, Instant};

use super::{
    Bench, load,
    report::{Measure, Report},
    scenarios::PLAIN,
    sink::FAILS_ONCE,
    subject::{Audience, Subject},
};
use crate::{Role, output::note};

const BACKLOG: u64 = 100_000;
const STORM: u64 = 20_000;

/// Retries wait 2 to 10 s here: what takes longer than this is stuck.
const STORM_WITHIN: Duration = Duration::from_secs(600);

/// How many hops a wait may take in the delay line, on the average.
const HOPS_GOAL: f64 = 2.5;

/// A router stores a backlog while no dispatcher runs; then a dispatcher alone delivers it.
pub(super) async fn backlog(bench: &mut Bench, report: &mut Report) -> anyhow::Result<()> {
    let audience = Audience {
        types: 100,
        fan_out: 10,
        path: PLAIN,
    };
    let home = bench.home(audience).await?;
    let events = bench.scaled(BACKLOG) / audience.fan_out;
    let deliveries = events * audience.fan_out;
    let begun = Instant::now();
    home.run(&[Role::Router], async |subject| {
        load::store(events, async |number| subject.publish(number).await).await?;
        subject.wait_until_routed().await
    })
    .await?;
    let routed = load::per_second(deliveries, begun.elapsed());

    let (arrivals, begun) = (&mut bench.arrivals, Instant::now());
    let expected = arrivals.count + deliveries;
    home.run(&[Role::Dispatcher], async |_| {
        while arrivals.count < expected {
            arrivals.next().await?;
        }
        Ok(())
    })
    .await?;
    let delivered = load::per_second(deliveries, begun.elapsed());
    note(&format!(
        "backlog of {deliveries}: routed {routed:.0} per second, delivered {delivered:.0} per second"
    ))?;
    let scenario = "backlog of 100,000";
    report.add(Measure::new(scenario, "stored", "per s"), routed);
    report.add(Measure::new(scenario, "delivered", "per s"), delivered);
    Ok(())
}

/// Every first attempt is refused, so that all deliveries wait and come again.
pub(super) async fn retry_storm(bench: &mut Bench, report: &mut Report) -> anyhow::Result<()> {
    let audience = Audience {
        types: 1000,
        fan_out: 1,
        path: FAILS_ONCE,
    };
    let home = bench.home(audience).await?;
    let events = bench.scaled(STORM);
    let (arrivals, begun) = (&mut bench.arrivals, Instant::now());
    let expected = arrivals.count + 2 * events;
    let waiting = home.run(&[Role::Router, Role::Dispatcher], async |subject| {
        load::store(events, async |number| subject.publish(number).await).await?;
        while arrivals.count < expected {
            arrivals.next().await?;
        }
        hops_per_wait(subject).await
    });
    let waited = time::timeout(STORM_WITHIN, waiting).await;
    let hops = waited.context("the deliveries did not all arrive in time")??;
    let delivered = load::per_second(events, begun.elapsed());
    note(&format!(
        "retry storm of {events}: {delivered:.0} per second, {hops:.2} hops per wait"
    ))?;
    let scenario = "retry storm of 20,000";
    report.add(Measure::new(scenario, "delivered", "per s"), delivered);
    let measure = Measure::new(scenario, "hops per wait", "");
    report.add(measure.at_most(HOPS_GOAL), hops);
    Ok(())
}

async fn hops_per_wait(subject: &Subject) -> anyhow::Result<f64> {
    let hops = subject.counter("fanfare_dispatcher_hops_total").await?;
    let waits = subject.counter("fanfare_dispatcher_waits_total").await?;
    Ok(hops / waits)
}
