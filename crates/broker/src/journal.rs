//! Writes the journal: what happened, in numbered batches, beside the deliveries and never on their path.
//!
//! What is written waits in a buffer with a bound. One task sends it, a batch at a time: the next one leaves
//! when the last is confirmed, so batches arrive in order. What finds no room is counted, and the next
//! batch tells how much that was.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use fanfare_model::{
    ActedDelivery, AttemptRecord, Clock, Delivery, Event, HandledDelivery, JournalBatch,
    JournalEntry, JournalWriterId, JournalledAttempts, OwedDelivery, RoutedEvent, Settlement,
    TraceContext,
};
use fanfare_wire::encode_journal_batch;
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, watch},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{Broker, PublishFault, Publisher, Topology};

/// How long whoever waits for a confirm waits at most. After that the journal counts as stalled, and nobody
/// waits for it until it confirms again.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How long entries that nobody waits for gather, so that batches are few.
const GATHERING: Duration = Duration::from_millis(200);

/// The same for entries of events, which wait for the confirm in hand and hold up no delivery by it.
const GATHERING_EVENTS: Duration = Duration::from_millis(50);

/// What a batch holds at most. A larger one would save nothing, and be slow to read.
const BATCH_ENTRIES: usize = 500;
const BATCH_BYTES: usize = 512 * 1024;

/// A writer with nothing to say says so this often, so that its death is noticed.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);

/// What an entry takes beside its event, roughly.
const ENTRY_BYTES: usize = 400;

/// The `[journal]` section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct JournalSettings {
    /// Whether what is routed and attempted is written to the journal. Without it there is no history.
    pub enabled: bool,
    /// Which attempts are written: `all`, `failures` (of the others, that they succeeded), or `none` (whether a delivery succeeded is then unknown).
    pub attempts: JournalledAttempts,
    /// How many bytes of data an event may have to be kept with it; 0 keeps no data. What is not kept cannot be replayed from history.
    pub event_data_bytes: u64,
    /// How many bytes may wait to be written, per role. What finds no room is missing from history, and counted.
    pub buffer_bytes: u64,
}

impl Default for JournalSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            attempts: JournalledAttempts::All,
            event_data_bytes: 262_144,
            buffer_bytes: 32 << 20,
        }
    }
}

/// Writes to the journal. Cheap to clone; the clones are one.
#[derive(Clone)]
pub struct JournalWriter(Option<Arc<Inner>>);

struct Inner {
    settings: JournalSettings,
    id: JournalWriterId,
    clock: Clock,
    publisher: Publisher,
    topology: Arc<Topology>,
    buffer: Mutex<Buffer>,
    wake: Notify,
    progress: watch::Sender<Progress>,
    ended: CancellationToken,
    metrics: Metrics,
}

#[derive(Default)]
struct Buffer {
    entries: VecDeque<(JournalEntry, usize)>,
    bytes: usize,
    /// Counts the entries that were accepted, ever.
    accepted: u64,
    /// What found no room since the last batch was made.
    dropped: u64,
    /// When what is in here has gathered long enough.
    due: Option<Instant>,
    is_closed: bool,
}

/// How far the broker has confirmed.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// The broker has heard of the writer.
    has_begun: bool,
    confirmed: u64,
    is_stalled: bool,
}

impl JournalWriter {
    /// One that writes nothing.
    pub fn off() -> Self {
        Self(None)
    }

    /// Starts to write for a role of this process. `process` stays the same when it restarts; two that
    /// run at once should differ.
    pub fn start(
        broker: &Broker,
        settings: &JournalSettings,
        role: &str,
        process: &str,
        clock: Clock,
        meter: &Meter,
    ) -> Self {
        if !settings.enabled {
            return Self::off();
        }
        let epoch = clock.now().as_microsecond().unsigned_abs();
        let inner = Arc::new(Inner {
            settings: settings.clone(),
            id: JournalWriterId {
                name: format!("{role} {process}"),
                epoch,
            },
            clock,
            publisher: broker.publisher(),
            topology: Arc::clone(broker.topology()),
            buffer: Mutex::default(),
            wake: Notify::new(),
            progress: watch::Sender::new(Progress::default()),
            ended: CancellationToken::new(),
            metrics: Metrics::new(meter, role),
        });
        broker.spawn_until_closing(Arc::clone(&inner).write_until_closed());
        Self(Some(inner))
    }

