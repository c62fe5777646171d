//! The alert rules: accepted by promtool, and made of metrics that exist.

use std::{collections::BTreeSet, path::PathBuf, process::Command};

use fanfare_model::Schedule;
use fanfare_testkit::{Behaviour, Receiver, TestBroker, Version, eventually};
use fanfare_tests::{PATIENCE, Pipeline};

use crate::delivery::event;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn promtool_accepts_the_rules_and_their_tests() {
    let found = Command::new(root().join("tests/promtool.sh"))
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&found.stderr).into_owned();
    assert!(found.status.success(), "{complaint}");
    let promtool = String::from_utf8(found.stdout).unwrap();
    for (what, file) in [
        ("check", "fanfare.rules.yml"),
        ("test", "fanfare.tests.yml"),
    ] {
        let said = Command::new(promtool.trim())
            .args([what, "rules", file])
            .current_dir(root().join("deploy/prometheus"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&said.stdout);
        assert!(
            said.status.success() && text.contains("SUCCESS"),
            "{said:?}"
        );
    }
}

/// The metrics that the expressions of the rules name.
fn metrics_of_rules() -> BTreeSet<String> {
    let rules = std::fs::read_to_string(root().join("deploy/prometheus/fanfare.rules.yml"));
    let rules = rules.unwrap();
    let words = rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let metrics = words.filter(|word| word.starts_with("fanfare_"));
    metrics.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metric_that_a_rule_names_exists() {
    let names = metrics_of_rules();
    assert!(names.len() > 5, "{names:?}");
    let (broker, receiver) = (TestBroker::new(Version::V4_3), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    receiver.behave("/a", Behaviour::status(500));
    let once = Schedule::from_seconds(vec![0]).unwrap();
    let url = receiver.url("/a");
    pipeline
        .register("t", &url, &["*"], |new| new.schedule = once)
        .await;
    let amqp = pipeline.plain_amqp().await;
    amqp.publish_event("t.a", &event("1", "a")).await;
    pipeline.expect_depth("fanfare.dead-letters", 1).await;
    eventually(PATIENCE, &format!("{names:?}"), async || {
        let text = pipeline.metrics().await;
        let shown: BTreeSet<_> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split(['{', ' ']).next())
            .collect();
        names
            .iter()
            .all(|name| shown.contains(name.as_str()))
            .then_some(())
    })
    .await;
    assert_eq!(
        pipeline
            .counter("fanfare_dispatcher_dead_letters_total")
            .await,
        1.0
    );
    assert_eq!(pipeline.counter("fanfare_dead_letters").await, 1.0);
    pipeline.stop().await;
}
