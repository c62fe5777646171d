//! Fifty thousand dead letters: how long it takes to see what they are, and that a replay takes what it is for.

use std::{path::Path, process::Stdio, time::Duration};

use fanfare_broker::{Broker, Place};
use fanfare_deadletters::{Filter, GroupBy, Seen, Settings, View};
use fanfare_testkit::{TestBroker, Version, eventually, wall_clock};
use fanfare_tests::{Program, bury, command, letter, open_history};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::report::{parameter, write};

const ENDPOINTS: usize = 200;

/// How long the management API may be behind.
const MANAGEMENT_WITHIN: Duration = Duration::from_secs(60);

const QUEUE: &str = "fanfare.dead-letters";

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_seen_at_once_and_replayed_exactly() {
    let all: usize = parameter("FANFARE_PROOF_LETTERS", 50_000);
    let (each, home) = (all / ENDPOINTS, TempDir::new().unwrap());
    let host = TestBroker::new(Version::V4_3);
    let broker = Broker::connect(&host.settings(), "proof", MANAGEMENT_WITHIN)
        .await
        .unwrap();
    let letters = (0..all).map(|number| letter(number, (number % ENDPOINTS) as u8));
    bury(&broker, letters).await;
    expect_messages(&host, all).await;
    let mut recorder = Program::serve("recorder", host.url(), &home, &[]);
    let run = |arguments: &[&str]| run(&host, home.path(), arguments);

    let (reindexed, reindex) = run(&["reindex"]);
    assert_eq!(reindexed["entered"], all);
    let (nothing, _) = run(&["replay", "--reason", "gone", "--why", "proof", "--yes"]);
    assert_eq!(nothing["expected"], 0);
    // That told the journal that it ended, and so the index how far it is.
    index_is_dated(&home).await;
    let answer = group_in_process(&broker, &home).await;
    let (groups, group) = run(&["group", "--by", "endpoint"]);
    let counts: Vec<_> = groups
        .as_array()
        .unwrap()
        .iter()
        .map(|g| &g["count"])
        .collect();
    assert_eq!(counts, vec![&json!(each); ENDPOINTS.min(counts.len())]);
    let (from_queue, group_queue) = run(&["group", "--by", "endpoint", "--from-queue"]);
    assert_eq!(from_queue.as_array().unwrap().len(), counts.len());

    let endpoint = letter(0, 7).delivery.endpoint.to_string();
    let why = ["--why", "proof", "--yes"];
    let (one, replay) = run(&[&["replay", "--endpoint", &endpoint][..], &why].concat());
    assert_eq!(
        (&one["state"], &one["resolved"]),
        (&json!("done"), &json!(each))
    );
    let left = expect_messages(&host, all - each).await;

    let pace = ["replay", "--all", "--pace", "2000/s"];
    let (rest, replay_rest) = run(&[&pace[..], &why].concat());
    assert_eq!(
        (&rest["state"], &rest["resolved"]),
        (&json!("done"), &json!(all - each))
    );
    let end = expect_messages(&host, 0).await;
    assert_eq!(owed(&broker).await, all, "every one is owed again");
    let report = json!({
        "dead_letters": all,
        "endpoints": ENDPOINTS,
        "reindex_seconds": reindex,
        "group_seconds": answer,
        "group_command_seconds": group,
        "group_from_queue_seconds": group_queue,
        "replay_of_one_endpoint": {"messages": each, "seconds": replay, "left_in_queue": left},
        "replay_of_all": {"messages": all - each, "pace": "2000/s", "seconds": replay_rest, "left_in_queue": end},
    });
    println!("{report:#}");
    write("dead_letters", &report);
    assert!(answer < 1.0, "a group took {answer} s");
    assert_eq!(recorder.terminate(), Some(0));
    broker.close().await;
}

/// What a command about dead letters prints, and how many seconds the whole command took.
fn run(host: &TestBroker, home: &Path, arguments: &[&str]) -> (Value, f64) {
    let began = Instant::now();
    let output = command(host.url(), home)
        .arg("dead-letters")
        .args(arguments)
        .args(["--output", "json"])
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "fanfare dead-letters {}: {seconds:.2} s",
        arguments.join(" ")
    );
    (serde_json::from_slice(&output.stdout).unwrap(), seconds)
}

/// How many seconds a running process, which is connected to everything, takes to group by endpoint.
async fn group_in_process(broker: &Broker, home: &TempDir) -> f64 {
    let history = open_history(home).await;
    let view = View::of_queues(broker, &Settings::default()).indexed_by(history.clone());
    let (all, now) = (Filter::default(), wall_clock().now());
    let began = Instant::now();
    let groups = view.group(Place::DeadLetters, &all, &[GroupBy::Endpoint], now);
    let groups = groups.await.unwrap();
    let seconds = began.elapsed().as_secs_f64();
    assert!(matches!(groups.seen, Seen::Index { .. }));
    assert_eq!(groups.found.len(), ENDPOINTS);
    println!("grouping {:?} by endpoint: {seconds:.3} s", groups.seen);
    history.close().await;
    seconds
}

/// Waits until something was recorded.
async fn index_is_dated(home: &TempDir) {
    let history = open_history(home).await;
    eventually(MANAGEMENT_WITHIN, "something recorded", async || {
        history.progress().await.ok()?.written_at
    })
    .await;
    history.close().await;
}

/// Waits until RabbitMQ's own numbers say that so many messages are in the queue.
async fn expect_messages(host: &TestBroker, messages: usize) -> u64 {
    let what = format!("{messages} messages of {QUEUE}");
    eventually(MANAGEMENT_WITHIN, &what, async || {
        let found = host.messages(QUEUE)?;
        (found == messages as u64).then_some(found)
    })
    .await
}

/// How many deliveries wait in the partitions.
async fn owed(broker: &Broker) -> usize {
    let mut owed = 0;
    for key in broker.topology().partitions() {
        let queue = broker.topology().delivery_queue(key);
        owed += broker.depth(&queue).await.unwrap() as usize;
    }
    owed
}
