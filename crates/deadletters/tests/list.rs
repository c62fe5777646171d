//! A look at the dead-letter queue of a real broker shows everything and changes nothing.

#![allow(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::{sync::Arc, time::Duration};

use fanfare_broker::Broker;
use fanfare_deadletters::{Listed, list};
use fanfare_model::{
    DeadLetter, DeadLetterReason, Delivery, EndpointId, Event, Failure, FailureClass, Timestamp,
    TraceContext,
};
use fanfare_testkit::{PlainAmqp, TestBroker, Version, eventually};
use fanfare_wire::encode_dead_letter;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(30);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn dead_letter(id: &str) -> DeadLetter {
    let event = Arc::new(Event::for_tests("t", "/s", id, "a.b", b"{\"n\":1}"));
    let endpoint = EndpointId::from_uuid(Uuid::from_u128(1));
    let failure = Failure {
        class: FailureClass::Status5xx,
        status: Some(503),
        error: "the receiver answered 503".to_owned(),
    };
    let delivery = Delivery::new(event, endpoint, 7, TraceContext::default(), at(100));
    DeadLetter {
        delivery: delivery.after_failure(failure, at(200), None),
        reason: DeadLetterReason::Exhausted,
        since: at(300),
    }
}

async fn looking_shows_everything_and_changes_nothing(version: Version) {
    let host = TestBroker::new(version);
    let broker = Broker::connect(&host.settings(), "test", PATIENCE)
        .await
        .unwrap();
    assert!(list(&broker, 100).await.unwrap().is_empty());

    let address = broker.topology().dead_address();
    let publisher = broker.publisher();
    let (first, last) = (dead_letter("first"), dead_letter("last"));
    publisher
        .publish(&address, encode_dead_letter(&first))
        .await
        .unwrap();
    let plain = PlainAmqp::connect(host.url()).await;
    let headers = [("x-by", "somebody else")];
    plain
        .publish((&address.exchange, ""), "text/plain", &headers, b"?")
        .await;
    publisher
        .publish(&address, encode_dead_letter(&last))
        .await
        .unwrap();

    for _ in 0..25 {
        let queue = broker.topology().dead_letters_queue();
        eventually(PATIENCE, "everything back in the queue", async || {
            (broker.depth(&queue).await.unwrap() == 3).then_some(())
        })
        .await;
        let listed = list(&broker, 100).await.unwrap();
        let [
            Listed::DeadLetter(one),
            Listed::Unreadable(other),
            Listed::DeadLetter(three),
        ] = &listed[..]
        else {
            panic!("{listed:?}");
        };
        assert_eq!((one, three), (&first, &last));
        assert_eq!(other.envelope.headers.text("x-by"), Some("somebody else"));
        assert_eq!(&*other.envelope.body, b"?");
        assert_eq!(other.why.to_string(), "`x-fanfare-record` is missing");
    }
    assert_eq!(list(&broker, 2).await.unwrap().len(), 2);
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_changes_nothing_on_3_10() {
    looking_shows_everything_and_changes_nothing(Version::V3_10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn looking_changes_nothing_on_4_3() {
    looking_shows_everything_and_changes_nothing(Version::V4_3).await;
}
