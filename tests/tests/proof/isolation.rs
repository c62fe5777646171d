//! One endpoint cannot hurt another: a healthy one beside one that hangs, fails, is limited or is paused, flooded.
//!
//! Latency is from when an event was due to be published to its arrival. Each pair measures the healthy
//! endpoint alone and then beside the flood, on the same fresh virtual host and the same fresh processes.

use std::{fs, time::Duration};

use fanfare_broker::{Broker, Topology};
use fanfare_model::{Endpoint, EndpointState};
use fanfare_producer::Producer;
use fanfare_registry::{NewEndpoint, Registry};
use fanfare_testkit::{Behaviour, Receiver, TestBroker, Version, eventually, wall_clock};
use fanfare_tests::{Program, open_registry};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{self, Instant};

use crate::{
    load::{self, TENANT},
    report::{self, median, parameter, quantile},
};

const HEALTHY_RATE: u32 = 100;
/// The beginning of a flood is told apart.
const BEGINNING: Duration = Duration::from_secs(5);
const SETTLE_WITHIN: Duration = Duration::from_secs(120);

/// After the beginning, beside the same without a flood.
const GOAL_P50: f64 = 1.2;
const GOAL_P99: f64 = 1.5;
/// Within the beginning, in milliseconds.
const GOAL_BEGINNING_P99: f64 = 1000.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Neighbour {
    Hangs,
    Fails,
    Limited,
    Paused,
}

const NEIGHBOURS: [Neighbour; 4] = [
    Neighbour::Hangs,
    Neighbour::Fails,
    Neighbour::Limited,
    Neighbour::Paused,
];

/// How large and how long.
#[derive(Debug, Clone, Copy)]
struct Scale {
    flood: u64,
    seconds: u64,
    pairs: u64,
}

/// Percentiles in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Latency {
    p50: f64,
    p99: f64,
    worst: f64,
}

#[derive(Debug, Clone, Copy)]
struct Pair {
    alone: Latency,
    beginning: Latency,
    after: Latency,
    /// The most resident memory of the dispatcher, in MiB, before and after the flood.
    memory: (f64, f64),
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flooded_endpoint_does_not_hurt_its_neighbours() {
    let scale = Scale {
        flood: parameter("FANFARE_PROOF_FLOOD", 20_000),
        seconds: parameter("FANFARE_PROOF_SECONDS", 65),
        pairs: parameter("FANFARE_PROOF_PAIRS", 3),
    };
    let only: String = parameter("FANFARE_PROOF_ONLY", String::new());
    println!("{scale:?}; latencies in ms, memory of the dispatcher at its peak in MiB");
    println!(
        "{:<8} {:<9} {:>10} {:>10} {:>10} {:>10} {:>6} {:>6} {:>11} {:>14}",
        "endpoint",
        "partition",
        "alone p50",
        "alone p99",
        "flood p50",
        "flood p99",
        "x p50",
        "x p99",
        "first 5 s",
        "memory"
    );
    let (mut rows, mut missed) = (Vec::new(), Vec::new());
    for neighbour in NEIGHBOURS {
        for same in [true, false] {
            let name = format!("{neighbour:?}").to_lowercase();
            if !only.is_empty() && only != name {
                continue;
            }
            let mut pairs = Vec::new();
            for number in 0..scale.pairs {
                pairs.push(pair(neighbour, same, number, scale).await);
            }
            let (row, met) = row(&name, same, &pairs);
            if !met {
                missed.push(format!("{name}, {}", partition(same)));
            }
            rows.push(row);
        }
    }
    let goals = json!({ "p50": GOAL_P50, "p99": GOAL_P99, "first_5_s_p99_ms": GOAL_BEGINNING_P99 });
    let scale = json!({ "flood": scale.flood, "seconds": scale.seconds, "pairs": scale.pairs });
    report::write(
        "isolation",
        &json!({ "scale": scale, "goals": goals, "rows": rows, "missed": missed }),
    );
    assert!(missed.is_empty(), "goals missed: {missed:?}");
}

fn partition(same: bool) -> &'static str {
    if same { "same" } else { "another" }
}

/// One line of the table and its JSON, and whether the goals were met by the medians over the pairs.
fn row(name: &str, same: bool, pairs: &[Pair]) -> (Value, bool) {
    let of = |value: fn(&Pair) -> f64| median(pairs.iter().map(value));
    let ratio_p50 = of(|pair| pair.after.p50 / pair.alone.p50);
    let ratio_p99 = of(|pair| pair.after.p99 / pair.alone.p99);
    let beginning = of(|pair| pair.beginning.p99);
    let (idle, peak) = (of(|pair| pair.memory.0), of(|pair| pair.memory.1));
    println!(
        "{:<8} {:<9} {:>10.1} {:>10.1} {:>10.1} {:>10.1} {:>6.2} {:>6.2} {:>11.1} {:>14}",
        name,
        partition(same),
        of(|pair| pair.alone.p50),
        of(|pair| pair.alone.p99),
        of(|pair| pair.after.p50),
        of(|pair| pair.after.p99),
        ratio_p50,
        ratio_p99,
        beginning,
        format!("{idle:.0} -> {peak:.0}"),
    );
    let latency = |latency: Latency| json!({ "p50_ms": latency.p50, "p99_ms": latency.p99, "worst_ms": latency.worst });
    let each = pairs.iter().map(|pair| {
        json!({
            "alone": latency(pair.alone),
            "first_5_s": latency(pair.beginning),
            "after": latency(pair.after),
            "dispatcher_peak_mib": { "before": pair.memory.0, "after": pair.memory.1 },
        })
    });
    let row = json!({
        "endpoint": name,
        "partition": partition(same),
        "ratio_p50": ratio_p50,
        "ratio_p99": ratio_p99,
        "first_5_s_p99_ms": beginning,
        "dispatcher_peak_mib": peak,
        "pairs": each.collect::<Vec<_>>(),
    });
    let met = ratio_p50 <= GOAL_P50 && ratio_p99 <= GOAL_P99 && beginning <= GOAL_BEGINNING_P99;
    (row, met)
}

