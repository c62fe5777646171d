//! `kill -9` of recorders and dispatchers, and a history whose database stops: what is in the journal is in the
//! history once, what is not is reported, and deliveries do not notice.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
    time::Duration,
};

use fanfare_broker::Broker;
use fanfare_journal::{
    AttemptFilter, DeliveryFilter, EventFilter, GapKind, History, Page, Settings, StateFilter,
};
use fanfare_model::JournalEntry;
use fanfare_producer::Producer;
use fanfare_testkit::{DatabaseServer, Receiver, TestBroker, TestDatabase, Version, eventually};
use fanfare_tests::{PATIENCE, Program, long_proof, on_each_rabbitmq, open_registry};
use fanfare_wire::decode_journal_batch;
use futures_util::{StreamExt as _, stream};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tempfile::TempDir;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use crate::support::{event, register};

on_each_rabbitmq!(
    killed_recorders_record_everything_once_and_killed_dispatchers_leave_gaps,
    a_history_whose_database_stops_leaves_deliveries_alone,
);

const SEED: u64 = 20_261_127;

/// Events per second while processes are killed and databases stopped.
const RATE: u32 = 200;

async fn killed_recorders_record_everything_once_and_killed_dispatchers_leave_gaps(
    version: Version,
) {
    let kills = if long_proof() { 20 } else { 6 };
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let home = TempDir::new().expect("a temporary directory can be made");
    let registry = open_registry(&home).await;
    register(&registry, &receiver.url("/a"), 64).await;
    registry.close().await;
    // Each kind of database with one kind of broker.
    let postgres = (version == Version::V4_3).then(TestDatabase::new);
    let database = match &postgres {
        Some(database) => database.url(),
        None => home.path().join("history.db").display().to_string(),
    };
    let history = open_history(&database).await;
    let settings = [("FANFARE__HISTORY__DATABASE", database.as_str())];
    let serve = |roles: &str| Program::serve(roles, broker.url(), &home, &settings);

    let (producer, enough) = (producer(&broker).await, CancellationToken::new());
    let killing = async {
        let ended = kill_at_seeded_moments(&serve, &receiver, kills).await;
        enough.cancel();
        ended
    };
    let publishing = publish_until(&producer, &enough);
    let (published, mut fleet) = tokio::join!(publishing, killing);
    let arrived = async || {
        let ids: BTreeSet<_> = receiver
            .requests()
            .iter()
            .map(|r| r.id().to_owned())
            .collect();
        (ids.len() == published).then_some(())
    };
    eventually(PATIENCE, "every delivery", arrived).await;
    // They end their journals in order, so that these are complete but for what was killed.
    for program in [&mut fleet.router, &mut fleet.dispatcher] {
        assert_eq!(program.terminate(), Some(0));
    }

    let journal = Journal::read(&broker).await;
    eventually(PATIENCE, "the journal recorded", async || {
        let progress = history.progress().await.ok()?;
        (progress.next_offset == journal.end).then_some(())
    })
    .await;
    assert_eq!(attempts_in(&history).await, journal.attempts);
    assert_eq!(events_in(&history).await, journal.events);
    assert_eq!(journal.events.len(), published, "the router was not killed");

    let unknown = unknown_outcomes(&history, fleet.killed_dispatchers, published).await;
    eprintln!(
        "RabbitMQ {}: {kills} recorders and {} dispatchers killed, {published} events and {} attempts recorded \
         once, {unknown} outcomes unknown",
        version.name(),
        fleet.killed_dispatchers,
        journal.attempts.values().sum::<usize>()
    );
    history.close().await;
    producer.close().await;
}

/// Processes with a role each.
struct Processes {
    router: Program,
    dispatcher: Program,
    _recorders: [Program; 2],
    killed_dispatchers: usize,
}

/// Kills a recorder, and now and then the dispatcher, each time the receiver has had so many requests.
async fn kill_at_seeded_moments(
    serve: &impl Fn(&str) -> Program,
    receiver: &Receiver,
    kills: usize,
) -> Processes {
    let router = serve("router");
    let mut dispatcher = serve("dispatcher");
    let mut recorders = [serve("recorder"), serve("recorder")];
    let mut random = StdRng::seed_from_u64(SEED);
    let (mut moment, mut killed_dispatchers) = (0, 0);
    for number in 0..kills {
        moment += random.random_range(30..100);
        expect_requests(receiver, moment).await;
        let recorder = &mut recorders[random.random_range(0..2)];
        recorder.kill();
        *recorder = serve("recorder");
        if number % 3 == 1 {
            dispatcher.kill();
            dispatcher = serve("dispatcher");
            killed_dispatchers += 1;
            // The next one has work before its turn comes, however far ahead the last one was.
            moment = moment.max(receiver.count());
        }
    }
    // The last ones have work as well.
    expect_requests(receiver, moment + 100).await;
    Processes {
        router,
        dispatcher,
        _recorders: recorders,
        killed_dispatchers,
    }
}

