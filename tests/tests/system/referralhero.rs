//! Receivers written against ReferralHero, which change nothing to be called by Fanfare.

use std::time::Duration;

use fanfare_model::{DeliveryState, EndpointState, Profile, Schedule};
use fanfare_registry::NewEndpoint;
use fanfare_testkit::{Behaviour, PlainAmqp, Receiver, TestBroker, Version, eventually};
use fanfare_tests::{PATIENCE, Pipeline, on_each_rabbitmq, python};

on_each_rabbitmq!(
    the_samples_arrive_byte_for_byte_and_signed,
    only_200_is_success_and_three_tries_are_made_within_five_minutes,
    ten_bad_responses_in_a_row_disable_an_endpoint_until_it_is_enabled,
);

/// What the sender sends, by the name of the event and of the case.
macro_rules! samples {
    ($($event:literal $case:literal),* $(,)?) => {
        [$((
            $event,
            include_bytes!(concat!("../../samples/referralhero/", $event, $case, ".json")).as_slice(),
        )),*]
    };
}

const SAMPLES: [(&str, &[u8]); 8] = samples![
    "new_registration" "",
    "new_registration" ".not_referred",
    "new_registration" ".referrer_deleted",
    "subscriber_promoted" "",
    "subscriber_updated" "",
    "subscriber_deleted" "",
    "reward_unlocked" "",
    "reward_sent" "",
];

/// Publishes data as a service does that has nothing of ours: the event's attributes are headers.
async fn publish(amqp: &PlainAmqp, id: &str, event_type: &str, data: &[u8]) {
    let headers = [
        ("cloudEvents_specversion", "1.0"),
        ("cloudEvents_id", id),
        ("cloudEvents_source", "/campaigns"),
        ("cloudEvents_type", event_type),
        ("cloudEvents_tenant", "MF4c1b7e20"),
    ];
    let routing_key = format!("MF4c1b7e20.{event_type}");
    let address = ("fanfare.events", routing_key.as_str());
    amqp.publish(address, "application/json", &headers, data)
        .await;
}

/// The profile, as whoever chooses it has it.
fn profile(new: &mut NewEndpoint) {
    new.prefill(Profile::ReferralHero);
}

/// The profile with no time between its three tries.
fn hasty(new: &mut NewEndpoint) {
    profile(new);
    new.schedule = Schedule::from_seconds(vec![0, 0, 0]).unwrap();
}

async fn the_samples_arrive_byte_for_byte_and_signed(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    let url = receiver.url("/hooks");
    let endpoint = pipeline.register("MF4c1b7e20", &url, &["*"], profile).await;
    let amqp = pipeline.plain_amqp().await;
    for (number, (event_type, data)) in SAMPLES.into_iter().enumerate() {
        publish(&amqp, &number.to_string(), event_type, data).await;
    }
    let requests = receiver.expect_requests(SAMPLES.len(), PATIENCE).await;
    let mut arrived: Vec<_> = requests.iter().map(|request| &request.body[..]).collect();
    let mut sent = SAMPLES.map(|(_, data)| data);
    arrived.sort_unstable();
    sent.sort_unstable();
    assert_eq!(arrived, sent);
    let secret = endpoint.secrets[0].reveal();
    for request in &requests {
        assert_eq!(request.header("content-type"), "application/json");
        let signature = request.header("x-referralhero-signature");
        let header = format!("x-referralhero-signature={signature}");
        let arguments = ["referralhero", &secret, &header];
        let verdict = python("verify_signature.py", &arguments, &request.body);
        assert_eq!(verdict.trim(), "valid");
    }
    pipeline.stop().await;
}