async fn pair(neighbour: Neighbour, same: bool, number: u64, scale: Scale) -> Pair {
    let (broker, receiver) = (TestBroker::new(Version::V4_3), Receiver::start().await);
    let home = TempDir::new().unwrap();
    let registry = open_registry(&home).await;
    let healthy = register(&registry, "healthy", &receiver.url("/healthy"), |_| {}).await;
    let flooded = flooded(
        &registry,
        &broker.topology(),
        &healthy,
        neighbour,
        same,
        &receiver,
    )
    .await;
    let router = Program::serve("router", broker.url(), &home, &[]);
    let dispatcher = Program::serve("dispatcher", broker.url(), &home, &[]);
    let connection = Broker::connect(&broker.settings(), "proof", SETTLE_WITHIN)
        .await
        .unwrap();
    let producer = Producer::on(&connection, wall_clock());

    // Opens connections and fills caches.
    measure(&producer, &receiver, "warm", 3).await;
    let alone = measure(&producer, &receiver, "alone", scale.seconds.min(30)).await;
    let before = peak_memory(&dispatcher);
    let flood = async {
        load::burst(&producer, &flooded, "burst", scale.flood).await;
        // As many again over the rest of the time.
        let rate = u32::try_from(scale.flood / scale.seconds).unwrap().max(1);
        let rest = Duration::from_secs(scale.seconds);
        load::paced(&producer, &flooded, "more", rate, rest).await;
    };
    let (latencies, ()) =
        tokio::join!(measure(&producer, &receiver, "flood", scale.seconds), flood);
    let memory = (before, peak_memory(&dispatcher));
    drop((router, dispatcher));
    connection.close().await;
    registry.close().await;

    let beginning = usize::try_from(BEGINNING.as_secs()).unwrap() * HEALTHY_RATE as usize;
    let (beginning, after) = latencies.split_at(beginning.min(latencies.len() / 2));
    let pair = Pair {
        alone: summary(&alone),
        beginning: summary(beginning),
        after: summary(after),
        memory,
    };
    println!("  {neighbour:?} {} {number}: {pair:.1?}", partition(same));
    pair
}

/// Publishes to the healthy endpoint for so long, and returns how long each event took, in order.
async fn measure(producer: &Producer, receiver: &Receiver, series: &str, seconds: u64) -> Vec<f64> {
    let lasting = Duration::from_secs(seconds);
    let due = load::paced(producer, "healthy", series, HEALTHY_RATE, lasting).await;
    let what = format!("all {} events of {series}", due.len());
    let arrived = eventually(SETTLE_WITHIN, &what, async || {
        let arrived = load::arrivals(receiver, "/healthy", series);
        if arrived.len() < due.len() {
            // Looking through all requests is work on the machine that is measured.
            time::sleep(Duration::from_secs(1)).await;
            return None;
        }
        Some(arrived)
    })
    .await;
    let took =
        |(number, due): (usize, &Instant)| (arrived[&(number as u64)] - *due).as_secs_f64() * 1e3;
    due.iter().enumerate().map(took).collect()
}

fn summary(latencies: &[f64]) -> Latency {
    let mut sorted = latencies.to_vec();
    sorted.sort_by(f64::total_cmp);
    Latency {
        p50: quantile(&sorted, 0.5),
        p99: quantile(&sorted, 0.99),
        worst: quantile(&sorted, 1.0),
    }
}

async fn register(
    registry: &Registry,
    event_type: &str,
    url: &str,
    adjust: impl FnOnce(&mut NewEndpoint),
) -> Endpoint {
    let wants = vec![event_type.parse().unwrap()];
    let mut new = NewEndpoint::new(TENANT.parse().unwrap(), url.parse().unwrap(), wants);
    adjust(&mut new);
    let now = wall_clock().now();
    registry.create_endpoint(new, "proof", now).await.unwrap()
}

/// Registers an endpoint to be flooded, in the partition of the healthy one or in another, and returns
/// the type of event that it wants.
async fn flooded(
    registry: &Registry,
    topology: &Topology,
    healthy: &Endpoint,
    neighbour: Neighbour,
    same: bool,
    receiver: &Receiver,
) -> String {
    match neighbour {
        Neighbour::Hangs => receiver.behave("/flooded", Behaviour::slow(Duration::from_secs(3600))),
        Neighbour::Fails => receiver.behave("/flooded", Behaviour::status(500)),
        Neighbour::Limited | Neighbour::Paused => {}
    }
    // Ids are random, so it is tried until one falls where it should.
    for attempt in 0..1000 {
        let event_type = format!("flood.{attempt}");
        let endpoint = register(registry, &event_type, &receiver.url("/flooded"), |new| {
            if neighbour == Neighbour::Limited {
                new.rate = Some("1/s".parse().unwrap());
            }
        })
        .await;
        let shares = topology.partition_of(endpoint.id) == topology.partition_of(healthy.id);
        if shares == same {
            if neighbour == Neighbour::Paused {
                let (state, now) = (EndpointState::Paused, wall_clock().now());
                let paused = registry.set_state(&endpoint.tenant, endpoint.id, state, "proof", now);
                paused.await.unwrap();
            }
            return event_type;
        }
    }
    panic!("no id falls into the partition");
}

/// The most memory that a process was resident with so far, in MiB (`proc_pid_status(5)`, `VmHWM`).
fn peak_memory(program: &Program) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<f64>().unwrap() / 1024.0
}