    /// Writes a first batch at once, and waits until the broker has it, so that the writer's death will be noticed
    /// whatever it told before: five seconds at most.
    pub async fn begun(&self) {
        let Some(inner) = &self.0 else { return };
        inner.buffer().due = Some(Instant::now());
        inner.wake.notify_one();
        let mut progress = inner.progress.subscribe();
        let decided = progress.wait_for(|progress| progress.has_begun || progress.is_stalled);
        // A writer that ended before it began has said so.
        _ = decided.await;
    }

    /// Whether deliveries that succeed are told of.
    pub fn tells_of_success(&self) -> bool {
        self.attempts() != JournalledAttempts::None
    }

    fn attempts(&self) -> JournalledAttempts {
        let inner = self.0.as_ref();
        inner.map_or(JournalledAttempts::None, |inner| inner.settings.attempts)
    }

    /// Writes that an event was routed, and waits until the broker has it: five seconds at most, and not at
    /// all while the journal is stalled.
    pub async fn routed(&self, event: &Arc<Event>, trace: &TraceContext, owed: Vec<OwedDelivery>) {
        let Some(inner) = &self.0 else { return };
        let kept = usize::try_from(inner.settings.event_data_bytes).unwrap_or(usize::MAX);
        let data = event.data.as_ref().map_or(0, |data| data.len());
        let data_left_out = data > kept;
        let event = if data_left_out {
            Arc::new(Event {
                data: None,
                ..Event::clone(event)
            })
        } else {
            Arc::clone(event)
        };
        let entry = JournalEntry::Routed(RoutedEvent {
            data_left_out,
            at: inner.clock.now(),
            trace_id: trace.trace_id().map(str::to_owned),
            owed,
            event,
        });
        if !inner.write_and_wait([entry], GATHERING_EVENTS).await {
            inner.metrics.unconfirmed();
        }
    }

    /// Writes what people or rules did with deliveries, and waits until the broker has it, as
    /// [`JournalWriter::routed`] does.
    pub async fn acted(&self, acted: Vec<ActedDelivery>) {
        let Some(inner) = &self.0 else { return };
        let entries = acted.into_iter().map(JournalEntry::Acted);
        // They are all that come: whoever tells waits before going on.
        if !inner.write_and_wait(entries, Duration::ZERO).await {
            inner.metrics.unconfirmed();
        }
    }

    /// What is to be written of a delivery once its settlement is carried out, as far as the settings want it.
    pub fn told(
        &self,
        delivery: &Delivery,
        settlement: &Settlement,
        attempt: Option<AttemptRecord>,
    ) -> Option<JournalEntry> {
        let (kept, now) = (self.attempts(), self.0.as_ref()?.clock.now());
        HandledDelivery::of(delivery, settlement, attempt, kept, now).map(JournalEntry::Handled)
    }

    /// Writes what is to be written. Never waits.
    pub fn tell(&self, told: Option<JournalEntry>) {
        if let Some(entry) = told {
            self.write(entry);
        }
    }

    /// Writes an entry. Never waits.
    pub fn write(&self, entry: JournalEntry) {
        if let Some(inner) = &self.0 {
            inner.accept(entry, GATHERING);
        }
    }

