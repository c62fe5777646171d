//! The commands about dead letters, as processes beside a running Fanfare.

use std::process::Output;

use fanfare_model::Schedule;
use fanfare_testkit::{Behaviour, Receiver, TestBroker, Version, eventually};
use fanfare_tests::{PATIENCE, Pipeline};
use serde_json::{Value, json};

use crate::delivery::event;

const QUEUE: &str = "fanfare.dead-letters";

/// Runs a command and returns how it ended.
async fn run(pipeline: &Pipeline, arguments: &[&str]) -> Output {
    let mut command = pipeline.command();
    command.args(arguments).args(["--output", "json"]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    output.await.unwrap()
}

/// What a command that succeeds prints.
async fn printed(pipeline: &Pipeline, arguments: &[&str]) -> Value {
    let output = run(pipeline, arguments).await;
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A pipeline with three dead letters for each of two endpoints, whose receiver is well again; the first endpoint.
async fn six_dead_letters(broker: &TestBroker, receiver: &Receiver) -> (Pipeline, String) {
    let pipeline = Pipeline::start(broker.settings()).await;
    let mut endpoints = Vec::new();
    for path in ["/a", "/b"] {
        receiver.behave(path, Behaviour::status(500));
        let once = Schedule::from_seconds(vec![0]).unwrap();
        let url = receiver.url(path);
        let endpoint = pipeline
            .register("t", &url, &["*"], |new| new.schedule = once)
            .await;
        endpoints.push(endpoint.id.to_string());
    }
    let amqp = pipeline.plain_amqp().await;
    for number in 0..3 {
        amqp.publish_event("t.a", &event(&number.to_string(), "a"))
            .await;
    }
    pipeline.expect_depth(QUEUE, 6).await;
    for path in ["/a", "/b"] {
        receiver.behave(path, Behaviour::status(200));
    }
    (pipeline, endpoints.swap_remove(0))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_letters_are_seen_and_dealt_with_by_command() {
    let (broker, receiver) = (TestBroker::new(Version::V4_3), Receiver::start().await);
    let (pipeline, endpoint) = six_dead_letters(&broker, &receiver).await;
    let of_one = ["--endpoint", endpoint.as_str()];
    are_seen(&pipeline, &of_one).await;

    // Nothing is done without being meant.
    let replay = |more: &[&'static str]| {
        let mut arguments = vec!["dead-letters", "replay", "--endpoint", of_one[1]];
        arguments.extend(more);
        arguments
    };
    let refused = run(&pipeline, &replay(&["--why", "fixed"])).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("say --yes"), "{refused:?}");
    let dry = printed(&pipeline, &replay(&["--dry-run"])).await;
    assert_eq!(dry["expected"], 3);
    pipeline.expect_depth(QUEUE, 6).await;

    let done = printed(&pipeline, &replay(&["--why", "fixed", "--yes"])).await;
    assert_eq!(
        (&done["state"], &done["resolved"]),
        (&json!("done"), &json!(3))
    );
    pipeline.expect_depth(QUEUE, 3).await;
    receiver.expect_requests(9, PATIENCE).await;
    let all = ["dead-letters", "discard", "--all", "--why", "over", "--yes"];
    assert_eq!(printed(&pipeline, &all).await["resolved"], 3);
    pipeline.expect_depth(QUEUE, 0).await;

    let operations = printed(&pipeline, &["dead-letters", "operations", "list"]).await;
    let actions: Vec<_> = operations
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["action"])
        .collect();
    assert_eq!(actions, ["discard", "replay"]);
    let id = operations[1]["id"].as_str().unwrap();
    let show = ["dead-letters", "operations", "show", id, "--messages"];
    assert_eq!(printed(&pipeline, &show).await.as_array().unwrap().len(), 3);
    let audit = printed(&pipeline, &["audit", "--subject", id]).await;
    assert_eq!(audit[1]["detail"]["why"], "fixed");
    let cancelled = printed(&pipeline, &["dead-letters", "operations", "cancel", id]).await;
    assert_eq!(cancelled["state"], "done", "what is over stays as it is");
    pipeline.stop().await;
}

async fn are_seen(pipeline: &Pipeline, of_one: &[&str; 2]) {
    let group = ["dead-letters", "group", "--by", "endpoint,reason"];
    let groups = eventually(PATIENCE, "six in the index", async || {
        let output = run(pipeline, &group).await;
        let is_indexed = said(&output).contains("6 in the index as of");
        is_indexed.then(|| serde_json::from_slice::<Value>(&output.stdout).unwrap())
    })
    .await;
    assert_eq!(
        (&groups[0]["count"], &groups[1]["count"]),
        (&json!(3), &json!(3))
    );
    assert_eq!(groups[0]["reason"], "exhausted");
    let list = [&["dead-letters", "list"][..], of_one].concat();
    let listed = printed(pipeline, &list).await;
    let from_queue = printed(pipeline, &[&list[..], &["--from-queue"]].concat()).await;
    let ids = |listed: &Value| -> Vec<String> {
        let mut ids: Vec<_> = listed
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["id"].to_string())
            .collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(ids(&listed), ids(&from_queue));
    let id = listed[0]["id"].as_str().unwrap();
    let shown = printed(pipeline, &["dead-letters", "show", id]).await;
    assert_eq!(shown["data"], json!({"n": 1}));
    assert_eq!(shown["attempts"][0]["status"], 500);
    let shown = printed(pipeline, &["dead-letters", "show", id, "--from-queue"]).await;
    assert_eq!(shown["headers"]["x-fanfare-last-status"], 500);
    let reindexed = printed(pipeline, &["dead-letters", "reindex"]).await;
    assert_eq!(
        reindexed,
        json!({"in_queue": 6, "others": 0, "entered": 0, "dropped": 0})
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejected_events_are_seen_and_discarded_by_command() {
    let broker = TestBroker::new(Version::V4_3);
    let pipeline = Pipeline::start(broker.settings()).await;
    let amqp = pipeline.plain_amqp().await;
    amqp.publish_event("t.a", "nonsense").await;
    pipeline.expect_depth("fanfare.rejected", 1).await;
    let listed = printed(&pipeline, &["rejected", "list"]).await;
    assert_eq!(listed[0]["reason"], "malformed_json");
    let id = listed[0]["id"].as_str().unwrap();
    let discard = ["rejected", "discard", id, "--why", "nonsense", "--yes"];
    assert_eq!(printed(&pipeline, &discard).await["state"], "done");
    pipeline.expect_depth("fanfare.rejected", 0).await;
    let script = pipeline
        .command()
        .args(["completions", "bash"])
        .output()
        .unwrap();
    let script = String::from_utf8(script.stdout).unwrap();
    for word in ["dead-letters", "reindex", "--from-queue", "rejected"] {
        assert!(script.contains(word), "{word} is completed");
    }
    pipeline.stop().await;
}
