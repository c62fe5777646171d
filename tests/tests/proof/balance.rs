//! Partitions spread over the dispatchers that are there, and move in order as these come and go.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use fanfare_producer::Producer;
use fanfare_testkit::{Behaviour, Receiver, TestBroker, Version, eventually};
use serde_json::{Value, json};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use crate::{fleet::Fleet, load, report};

/// Enough for most of the partitions to have one.
const ENDPOINTS: usize = 48;
/// To each endpoint.
const EVENTS_A_SECOND: u32 = 4;
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);
const GOAL: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(180);

/// What the dispatchers are after each step, and whom it starts or stops.
const STEPS: [(&str, &[&str], &[&str]); 3] = [
    ("1 to 2", &["d2"], &["d1", "d2"]),
    ("2 to 4", &["d3", "d4"], &["d1", "d2", "d3", "d4"]),
    ("4 to 1", &["d1", "d3", "d4"], &["d2"]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_move_in_order_as_dispatchers_come_and_go() {
    let (broker, receiver) = (TestBroker::new(Version::V4_3), Receiver::start().await);
    let mut fleet = Fleet::new(&broker);
    receiver.behave("/hangs", Behaviour::slow(Duration::from_secs(3600)));
    let hangs = fleet
        .register(&receiver.url("/hangs"), |new| new.timeout = ATTEMPT_TIMEOUT)
        .await;
    for number in 0..ENDPOINTS {
        fleet
            .register(&receiver.url(&format!("/{number}")), |_| {})
            .await;
    }
    let producer = Producer::connect(&broker.settings(), "proof")
        .await
        .unwrap();
    fleet.start_router();
    fleet.start("d1");
    fleet.settled(&["d1"]).await;
    let over = CancellationToken::new();
    let publishing = publish_until(&over, &producer);
    let (published, steps) = tokio::join!(publishing, walk(&mut fleet, &over));
    let owed = usize::try_from(published).unwrap() * ENDPOINTS;
    let complete = async || (arrived(&receiver).0 >= owed).then_some(());
    eventually(PATIENCE, "every delivery", complete).await;
    fleet.stop_all();
    producer.close().await;

    let (distinct, all) = arrived(&receiver);
    let hanging = fleet.topology().partition_of(hangs.id);
    println!(
        "{published} events to {ENDPOINTS} endpoints, and one that hangs in {hanging}: {} repeated",
        all - distinct
    );
    let rows = told(&steps, &receiver);
    report::write(
        "balance",
        &json!({ "steps": rows, "published": published, "repeated": all - distinct }),
    );
    assert_eq!(all - distinct, 0, "a clean move repeats nothing");
    let slowest = steps.iter().map(|(_, _, took)| *took).max().unwrap();
    assert!(slowest <= GOAL, "settled after {slowest:?}");
}

/// When a step began, and how long it took until each partition had one owner.
type Step = (&'static str, Instant, Duration);

/// Takes all steps, and ends the load.
async fn walk(fleet: &mut Fleet, over: &CancellationToken) -> Vec<Step> {
    let mut steps = Vec::new();
    time::sleep(Duration::from_secs(5)).await;
    for (name, who, after) in STEPS {
        let begun = Instant::now();
        for id in who {
            if after.contains(id) {
                fleet.start(id);
            } else {
                fleet.stop(id);
            }
        }
        fleet.settled(after).await;
        steps.push((name, begun, begun.elapsed()));
        // What a hand-over held up arrives, and the next step begins from rest.
        time::sleep(Duration::from_secs(10)).await;
    }
    over.cancel();
    steps
}

/// Prints the steps, and returns them as JSON.
fn told(steps: &[Step], receiver: &Receiver) -> Vec<Value> {
    let mut rows = Vec::new();
    for (name, begun, took) in steps {
        let mut pauses = pauses(receiver, *begun, *took + Duration::from_secs(10));
        pauses.sort_by(f64::total_cmp);
        let (median, longest) = (
            report::quantile(&pauses, 0.5),
            report::quantile(&pauses, 1.0),
        );
        let took = took.as_secs_f64();
        println!(
            "{name}: one owner for each partition after {took:.1} s; pause of an endpoint: median {median:.2} s, longest {longest:.2} s"
        );
        rows.push(json!({ "step": name, "settled_seconds": took, "pauses_seconds": pauses }));
    }
    rows
}

async fn publish_until(over: &CancellationToken, producer: &Producer) -> u64 {
    let mut ticks = time::interval(Duration::from_secs(1) / EVENTS_A_SECOND);
    let mut number = 0;
    while over.run_until_cancelled(ticks.tick()).await.is_some() {
        load::publish(producer, "a", "balance", number).await;
        number += 1;
    }
    number
}

/// How many different deliveries arrived, and how many requests, but for the endpoint that hangs.
fn arrived(receiver: &Receiver) -> (usize, usize) {
    let requests = receiver.requests();
    let healthy = requests.iter().filter(|r| r.path != "/hangs");
    let ids: Vec<&str> = healthy.map(|r| r.id()).collect();
    let distinct: HashSet<&str> = ids.iter().copied().collect();
    (distinct.len(), ids.len())
}

/// The longest time without a request that each endpoint had, in seconds.
fn pauses(receiver: &Receiver, from: Instant, lasting: Duration) -> Vec<f64> {
    let mut last: BTreeMap<String, (Instant, f64)> = BTreeMap::new();
    for request in receiver.requests() {
        let within = request.instant >= from && request.instant <= from + lasting;
        if within && request.path != "/hangs" {
            let (before, longest) = last.entry(request.path).or_insert((from, 0.0));
            let pause = request.instant.duration_since(*before).as_secs_f64();
            (*before, *longest) = (request.instant, longest.max(pause));
        }
    }
    last.into_values().map(|(_, longest)| longest).collect()
}
