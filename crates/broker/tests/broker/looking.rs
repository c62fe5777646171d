//! Looking into a queue leaves it as it was.

use fanfare_broker::Broker;
use fanfare_testkit::{PlainAmqp, TestBroker, Version};

use crate::support::{connected_to, depth_becomes, envelope, on_every_version, publish_all};

on_every_version! {
    peeking_again_and_again_leaves_dead_letters_there_and_in_order
    a_plain_client_may_look_thirty_times_too
}

const IDS: [&str; 5] = ["a", "b", "c", "d", "e"];

async fn with_dead_letters(host: &TestBroker) -> Broker {
    let broker = connected_to(host).await;
    let address = broker.topology().dead_address();
    let messages = IDS.map(|id| (address.clone(), envelope(id)));
    for answer in publish_all(&broker.publisher(), messages).await {
        assert_eq!(answer, Ok(()));
    }
    broker
}

async fn peeking_again_and_again_leaves_dead_letters_there_and_in_order(version: Version) {
    let host = TestBroker::new(version);
    let broker = with_dead_letters(&host).await;
    let queue = broker.topology().dead_letters_queue();
    for (limit, looks) in [(3, 30), (5, 30), (100, 30)] {
        for _ in 0..looks {
            depth_becomes(&broker, &queue, 5).await;
            let seen = broker.peek(&queue, limit).await.unwrap();
            let ids = seen.iter().map(|e| e.properties.message_id.as_deref());
            let expected = IDS.iter().take(limit).map(|id| Some(*id));
            assert_eq!(ids.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        }
    }
    depth_becomes(&broker, &queue, 5).await;
    broker.close().await;
}

async fn a_plain_client_may_look_thirty_times_too(version: Version) {
    let host = TestBroker::new(version);
    let broker = with_dead_letters(&host).await;
    let queue = broker.topology().dead_letters_queue();
    let plain = PlainAmqp::connect(host.url()).await;
    for round in 0..30 {
        let taken = plain.get(&queue).await.expect("the dead letter is there");
        assert_eq!(taken.message_id.as_deref(), Some("a"), "round {round}");
        plain.requeue(&taken).await;
    }
    depth_becomes(&broker, &queue, 5).await;
    broker.close().await;
}
