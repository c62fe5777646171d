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

/// What is read off the latencies, the same beside the skeleton, and the share that took no longer.
const PERCENTILES: [(&str, &str, usize); 2] = [
    (
        "latency, median",
        "latency, median, beside the skeleton",
        50,
    ),
    ("latency, p99", "latency, p99, beside the skeleton", 99),
];

const fn audience(types: u64, fan_out: u64) -> Audience {
    Audience::new(types, fan_out, PLAIN)
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
        let (run, metrics) = home
            .run(&ROLES, async |subject| {
                let publish = async |number| subject.publish(number).await;
                load::run(WARM_UP / fan_out, fan_out, arrivals, publish).await?;
                let run = load::run(events / fan_out, fan_out, arrivals, publish).await?;
                Ok((run, subject.metrics().await?))
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
        // Each costs as much as a delivery: more than a few mean that lanes hold too little.
        let put_off = metrics.sum("fanfare_dispatcher_waits_total", "")
            + metrics.sum("fanfare_router_diverted_total", "");
        let sent = metrics.sum("fanfare_router_deliveries_total", "");
        report.add(Measure::new(name, "put off", "%"), 100.0 * put_off / sent);
    }
    Ok(())
}

/// How long events take from publish to arrival, and how long that is beside the skeleton.
pub(super) async fn latency(bench: &mut Bench, report: &mut Report) -> anyhow::Result<()> {
    for (name, rate, seconds, goals) in PACES {
        let (arrivals, lasting) = (&mut bench.arrivals, Duration::from_secs(seconds));
        let bare = skeleton::latency(&bench.broker, rate, lasting, arrivals, &bench.clock).await?;
        let home = bench.home(Audience::new(1, 1, TIMED)).await?;
        let arrivals = &mut bench.arrivals;
        let took = home
            .run(&ROLES, async |subject| {
                let publish = async |number| subject.publish(number).await;
                load::run(u64::from(rate), 1, arrivals, publish).await?;
                arrivals.take_latencies();
                load::paced(rate, lasting, arrivals, publish).await?;
                Ok(arrivals.take_latencies())
            })
            .await?;
        let goals = goals.map(<[f64; 2]>::from);
        for (place, (measure, ratio, share)) in PERCENTILES.into_iter().enumerate() {
            let (bare, ours) = (percentile_ms(&bare, share), percentile_ms(&took, share));
            note(&format!(
                "{name}: p{share} {ours:.1} ms, the skeleton {bare:.1} ms"
            ))?;
            let measure = Measure::new(name, measure, "ms");
            let measure = match goals {
                Some(goals) => measure.at_most(goals[place]),
                None => measure,
            };
            report.add(measure, ours);
            report.add(Measure::new(name, ratio, ""), ours / bare);
        }
    }
    Ok(())
}
