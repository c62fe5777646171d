//! The commands for producers and receivers, as processes.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use fanfare_model::SigningSecret;
use fanfare_testkit::{Receiver, TestBroker, Version, eventually};
use fanfare_tests::{PATIENCE, Pipeline, fanfare_binary};
use serde_json::Value;
use tempfile::TempDir;

use crate::delivery::event;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_events_are_published_from_a_file_and_the_bad_ones_are_named() {
    const GOOD: usize = 500;
    let (broker, receiver) = (TestBroker::new(Version::V4_3), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    let url = receiver.url("/a");
    pipeline.register("t", &url, &["*"], |_| {}).await;
    let home = TempDir::new().unwrap();
    let mut lines: Vec<String> = (0..GOOD).map(|n| event(&n.to_string(), "a")).collect();
    lines.insert(3, r#"{"specversion":"1.0"}"#.to_owned());
    lines.insert(7, "nonsense".to_owned());
    let file = home.path().join("events.jsonl");
    std::fs::write(&file, lines.join("\n")).unwrap();

    let mut command = Command::new(fanfare_binary());
    command
        .args([
            "publish", "--output", "json", "--mode", "protobuf", "--events",
        ])
        .arg(&file)
        .current_dir(home.path())
        .env("FANFARE__BROKER__URL", broker.url())
        .env("FANFARE__BROKER__PARTITIONS", "4");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = output.await.unwrap();
    assert_eq!(output.status.code(), Some(1), "two were refused");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["published"], GOOD);
    assert_eq!(summary["refused"], 2);
    let mut faults: Vec<(u64, &str)> = summary["faults"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| {
            (
                fault["line"].as_u64().unwrap(),
                fault["code"].as_str().unwrap(),
            )
        })
        .collect();
    faults.sort_unstable();
    assert_eq!(faults, [(4, "missing_attribute"), (8, "malformed_json")]);
    let requests = receiver.expect_requests(GOOD, PATIENCE).await;
    assert_eq!(requests.len(), GOOD);
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_fails_forwards_records_and_replays() {
    let (broker, behind) = (TestBroker::new(Version::V4_3), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    let (home, secret) = (TempDir::new().unwrap(), SigningSecret::generate());
    let record = home.path().join("requests.jsonl");
    let forward = behind.url("/mine");
    let (mut listener, url) = listening(&forward, &secret, &record).await;
    let signing = secret.clone();
    pipeline
        .register("t", &url, &["*"], |new| {
            new.secrets = vec![signing];
            new.schedule = fanfare_model::Schedule::from_seconds(vec![0, 1]).unwrap();
        })
        .await;
    let amqp = pipeline.plain_amqp().await;
    amqp.publish_event("t.a", &event("1", "a")).await;
    // The first attempt failed on demand, so this is the second.
    let first = behind.expect_requests(1, PATIENCE).await.remove(0);
    assert_eq!(first.path, "/mine");
    first.assert_signed_by(&secret);
    // A request is recorded once it is answered, which is after it was forwarded.
    let lines = eventually(PATIENCE, "both requests in the record", async || {
        let lines = std::fs::read_to_string(&record).unwrap_or_default();
        (lines.matches('\n').count() == 2).then_some(lines)
    })
    .await;
    listener.kill().unwrap();
    listener.wait().unwrap();
    let answers: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["answer"].clone())
        .collect();
    assert_eq!(answers, [503, 200]);

    replayed(&forward, &secret, &record).await;
    let requests = behind.expect_requests(3, PATIENCE).await;
    assert_eq!(requests[2].body, first.body);
    requests[2].assert_signed_by(&secret);
    pipeline.stop().await;
}

/// A listener that fails the first attempt of each delivery, forwards and records, and its URL.
async fn listening(forward: &str, secret: &SigningSecret, record: &Path) -> (Child, String) {
    let mut listener = Command::new(fanfare_binary())
        .args(["listen", "--port", "0", "--fail-first", "1"])
        .args(["--forward", forward, "--secret", &secret.reveal()])
        .arg("--record")
        .arg(record)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(listener.stderr.take().unwrap()).lines();
    let told = tokio::task::spawn_blocking(move || told.next().unwrap().unwrap());
    let told = told.await.unwrap();
    let url = told.split(' ').find(|word| word.starts_with("http"));
    (listener, url.unwrap().to_owned())
}

async fn replayed(forward: &str, secret: &SigningSecret, record: &Path) {
    let mut replay = Command::new(fanfare_binary());
    replay
        .args(["listen", "--forward", forward, "--secret", &secret.reveal()])
        .arg("--replay")
        .arg(record);
    let output = tokio::task::spawn_blocking(move || replay.output().unwrap());
    assert!(output.await.unwrap().status.success());
}
