//! Several deliveries in one message: each is settled by itself.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use fanfare_broker::{Broker, Subscription};
use fanfare_model::{Delivery, Endpoint, Event, TraceContext};
use fanfare_testkit::{Behaviour, ReceivedRequest, Receiver, TestBroker, Version, wall_clock};
use fanfare_tests::{PATIENCE, Pipeline, on_each_rabbitmq};
use fanfare_wire::encode_bundle;
use tokio_util::sync::CancellationToken;

on_each_rabbitmq!(
    every_delivery_of_a_bundle_is_settled_by_itself,
    a_bundle_that_ends_its_handler_becomes_single_labelled_dead_letters,
);

/// Publishes one bundle with an event for each number, all for one endpoint.
async fn publish_bundle(broker: &Broker, endpoint: &Endpoint, numbers: std::ops::Range<u32>) {
    let now = wall_clock().now();
    let delivery = |number: u32| {
        let data = number.to_string();
        let event = Event::for_tests("t", "/bundles", &data, "a", data.as_bytes());
        Delivery::new(
            Arc::new(event),
            endpoint.id,
            1,
            TraceContext::default(),
            now,
        )
    };
    let deliveries: Vec<_> = numbers.map(delivery).collect();
    let topology = broker.topology();
    let address = topology.delivery_address(topology.partition_of(endpoint.id));
    let published = broker
        .publisher()
        .publish(&address, encode_bundle(&deliveries, now))
        .await;
    published.unwrap();
}

async fn connect(broker: &TestBroker) -> Broker {
    Broker::connect(&broker.settings(), "bundles", Duration::from_secs(30))
        .await
        .unwrap()
}

async fn every_delivery_of_a_bundle_is_settled_by_itself(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    let endpoint = pipeline
        .register("t", &receiver.url("/a"), &["*"], |_| {})
        .await;
    let connection = connect(&broker).await;
    publish_bundle(&connection, &endpoint, 0..5).await;
    let requests = receiver.expect_requests(5, PATIENCE).await;
    let mut ids: Vec<_> = requests
        .iter()
        .map(|request| request.id().to_owned())
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 5);

    // One message, five fates: each delivery waits for itself, whatever it shares a message with.
    receiver.behave("/a", Behaviour::status(500));
    publish_bundle(&connection, &endpoint, 10..15).await;
    receiver.expect_requests(10, PATIENCE).await;
    receiver.behave("/a", Behaviour::status(200));
    let requests = receiver.expect_requests(15, PATIENCE).await;
    let ids_of = |requests: &[ReceivedRequest]| {
        let ids = requests.iter().map(|request| request.id().to_owned());
        ids.collect::<BTreeSet<_>>()
    };
    let (failed, retried) = (ids_of(&requests[5..10]), ids_of(&requests[10..]));
    assert_eq!((failed.len(), &failed), (5, &retried));
    connection.close().await;
    pipeline.stop().await;
}

async fn a_bundle_that_ends_its_handler_becomes_single_labelled_dead_letters(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let connection = connect(&broker).await;
    let new = fanfare_registry::NewEndpoint::new(
        "t".parse().unwrap(),
        receiver.url("/a").parse().unwrap(),
        vec!["*".parse().unwrap()],
    );
    let id = fanfare_model::EndpointId::from_uuid(uuid::Uuid::now_v7());
    let endpoint = new.registered(id, wall_clock().now());
    publish_bundle(&connection, &endpoint, 0..3).await;

    // A handler that panics on it, each time that it is given out.
    let topology = connection.topology();
    let queue = topology.delivery_queue(topology.partition_of(id));
    let mut inbox = connection.inbox(vec![Subscription::queue(queue, 1)]);
    for _ in 0..21 {
        let never = CancellationToken::new();
        let message = tokio::time::timeout(PATIENCE, inbox.next_until(&never)).await;
        let message = message.unwrap().unwrap();
        let handler = std::thread::spawn(move || {
            let _message = message;
            panic!("this message is poison");
        });
        assert!(handler.join().is_err());
    }
    inbox.close().await;
    connection.close().await;

    let pipeline = Pipeline::start(broker.settings()).await;
    pipeline.expect_depth("fanfare.dead-letters", 3).await;
    let amqp = pipeline.plain_amqp().await;
    let mut ids = Vec::new();
    while let Some(letter) = amqp.get("fanfare.dead-letters").await {
        assert_eq!(letter.headers["x-fanfare-reason"], "crashed");
        ids.push(letter.headers["x-fanfare-event-id"].clone());
    }
    ids.sort();
    assert_eq!(ids, ["0", "1", "2"]);
    assert_eq!(receiver.count(), 0);
    pipeline.stop().await;
}
