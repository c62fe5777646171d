//! How fast: deliveries per second beside the skeleton, and the time from publish to arrival.

use std::time::Duration;

use super::{
    Bench, WARM_UP, load,
    report::{Measure, Report, percentile_ms},
    sink::TIMED,
    skeleton,
    subject::Audience,
};
use crate::{Config, Role, output::note};

const ROLES: [Role; 2] = [Role::Router, Role::Dispatcher];

/// Where the sink answers 200 and nothing else.
pub(super) const PLAIN: &str = "/";

/// Who receives, with which settings, and the least ratio to the skeleton.
type Throughput = (&'static str, Audience, fn(&mut Config), Option<f64>);

const THROUGHPUTS: [Throughput; 4] = [
    ("1→1, bundles", audience(1, 1), |_| {}, Some(1.2)),
    (
        "1→1, no bundles",
        audience(1, 1),
        |config| config.router.max_bundle = 1,
        Some(0.8),
    ),
    ("1→10", audience(1, 10), |_| {}, None),
    ("over 1,000 endpoints", audience(1000, 1), |_| {}, None),
];

/// What a fan-out to ten endpoints should come to on two cores.
const FAN_OUT_GOAL: f64 = 20_000.0;

/// Events per second, for how long, and the goals for median and 99th percentile in milliseconds.
type Pace = (&'static str, u32, u64, Option<(f64, f64)>);

/// At the first rate latency is what one event takes, not what it waits for others.
const PACES: [Pace; 2] = [
    ("100 events/s", 100, 10, Some((4.0, 10.0))),
    ("1,000 events/s", 1000, 5, None),
];

const fn audience(types: u64, fan_out: u64) -> Audience {
    Audience {
        types,
        fan_out,
        path: PLAIN,
    }
}

/// The skeleton, then each throughput: what a round's ratios are formed of was measured in the same minute.
pub(super) async fn throughput(bench: &mut Bench, report: &mut Report) -> anyhow::Result<()> {
    let events = bench.events;
    let bare = skeleton::run(&bench.broker, events, &mut bench.arrivals, &bench.clock).await?;
    note(&format!("skeleton: {:.0} per second", bare.rate))?;
    report.add(Measure::new("skeleton", "deliveries", "per s"), bare.rate);
    let cpu = Measure::new("skeleton", "processor time of the client", "µs each");
    report.add(cpu, bare.cpu_micros);

    for (name, audience, change, goal) in THROUGHPUTS {
        let home = bench.home(audience).await?.with(change);
        let (fan_out, arrivals) = (audience.fan_out, &mut bench.arrivals);
        let run = home
            .run(&ROLES, async |subject| {
                let publish = async |number| subject.publish(number).await;
                load::run(WARM_UP / fan_out, fan_out, arrivals, publish).await?;
                load::run(events / fan_out, fan_out, arrivals, publish).await
            })
            .await?;
        let ratio = run.rate / bare.rate;
        note(&format!(
            "{name}: {:.0} per second, ratio {ratio:.2}",
            run.rate
        ))?;
        let rate = Measure::new(name, "deliveries", "per s");
        let rate = if fan_out > 1 {
            rate.at_least(FAN_OUT_GOAL)
        } else {
            rate
        };
        report.add(rate, run.rate);
        let beside = Measure::new(name, "ratio to the skeleton", "");
        report.add(goal.map_or(beside, |goal| beside.at_least(goal)), ratio);
        let cpu = Measure::new(name, "processor time of the client", "µs each");
        report.add(cpu, run.cpu_micros);
    }
    Ok(())
}

/// How long events take from publish to arrival.
pub(super) async fn latency(bench: &mut Bench, report: &mut Report) -> anyhow::Result<()> {
    for (name, rate, seconds, goals) in PACES {
        let timed = Audience {
            path: TIMED,
            ..audience(1, 1)
        };
        let home = bench.home(timed).await?;
        let arrivals = &mut bench.arrivals;
        let took = home
            .run(&ROLES, async |subject| {
                let publish = async |number| subject.publish(number).await;
                load::run(u64::from(rate), 1, arrivals, publish).await?;
                arrivals.take_latencies();
                load::paced(rate, Duration::from_secs(seconds), arrivals, publish).await?;
                Ok(arrivals.take_latencies())
            })
            .await?;
        let (median, late) = (percentile_ms(&took, 50), percentile_ms(&took, 99));
        note(&format!("{name}: {median:.1} ms median, {late:.1} ms p99"))?;
        let (p50, p99) = (
            Measure::new(name, "latency, median", "ms"),
            Measure::new(name, "latency, p99", "ms"),
        );
        let (p50, p99) = match goals {
            Some((middle, tail)) => (p50.at_most(middle), p99.at_most(tail)),
            None => (p50, p99),
        };
        report.add(p50, median);
        report.add(p99, late);
    }
    Ok(())
}
