//! What happened can be read back: by a feed, with the state of every delivery.

use fanfare_journal::Page;
use fanfare_model::{DeliveryState, TenantId};
use fanfare_testkit::{Behaviour, Receiver, TestBroker, Version, eventually};
use fanfare_tests::{PATIENCE, Pipeline, on_each_rabbitmq};

on_each_rabbitmq!(a_tenant_reads_back_its_events_and_what_became_of_each);

async fn a_tenant_reads_back_its_events_and_what_became_of_each(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    receiver.behave("/gone", Behaviour::status(410));
    let good = pipeline
        .register("t", &receiver.url("/good"), &["*"], |_| {})
        .await;
    pipeline
        .register("t", &receiver.url("/gone"), &["b"], |_| {})
        .await;
    let amqp = pipeline.plain_amqp().await;
    for (id, event_type) in [("1", "a"), ("2", "b"), ("3", "a")] {
        let event = format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":"{event_type}","tenant":"t","data":{id}}}"#
        );
        amqp.publish_event(&format!("t.{event_type}"), &event).await;
    }
    let tenant: TenantId = "t".parse().expect("a tenant");
    let settled = async || {
        let page = Page {
            after: None,
            limit: 100,
        };
        let feed = pipeline.history().feed(&tenant, page).await.ok()?;
        let ours: Vec<_> = feed
            .into_iter()
            .filter(|entry| entry.event.event.source == "/s")
            .collect();
        let is_open = |state| matches!(state, DeliveryState::Owed | DeliveryState::Retrying { .. });
        let mut states = ours.iter().flat_map(|entry| &entry.deliveries);
        (ours.len() == 3 && !states.any(|delivery| is_open(delivery.state))).then_some(ours)
    };
    let mut feed = eventually(PATIENCE, "three settled events", settled).await;
    feed.sort_by(|one, other| one.event.event.id.cmp(&other.event.event.id));
    let counts: Vec<_> = feed.iter().map(|entry| entry.deliveries.len()).collect();
    assert_eq!(counts, [1, 2, 1]);
    for entry in &feed {
        let data = entry.event.event.data.as_deref();
        assert_eq!(data, Some(entry.event.event.id.as_bytes()));
        for delivery in &entry.deliveries {
            let expected = if delivery.endpoint == good.id {
                "delivered"
            } else {
                "dead_lettered"
            };
            assert_eq!(delivery.state.name(), expected);
        }
    }
    pipeline.stop().await;
}
