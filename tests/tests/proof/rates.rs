//! A rate is exact across the fleet: three dispatchers, and an endpoint whose partition changes its owner.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    ops::RangeInclusive,
    time::Duration,
};

use fanfare_model::{Endpoint, Timestamp};
use fanfare_producer::Producer;
use fanfare_testkit::{Receiver, TestBroker, Version, eventually};
use serde_json::{Value, json};
use tokio::time;

use crate::{
    fleet::Fleet,
    load,
    report::{self, parameter},
};

const DISPATCHERS: [&str; 3] = ["d1", "d2", "d3"];
const RATE: f64 = 50.0;
const BURST: f64 = 10.0;
/// What the way of a request may differ by.
const ON_THE_WAY: f64 = 0.1;
/// Without a request for longer, the partition is between two owners.
const GAP: f64 = 0.5;
const GOAL_USE: f64 = 0.95;
const FROZEN: Duration = Duration::from_secs(30);
/// A process that was killed or frozen keeps what it had until RabbitMQ misses two heartbeats.
const PATIENCE: Duration = Duration::from_secs(240);

/// How a partition comes to another owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Move {
    Nothing,
    Leave,
    Join,
    Kill,
    Freeze,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_is_exact_while_its_owner_changes() {
    let events = parameter("FANFARE_PROOF_EVENTS", 5000_u64);
    let mut rows = Vec::new();
    println!("50/s burst 10, {events} events, three dispatchers on RabbitMQ 4.3");
    let only: String = parameter("FANFARE_PROOF_ONLY", String::new());
    for how in [
        Move::Nothing,
        Move::Leave,
        Move::Join,
        Move::Kill,
        Move::Freeze,
    ] {
        if only.is_empty() || only == name(how) {
            rows.push(one_move(how, events).await);
        }
    }
    report::write("rates", &json!({ "rates": rows }));
    assert!(
        rows.iter().all(|row| row["holds"] == true),
        "a rate was exceeded, or not used"
    );
}

fn name(how: Move) -> String {
    format!("{how:?}").to_lowercase()
}

async fn one_move(how: Move, events: u64) -> Value {
    let (broker, receiver) = (TestBroker::new(Version::V4_3), Receiver::start().await);
    let mut fleet = Fleet::new(&broker);
    let url = receiver.url("/a");
    let endpoint = fleet
        .register(&url, |new| {
            new.rate = Some("50/s burst 10".parse().unwrap())
        })
        .await;
    let producer = Producer::connect(&broker.settings(), "proof")
        .await
        .unwrap();
    fleet.start_router();
    for id in DISPATCHERS {
        fleet.start(id);
    }
    fleet.settled(&DISPATCHERS).await;
    // The one that comes before all others for the partition.
    let owner = fleet.owner(&endpoint).await;
    if how == Move::Join {
        fleet.stop(&owner);
        fleet
            .settled(
                &DISPATCHERS
                    .into_iter()
                    .filter(|id| *id != owner)
                    .collect::<Vec<_>>(),
            )
            .await;
    }
    let publishing = load::burst(&producer, "a", "rate", events);
    let moving = carry_out(how, &mut fleet, &owner, &receiver, events);
    let ((), ()) = tokio::join!(publishing, moving);
    let arrived = async || (distinct(&receiver) as u64 >= events).then_some(());
    eventually(
        PATIENCE + Duration::from_secs(events / 40),
        "every delivery",
        arrived,
    )
    .await;
    let then = fleet.owner(&endpoint).await;
    fleet.stop_all();
    producer.close().await;
    judge(how, &receiver, &fleet.starts(&endpoint), (&owner, &then))
}

async fn carry_out(how: Move, fleet: &mut Fleet, owner: &str, receiver: &Receiver, events: u64) {
    let third = usize::try_from(events / 3).unwrap();
    let reached = async || (receiver.count() >= third).then_some(());
    eventually(PATIENCE, "a third of the requests", reached).await;
    match how {
        Move::Nothing => {}
        Move::Leave => fleet.stop(owner),
        Move::Join => fleet.start(owner),
        Move::Kill => fleet.kill(owner),
        Move::Freeze => {
            fleet.signal(owner, "STOP");
            time::sleep(FROZEN).await;
            fleet.signal(owner, "CONT");
        }
    }
}

fn distinct(receiver: &Receiver) -> usize {
    let ids: HashSet<String> = receiver
        .requests()
        .iter()
        .map(|r| r.id().to_owned())
        .collect();
    ids.len()
}