/// How many outcomes are unknown, once it is clear that nothing but what was killed is missing.
async fn unknown_outcomes(history: &History, killed: usize, published: usize) -> usize {
    let gaps = history.gaps(1000).await.expect("the history answers");
    let told = gaps.iter().filter(|gap| gap.kind == GapKind::Killed);
    assert_eq!(told.count(), killed, "{gaps:?}");
    let open = [StateFilter::Owed, StateFilter::Retrying];
    assert_eq!(count(history, &open).await, 0);
    let unknown = count(history, &[StateFilter::Unknown]).await;
    let delivered = count(history, &[StateFilter::Delivered]).await;
    assert_eq!(delivered + unknown, published);
    unknown
}

async fn a_history_whose_database_stops_leaves_deliveries_alone(version: Version) {
    let seconds = if long_proof() { 60 } else { 2 };
    let each = RATE as usize * seconds;
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let home = TempDir::new().expect("a temporary directory can be made");
    let registry = open_registry(&home).await;
    register(&registry, &receiver.url("/a"), 64).await;
    registry.close().await;
    let server = DatabaseServer::start().await;
    let database = server.database();
    let url = database.url();
    let settings = [("FANFARE__HISTORY__DATABASE", url.as_str())];
    let roles = "router,dispatcher,recorder";
    let mut program = Program::serve(roles, broker.url(), &home, &settings);
    let producer = producer(&broker).await;
    // What a start takes belongs to no part.
    publish(&producer, 0).await;
    expect_requests(&receiver, 1).await;

    let mut latencies = Vec::new();
    for part in 0..3 {
        if part == 1 {
            server.stop().await;
        }
        let numbers = part * each + 1..(part + 1) * each + 1;
        let due = publish_paced(&producer, numbers.clone()).await;
        expect_requests(&receiver, numbers.end).await;
        latencies.push(latency(&receiver, &due));
        if part == 1 {
            server.start_again().await;
        }
    }
    let name = version.name();
    for (part, (median, late)) in ["before", "while it is stopped", "after"]
        .iter()
        .zip(&latencies)
    {
        eprintln!(
            "RabbitMQ {name}, {each} deliveries {part}: {:.1} ms at the median, {:.1} ms at the 99th percentile",
            median * 1000.0,
            late * 1000.0
        );
    }
    let history = open_history(&url).await;
    eventually(PATIENCE, "the whole history", async || {
        (count(&history, &[StateFilter::Delivered]).await == 3 * each + 1).then_some(())
    })
    .await;
    assert_eq!(history.gaps(10).await.expect("it answers"), []);
    assert_eq!(program.terminate(), Some(0));
    history.close().await;
    producer.close().await;
}

/// What the stream itself holds, batches that were written twice counted once.
struct Journal {
    /// By delivery, replay, number and start.
    attempts: BTreeMap<(String, u32, u32, i64), usize>,
    events: BTreeSet<String>,
    /// The offset after its last message.
    end: u64,
}

impl Journal {
    async fn read(host: &TestBroker) -> Self {
        let broker = Broker::connect(&host.settings(), "reads", PATIENCE).await;
        let broker = broker.expect("the broker is there");
        let newest = broker.newest_in_journal(PATIENCE).await;
        let newest = newest.expect("it answers").expect("something was written");
        let mut reader = broker.read_journal(0).await.expect("it can be read");
        let (mut seen, mut end) = (BTreeSet::new(), 0);
        let (mut attempts, mut events) = (BTreeMap::new(), BTreeSet::new());
        while end <= newest {
            let message = reader.next().await.expect("the stream goes on");
            end = message.offset + 1;
            let batch = decode_journal_batch(&message.envelope).expect("it is a batch");
            if !seen.insert((batch.writer, batch.sequence)) {
                continue;
            }
            for entry in batch.entries {
                match entry {
                    JournalEntry::Routed(routed) => _ = events.insert(routed.event.id.clone()),
                    JournalEntry::Handled(handled) => {
                        let attempt = handled.attempt.expect("every attempt is journalled");
                        let at = attempt.started_at.as_microsecond();
                        let id = handled.delivery.to_string();
                        let key = (id, handled.replay, attempt.number, at);
                        *attempts.entry(key).or_default() += 1;
                    }
                    JournalEntry::Acted(_) => {}
                }
            }
        }
        reader.close().await;
        broker.close().await;
        Self {
            attempts,
            events,
            end,
        }
    }
}

