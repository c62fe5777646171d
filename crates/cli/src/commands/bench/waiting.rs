//! What has waited: a backlog that a dispatcher finds when it starts, deliveries that fail at first, and more than
//! an endpoint may be sent.

use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{self, Instant};

use super::{
    Bench, load,
    report::{Measure, Report},
    scenarios::PLAIN,
    sink::FAILS_ONCE,
    subject::{Audience, Metrics},
};
use crate::{Role, output::note};

const BACKLOG: u64 = 100_000;
const STORM: u64 = 20_000;
const FLOOD: u64 = 5000;
const FLOODED_RATE: &str = "250/s burst 10";
const HOPS: &str = "fanfare_dispatcher_hops_total";

/// Retries wait 2 to 10 s here: what takes longer than this is stuck.
const STORM_WITHIN: Duration = Duration::from_secs(600);

/// How many hops a wait may take in the delay line, on the average.
const HOPS_GOAL: f64 = 2.5;

/// A router stores a backlog while no dispatcher runs; then a dispatcher alone delivers it.
pub(super) async fn backlog(bench: &mut Bench, report: &mut Report) -> anyhow::Result<()> {
    let audience = Audience::new(100, 10, PLAIN);
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
    let audience = Audience::new(1000, 1, FAILS_ONCE);
    let home = bench.home(audience).await?;
    let events = bench.scaled(STORM);
    let (arrivals, begun) = (&mut bench.arrivals, Instant::now());
    let expected = arrivals.count + 2 * events;
    let waiting = home.run(&[Role::Router, Role::Dispatcher], async |subject| {
        load::store(events, async |number| subject.publish(number).await).await?;
        while arrivals.count < expected {
            arrivals.next().await?;
        }
        subject.metrics().await
    });
    let waited = time::timeout(STORM_WITHIN, waiting).await;
    let metrics = waited.context("the deliveries did not all arrive in time")??;
    let delivered = load::per_second(events, begun.elapsed());
    let scenario = "retry storm of 20,000";
    report.add(Measure::new(scenario, "delivered", "per s"), delivered);
    let retry = hops_per_wait(&metrics, "retry");
    note(&format!(
        "retry storm of {events}: {delivered:.0} per second, {retry:.2} hops per retry"
    ))?;
    let measure = Measure::new(scenario, "hops per retry", "");
    report.add(measure.at_most(HOPS_GOAL), retry);
    Ok(())
}

/// More than an endpoint may be sent: what the dispatcher or the router puts off waits in the delay line.
pub(super) async fn flood(bench: &mut Bench, report: &mut Report) -> anyhow::Result<()> {
    let audience = Audience::new(1, 1, PLAIN).limited_to(FLOODED_RATE);
    let home = bench.home(audience).await?;
    let events = bench.scaled(FLOOD);
    let (arrivals, begun) = (&mut bench.arrivals, Instant::now());
    let expected = arrivals.count + events;
    let metrics = home
        .run(&[Role::Router, Role::Dispatcher], async |subject| {
            load::store(events, async |number| subject.publish(number).await).await?;
            while arrivals.count < expected {
                arrivals.next().await?;
            }
            subject.metrics().await
        })
        .await?;
    let delivered = load::per_second(events, begun.elapsed());
    let scenario = "flood of 5,000 at 250/s";
    report.add(Measure::new(scenario, "delivered", "per s"), delivered);
    let deferral = hops_per_wait(&metrics, "deferral");
    // The first hop of what the router puts off is its own.
    let diverted = metrics.sum("fanfare_router_diverted_total", "");
    let at_the_door = 1.0 + metrics.sum(HOPS, &wait("schedule")) / diverted;
    note(&format!(
        "flood of {events}: {delivered:.0} per second, {deferral:.2} hops per deferral, {at_the_door:.2} per one of the {diverted} at the door"
    ))?;
    for (name, hops) in [
        ("hops per deferral", deferral),
        ("hops per deferral at the door", at_the_door),
    ] {
        // Too few events put nothing off.
        if hops.is_finite() {
            report.add(Measure::new(scenario, name, "").at_most(HOPS_GOAL), hops);
        }
    }
    Ok(())
}

/// Hops through the delay line for each wait of a kind that a dispatcher began.
fn hops_per_wait(metrics: &Metrics, kind: &str) -> f64 {
    metrics.sum(HOPS, &wait(kind)) / metrics.sum("fanfare_dispatcher_waits_total", &wait(kind))
}

fn wait(kind: &str) -> String {
    format!("wait=\"{kind}\"")
}
