//! What each process costs, and how that grows with the endpoints that are registered.

use std::{process, time::Duration};

use super::{
    Bench, WARM_UP, load,
    process::Watched,
    report::{Measure, Report},
    scenarios::PLAIN,
    subject::Audience,
};
use crate::{Role, output::note};

/// How many endpoints are registered, the first of which are the measure for the others.
const POPULATIONS: [(&str, u64); 3] = [
    ("10 endpoints", 10),
    ("1,000 endpoints", 1000),
    ("100,000 endpoints", 100_000),
];

/// Router and dispatcher together, for each delivery, in microseconds.
const COST_GOAL: f64 = 100.0;
/// The memory of a role, in mebibytes.
const MEMORY_GOAL: f64 = 150.0;
/// What a delivery costs with the most endpoints, beside the fewest.
const GROWTH_GOAL: f64 = 1.2;

/// Runs each role as a process, with more and more endpoints in the registry.
pub(super) async fn processes(bench: &mut Bench, report: &mut Report) -> anyhow::Result<()> {
    let mut least = None;
    for (scenario, endpoints) in POPULATIONS {
        let cost = one_population(bench, scenario, endpoints, report).await?;
        let growth = cost / *least.get_or_insert(cost);
        let measure = Measure::new(scenario, "cost beside 10 endpoints", "");
        if endpoints > POPULATIONS[0].1 {
            report.add(measure.at_most(GROWTH_GOAL), growth);
        }
    }
    Ok(())
}

/// Returns what a delivery costs router and dispatcher together, in microseconds.
async fn one_population(
    bench: &mut Bench,
    scenario: &'static str,
    endpoints: u64,
    report: &mut Report,
) -> anyhow::Result<f64> {
    let audience = Audience::new(endpoints, 1, PLAIN);
    let home = bench.home(audience).await?;
    let router = home.spawn(Role::Router).await?;
    let dispatcher = home.spawn(Role::Dispatcher).await?;
    let subject = home.producer().await?;
    let publish = async |number| subject.publish(number).await;
    for (name, role) in [("router, idle", &router), ("dispatcher, idle", &dispatcher)] {
        let (now, _) = role.watched.memory()?;
        report.add(Measure::new(scenario, name, "MiB"), now);
    }

    let arrivals = &mut bench.arrivals;
    load::run(WARM_UP, 1, arrivals, publish).await?;
    let watched = [
        (
            "processor time of the producer",
            Some(Watched(process::id())),
        ),
        ("processor time of the router", Some(router.watched)),
        ("processor time of the dispatcher", Some(dispatcher.watched)),
        ("processor time of RabbitMQ", bench.broker_process),
        ("processor time of the sink", arrivals.watched()),
    ];
    let before = watched.map(|(_, process)| process.map(Watched::cpu));
    let run = load::run(bench.events, 1, arrivals, publish).await?;
    let mut cost = 0.0;
    for ((name, process), before) in watched.into_iter().zip(before) {
        let (Some(process), Some(before)) = (process, before) else {
            continue;
        };
        let used: Duration = process.cpu()? - before?;
        let each = load::each(used, bench.events);
        report.add(Measure::new(scenario, name, "µs each"), each);
        if process == router.watched || process == dispatcher.watched {
            cost += each;
        }
    }
    let ours = Measure::new(scenario, "router and dispatcher", "µs each");
    report.add(ours.at_most(COST_GOAL), cost);
    report.add(Measure::new(scenario, "deliveries", "per s"), run.rate);
    for (name, role) in [("router, peak", &router), ("dispatcher, peak", &dispatcher)] {
        let (_, peak) = role.watched.memory()?;
        report.add(
            Measure::new(scenario, name, "MiB").at_most(MEMORY_GOAL),
            peak,
        );
    }
    note(&format!(
        "{scenario}, a process for each role: {:.0} per second, {cost:.0} µs of router and dispatcher each",
        run.rate
    ))?;
    subject.broker.close().await;
    router.stop().await?;
    dispatcher.stop().await?;
    Ok(cost)
}
