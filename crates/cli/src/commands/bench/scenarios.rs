//! How fast: deliveries per second beside the skeleton, and the time from publish to arrival.

use std::time::Duration;

use fanfare_producer::Mode;

use super::{
    Bench, WARM_UP, load,
    report::{Measure, Report, percentile_ms},
    sink::TIMED,
    skeleton,
    subject::Audience,
};
use crate::{Role, output::note};

const ROLES: [Role; 2] = [Role::Router, Role::Dispatcher];

/// Where the sink answers 200 and nothing else.
pub(super) const PLAIN: &str = "/";

/// One way to deliver as much as possible.
struct Throughput {
    name: &'static str,
    audience: Audience,
    mode: Mode,
    /// How many deliveries a bundle may hold, unless as many as usual.
    max_bundle: Option<u16>,
    /// The least ratio to the skeleton.
    goal: Option<f64>,
}

impl Throughput {
    const fn new(name: &'static str, types: u64, fan_out: u64) -> Self {
        Self {
            name,
            audience: Audience::new(types, fan_out, PLAIN),
            mode: Mode::Protobuf,
            max_bundle: None,
            goal: None,
        }
    }
}

const THROUGHPUTS: [Throughput; 6] = [
    Throughput {
        goal: Some(1.2),
        ..Throughput::new("1→1, bundles", 1, 1)
    },
    Throughput {
        max_bundle: Some(1),
        goal: Some(0.8),
        ..Throughput::new("1→1, no bundles", 1, 1)
    },
    Throughput::new("1→10", 1, 10),
    Throughput::new("over 1,000 endpoints", 1000, 1),
    Throughput {
        mode: Mode::Structured,
        ..Throughput::new("1→1, JSON events", 1, 1)
    },
    Throughput {
        mode: Mode::Binary,
        ..Throughput::new("1→1, binary events", 1, 1)
    },
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

/// The skeleton, then each throughput: what a round's ratios are formed of was measured in the same minute.
pub(super) async fn throughput(bench: &mut Bench, report: &mut Report) -> anyhow::Result<()> {
    let events = bench.events;
    let bare = skeleton::run(&bench.broker, events, &mut bench.arrivals, &bench.clock).await?;
    note(&format!("skeleton: {:.0} per second", bare.rate))?;
    report.add(Measure::new("skeleton", "deliveries", "per s"), bare.rate);
    let cpu = Measure::new("skeleton", "processor time of the client", "µs each");
    report.add(cpu, bare.cpu_micros);

    for throughput in THROUGHPUTS {
        let Throughput {
            name,
            audience,
            mode,
            max_bundle,
            goal,
        } = throughput;
        let home = bench.home(audience).await?.publishing(mode);
        let home = home.with(|config| {
            let usual = config.router.max_bundle;
            config.router.max_bundle = max_bundle.unwrap_or(usual);
        });
        let (fan_out, arrivals) = (audience.fan_out, &mut bench.arrivals);
        let (run, metrics) = home
            .run(&ROLES, async |subject| {
                let publish = async |number| subject.publish(number).await;
                load::run(WARM_UP, fan_out, arrivals, publish).await?;
                let run = load::run(events, fan_out, arrivals, publish).await?;
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
