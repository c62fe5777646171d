//! The recorder against RabbitMQ: everything once, whatever is killed, and a journal that is away hurts nobody.

#![allow(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::{collections::HashMap, sync::Arc, time::Duration};

use fanfare_broker::{Broker, JournalSettings, JournalWriter};
use fanfare_journal::{
    AttemptFilter, EventFilter, GapKind, History, Page, Recorder, Settings, record_journal,
};
use fanfare_model::{
    AttemptRecord, Delivery, EndpointId, Event, OwedDelivery, Settlement, TraceContext,
};
use fanfare_testkit::{DatabaseServer, PlainAmqp, TestBroker, Version, eventually, wall_clock};
use tokio::{task::JoinSet, time};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

macro_rules! on_every_version {
    ($($fact:ident)*) => {
        $(mod $fact {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_3_10() {
                super::$fact(fanfare_testkit::Version::V3_10).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_4_3() {
                super::$fact(fanfare_testkit::Version::V4_3).await;
            }
        })*
    };
}

on_every_version! {
    recorders_that_are_killed_record_everything_once
    a_writer_that_is_killed_leaves_a_gap_that_is_reported
    a_journal_that_is_away_is_waited_for_once_and_filled_later
    a_journal_that_begins_anew_is_recorded_from_its_beginning
}

async fn connected(host: &TestBroker) -> Broker {
    let settings = host.settings();
    Broker::connect(&settings, "test", PATIENCE).await.unwrap()
}

fn writer(broker: &Broker, role: &str) -> JournalWriter {
    let meter = opentelemetry::global::meter("test");
    let settings = JournalSettings::default();
    JournalWriter::start(broker, &settings, role, "test", wall_clock(), &meter)
}

fn recorder(broker: &Broker, history: &History) -> Recorder {
    let meter = opentelemetry::global::meter("test");
    let settings = Settings::default();
    Recorder::new(broker, history.clone(), settings, wall_clock(), &meter)
}

/// A history in a file, and what keeps the file.
async fn history() -> (History, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        database: folder.path().join("history.db").into(),
        ..Settings::default()
    };
    (History::open(&settings).await.unwrap(), folder)
}

fn delivery(number: usize) -> Delivery {
    let id = format!("{number:05}");
    let event = Arc::new(Event::for_tests("t", "/s", &id, "a", b"{}"));
    let (endpoint, trace) = (EndpointId::from_bytes([1; 16]), TraceContext::default());
    Delivery::new(event, endpoint, 1, trace, wall_clock().now())
}

async fn route(journal: &JournalWriter, delivery: &Delivery) {
    let owed = OwedDelivery {
        id: delivery.id,
        endpoint: delivery.endpoint,
        not_before: None,
        is_told: true,
    };
    journal
        .routed(&delivery.event, &delivery.trace, vec![owed])
        .await;
}

fn deliver(journal: &JournalWriter, delivery: &Delivery) {
    let attempt = AttemptRecord {
        number: 1,
        started_at: wall_clock().now(),
        took_micros: 5,
        status: Some(200),
        failure: None,
        error: String::new(),
    };
    let told = journal.told(delivery, &Settlement::Delivered, Some(attempt));
    journal.tell(told);
}

/// Every attempt and every event in the history, by pages.
async fn everything(history: &History) -> (HashMap<String, usize>, usize) {
    let (mut attempts, mut events, mut after) = (HashMap::new(), 0, None);
    loop {
        let page = Page { after, limit: 1000 };
        let found = history.attempts(&AttemptFilter::default(), page).await;
        let found = found.unwrap();
        let Some(last) = found.last() else { break };
        after = Some(last.cursor);
        for attempt in found {
            *attempts.entry(attempt.delivery.to_string()).or_default() += 1;
        }
    }
    after = None;
    loop {
        let page = Page { after, limit: 1000 };
        let found = history.events(&EventFilter::default(), page).await.unwrap();
        let Some(last) = found.last() else { break };
        after = Some(last.cursor);
        events += found.len();
    }
    (attempts, events)
}

async fn recorded(history: &History, count: usize) -> HashMap<String, usize> {
    let complete = async || {
        let (attempts, events) = everything(history).await;
        (attempts.len() >= count && events >= count).then_some(attempts)
    };
    eventually(PATIENCE, &format!("{count} events and attempts"), complete).await
}

async fn recorders_that_are_killed_record_everything_once(version: Version) {
    const COUNT: usize = 3000;
    let (host, (history, _folder)) = (TestBroker::new(version), history().await);
    let broker = connected(&host).await;
    let (router, dispatcher) = (writer(&broker, "router"), writer(&broker, "dispatcher"));
    let writing = async {
        for number in 0..COUNT {
            let delivery = delivery(number);
            if number % 100 == 0 {
                route(&router, &delivery).await;
            } else {
                // Not waited for, so that it is quick.
                let (router, delivery) = (router.clone(), delivery.clone());
                let _unwaited = time::timeout(Duration::ZERO, async move {
                    route(&router, &delivery).await;
                })
                .await;
            }
            deliver(&dispatcher, &delivery);
        }
        router.close(PATIENCE).await;
        dispatcher.close(PATIENCE).await;
    };
    let killing = async {
        // Two at once, and dropped where they stand: their transactions are undone or done.
        for life in 1..=12_u64 {
            let mut both = JoinSet::new();
            for _ in 0..2 {
                let recorder = recorder(&broker, &history);
                both.spawn(record_journal(recorder, CancellationToken::new()));
            }
            time::sleep(Duration::from_millis(life * 37 % 150)).await;
        }
    };
    tokio::join!(writing, killing);
    let stop = CancellationToken::new();
    let mut last = JoinSet::new();
    for _ in 0..2 {
        last.spawn(record_journal(recorder(&broker, &history), stop.clone()));
    }
    let attempts = recorded(&history, COUNT).await;
    assert!(attempts.values().all(|count| *count == 1));
    assert_eq!(
        (attempts.len(), everything(&history).await.1),
        (COUNT, COUNT)
    );
    assert_eq!(history.gaps(10).await.unwrap(), []);
    stop.cancel();
    last.join_all().await;
    broker.close().await;
}