    /// Sends what is left, says that this was the last, and ends: within that time, or not at all.
    pub async fn close(&self, within: Duration) {
        let Some(inner) = &self.0 else { return };
        inner.buffer().is_closed = true;
        inner.wake.notify_one();
        // Where nothing was confirmed for seconds, a little more waiting brings nothing.
        let is_stalled = inner.progress.borrow().is_stalled;
        let within = if is_stalled { within / 10 } else { within };
        if time::timeout(within, inner.ended.cancelled())
            .await
            .is_err()
        {
            let left = inner.buffer().entries.len();
            warn!(
                left,
                writer = inner.id.name,
                "the journal was not closed in order"
            );
        }
    }
}

impl Inner {
    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        self.buffer
            .lock()
            .expect("nobody panics while holding the journal's buffer")
    }

    /// The number of the entry, if there was room for it.
    fn accept(&self, entry: JournalEntry, gathers: Duration) -> Option<u64> {
        let size = size_of_entry(&entry);
        let most = usize::try_from(self.settings.buffer_bytes).unwrap_or(usize::MAX);
        let mut buffer = self.buffer();
        // One that is larger than the whole buffer goes alone.
        let has_room = buffer.bytes + size <= most || buffer.entries.is_empty();
        if buffer.is_closed || !has_room {
            buffer.dropped += 1;
            drop(buffer);
            self.metrics.dropped(1);
            return None;
        }
        buffer.entries.push_back((entry, size));
        buffer.bytes += size;
        buffer.accepted += 1;
        let due = Instant::now() + gathers;
        let is_sooner = buffer.due.is_none_or(|before| due < before);
        if is_sooner {
            buffer.due = Some(due);
        }
        let count = buffer.entries.len();
        let accepted = buffer.accepted;
        drop(buffer);
        if is_sooner || count == BATCH_ENTRIES {
            self.wake.notify_one();
        }
        Some(accepted)
    }

    /// Whether the broker has all of the entries.
    async fn write_and_wait(
        &self,
        entries: impl IntoIterator<Item = JournalEntry>,
        gather: Duration,
    ) -> bool {
        let mut progress = self.progress.subscribe();
        let mut last = Some(0);
        for entry in entries {
            last = last.and(self.accept(entry, gather));
        }
        let Some(number) = last else {
            return false;
        };
        let decided = |progress: &Progress| progress.confirmed >= number || progress.is_stalled;
        let decided = progress.wait_for(decided).await;
        decided.is_ok_and(|progress| progress.confirmed >= number)
    }

    async fn write_until_closed(self: Arc<Self>) {
        let mut sequence = 0;
        loop {
            let is_closed = self.something_to_say().await;
            let (entries, confirmed, dropped, is_last) = self.take_batch(is_closed);
            sequence += 1;
            let count = entries.len();
            let batch = JournalBatch {
                writer: self.id.clone(),
                sequence,
                written_at: self.clock.now(),
                dropped,
                is_last,
                entries,
            };
            match self.send(&batch).await {
                Ok(()) => {
                    self.metrics.written(count);
                    self.progress.send_replace(Progress {
                        has_begun: true,
                        confirmed,
                        is_stalled: false,
                    });
                }
                Err(fault) => {
                    warn!(%fault, writer = self.id.name, "the journal ends before its end");
                    let stall = |progress: &mut Progress| progress.is_stalled = true;
                    self.progress.send_modify(stall);
                    self.buffer().is_closed = true;
                    break;
                }
            }
            if is_last {
                break;
            }
        }
        self.ended.cancel();
    }

    /// Waits until a batch is worth sending; whether the journal is to be closed.
    async fn something_to_say(&self) -> bool {
        let sign_of_life = Instant::now() + SIGN_OF_LIFE;
        loop {
            let (count, due, is_closed) = {
                let buffer = self.buffer();
                (buffer.entries.len(), buffer.due, buffer.is_closed)
            };
            if is_closed || count >= BATCH_ENTRIES {
                return is_closed;
            }
            let due = due.unwrap_or(sign_of_life);
            // Told of more or not, the next look decides.
            let told = time::timeout_at(due, self.wake.notified()).await;
            if told.is_err() {
                return false;
            }
        }
    }

    /// The next entries, up to which number everything is then taken, what was dropped, and whether it is the last.
    fn take_batch(&self, is_closed: bool) -> (Vec<JournalEntry>, u64, u64, bool) {
        let mut buffer = self.buffer();
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while let Some((_, size)) = buffer.entries.front() {
            bytes += size;
            if entries.len() == BATCH_ENTRIES || (bytes > BATCH_BYTES && !entries.is_empty()) {
                break;
            }
            if let Some((entry, size)) = buffer.entries.pop_front() {
                buffer.bytes -= size;
                entries.push(entry);
            }
        }
        let left = buffer.entries.len();
        let confirmed = buffer.accepted - u64::try_from(left).unwrap_or(u64::MAX);
        // What is left has gathered as long as what is taken.
        buffer.due = buffer.due.filter(|_| left > 0);
        let dropped = std::mem::take(&mut buffer.dropped);
        (entries, confirmed, dropped, is_closed && left == 0)
    }

    /// Publishes a batch, for as long as it takes. Tells those who wait when that is too long for them.
    async fn send(&self, batch: &JournalBatch) -> Result<(), PublishFault> {
        let address = self.topology.journal_address();
        let publishing = self
            .publisher
            .publish_patiently(&address, encode_journal_batch(batch));
        tokio::pin!(publishing);
        if let Ok(published) = time::timeout(LONGEST_WAIT, &mut publishing).await {
            return published;
        }
        warn!(
            writer = self.id.name,
            "the journal is stalled; nobody waits for it meanwhile"
        );
        let stall = |progress: &mut Progress| progress.is_stalled = true;
        self.progress.send_modify(stall);
        let published = publishing.await;
        if published.is_ok() {
            info!(writer = self.id.name, "the journal goes on");
        }
        published
    }
}

