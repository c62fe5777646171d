//! `kill -9` of the process that replays history.

use std::collections::BTreeMap;

use fanfare_model::TenantId;
use fanfare_producer::Producer;
use fanfare_registry::NewEndpoint;
use fanfare_testkit::{
    Behaviour, PlainAmqp, Receiver, TestBroker, Version, eventually, wall_clock,
};
use fanfare_tests::{PATIENCE, Program, answer_of, on_each_rabbitmq, open_registry};
use futures_util::{StreamExt as _, stream};
use tempfile::TempDir;

use crate::support::event;

on_each_rabbitmq!(a_replay_that_is_killed_goes_on_where_it_was);

const EVENTS: usize = 300;
/// What is published together at this pace: a quarter of a second's worth.
const PACE: &str = "100/s";
const PORTION: usize = 25;
/// How many deliveries of the replay have arrived when it is killed.
const KILLS: [usize; 2] = [60, 170];

async fn a_replay_that_is_killed_goes_on_where_it_was(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let home = TempDir::new().expect("a temporary directory can be made");
    let endpoint = register(&home, &receiver.url("/hook")).await;
    let mut program = Program::serve("router,dispatcher,recorder", broker.url(), &home, &[]);
    receiver.behave("/hook", Behaviour::status(404));
    publish_all(&broker).await;
    receiver.expect_requests(EVENTS, PATIENCE).await;
    let ask = async |line: &str| {
        let arguments: Vec<&str> = line.split(' ').collect();
        answer_of(broker.url(), &home, &arguments).await
    };
    let replay = format!("replay --tenant t --endpoint {endpoint}");
    eventually(PATIENCE, "everything in the history", async || {
        let counted = ask(&format!("{replay} --dry-run")).await;
        (counted["expected"] == EVENTS).then_some(())
    })
    .await;

    receiver.behave("/hook", Behaviour::status(200));
    let mut line = format!("{replay} --pace {PACE} --why killed --yes");
    let mut operation = String::new();
    for moment in KILLS {
        let arguments: Vec<&str> = line.split(' ').collect();
        let mut replaying = Program::start(broker.url(), &home, &arguments);
        receiver.expect_requests(EVENTS + moment, PATIENCE).await;
        replaying.kill();
        let open = ask("replay operations --open").await;
        let id = open[0]["id"].as_str().expect("it is open");
        operation = id.to_owned();
        line = format!("replay resume {operation}");
    }
    let done = ask(&line).await;
    assert_eq!(done["id"], operation);
    assert_eq!(done["state"], "done");
    assert_eq!(done["resolved"], EVENTS);
    receiver.expect_requests(2 * EVENTS, PATIENCE).await;

    let (repeats, bound) = (repeats(&receiver), KILLS.len() * PORTION);
    eprintln!(
        "RabbitMQ {}: {repeats} repeats, at most {bound}",
        version.name()
    );
    assert!(repeats <= bound);

    // The dead letters that were replayed leave their queue by an operation of its own.
    let mut resume = Program::start(
        broker.url(),
        &home,
        &["dead-letters", "operations", "resume"],
    );
    let amqp = PlainAmqp::connect(broker.url()).await;
    eventually(PATIENCE, "no dead letter left", async || {
        (amqp.depth("fanfare.dead-letters").await == Some(0)).then_some(())
    })
    .await;
    resume.terminate();
    program.terminate();
}

/// How often something came once more than it had to: each event came before the replay, and by it.
fn repeats(receiver: &Receiver) -> usize {
    let mut requests: BTreeMap<String, usize> = BTreeMap::new();
    for request in receiver.requests() {
        *requests.entry(request.id().to_owned()).or_default() += 1;
    }
    assert_eq!(requests.len(), EVENTS);
    assert!(
        requests.values().all(|count| *count >= 2),
        "each came again"
    );
    receiver.count() - 2 * EVENTS
}

async fn register(home: &TempDir, url: &str) -> String {
    let registry = open_registry(home).await;
    let tenant: TenantId = "t".parse().expect("a tenant");
    let wants = vec!["*".parse().expect("a pattern")];
    let mut new = NewEndpoint::new(tenant, url.parse().expect("a target"), wants);
    new.permanent = "404".parse().expect("a status");
    let created = registry
        .create_endpoint(new, "test", wall_clock().now())
        .await;
    registry.close().await;
    created.expect("the endpoint is valid").id.to_string()
}

async fn publish_all(broker: &TestBroker) {
    let producer = Producer::connect(&broker.settings(), "replays")
        .await
        .expect("it connects");
    let publishing = stream::iter(0..EVENTS).for_each_concurrent(200, async |number| {
        let published = producer.publish(&event(number)).await;
        published.expect("the broker is there");
    });
    publishing.await;
    producer.close().await;
}
