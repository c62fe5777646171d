//! What waits at the broker outlives a restart of the broker.

use fanfare_model::{EndpointState, Schedule};
use fanfare_testkit::{Behaviour, Node, Receiver, Version, eventually};
use fanfare_tests::{PATIENCE, Pipeline, on_each_rabbitmq};

on_each_rabbitmq!(a_retry_a_deferral_and_a_dead_letter_survive_a_restart_of_rabbitmq);

async fn a_retry_a_deferral_and_a_dead_letter_survive_a_restart_of_rabbitmq(version: Version) {
    let (node, receiver) = (Node::start(version).await, Receiver::start().await);
    let pipeline = Pipeline::start(node.settings()).await;
    for path in ["/retried", "/dead"] {
        receiver.behave(path, Behaviour::status(500));
    }
    let schedule = |waits: &[u64]| Schedule::from_seconds(waits.to_vec()).expect("a schedule");
    let (retried, paused, dead) = (
        receiver.url("/retried"),
        receiver.url("/paused"),
        receiver.url("/dead"),
    );
    pipeline
        .register("t", &retried, &["a"], |new| {
            new.schedule = schedule(&[0, 16])
        })
        .await;
    pipeline
        .register("t", &dead, &["b"], |new| new.schedule = schedule(&[0]))
        .await;
    let paused = pipeline.register("t", &paused, &["c"], |_| {}).await;
    pipeline.set_state(&paused, EndpointState::Paused).await;

    let amqp = pipeline.plain_amqp().await;
    for event_type in ["a", "b", "c"] {
        let event = format!(
            r#"{{"specversion":"1.0","id":"1","source":"/s","type":"{event_type}","tenant":"t","data":1}}"#
        );
        amqp.publish_event(&format!("t.{event_type}"), &event).await;
    }
    pipeline.expect_depth("fanfare.delay.16s", 1).await;
    pipeline.expect_depth("fanfare.delay.32s", 1).await;
    pipeline.expect_depth("fanfare.dead-letters", 1).await;
    receiver.behave("/retried", Behaviour::status(200));
    pipeline.set_state(&paused, EndpointState::Active).await;

    node.stop().await;
    node.start_again().await;

    pipeline.expect_depth("fanfare.dead-letters", 1).await;
    let paths = async || {
        let requests = receiver.requests();
        let count = |path| {
            requests
                .iter()
                .filter(|request| request.path == path)
                .count()
        };
        (count("/retried") >= 2 && count("/paused") >= 1).then_some(())
    };
    eventually(PATIENCE, "the retried and the deferred delivery", paths).await;
    pipeline.stop().await;
}