async fn only_200_is_success_and_three_tries_are_made_within_five_minutes(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    for (path, status) in [("/200", 200), ("/201", 201), ("/204", 204), ("/slow", 204)] {
        receiver.behave(path, Behaviour::status(status));
    }
    for path in ["/200", "/201", "/204"] {
        let url = receiver.url(path);
        pipeline.register("MF4c1b7e20", &url, &["*"], hasty).await;
    }
    let url = receiver.url("/slow");
    let patient = pipeline.register("MF4c1b7e20", &url, &["*"], profile).await;
    let amqp = pipeline.plain_amqp().await;
    let (event_type, data) = SAMPLES[0];
    publish(&amqp, "1", event_type, data).await;

    pipeline.expect_depth("fanfare.dead-letters", 2).await;
    for _ in 0..2 {
        let letter = amqp.get("fanfare.dead-letters").await.unwrap();
        assert_eq!(letter.headers["x-fanfare-reason"], "exhausted");
        assert_eq!(letter.headers["x-fanfare-attempts"], "3");
        assert_eq!(letter.body, data);
    }
    // The schedule as it is: the second try waits a minute, the third two and a half, each a fifth longer at most.
    let attempt = |path: &str| {
        let requests = receiver.requests();
        let of = requests.into_iter().filter(|request| request.path == path);
        of.collect::<Vec<_>>()
    };
    let tenant = &patient.tenant;
    let retried_at = eventually(PATIENCE, "a try that is planned", async || {
        let page = fanfare_journal::Page {
            after: None,
            limit: 10,
        };
        let feed = pipeline.history().feed(tenant, page).await.ok()?;
        let mut deliveries = feed.into_iter().flat_map(|entry| entry.deliveries);
        let delivery = deliveries.find(|delivery| delivery.endpoint == patient.id)?;
        let DeliveryState::Retrying { at } = delivery.state else {
            return None;
        };
        Some(at)
    })
    .await;
    let first = attempt("/slow").remove(0).at;
    let wait = Duration::try_from(retried_at.duration_since(first)).unwrap();
    let (second, third) = (Duration::from_secs(60), Duration::from_secs(150));
    assert!(
        wait >= second && wait < second.mul_f64(1.2) + patient.timeout,
        "{wait:?}"
    );
    let tries = patient.timeout * 2;
    assert!((second + third).mul_f64(1.2) + tries < Duration::from_secs(300));
    assert_eq!(patient.schedule.attempts(), 3);

    pipeline.stop().await;
    let counts = ["/200", "/201", "/204", "/slow"].map(|path| attempt(path).len());
    assert_eq!(counts, [1, 3, 3, 1]);
}

async fn ten_bad_responses_in_a_row_disable_an_endpoint_until_it_is_enabled(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    let url = receiver.url("/hooks");
    let endpoint = pipeline.register("MF4c1b7e20", &url, &["*"], hasty).await;
    let amqp = pipeline.plain_amqp().await;
    let (event_type, data) = SAMPLES[7];

    // Nine, then one that is good: none of them counts any more.
    receiver.behave("/hooks", Behaviour::status(201));
    for number in 1..=3 {
        publish(&amqp, &number.to_string(), event_type, data).await;
        pipeline.expect_depth("fanfare.dead-letters", number).await;
    }
    receiver.behave("/hooks", Behaviour::status(200));
    publish(&amqp, "good", event_type, data).await;
    receiver.expect_requests(10, PATIENCE).await;
    // Then ten.
    receiver.behave("/hooks", Behaviour::status(204));
    for number in 4..=7 {
        publish(&amqp, &number.to_string(), event_type, data).await;
        pipeline.expect_depth("fanfare.dead-letters", number).await;
    }
    let state = eventually(PATIENCE, "the registry to know", async || {
        let state = pipeline.state_of(&endpoint).await;
        (state.name() == "disabled").then_some(state)
    })
    .await;
    assert!(matches!(state, EndpointState::Disabled { .. }), "{state:?}");
    assert_eq!(receiver.count(), 20);
    // What comes now is kept for later, and the receiver is left alone.
    publish(&amqp, "8", event_type, data).await;
    pipeline.expect_depth("fanfare.dead-letters", 8).await;

    receiver.behave("/hooks", Behaviour::status(200));
    pipeline.set_state(&endpoint, EndpointState::Active).await;
    publish(&amqp, "9", event_type, data).await;
    let requests = receiver.expect_requests(21, PATIENCE).await;
    assert_eq!(requests[20].body, data);
    pipeline.stop().await;
    assert_eq!(receiver.count(), 21);
    assert_eq!(amqp.depth("fanfare.dead-letters").await, Some(8));
}