async fn a_writer_that_is_killed_leaves_a_gap_that_is_reported(version: Version) {
    let (host, (history, _folder)) = (TestBroker::new(version), history().await);
    let broker = connected(&host).await;
    let stop = CancellationToken::new();
    let recording = record_journal(recorder(&broker, &history), stop.clone());
    let checking = async {
        // One that is killed before it told anything, and one later.
        let killed = connected(&host).await;
        let journal = writer(&killed, "dispatcher");
        journal.begun().await;
        deliver(&journal, &delivery(0));
        killed.close().await;
        let killed = connected(&host).await;
        let journal = writer(&killed, "dispatcher");
        deliver(&journal, &delivery(1));
        deliver_and_wait(&history, 1).await;
        // As when it is killed: nothing is closed in order, and what was not written is gone.
        deliver(&journal, &delivery(2));
        killed.close().await;
        let journal = writer(&broker, "dispatcher");
        deliver(&journal, &delivery(3));
        journal.close(PATIENCE).await;
        let both = async || {
            let gaps = history.gaps(10).await.unwrap();
            (gaps.len() == 2).then_some(gaps)
        };
        for gap in eventually(PATIENCE, "a gap for each", both).await {
            assert_eq!(
                (gap.kind, gap.writer.as_str()),
                (GapKind::Killed, "dispatcher test")
            );
        }
        stop.cancel();
    };
    tokio::join!(recording, checking);
    broker.close().await;
}

async fn deliver_and_wait(history: &History, count: usize) {
    let recorded = async || (everything(history).await.0.len() >= count).then_some(());
    eventually(PATIENCE, "the attempts", recorded).await;
}

async fn a_journal_that_is_away_is_waited_for_once_and_filled_later(version: Version) {
    let (host, (history, _folder)) = (TestBroker::new(version), history().await);
    let broker = connected(&host).await;
    let amqp = PlainAmqp::connect(host.url()).await;
    let journal = writer(&broker, "router");
    journal.begun().await;
    amqp.delete_queue(&broker.topology().journal_queue()).await;
    let started = time::Instant::now();
    route(&journal, &delivery(1)).await;
    assert!(started.elapsed() >= Duration::from_secs(4));
    // From here on nobody waits: a hundred of them together take less than the wait of one.
    let started = time::Instant::now();
    for number in 2..=100 {
        route(&journal, &delivery(number)).await;
    }
    assert!(started.elapsed() < Duration::from_secs(4));
    // A new connection declares everything again.
    host.drop_connections(2).await;
    let stop = CancellationToken::new();
    let recording = record_journal(recorder(&broker, &history), stop.clone());
    let checking = async {
        let complete = async || (everything(&history).await.1 == 100).then_some(());
        eventually(PATIENCE, "all events", complete).await;
        stop.cancel();
    };
    tokio::join!(recording, checking);
    journal.close(PATIENCE).await;
    broker.close().await;
}

async fn a_journal_that_begins_anew_is_recorded_from_its_beginning(version: Version) {
    let (host, (history, _folder)) = (TestBroker::new(version), history().await);
    let broker = connected(&host).await;
    let amqp = PlainAmqp::connect(host.url()).await;
    let stop = CancellationToken::new();
    let recording = record_journal(recorder(&broker, &history), stop.clone());
    let checking = async {
        let journal = writer(&broker, "dispatcher");
        for number in 0..3 {
            deliver(&journal, &delivery(number));
            deliver_and_wait(&history, number + 1).await;
        }
        amqp.delete_queue(&broker.topology().journal_queue()).await;
        host.drop_connections(2).await;
        deliver(&journal, &delivery(3));
        deliver_and_wait(&history, 4).await;
        assert!(
            everything(&history)
                .await
                .0
                .values()
                .all(|count| *count == 1)
        );
        stop.cancel();
        journal.close(PATIENCE).await;
    };
    tokio::join!(recording, checking);
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_catches_up_when_its_store_was_away() {
    let (host, server) = (
        TestBroker::new(Version::V4_3),
        DatabaseServer::start().await,
    );
    let (broker, database) = (connected(&host).await, server.database());
    let settings = Settings {
        database: database.location(),
        ..Settings::default()
    };
    let history = History::open(&settings).await.unwrap();
    let stop = CancellationToken::new();
    let recording = record_journal(recorder(&broker, &history), stop.clone());
    let checking = async {
        let journal = writer(&broker, "dispatcher");
        deliver(&journal, &delivery(0));
        deliver_and_wait(&history, 1).await;
        server.stop().await;
        for number in 1..500 {
            deliver(&journal, &delivery(number));
        }
        journal.close(PATIENCE).await;
        server.start_again().await;
        let complete = async || {
            let page = Page {
                after: None,
                limit: 1000,
            };
            let found = history.attempts(&AttemptFilter::default(), page).await;
            found.is_ok_and(|found| found.len() == 500).then_some(())
        };
        eventually(PATIENCE, "500 attempts", complete).await;
        assert_eq!(history.gaps(10).await.unwrap(), []);
        stop.cancel();
    };
    tokio::join!(recording, checking);
    broker.close().await;
}
