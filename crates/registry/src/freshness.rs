//! Keeps the current snapshot close behind the store, and outlives the store.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use fanfare_model::{Clock, Timestamp};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{Registry, RegistryFault, Snapshot, file};

/// The current snapshot, shared by everyone who decides by it. Cheap to clone.
#[derive(Clone, Default)]
pub struct Snapshots(Arc<Shared>);

#[derive(Default)]
struct Shared {
    current: ArcSwapOption<Snapshot>,
    version: watch::Sender<Option<u64>>,
    refreshed_at: Mutex<Option<Timestamp>>,
    nudge: Notify,
}

impl Snapshots {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The current snapshot. `None` means that nothing is known, which is not the same as an empty one.
    pub fn current(&self) -> Option<Arc<Snapshot>> {
        self.0.current.load_full()
    }

    /// The version of the current snapshot.
    pub fn version(&self) -> Option<u64> {
        *self.0.version.borrow()
    }

    /// When the current snapshot was last known to be what the store holds.
    pub fn last_refreshed(&self) -> Option<Timestamp> {
        *self.refreshed_at()
    }

    /// Waits until there is a snapshot, and returns it.
    pub async fn wait_until_known(&self) -> Arc<Snapshot> {
        self.wait_for_version(0).await
    }

    /// Waits until the snapshot is at least of this version, and returns it. Nudge first to wait briefly.
    pub async fn wait_for_version(&self, version: u64) -> Arc<Snapshot> {
        let mut known = self.0.version.subscribe();
        known
            .wait_for(|known| *known >= Some(version))
            .await
            .expect("the sender is held by `self`");
        self.current()
            .expect("a version is announced after its snapshot, and none is ever taken away")
    }

    /// Asks for a refresh now. Several nudges at once are one.
    pub fn nudge(&self) {
        self.0.nudge.notify_one();
    }

    /// Makes `snapshot` the current one, as the store held it at `refreshed_at`.
    pub fn replace(&self, snapshot: Snapshot, refreshed_at: Timestamp) {
        let version = snapshot.version();
        self.0.current.store(Some(Arc::new(snapshot)));
        *self.refreshed_at() = Some(refreshed_at);
        self.0.version.send_replace(Some(version));
    }

    fn confirm(&self, refreshed_at: Timestamp) {
        *self.refreshed_at() = Some(refreshed_at);
    }

    fn refreshed_at(&self) -> std::sync::MutexGuard<'_, Option<Timestamp>> {
        self.0
            .refreshed_at
            .lock()
            .expect("nobody panics while holding a timestamp")
    }
}

/// Keeps `snapshots` fresh until `shutdown`: on a nudge, and on the period of the registry's settings.
///
/// While the store is away the last snapshot stays current; at a start without it, the snapshot file
/// serves until the store answers. The store never ends this: it is asked again for as long as it takes.
pub async fn keep_fresh(
    registry: Registry,
    snapshots: Snapshots,
    clock: Clock,
    shutdown: CancellationToken,
) {
    let keeper = Keeper {
        registry,
        snapshots,
        clock,
        stored_version: None,
        file: FileState::Current,
    };
    shutdown.run_until_cancelled(keeper.run()).await;
}

struct Keeper {
    registry: Registry,
    snapshots: Snapshots,
    clock: Clock,
    /// The version that was last read from the store itself, not from the file.
    stored_version: Option<u64>,
    file: FileState,
}

/// How the snapshot file compares with what was last read from the store.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FileState {
    Current,
    Outdated,
    /// Outdated, and the fault has been logged.
    Failing,
}

impl Keeper {
    async fn run(mut self) -> Infallible {
        let mut failures = 0;
        loop {
            let started = Instant::now();
            match self.refresh().await {
                Ok(()) if failures > 0 => {
                    tracing::info!("the registry store is back");
                    failures = 0;
                }
                Ok(()) => {}
                Err(fault) => {
                    if failures == 0 {
                        log_loss(&fault);
                        self.start_from_file().await;
                    }
                    failures += 1;
                }
            }
            self.save().await;

            // A large registry under constant change costs half a core at most.
            sleep(started.elapsed()).await;
            let period = self.registry.settings().refresh_every;
            tokio::select! {
                () = self.snapshots.0.nudge.notified() => {}
                () = sleep(pause(period, failures, rand::random())) => {}
            }
        }
    }

