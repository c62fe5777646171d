//! The index follows what happens to dead letters, and is set right by the queue.

use std::time::Duration;

use fanfare_broker::{JournalSettings, JournalWriter, Place};
use fanfare_deadletters::{
    Action, DeadLettersFault, Filter, GroupBy, Reindexed, Seen, View, reindex,
};
use fanfare_journal::{History, Recorder, record_journal};
use fanfare_model::{DeadLetterReason, DeliveryId};
use fanfare_testkit::{Version, eventually, wall_clock};
use fanfare_wire::encode_dead_letter;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::{Office, PATIENCE, endpoint, letter, letters, on_every_version};

on_every_version!(
    the_index_follows_replays_and_discards,
    reindexing_makes_the_index_as_the_queue_is,
);

const PLACE: Place = Place::DeadLetters;

/// An office with a journal, a recorder and an index.
struct Indexed {
    office: Office,
    history: History,
    recording: JoinSet<()>,
    stop: CancellationToken,
    _home: TempDir,
}

impl Indexed {
    async fn open(version: Version) -> Self {
        let mut office = Office::open(version).await;
        let home = TempDir::new().unwrap();
        let settings = fanfare_journal::Settings {
            database: home.path().join("history.db").into(),
            ..fanfare_journal::Settings::default()
        };
        let history = History::open(&settings).await.unwrap();
        let meter = opentelemetry::global::meter("tests");
        let (broker, clock) = (&office.broker, wall_clock());
        let journal = JournalSettings::default();
        office.journal =
            JournalWriter::start(broker, &journal, "operator", "tests", clock.clone(), &meter);
        let recorder = Recorder::new(broker, history.clone(), settings, clock, &meter);
        let (mut recording, stop) = (JoinSet::new(), CancellationToken::new());
        recording.spawn(record_journal(recorder, stop.clone()));
        Self {
            office,
            history,
            recording,
            stop,
            _home: home,
        }
    }

    fn view(&self) -> View {
        self.office.view(100_000).indexed_by(self.history.clone())
    }

    async fn reindex(&self) -> Reindexed {
        let (broker, clock) = (&self.office.broker, wall_clock());
        let done = reindex(broker, &self.history, &clock, &mut |_| {}).await;
        done.unwrap().expect("nobody else passes over the queue")
    }

    /// Waits until the index has this many dead letters.
    async fn expect(&self, letters: u64) {
        let what = format!("{letters} dead letters in the index");
        eventually(PATIENCE, &what, async || {
            let counted = self.view().count(PLACE, &Filter::default()).await.ok()?;
            let is_indexed = matches!(counted.seen, Seen::Index { .. });
            (is_indexed && counted.found == letters).then_some(())
        })
        .await;
    }

    async fn close(mut self) {
        self.office.journal.close(Duration::from_secs(5)).await;
        self.stop.cancel();
        while self.recording.join_next().await.is_some() {}
        self.office.broker.close().await;
        self.history.close().await;
    }
}

async fn the_index_follows_replays_and_discards(version: Version) {
    let indexed = Indexed::open(version).await;
    let (office, view) = (&indexed.office, indexed.view());
    office.bury(letters(300, 3)).await;
    // Before anything is recorded, the queue tells.
    let counted = view.count(PLACE, &Filter::default()).await.unwrap();
    assert_eq!(counted.found, 300);
    assert!(matches!(counted.seen, Seen::Queue { .. }));
    let done = indexed.reindex().await;
    assert_eq!((done.in_queue, done.entered, done.dropped), (300, 300, 0));

    let of_one = Filter {
        endpoint: Some(endpoint(1)),
        ..Filter::default()
    };
    office.carry_out(PLACE, Action::Replay, of_one).await;
    let some = Filter {
        ids: letters(3, 3)
            .iter()
            .map(|one| one.delivery.id.to_string())
            .collect(),
        ..Filter::default()
    };
    office.carry_out(PLACE, Action::Discard, some).await;
    indexed.expect(198).await;
    the_index_shows_what_the_queue_shows(&indexed).await;
    indexed.close().await;
}

async fn the_index_shows_what_the_queue_shows(indexed: &Indexed) {
    let (view, queue) = (indexed.view(), indexed.office.view(1000));
    let (by, now) = ([GroupBy::Endpoint, GroupBy::Age], wall_clock().now());
    let groups = async |view: &View| {
        let looked = view
            .group(PLACE, &Filter::default(), &by, now)
            .await
            .unwrap();
        let in_queue = match looked.seen {
            Seen::Index { in_queue, .. } => in_queue,
            Seen::Queue { .. } => None,
        };
        let found = looked.found.into_iter();
        let mut shown: Vec<_> = found.map(|group| (group.by, group.count)).collect();
        shown.sort_unstable();
        (in_queue, shown)
    };
    let (in_queue, shown) = groups(&view).await;
    assert_eq!(in_queue, Some(198));
    assert_eq!(shown, groups(&queue).await.1);

    let list = async |view: &View| {
        let looked = view
            .list(PLACE, &Filter::default(), None, 10)
            .await
            .unwrap();
        let shown = looked.found.into_iter();
        shown
            .map(|one| (one.since, one.id, one.attempts, one.last_status))
            .collect::<Vec<_>>()
    };
    let listed = list(&view).await;
    assert_eq!(listed, list(&queue).await);
    // The history has no data of it, and the queue has.
    let found = view.find(PLACE, &listed[0].1).await.unwrap().found.unwrap();
    assert_eq!(&*found.data, b"{\"n\":1}");
}

async fn reindexing_makes_the_index_as_the_queue_is(version: Version) {
    let indexed = Indexed::open(version).await;
    let office = &indexed.office;
    office.bury(letters(30, 3)).await;
    assert_eq!(indexed.reindex().await.entered, 30);
    // Somebody takes messages out by other means, and one fails again that nobody told of.
    let plain = fanfare_testkit::PlainAmqp::connect(office.host.url()).await;
    let queue = office.broker.topology().queue_of(PLACE);
    let mut lost: Vec<DeliveryId> = Vec::new();
    for _ in 0..2 {
        let taken = plain.get(&queue).await.unwrap();
        lost.push(taken.headers["x-fanfare-delivery"].parse().unwrap());
    }
    let again = letter(1000, endpoint(9), DeadLetterReason::Gone);
    let address = office.broker.topology().dead_address();
    let publisher = office.broker.publisher();
    publisher
        .publish(&address, encode_dead_letter(&again))
        .await
        .unwrap();
    office.expect_depth(PLACE, 29).await;

    let done = indexed.reindex().await;
    assert_eq!((done.in_queue, done.entered, done.dropped), (29, 1, 2));
    let done = indexed.reindex().await;
    assert_eq!((done.entered, done.dropped), (0, 0));
    let letters = indexed
        .history
        .letters(&Default::default(), None, 100)
        .await
        .unwrap();
    assert_eq!(letters.len(), 29);
    assert!(
        letters
            .iter()
            .all(|letter| !lost.contains(&letter.delivery.id))
    );

    // Nobody sets it right while somebody passes over the queue.
    let pass = office.broker.pass_over(PLACE).await.unwrap().unwrap();
    let (broker, clock) = (&office.broker, wall_clock());
    let busy: Result<_, DeadLettersFault> =
        reindex(broker, &indexed.history, &clock, &mut |_| {}).await;
    assert_eq!(busy.unwrap(), None);
    pass.close().await.unwrap();
    indexed.close().await;
}
