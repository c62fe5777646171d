//! Publishing: confirms, returns and refusals.

use fanfare_broker::{Address, PublishFault, Settings};
use fanfare_testkit::{PlainAmqp, TestBroker, Version, eventually};
use fanfare_wire::HeaderValue;

use crate::support::{
    PATIENCE, connected, connected_to, depth_becomes, envelope, fill, id, inbox_of_partition, next,
    on_every_version, partition, publish_all,
};

on_every_version! {
    what_is_published_is_received_as_it_was
    five_thousand_pipelined_publishes_are_all_confirmed
    a_message_that_no_queue_takes_is_reported_and_its_neighbours_are_stored_once
    many_messages_that_no_queue_takes_are_all_reported
    copies_with_one_id_each_get_their_own_answer
    a_full_queue_refuses_and_accepts_again_when_there_is_room
    a_name_that_is_too_long_is_refused
    an_exchange_that_was_deleted_comes_back
    closing_waits_for_what_is_unconfirmed_and_refuses_what_comes_later
}

/// An address whose routing key nothing is bound to.
fn nowhere(address: &Address) -> Address {
    Address {
        routing_key: "g9.p99".to_owned(),
        ..address.clone()
    }
}

fn unroutable(address: &Address) -> Result<(), PublishFault> {
    Err(PublishFault::Unroutable {
        exchange: address.exchange.clone(),
        routing_key: address.routing_key.clone(),
    })
}

async fn what_is_published_is_received_as_it_was(version: Version) {
    let host = TestBroker::new(version);
    let broker = connected_to(&host).await;
    let address = broker.topology().delivery_address(partition(&broker));
    let mut sent = envelope("one");
    sent.properties.correlation_id = Some("about".to_owned());
    sent.properties.message_type = Some("a.type".to_owned());
    sent.properties.content_type = Some("text/plain".to_owned());
    sent.properties.app_id = Some("test".to_owned());
    sent.properties.timestamp = Some("2026-01-02T03:04:05Z".parse().unwrap());
    for (name, value) in [
        ("text", HeaderValue::Text("Grüße".to_owned())),
        ("bytes", HeaderValue::Bytes(vec![0, 255, 1].into())),
        ("integer", HeaderValue::Integer(i64::MIN)),
        ("boolean", HeaderValue::Boolean(true)),
        ("timestamp", HeaderValue::Timestamp(1_700_000_000)),
    ] {
        sent.headers.insert(name, value);
    }
    let published = broker.publisher().publish(&address, sent.clone()).await;
    assert_eq!(published, Ok(()));

    let mut inbox = inbox_of_partition(&broker, 10);
    let message = next(&mut inbox).await;
    assert_eq!(message.envelope.properties, sent.properties);
    assert_eq!(message.envelope.body, sent.body);
    for (name, value) in sent.headers.iter() {
        assert_eq!(message.envelope.headers.get(name), Some(value), "{name}");
    }
    assert_eq!(message.routing_key, address.routing_key);
    assert!(!message.redelivered);
    message.receipt.settle();
    inbox.close().await;
    let queue = broker.topology().delivery_queue(partition(&broker));
    depth_becomes(&broker, &queue, 0).await;
    broker.close().await;
}

async fn five_thousand_pipelined_publishes_are_all_confirmed(version: Version) {
    let host = TestBroker::new(version);
    let broker = connected_to(&host).await;
    fill(&broker, 5000).await;
    let queue = broker.topology().delivery_queue(partition(&broker));
    assert_eq!(broker.depth(&queue).await.unwrap(), 5000);
    broker.close().await;
}

async fn a_message_that_no_queue_takes_is_reported_and_its_neighbours_are_stored_once(
    version: Version,
) {
    let host = TestBroker::new(version);
    let broker = connected_to(&host).await;
    let address = broker.topology().delivery_address(partition(&broker));
    let lost = nowhere(&address);
    for every in [100, 7, 2] {
        let before = depth(&broker).await;
        let messages = (0..500).map(|n| {
            let address = if n % every == 1 { &lost } else { &address };
            (address.clone(), envelope(&n.to_string()))
        });
        let answers = publish_all(&broker.publisher(), messages).await;
        for (n, answer) in answers.iter().enumerate() {
            let expected = if n % every == 1 {
                unroutable(&lost)
            } else {
                Ok(())
            };
            assert_eq!(*answer, expected, "message {n}, one in {every} unroutable");
        }
        let stored = answers.iter().filter(|answer| answer.is_ok()).count();
        assert_eq!(
            depth(&broker).await - before,
            u32::try_from(stored).unwrap()
        );
    }
    broker.close().await;
}

async fn many_messages_that_no_queue_takes_are_all_reported(version: Version) {
    let host = TestBroker::new(version);
    let broker = connected_to(&host).await;
    let lost = nowhere(&broker.topology().delivery_address(partition(&broker)));
    let messages = (0..3000).map(|n| (lost.clone(), envelope(&n.to_string())));
    for answer in publish_all(&broker.publisher(), messages).await {
        assert_eq!(answer, unroutable(&lost));
    }
    broker.close().await;
}