    /// `Ok` means that the current snapshot is what the store holds.
    async fn refresh(&mut self) -> Result<(), RegistryFault> {
        let now = self.clock.now();
        let version = self.registry.version().await?;
        if self.stored_version == Some(version) {
            self.snapshots.confirm(now);
            return Ok(());
        }
        // Any other version is taken, also an older one: a restored backup is the truth from now on.
        let snapshot = self.registry.load(self.snapshots.current()).await?;
        self.stored_version = Some(snapshot.version());
        if self.file == FileState::Current {
            self.file = FileState::Outdated;
        }
        tracing::debug!(
            registry.version = snapshot.version(),
            registry.endpoints = snapshot.len(),
            "read the registry"
        );
        self.snapshots.replace(snapshot, now);
        Ok(())
    }

    /// Makes the snapshot file current if nothing is known yet.
    async fn start_from_file(&self) {
        if self.snapshots.current().is_some() {
            return;
        }
        let Some(path) = self.registry.settings().snapshot_file.clone() else {
            return;
        };
        let cipher = self.registry.cipher().clone();
        let read = tokio::task::spawn_blocking(move || file::read(&path, &cipher)).await;
        match read.expect("reading the snapshot file does not panic") {
            Ok((snapshot, taken_at)) => {
                tracing::warn!(
                    registry.version = snapshot.version(),
                    registry.endpoints = snapshot.len(),
                    "starting from the snapshot file, written {:#} ago",
                    self.clock.now().duration_since(taken_at)
                );
                self.snapshots.replace(snapshot, taken_at);
            }
            Err(fault) => {
                let error = &fault as &dyn std::error::Error;
                tracing::warn!(error, "there is no snapshot file to start from");
            }
        }
    }

    /// Brings the snapshot file up to date. A failure is logged once and tried again with each refresh.
    async fn save(&mut self) {
        if self.file == FileState::Current {
            return;
        }
        let Some(path) = self.registry.settings().snapshot_file.clone() else {
            return;
        };
        let (Some(snapshot), Some(taken_at)) =
            (self.snapshots.current(), self.snapshots.last_refreshed())
        else {
            return;
        };
        let cipher = self.registry.cipher().clone();
        let write = move || file::write(&path, &cipher, &snapshot, taken_at);
        let written = tokio::task::spawn_blocking(write).await;
        match written.expect("writing the snapshot file does not panic") {
            Ok(()) => self.file = FileState::Current,
            Err(fault) => {
                if self.file == FileState::Outdated {
                    let error = &fault as &dyn std::error::Error;
                    tracing::warn!(
                        error,
                        "the snapshot file is not up to date: a start without the store would use an old one"
                    );
                }
                self.file = FileState::Failing;
            }
        }
    }
}

fn log_loss(fault: &RegistryFault) {
    let error = fault as &dyn std::error::Error;
    if fault.is_transient() {
        tracing::warn!(
            error,
            "the registry store is lost: asking again until it is back"
        );
    } else {
        tracing::error!(
            error,
            "the registry store cannot be used: asking again until it can"
        );
    }
}

/// The longest wait between two questions to a store that is away.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How long to wait before the store is asked again: the period, doubled with each failure in a row.
///
/// Up to a fifth is taken off by chance, so that the processes of a fleet do not ask together.
fn pause(period: Duration, failures: u32, chance: f64) -> Duration {
    let longest = period.max(LONGEST_PAUSE);
    let doubled = period.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX));
    doubled.min(longest).mul_f64(1.0 - chance / 5.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(failures: u32, chance: f64, expected: Duration) {
        let period = Duration::from_secs(5);
        assert_eq!(
            pause(period, failures, chance),
            expected,
            "{failures} {chance}"
        );
    }

    #[test]
    fn the_pause_doubles_up_to_its_bound_and_is_only_ever_shortened_by_chance() {
        check(0, 0.0, Duration::from_secs(5));
        check(0, 1.0, Duration::from_secs(4));
        check(1, 0.0, Duration::from_secs(10));
        check(2, 0.5, Duration::from_secs(18));
        check(3, 0.0, LONGEST_PAUSE);
        check(u32::MAX, 0.0, LONGEST_PAUSE);
        let hour = Duration::from_secs(3600);
        assert_eq!(pause(hour, 0, 0.0), hour);
    }
}
