//! `kill -9` of the relays of an outbox, and of the PostgreSQL that holds it.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use fanfare_broker::Broker;
use fanfare_producer::outbox::{
    self,
    sqlx::{self, PgPool, postgres::PgPoolOptions},
};
use fanfare_testkit::{DatabaseServer, TestBroker, Version, eventually};
use fanfare_tests::{PATIENCE, Program, long_proof};
use fanfare_wire::{EventLimits, decode_event};
use tokio::task::JoinSet;

use crate::support::event;

const WRITERS: usize = 4;
const RELAYS: usize = 2;
/// What one death of a relay repeats at most.
const ROWS: usize = 20;

/// How much is written and killed: a little in every test run, more in the proof.
struct Extent {
    transactions: usize,
    relay_kills: usize,
    database_kills: usize,
}

impl Extent {
    fn of_this_run() -> Self {
        let (transactions, relay_kills, database_kills) = if long_proof() {
            (20_000, 30, 6)
        } else {
            (900, 4, 2)
        };
        Self {
            transactions,
            relay_kills,
            database_kills,
        }
    }

    fn kills(&self) -> usize {
        self.relay_kills + self.database_kills
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_relays_and_postgres_publishes_all_that_committed_and_nothing_else() {
    let extent = Extent::of_this_run();
    let (rabbit, server) = (
        TestBroker::new(Version::V4_3),
        DatabaseServer::start().await,
    );
    let database = server.database();
    let broker = Broker::connect(&rabbit.settings(), "outbox", PATIENCE).await;
    let broker = broker.expect("the broker is there");
    let pool = pool(&database.url()).await;
    prepare(&pool).await;

    let (url, amqp) = (database.url(), rabbit.url().to_owned());
    let start = || Program::outbox_relay(&amqp, &url, ROWS);
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (pool, transactions) = (pool.clone(), extent.transactions / WRITERS);
        writers.spawn(async move { write(&pool, writer, transactions).await });
    }
    let queue = rabbit.topology().events_queue();
    let mut relays = kill_on_the_way(&extent, (&broker, &queue), &server, start).await;
    let attempted: usize = writers.join_all().await.into_iter().sum();
    eventually(PATIENCE * 5, "an empty outbox", async || {
        let status = outbox::status(&pool).await.ok()?;
        (status.waiting == 0).then_some(())
    })
    .await;
    for relay in &mut relays {
        assert_eq!(relay.terminate(), Some(0), "a relay stops in order");
    }

    let committed = committed(&pool).await;
    let published = published(&broker, &queue).await;
    let repeats = compared(&committed, &published);
    // A database that dies ends the transactions of all relays.
    let most = ROWS * (extent.relay_kills + extent.database_kills * RELAYS);
    let of_them = committed.len();
    eprintln!(
        "{attempted} transactions, {of_them} committed, each published; {repeats} repeats, at most {most}"
    );
    assert!(repeats <= most, "{repeats} repeats, at most {most}");
    assert!(of_them < attempted, "some were rolled back");
    broker.close().await;
}

/// Kills a relay or the database each time so many events have been published, and starts it again.
async fn kill_on_the_way(
    extent: &Extent,
    (broker, queue): (&Broker, &str),
    server: &DatabaseServer,
    start: impl Fn() -> Program,
) -> Vec<Program> {
    let mut relays: Vec<Program> = (0..RELAYS).map(|_| start()).collect();
    let kills = extent.kills();
    for kill in 1..=kills {
        // Evenly over what will be published: two thirds of the transactions commit.
        let moment = extent.transactions * 2 / 3 * kill / (kills + 2);
        let what = format!("{moment} events published");
        eventually(PATIENCE * 5, &what, async || {
            let depth = broker.depth(queue).await.expect("the broker answers");
            (depth as usize >= moment).then_some(())
        })
        .await;
        if kill.is_multiple_of(kills / extent.database_kills) {
            server.kill().await;
            server.start_again().await;
        } else {
            let relay = &mut relays[kill % RELAYS];
            relay.kill();
            *relay = start();
        }
    }
    relays
}

/// Panics when something committed was not published, or the other way round. Returns the repeats.
fn compared(committed: &BTreeSet<String>, published: &HashMap<String, usize>) -> usize {
    let ids: BTreeSet<String> = published.keys().cloned().collect();
    let lost: Vec<_> = committed.difference(&ids).collect();
    assert!(lost.is_empty(), "committed and not published: {lost:?}");
    let invented: Vec<_> = ids.difference(committed).collect();
    assert!(
        invented.is_empty(),
        "published and not committed: {invented:?}"
    );
    published.values().map(|times| times - 1).sum()
}

async fn pool(url: &str) -> PgPool {
    PgPoolOptions::new()
        .max_connections(u32::try_from(WRITERS + 2).expect("few"))
        .acquire_timeout(Duration::from_secs(5))
        .connect(url)
        .await
        .expect("the database is there")
}

/// The outbox, and a table that says which transactions committed, whoever was killed while they did.
async fn prepare(pool: &PgPool) {
    let mut connection = pool.acquire().await.expect("the database is there");
    outbox::create_table(&mut connection)
        .await
        .expect("the table is created");
    sqlx::query("CREATE TABLE ledger (id TEXT PRIMARY KEY)")
        .execute(&mut *connection)
        .await
        .expect("the table is created");
}

/// Writes until this many transactions have ended, one way or another; every third is rolled back.
async fn write(pool: &PgPool, writer: usize, transactions: usize) -> usize {
    for number in 0..transactions {
        let number = number * WRITERS + writer;
        // A transaction that the kill cut off is not tried again: what matters is whether it committed.
        drop(transaction(pool, number).await);
    }
    transactions
}

async fn transaction(pool: &PgPool, number: usize) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    sqlx::query("INSERT INTO ledger VALUES ($1)")
        .bind(number.to_string())
        .execute(&mut *transaction)
        .await?;
    match outbox::enqueue(&mut *transaction, &event(number)).await {
        Ok(()) => {}
        Err(outbox::OutboxFault::Database(fault)) => return Err(fault),
        Err(fault) => panic!("{fault}"),
    }
    if number.is_multiple_of(3) {
        transaction.rollback().await
    } else {
        transaction.commit().await
    }
}

async fn committed(pool: &PgPool) -> BTreeSet<String> {
    let ids: Vec<String> = sqlx::query_scalar("SELECT id FROM ledger")
        .fetch_all(pool)
        .await
        .expect("the database is there");
    ids.into_iter().collect()
}

/// How often each event is in the queue. Nothing takes events from it.
async fn published(broker: &Broker, queue: &str) -> HashMap<String, usize> {
    let stored = broker.peek(queue, 100_000).await;
    let mut published = HashMap::new();
    for envelope in stored.expect("the broker is there") {
        let decoded = decode_event(&envelope, None, &EventLimits::default());
        let id = decoded.expect("an event").event.id;
        *published.entry(id).or_default() += 1;
    }
    published
}
