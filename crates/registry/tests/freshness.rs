//! Snapshots follow the store, and outlive it.

#![allow(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::{
    future::Future,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use fanfare_model::{Clock, Endpoint, Secret, Timestamp};
use fanfare_registry::{NewEndpoint, Registry, Settings, Snapshots, keep_fresh};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long a fact may take to come about. Only a fault of ours ever waits that long.
const LONG: Duration = Duration::from_secs(30);

/// A period that never ends within a test: only nudges refresh.
const NEVER: Duration = Duration::from_secs(3600);

fn settings(folder: &Path, refresh_every: Duration) -> Settings {
    Settings {
        database: folder.join("data/fanfare.db").into(),
        snapshot_file: Some(folder.join("snapshot")),
        encryption_key: Some(Secret::new("a".repeat(64))),
        refresh_every,
        ..Settings::default()
    }
}

fn path(settings: &Settings) -> &Path {
    settings.database.sqlite_file().unwrap()
}

/// [`keep_fresh`] at work, with a clock that moves on by a second with each refresh.
struct Running {
    registry: Registry,
    snapshots: Snapshots,
    ticks: Arc<AtomicI64>,
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

impl Running {
    fn start(settings: &Settings) -> Self {
        let (registry, snapshots) = (Registry::connect(settings).unwrap(), Snapshots::new());
        let (ticks, shutdown) = (Arc::new(AtomicI64::new(0)), CancellationToken::new());
        let ticking = Arc::clone(&ticks);
        let clock = Clock::new(move || {
            Timestamp::from_second(ticking.fetch_add(1, Ordering::SeqCst)).unwrap()
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(keep_fresh(
            registry.clone(),
            snapshots.clone(),
            clock,
            shutdown.clone(),
        ));
        Self {
            registry,
            snapshots,
            ticks,
            shutdown,
            tasks,
        }
    }

    async fn create(&self) -> Endpoint {
        let new = NewEndpoint::new(
            "t".parse().unwrap(),
            "https://example.com/".parse().unwrap(),
            vec!["*".parse().unwrap()],
        );
        let created = self
            .registry
            .create_endpoint(new, "tester", Timestamp::UNIX_EPOCH);
        created.await.unwrap()
    }

    /// Nudges until at least one refresh has begun and ended.
    async fn refresh(&self) {
        let before = self.ticks.load(Ordering::SeqCst);
        eventually(|| {
            self.snapshots.nudge();
            // The third one begins after the second has ended, which began after the nudge.
            self.ticks.load(Ordering::SeqCst) >= before + 3
        })
        .await;
    }

    async fn stop(mut self) {
        self.shutdown.cancel();
        within(self.tasks.join_next()).await.unwrap().unwrap();
        self.registry.close().await;
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future)
        .await
        .expect("it never came to be")
}

async fn eventually(mut holds: impl FnMut() -> bool) {
    within(async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn execute(settings: &Settings, statement: &'static str) {
    let options = SqliteConnectOptions::new().filename(path(settings));
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query(statement)
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

/// Leaves a snapshot file with one endpoint behind, and no database.
async fn file_without_store(settings: &Settings) -> Endpoint {
    let running = Running::start(settings);
    let endpoint = running.create().await;
    running.snapshots.nudge();
    within(running.snapshots.wait_for_version(1)).await;
    // The file is written before the next refresh begins.
    running.refresh().await;
    running.stop().await;
    let data = path(settings).parent().unwrap();
    std::fs::remove_dir_all(data).unwrap();
    std::fs::write(data, "in the way").unwrap();
    endpoint
}

#[tokio::test]
async fn an_empty_store_is_believed() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(&settings(folder.path(), NEVER));
    let snapshot = within(running.snapshots.wait_until_known()).await;
    assert!(snapshot.is_empty());
    assert_eq!(running.snapshots.version(), Some(0));
    running.stop().await;
}

#[tokio::test]
async fn a_nudge_brings_a_change_and_a_refresh_without_one_confirms() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(&settings(folder.path(), NEVER));
    within(running.snapshots.wait_until_known()).await;
    let endpoint = running.create().await;
    running.snapshots.nudge();
    let snapshot = within(running.snapshots.wait_for_version(1)).await;
    assert_eq!(&**snapshot.endpoint(endpoint.id).unwrap(), &endpoint);

    let known = running.snapshots.last_refreshed();
    running.refresh().await;
    assert!(running.snapshots.last_refreshed() > known);
    let unchanged = running.snapshots.current().unwrap();
    assert!(Arc::ptr_eq(&snapshot, &unchanged));
    running.stop().await;
}

#[tokio::test]
async fn a_change_is_noticed_without_a_nudge() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(&settings(folder.path(), Duration::from_millis(100)));
    within(running.snapshots.wait_until_known()).await;
    running.create().await;
    within(running.snapshots.wait_for_version(1)).await;
    running.stop().await;
}

#[tokio::test]
async fn without_store_and_file_nothing_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), NEVER);
    std::fs::write(path(&settings).parent().unwrap(), "in the way").unwrap();
    let running = Running::start(&settings);
    running.refresh().await;
    assert!(running.snapshots.current().is_none());
    assert_eq!(running.snapshots.last_refreshed(), None);
    running.stop().await;
}

#[tokio::test]
async fn a_start_without_the_store_uses_the_file_until_the_store_answers() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), NEVER);
    let endpoint = file_without_store(&settings).await;

    let running = Running::start(&settings);
    let snapshot = within(running.snapshots.wait_until_known()).await;
    assert_eq!((snapshot.version(), snapshot.len()), (1, 1));
    assert_eq!(&**snapshot.endpoint(endpoint.id).unwrap(), &endpoint);
    running.refresh().await;
    assert_eq!(running.snapshots.version(), Some(1));

    // The store that comes back is older and empty, and nevertheless the truth.
    std::fs::remove_file(path(&settings).parent().unwrap()).unwrap();
    running.refresh().await;
    let snapshot = running.snapshots.current().unwrap();
    assert_eq!((snapshot.version(), snapshot.len()), (0, 0));
    running.stop().await;
}

#[tokio::test]
async fn a_tampered_file_is_as_good_as_none() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), NEVER);
    file_without_store(&settings).await;
    let path = settings.snapshot_file.as_ref().unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(path, bytes).unwrap();

    let running = Running::start(&settings);
    running.refresh().await;
    assert!(running.snapshots.current().is_none());
    running.stop().await;
}

#[tokio::test]
async fn a_store_lost_on_the_way_leaves_the_last_snapshot_and_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), NEVER);
    let running = Running::start(&settings);
    running.create().await;
    running.snapshots.nudge();
    within(running.snapshots.wait_for_version(1)).await;

    execute(&settings, "ALTER TABLE registry_meta RENAME TO elsewhere").await;
    running.refresh().await;
    let known = running.snapshots.last_refreshed();
    running.refresh().await;
    assert_eq!(running.snapshots.version(), Some(1));
    assert_eq!(running.snapshots.last_refreshed(), known);

    execute(&settings, "ALTER TABLE elsewhere RENAME TO registry_meta").await;
    running.create().await;
    running.snapshots.nudge();
    within(running.snapshots.wait_for_version(2)).await;
    running.stop().await;
}