async fn copies_with_one_id_each_get_their_own_answer(version: Version) {
    let host = TestBroker::new(version);
    let broker = connected_to(&host).await;
    let address = broker.topology().delivery_address(partition(&broker));
    let lost = nowhere(&address);
    let addresses = [&address, &lost, &address, &lost, &lost, &address];
    let messages = addresses.map(|address| (address.clone(), envelope("same")));
    let answers = publish_all(&broker.publisher(), messages).await;
    let expected = addresses.map(|to| if *to == lost { unroutable(to) } else { Ok(()) });
    assert_eq!(answers, expected);
    assert_eq!(depth(&broker).await, 3);
    broker.close().await;
}

async fn a_full_queue_refuses_and_accepts_again_when_there_is_room(version: Version) {
    let host = TestBroker::new(version);
    let settings = Settings {
        events_max_bytes: 4000,
        ..host.settings()
    };
    let broker = connected(&settings).await;
    let (tenant, event_type) = ("acme".parse().unwrap(), "reward.sent".parse().unwrap());
    let address = broker.topology().event_address(&tenant, &event_type);
    let mut large = envelope("large");
    large.body = vec![b'x'; 1000].into();
    let publisher = broker.publisher();
    let mut stored = 0;
    let refusal = loop {
        match publisher.publish(&address, large.clone()).await {
            Ok(()) => stored += 1,
            Err(fault) => break fault,
        }
        assert!(stored < 100, "nothing is ever refused");
    };
    assert_eq!(refusal, PublishFault::Refused);
    assert!(refusal.is_transient());
    let queue = broker.topology().events_queue();
    assert_eq!(broker.depth(&queue).await.unwrap(), stored);

    let plain = PlainAmqp::connect(host.url()).await;
    while let Some(taken) = plain.get(&queue).await {
        plain.acknowledge(&taken).await;
    }
    eventually(PATIENCE, "room in the queue", async || {
        publisher.publish(&address, large.clone()).await.ok()
    })
    .await;
    broker.close().await;
}

async fn a_name_that_is_too_long_is_refused(version: Version) {
    let host = TestBroker::new(version);
    let broker = connected_to(&host).await;
    let address = broker.topology().delivery_address(partition(&broker));
    let publisher = broker.publisher();
    let too_long = "x".repeat(256);
    let mut with_header = envelope("one");
    with_header.headers.insert(too_long.clone(), 1);
    let long_key = Address {
        routing_key: too_long.clone(),
        ..address.clone()
    };
    for (address, envelope, what) in [
        (&address, envelope(&too_long), "message_id"),
        (&address, with_header, "a header name"),
        (&long_key, envelope("one"), "the routing key"),
    ] {
        let answer = publisher.publish(address, envelope).await;
        assert_eq!(answer, Err(PublishFault::TooLong(what)));
    }
    broker.close().await;
}

async fn an_exchange_that_was_deleted_comes_back(version: Version) {
    let host = TestBroker::new(version);
    let broker = connected_to(&host).await;
    let address = broker.topology().delivery_address(partition(&broker));
    let plain = PlainAmqp::connect(host.url()).await;
    plain.delete_exchange(&address.exchange).await;
    let published = broker.publisher().publish(&address, envelope("one")).await;
    assert_eq!(published, Ok(()));
    assert_eq!(depth(&broker).await, 1);
    broker.close().await;
}

async fn closing_waits_for_what_is_unconfirmed_and_refuses_what_comes_later(version: Version) {
    let host = TestBroker::new(version);
    let broker = connected_to(&host).await;
    let address = broker.topology().delivery_address(partition(&broker));
    let publisher = broker.publisher();
    let messages = (0..2000).map(|n| (address.clone(), envelope(&n.to_string())));
    let close_when_busy = async {
        eventually(PATIENCE, "an unconfirmed publish", async || {
            (publisher.status().unconfirmed() > 0).then_some(())
        })
        .await;
        broker.close().await;
    };
    let (answers, ()) = tokio::join!(publish_all(&publisher, messages), close_when_busy);
    let stored = answers.iter().filter(|answer| answer.is_ok()).count();
    let refused = answers
        .iter()
        .filter(|answer| **answer == Err(PublishFault::Closed));
    assert_eq!(stored + refused.count(), 2000);
    let later = publisher.publish(&address, envelope("later")).await;
    assert_eq!(later, Err(PublishFault::Closed));

    let again = connected_to(&host).await;
    assert_eq!(depth(&again).await, u32::try_from(stored).unwrap());
    let mut inbox = inbox_of_partition(&again, 10);
    assert_eq!(id(&next(&mut inbox).await), "0");
    inbox.close().await;
    again.close().await;
}

async fn depth(broker: &fanfare_broker::Broker) -> u32 {
    let queue = broker.topology().delivery_queue(partition(broker));
    broker.depth(&queue).await.unwrap()
}
