//! A broker with dead letters in it, a store, and a desk.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fanfare_broker::{Broker, JournalWriter, Place, Subscription};
use fanfare_deadletters::{Action, Desk, Filter, Progress, Request, Settings, View};
use fanfare_model::{
    DeadLetter, DeadLetterReason, Delivery, DeliveryId, EndpointId, Event, Failure, FailureClass,
    Secret, Timestamp, TraceContext,
};
use fanfare_registry::{Operation, Registry};
use fanfare_testkit::{TestBroker, TestDatabase, Version, eventually, wall_clock};
use fanfare_wire::{decode_bundle, encode_dead_letter};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Makes a test of a function for each version of RabbitMQ.
macro_rules! on_every_version {
    ($($name:ident),* $(,)?) => {$(
        mod $name {
            #[tokio::test(flavor = "multi_thread")]
            async fn on_3_10() {
                super::$name(fanfare_testkit::Version::V3_10).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn on_4_3() {
                super::$name(fanfare_testkit::Version::V4_3).await;
            }
        }
    )*};
}
pub(crate) use on_every_version;

/// A virtual host, a store, and a desk over both.
pub(crate) struct Office {
    pub(crate) host: TestBroker,
    pub(crate) broker: Broker,
    pub(crate) registry: Registry,
    pub(crate) settings: Settings,
    pub(crate) journal: JournalWriter,
    _database: Option<TestDatabase>,
    _home: TempDir,
}

impl Office {
    pub(crate) async fn open(version: Version) -> Self {
        Self::open_with(version, None).await
    }

    /// With the registry in PostgreSQL.
    pub(crate) async fn open_with_postgres(version: Version) -> Self {
        Self::open_with(version, Some(TestDatabase::new())).await
    }

    async fn open_with(version: Version, database: Option<TestDatabase>) -> Self {
        let host = TestBroker::new(version);
        let broker = Broker::connect(&host.settings(), "test", PATIENCE)
            .await
            .unwrap();
        let home = TempDir::new().unwrap();
        let store = fanfare_registry::Settings {
            database: match &database {
                Some(database) => database.location(),
                None => home.path().join("fanfare.db").into(),
            },
            encryption_key: Some(Secret::new("07".repeat(32))),
            ..fanfare_registry::Settings::default()
        };
        let registry = Registry::open(&store).await.unwrap();
        let settings = Settings {
            replay_pace: "100000/s".parse().unwrap(),
            ..Settings::default()
        };
        Self {
            host,
            broker,
            registry,
            settings,
            journal: JournalWriter::off(),
            _database: database,
            _home: home,
        }
    }

    pub(crate) fn desk(&self) -> Desk {
        let (registry, settings) = (self.registry.clone(), self.settings.clone());
        Desk::new(&self.broker, registry, wall_clock(), settings).journalling(self.journal.clone())
    }

    /// A view of the queues that looks at this many messages at most.
    pub(crate) fn view(&self, look_at_most: u32) -> View {
        let settings = Settings {
            look_at_most,
            ..self.settings.clone()
        };
        View::of_queues(&self.broker, &settings)
    }

    /// Puts dead letters where they rest.
    pub(crate) async fn bury(&self, letters: impl IntoIterator<Item = DeadLetter>) {
        let (publisher, address) = (
            self.broker.publisher(),
            self.broker.topology().dead_address(),
        );
        let published = letters
            .into_iter()
            .map(|letter| publisher.publish(&address, encode_dead_letter(&letter)));
        futures_util::future::try_join_all(published).await.unwrap();
    }

    /// Asks for something and carries it out.
    pub(crate) async fn carry_out(
        &self,
        place: Place,
        action: Action,
        filter: Filter,
    ) -> Operation {
        let desk = self.desk();
        let request = request(place, action, filter);
        let expected = desk.dry_run(&request).await.unwrap().found;
        let asked = desk.request(request, expected, "tester").await.unwrap();
        self.run(place).await;
        let operation = self.registry.operation(asked.operation.id).await.unwrap();
        operation.unwrap()
    }

    pub(crate) async fn run(&self, place: Place) {
        let stop = CancellationToken::new();
        let mut nobody = |_: &Progress| {};
        self.desk().run(place, &stop, &mut nobody).await.unwrap();
    }

    /// Waits until so many messages rest; what a look or a pass gives back takes a moment to be there again.
    pub(crate) async fn expect_depth(&self, place: Place, depth: u32) {
        let queue = self.broker.topology().queue_of(place);
        let what = format!("{depth} messages in {place}");
        eventually(PATIENCE, &what, async || {
            (self.broker.depth(&queue).await.unwrap() == depth).then_some(())
        })
        .await;
    }

    /// What is owed anew: each delivery, its replay number, and how often it is there.
    pub(crate) async fn owed(&self) -> BTreeMap<(DeliveryId, u32), usize> {
        let topology = self.broker.topology();
        let mut owed = BTreeMap::new();
        for key in topology.partitions() {
            let queue = topology.delivery_queue(key);
            let depth = self.broker.depth(&queue).await.unwrap();
            // A queue with a single active consumer can be consumed only. Dropped, all of it goes back.
            let mut inbox = self.broker.inbox(vec![Subscription::queue(queue, 2000)]);
            let mut messages = Vec::new();
            for _ in 0..depth {
                messages.push(inbox.next_until(&CancellationToken::new()).await.unwrap());
            }
            for message in &messages {
                for delivery in decode_bundle(&message.envelope).unwrap() {
                    assert_eq!(delivery.failed_attempts, 0);
                    assert_eq!(delivery.failures, None);
                    *owed.entry((delivery.id, delivery.replay)).or_default() += 1;
                }
            }
            drop(messages);
            inbox.close().await;
        }
        owed
    }
}

pub(crate) fn request(place: Place, action: Action, filter: Filter) -> Request {
    Request {
        place,
        action,
        all: filter.is_all(),
        filter,
        pace: None,
        why: "a test".to_owned(),
        request_key: None,
    }
}

pub(crate) fn endpoint(number: u128) -> EndpointId {
    EndpointId::from_uuid(Uuid::from_u128(number))
}

/// A dead letter of an endpoint, given up on a minute and some seconds ago.
pub(crate) fn letter(number: usize, endpoint: EndpointId, reason: DeadLetterReason) -> DeadLetter {
    let id = format!("event-{number}");
    let event = Event::for_tests("t", "/s", &id, "a.b", b"{\"n\":1}");
    let failure = Failure {
        class: FailureClass::Status5xx,
        status: Some(503),
        error: "the receiver answered 503".to_owned(),
    };
    let seconds = wall_clock().now().as_second() - 60 - i64::try_from(number % 1000).unwrap();
    let at = Timestamp::from_second(seconds).unwrap();
    let trace = TraceContext::default();
    let delivery = Delivery::new(Arc::new(event), endpoint, 7, trace, at);
    DeadLetter {
        delivery: delivery.after_failure(failure, at, None),
        reason,
        since: at,
    }
}

/// So many dead letters, over so many endpoints.
pub(crate) fn letters(count: usize, endpoints: u128) -> Vec<DeadLetter> {
    let reason = DeadLetterReason::Exhausted;
    let of = |number: usize| endpoint(number as u128 % endpoints);
    (0..count)
        .map(|number| letter(number, of(number), reason))
        .collect()
}