fn judge(
    how: Move,
    receiver: &Receiver,
    starts: &[(Timestamp, String)],
    (owner, then): (&str, &str),
) -> Value {
    let requests = receiver.requests();
    let first = requests[0].instant;
    let arrivals: Vec<f64> = requests
        .iter()
        .map(|r| r.instant.duration_since(first).as_secs_f64())
        .collect();
    let mut starts: Vec<_> = starts.iter().collect();
    starts.sort();
    let times: Vec<f64> = starts
        .iter()
        .map(|(at, _)| at.as_microsecond() as f64 / 1e6)
        .collect();
    // Stamped in microseconds, which may round a start down.
    let (excess_starts, window) = excess(&times, RATE, BURST, 0.0001);
    let (excess_arrivals, _) = excess(&arrivals, RATE, BURST, ON_THE_WAY);
    if excess_starts > 0.0 {
        let mut runs: BTreeMap<&str, Vec<&Timestamp>> = BTreeMap::new();
        for (at, run) in &starts[window] {
            runs.entry(run).or_default().push(at);
        }
        for (run, at) in runs {
            println!(
                "  {} starts of {run} from {} to {}",
                at.len(),
                at[0],
                at[at.len() - 1]
            );
        }
    }
    let gaps: Vec<f64> = arrivals
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .filter(|gap| *gap > GAP)
        .collect();
    // Without a move nobody has an excuse for one.
    let excused = match how {
        Move::Nothing => 0.0,
        Move::Leave | Move::Join | Move::Kill | Move::Freeze => gaps.iter().sum(),
    };
    let busy = arrivals[arrivals.len() - 1] - excused;
    let used = (arrivals.len() as f64 - BURST) / (RATE * busy);
    let repeated = arrivals.len() - distinct(receiver);
    let holds = excess_starts <= 0.0 && excess_arrivals <= 0.0 && used >= GOAL_USE;
    let longest = gaps.iter().copied().fold(0.0, f64::max);
    println!(
        "{how:?}: owner {owner} then {then}; {} arrivals, {repeated} repeated; above the rate: starts {excess_starts:.1}, \
         arrivals {excess_arrivals:.1}; used {:.1} %; {} gaps, the longest {longest:.1} s; {}",
        arrivals.len(),
        used * 100.0,
        gaps.len(),
        if holds { "holds" } else { "DOES NOT HOLD" },
    );
    json!({
        "move": name(how), "owner_before": owner, "owner_after": then, "holds": holds,
        "arrivals": arrivals.len(), "starts_logged": starts.len(), "repeated": repeated,
        "starts_above_the_rate": excess_starts, "arrivals_above_the_rate": excess_arrivals,
        "used": used, "gaps_seconds": gaps,
    })
}

/// The most by which any window holds more than `rate x (T + slack) + burst`, not above zero if none does; and
/// that window.
fn excess(times: &[f64], rate: f64, burst: f64, slack: f64) -> (f64, RangeInclusive<usize>) {
    // With the k-th time at t, a window from i to j holds j - i + 1. The worst i for each j is kept on the way.
    let (mut least, mut begin) = (f64::INFINITY, 0);
    let (mut worst, mut window) = (f64::NEG_INFINITY, 0..=0);
    for (number, time) in times.iter().enumerate() {
        let ahead = number as f64 - rate * time;
        if ahead < least {
            (least, begin) = (ahead, number);
        }
        let over = ahead - least + 1.0 - rate * slack - burst;
        if over > worst {
            (worst, window) = (over, begin..=number);
        }
    }
    (worst, window)
}

#[test]
fn the_oracle_sees_one_request_too_many() {
    let exact: Vec<f64> = (0..10)
        .map(|_| 0.0)
        .chain((1..50).map(|n| f64::from(n) / RATE))
        .collect();
    assert!(excess(&exact, RATE, BURST, 0.0001).0 <= 0.0);
    let mut more = exact;
    more.insert(30, 0.41);
    let (over, window) = excess(&more, RATE, BURST, 0.0001);
    assert!(over > 0.0 && window.contains(&30), "{over} {window:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_of_one_in_twenty_seconds_survives_five_restarts() {
    let (broker, receiver) = (TestBroker::new(Version::V4_3), Receiver::start().await);
    let mut fleet = Fleet::new(&broker);
    let url = receiver.url("/a");
    fleet
        .register(&url, |new| new.rate = Some("3/min".parse().unwrap()))
        .await;
    let producer = Producer::connect(&broker.settings(), "proof")
        .await
        .unwrap();
    fleet.start_router();
    fleet.start("d1");
    load::burst(&producer, "a", "slow", 7).await;
    for restart in 1..=5 {
        receiver.expect_requests(restart, PATIENCE).await;
        // Every other time it has no chance to say anything.
        if restart % 2 == 0 {
            fleet.kill("d1");
        } else {
            fleet.stop("d1");
        }
        fleet.start("d1");
    }
    let requests = receiver.expect_requests(7, PATIENCE).await;
    fleet.stop_all();
    producer.close().await;
    let apart: Vec<f64> = requests
        .windows(2)
        .map(|pair| {
            pair[1]
                .instant
                .duration_since(pair[0].instant)
                .as_secs_f64()
        })
        .collect();
    println!("1 per 20 s through five restarts: {apart:.1?} s apart");
    report::write("slow_rate", &json!({ "apart_seconds": apart }));
    assert!(
        apart.iter().all(|gap| *gap >= 20.0 - ON_THE_WAY),
        "{apart:?}"
    );
}

/// The starts that a dispatcher's log tells of, for one endpoint.
pub(crate) fn starts_in(log: &std::path::Path, endpoint: &Endpoint) -> Vec<Timestamp> {
    let id = endpoint.id.to_string();
    let lines = fs::read_to_string(log).unwrap_or_default();
    let lines = lines.lines().filter(|line| line.contains(&id));
    lines
        .filter_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            let field = |name: &str| line.get(name).or_else(|| line["fields"].get(name)).cloned();
            field("started")?.as_str()?.parse().ok()
        })
        .collect()
}
