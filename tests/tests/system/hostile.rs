//! Receivers that mean harm: each gets its stated outcome, and none gets memory, time or its neighbours'.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fanfare_model::Schedule;
use fanfare_testkit::{PlainAmqp, Receiver, TestBroker, Version, eventually};
use fanfare_tests::{PATIENCE, Pipeline, on_each_rabbitmq};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time,
};

use crate::delivery::event;

on_each_rabbitmq!(hostile_receivers_get_their_outcome_and_nothing_else);

/// What sockets and the client may have taken in of an answer without an end, for each connection.
const MOST_TAKEN: u64 = 16 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Malice {
    NeverAnswers,
    OneByteASecond,
    EndlessHeaders,
    Gigabyte,
    GzipBomb,
    Resets,
    RetryInThirtyYears,
}

const ALL: [Malice; 7] = [
    Malice::NeverAnswers,
    Malice::OneByteASecond,
    Malice::EndlessHeaders,
    Malice::Gigabyte,
    Malice::GzipBomb,
    Malice::Resets,
    Malice::RetryInThirtyYears,
];

impl Malice {
    /// One attempt, and a second one where it is the time until then that matters.
    fn schedule(self) -> Vec<u64> {
        if self == Self::RetryInThirtyYears {
            vec![0, 1]
        } else {
            vec![0]
        }
    }
}

/// A hostile receiver, and how much of its answers was taken in all.
struct Hostile {
    url: String,
    taken: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
    _serving: JoinSet<()>,
}

impl Hostile {
    async fn start(malice: Malice) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let (taken, connections) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut serving = JoinSet::new();
        let (counted, opened) = (Arc::clone(&taken), Arc::clone(&connections));
        serving.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                opened.fetch_add(1, Ordering::Relaxed);
                let taken = Arc::clone(&counted);
                // The end of a connection is what is wanted.
                open.spawn(async move { drop(harm(malice, stream, &taken).await) });
            }
        });
        Self {
            url,
            taken,
            connections,
            _serving: serving,
        }
    }
}

async fn harm(malice: Malice, mut stream: TcpStream, taken: &AtomicU64) -> io::Result<()> {
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\n";
    let mut request = [0; 4096];
    if malice == Malice::Resets {
        // Closing with something unread resets the connection.
        stream.read_exact(&mut request[..1]).await?;
        return Ok(());
    }
    if stream.read(&mut request).await? == 0 {
        return Ok(());
    }
    let zeros = vec![0; 64 << 10];
    let (begin, again, pause): (&[u8], &[u8], Duration) = match malice {
        Malice::NeverAnswers | Malice::Resets => (b"", b"", Duration::from_secs(1)),
        Malice::OneByteASecond => (OK, b"x", Duration::from_secs(1)),
        Malice::EndlessHeaders => (OK, b"x-more: and more\r\n", Duration::ZERO),
        Malice::Gigabyte => (
            b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n",
            &zeros,
            Duration::ZERO,
        ),
        // Ten bytes that begin a gzip stream; whoever inflated it would have to read on.
        Malice::GzipBomb => (
            b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n\x1f\x8b\x08\0\0\0\0\0\0\xff",
            &zeros,
            Duration::ZERO,
        ),
        Malice::RetryInThirtyYears => (
            b"HTTP/1.1 503 No\r\nretry-after: 999999999\r\ncontent-length: 0\r\n\r\n",
            b"",
            Duration::from_secs(1),
        ),
    };
    stream.write_all(begin).await?;
    loop {
        stream.write_all(again).await?;
        taken.fetch_add(again.len() as u64, Ordering::Relaxed);
        time::sleep(pause).await;
    }
}

async fn hostile_receivers_get_their_outcome_and_nothing_else(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    let mut hostile = BTreeMap::new();
    for malice in ALL {
        let receiver = Hostile::start(malice).await;
        let name = format!("{malice:?}").to_lowercase();
        let (wants, schedule) = ([name.as_str()], malice.schedule());
        let endpoint = pipeline
            .register("t", &receiver.url, &wants, |new| {
                new.timeout = Duration::from_secs(1);
                new.schedule = Schedule::from_seconds(schedule).unwrap();
            })
            .await;
        hostile.insert(endpoint.id.to_string(), (malice, receiver));
    }
    pipeline
        .register("t", &receiver.url("/healthy"), &["healthy"], |_| {})
        .await;
    let amqp = pipeline.plain_amqp().await;
    for number in 0..5 {
        for (malice, _) in hostile.values() {
            let name = format!("{malice:?}").to_lowercase();
            let event = event(&format!("{name}-{number}"), &name);
            amqp.publish_event(&format!("t.{name}"), &event).await;
        }
        let event = event(&format!("healthy-{number}"), "healthy");
        amqp.publish_event("t.healthy", &event).await;
    }
    receiver.expect_requests(5, PATIENCE).await;
    expect_letters(&amqp, &hostile).await;
    // Those of whom peace was asked wait for a day, not for thirty years; they may share messages.
    eventually(PATIENCE, "a wait of a day", async || {
        let waiting = amqp.depth("fanfare.delay.28800s").await?;
        (1..=5).contains(&waiting).then_some(())
    })
    .await;
    for (malice, receiver) in hostile.values() {
        let taken = receiver.taken.load(Ordering::Relaxed);
        let connections = receiver.connections.load(Ordering::Relaxed);
        assert!((1..=5).contains(&connections), "{malice:?}: {connections}");
        assert!(
            taken <= connections * MOST_TAKEN,
            "{malice:?}: {taken} bytes over {connections} connections"
        );
    }
    pipeline.stop().await;
}

/// Five deliveries each that failed for good; the others count as delivered by their status.
async fn expect_letters(amqp: &PlainAmqp, hostile: &BTreeMap<String, (Malice, Hostile)>) {
    let expected = BTreeMap::from([
        ("NeverAnswers", "did not answer in time"),
        ("OneByteASecond", "did not answer in time"),
        ("EndlessHeaders", ""),
        ("Resets", ""),
    ]);
    let mut letters: BTreeMap<String, Vec<String>> = BTreeMap::new();
    eventually(PATIENCE, "dead letters of all that failed", async || {
        while let Some(letter) = amqp.get("fanfare.dead-letters").await {
            let (malice, _) = &hostile[&letter.headers["x-fanfare-endpoint"]];
            assert_eq!(letter.headers["x-fanfare-reason"], "exhausted");
            let error = letter.headers["x-fanfare-last-error"].clone();
            letters
                .entry(format!("{malice:?}"))
                .or_default()
                .push(error);
        }
        let many = |name: &&str| letters.get(*name).map_or(0, Vec::len);
        expected.keys().all(|name| many(name) == 5).then_some(())
    })
    .await;
    for (name, errors) in &letters {
        let text = expected.get(name.as_str());
        let text = text.unwrap_or_else(|| panic!("dead letters of {name}: {errors:?}"));
        assert!(
            errors.iter().all(|e| e.contains(text)),
            "{name}: {errors:?}"
        );
    }
}