async fn attempts_in(history: &History) -> BTreeMap<(String, u32, u32, i64), usize> {
    let (mut attempts, mut after) = (BTreeMap::new(), None);
    loop {
        let page = Page { after, limit: 1000 };
        let found = history.attempts(&AttemptFilter::default(), page).await;
        let found = found.expect("the history answers");
        let Some(last) = found.last() else {
            return attempts;
        };
        after = Some(last.cursor);
        for attempt in found {
            let at = attempt.at.as_microsecond();
            let key = (
                attempt.delivery.to_string(),
                attempt.replay,
                attempt.number,
                at,
            );
            *attempts.entry(key).or_default() += 1;
        }
    }
}

async fn events_in(history: &History) -> BTreeSet<String> {
    let (mut events, mut after) = (BTreeSet::new(), None);
    loop {
        let page = Page { after, limit: 1000 };
        let found = history.events(&EventFilter::default(), page).await;
        let found = found.expect("the history answers");
        let Some(last) = found.last() else {
            return events;
        };
        after = Some(last.cursor);
        for record in found {
            assert!(record.is_complete, "the router told of every event");
            let id = record.event.id;
            assert!(events.insert(id.clone()), "event {id} is there once");
        }
    }
}

/// How many deliveries stand so; none while the history is away.
async fn count(history: &History, states: &[StateFilter]) -> usize {
    let filter = DeliveryFilter {
        states: states.to_vec(),
        ..DeliveryFilter::default()
    };
    let counted = history.count(&filter).await.unwrap_or_default();
    usize::try_from(counted).expect("a test has few")
}

async fn open_history(database: &str) -> History {
    let settings = Settings {
        database: database.parse().expect("a database"),
        ..Settings::default()
    };
    let open = async || History::open(&settings).await.ok();
    eventually(PATIENCE, "a history", open).await
}

async fn producer(broker: &TestBroker) -> Producer {
    let connected = Producer::connect(&broker.settings(), "recorders").await;
    connected.expect("it connects")
}

async fn publish(producer: &Producer, number: usize) {
    let published = producer.publish(&event(number)).await;
    published.expect("the broker is there");
}

/// Publishes at a pace until it is enough, and returns how many.
async fn publish_until(producer: &Producer, enough: &CancellationToken) -> usize {
    let mut ticks = time::interval(Duration::from_secs(1) / RATE);
    let mut number = 0;
    while !enough.is_cancelled() {
        ticks.tick().await;
        publish(producer, number).await;
        number += 1;
    }
    number
}

/// Publishes at a pace, and returns when each was due. A publish that takes long does not hold up the next.
async fn publish_paced(
    producer: &Producer,
    numbers: std::ops::Range<usize>,
) -> BTreeMap<usize, Instant> {
    let start = Instant::now();
    let due = Mutex::new(BTreeMap::new());
    let publishing = stream::iter(numbers.clone()).for_each_concurrent(1000, async |number| {
        let place = u32::try_from(number - numbers.start).expect("a test has few");
        let at = start + Duration::from_secs(1) / RATE * place;
        time::sleep_until(at).await;
        publish(producer, number).await;
        let mut due = due.lock().expect("nobody panics");
        due.insert(number, at);
    });
    publishing.await;
    due.into_inner().expect("nobody panics")
}

/// The median and the 99th percentile of the seconds from when events were due until they arrived.
fn latency(receiver: &Receiver, due: &BTreeMap<usize, Instant>) -> (f64, f64) {
    let mut seconds = Vec::new();
    for request in receiver.requests() {
        let body: serde_json::Value =
            serde_json::from_slice(&request.body).expect("the body is JSON");
        let number = body["data"]["number"]
            .as_u64()
            .expect("events are numbered");
        let number = usize::try_from(number).expect("a test has few");
        if let Some(due) = due.get(&number) {
            seconds.push(request.instant.duration_since(*due).as_secs_f64());
        }
    }
    seconds.sort_by(f64::total_cmp);
    let at = |part: usize| seconds[(seconds.len() - 1) * part / 100];
    (at(50), at(99))
}

async fn expect_requests(receiver: &Receiver, count: usize) {
    let what = format!("{count} requests");
    let reached = async || (receiver.count() >= count).then_some(());
    eventually(Duration::from_secs(120), &what, reached).await;
}
