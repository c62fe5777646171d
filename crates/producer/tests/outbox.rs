//! The outbox, on a real database and a real broker.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeSet, time::Duration};

use fanfare_broker::Broker;
use fanfare_model::{AttributeValue, Event, TraceContext};
use fanfare_producer::{
    Producer,
    outbox::{self, OutboxFault, OutboxStatus, Pass, Relay, sqlx::PgPool},
};
use fanfare_testkit::{TestBroker, TestDatabase, Version, eventually, wall_clock};
use fanfare_wire::{DecodedEvent, EventLimits, decode_event};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

struct Place {
    rabbit: TestBroker,
    _database: TestDatabase,
    broker: Broker,
    pool: PgPool,
}

impl Place {
    async fn new() -> Self {
        let (rabbit, database) = (TestBroker::new(Version::V4_3), TestDatabase::new());
        let settings = rabbit.settings();
        let broker = Broker::connect(&settings, "outbox", PATIENCE).await;
        let broker = broker.unwrap();
        let pool = PgPool::connect(&database.url()).await.unwrap();
        let mut connection = pool.acquire().await.unwrap();
        for _ in 0..2 {
            outbox::create_table(&mut connection).await.unwrap();
        }
        drop(connection);
        Self {
            rabbit,
            _database: database,
            broker,
            pool,
        }
    }

    fn relay(&self) -> Relay {
        let producer = Producer::on(&self.broker, wall_clock()).confirm_within(PATIENCE);
        Relay::new(self.pool.clone(), producer)
    }

    async fn stored(&self) -> Vec<DecodedEvent> {
        let queue = self.rabbit.topology().events_queue();
        let stored = self.broker.peek(&queue, 10_000).await.unwrap();
        let decode = |envelope| decode_event(envelope, None, &EventLimits::default()).unwrap();
        stored.iter().map(decode).collect()
    }

    async fn status(&self) -> OutboxStatus {
        outbox::status(&self.pool).await.unwrap()
    }
}

fn event(id: &str) -> Event {
    let mut event = Event::for_tests("t", "/s", id, "a.b", b"\x00\xff");
    event.data_content_type = Some("application/octet-stream".to_owned());
    let bytes = AttributeValue::Binary((&b"\x01\xfe"[..]).into());
    event.extensions.insert("bytes".to_owned(), bytes);
    event
}

#[tokio::test]
async fn what_commits_is_published_once_and_unchanged_and_what_rolls_back_never() {
    let place = Place::new().await;
    let trace = TraceContext::from_headers(Some(TRACE), None);
    for (id, commits) in [("1", true), ("2", false), ("3", true)] {
        let mut transaction = place.pool.begin().await.unwrap();
        let enqueued = outbox::enqueue_in_trace(&mut *transaction, &event(id), &trace).await;
        enqueued.unwrap();
        if commits {
            transaction.commit().await.unwrap();
        } else {
            transaction.rollback().await.unwrap();
        }
    }
    assert_eq!(place.status().await.waiting, 2);
    let relay = place.relay();
    let expected = Pass {
        stored: 2,
        ..Pass::default()
    };
    assert_eq!(relay.pass().await.unwrap(), expected);
    assert_eq!(relay.pass().await.unwrap(), Pass::default());
    let stored = place.stored().await;
    let expected = ["1", "3"].map(|id| DecodedEvent {
        event: event(id),
        trace: trace.clone(),
    });
    assert_eq!(stored, expected);
    assert_eq!(place.status().await.waiting, 0);
    place.broker.close().await;
}

#[tokio::test]
async fn any_program_may_insert_json_and_is_told_what_is_wrong_with_it() {
    let place = Place::new().await;
    let good = r#"{"specversion":"1.0","id":"1","source":"/s","type":"a","tenant":"t","data":{}}"#;
    for text in [good, r#"{"id":"2"}"#] {
        outbox::sqlx::query("INSERT INTO fanfare_outbox (event) VALUES (convert_to($1, 'UTF8'))")
            .bind(text)
            .execute(&place.pool)
            .await
            .unwrap();
    }
    let expected = Pass {
        stored: 1,
        refused: 1,
        kept: 0,
    };
    assert_eq!(place.relay().pass().await.unwrap(), expected);
    assert_eq!(place.stored().await[0].event.id, "1");
    let status = place.status().await;
    assert_eq!((status.waiting, status.refused), (0, 1));
    let why: String = outbox::sqlx::query_scalar("SELECT refusal FROM fanfare_outbox")
        .fetch_one(&place.pool)
        .await
        .unwrap();
    assert!(why.contains("`specversion` is missing"), "{why}");
    place.broker.close().await;
}

#[tokio::test]
async fn an_event_that_would_not_be_accepted_is_not_enqueued() {
    let place = Place::new().await;
    let mut event = event("1");
    event.source = String::new();
    let fault = outbox::enqueue(&place.pool, &event).await.unwrap_err();
    assert!(matches!(fault, OutboxFault::Invalid(_)) && !fault.is_transient());
    event = self::event("1");
    event.data = Some(vec![0; 300_000].into());
    let fault = outbox::enqueue(&place.pool, &event).await.unwrap_err();
    assert!(fault.to_string().contains("262144"), "{fault}");
    assert_eq!(place.status().await.waiting, 0);
    place.broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_relays_are_woken_up_and_share_the_rows() {
    const EVENTS: usize = 400;
    let place = Place::new().await;
    let shutdown = CancellationToken::new();
    let mut relays = JoinSet::new();
    for _ in 0..3 {
        // So seldom that only a notification can be why they look.
        let relay = place.relay().rows(20).look_every(PATIENCE * 10);
        let shutdown = shutdown.clone();
        relays.spawn(async move { relay.run(shutdown).await });
    }
    for number in 0..EVENTS {
        let event = event(&number.to_string());
        outbox::enqueue(&place.pool, &event).await.unwrap();
    }
    eventually(PATIENCE, "an empty outbox", async || {
        (place.status().await.waiting == 0).then_some(())
    })
    .await;
    shutdown.cancel();
    relays.join_all().await;
    let stored = place.stored().await;
    assert_eq!(stored.len(), EVENTS, "each is published once");
    let ids: BTreeSet<_> = stored.iter().map(|decoded| &decoded.event.id).collect();
    assert_eq!(ids.len(), EVENTS);
    place.broker.close().await;
}

#[tokio::test]
async fn what_is_not_confirmed_stays() {
    let place = Place::new().await;
    let nowhere = fanfare_broker::Settings {
        url: "amqp://127.0.0.1:1/%2f".to_owned().into(),
        ..fanfare_broker::Settings::default()
    };
    let broker = Broker::start(&nowhere, "outbox").unwrap();
    let producer = Producer::on(&broker, wall_clock()).confirm_within(Duration::from_millis(50));
    let relay = Relay::new(place.pool.clone(), producer);
    outbox::enqueue(&place.pool, &event("1")).await.unwrap();
    let expected = Pass {
        kept: 1,
        ..Pass::default()
    };
    assert_eq!(relay.pass().await.unwrap(), expected);
    assert_eq!(place.status().await.waiting, 1);
    place.broker.close().await;
    broker.close().await;
}