fn size_of_entry(entry: &JournalEntry) -> usize {
    match entry {
        JournalEntry::Routed(routed) => {
            ENTRY_BYTES + routed.event.size() + routed.owed.len() * size_of::<OwedDelivery>()
        }
        JournalEntry::Handled(handled) => {
            let error = handled.attempt.as_ref().map_or(0, |a| a.error.len());
            ENTRY_BYTES + error
        }
        JournalEntry::Acted(_) => ENTRY_BYTES,
    }
}

/// The numbers of one writer.
struct Metrics {
    batches: Counter<u64>,
    entries: Counter<u64>,
    dropped: Counter<u64>,
    unconfirmed: Counter<u64>,
    labels: [KeyValue; 1],
}

impl Metrics {
    fn new(meter: &Meter, role: &str) -> Self {
        let counter = |name, description| {
            meter
                .u64_counter(name)
                .with_description(description)
                .build()
        };
        let metrics = Self {
            batches: counter("fanfare_journal_batches", "Batches written to the journal"),
            entries: counter("fanfare_journal_entries", "Entries written to the journal"),
            dropped: counter(
                "fanfare_journal_dropped",
                "Entries that found no room; they are missing from history",
            ),
            unconfirmed: counter(
                "fanfare_journal_unconfirmed",
                "Waits for the journal's confirm that were given up",
            ),
            labels: [KeyValue::new("role", role.to_owned())],
        };
        // A counter that does not exist cannot be seen to grow.
        metrics.dropped.add(0, &metrics.labels);
        metrics.unconfirmed.add(0, &metrics.labels);
        metrics
    }

    fn written(&self, entries: usize) {
        self.batches.add(1, &self.labels);
        let entries = u64::try_from(entries).unwrap_or(u64::MAX);
        self.entries.add(entries, &self.labels);
    }

    fn dropped(&self, entries: u64) {
        self.dropped.add(entries, &self.labels);
    }

    fn unconfirmed(&self) {
        self.unconfirmed.add(1, &self.labels);
    }
}
