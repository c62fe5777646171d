//! The loop: read the journal, record it, go on.
//!
//! A store that is away is waited for: what was read stays in hand, the rest in the journal. So history
//! catches up by itself, for as long as the journal keeps what was written.

use std::time::Duration;

use fanfare_broker::{Broker, BrokerFault, StreamMessage, StreamReader};
use fanfare_model::Clock;
use fanfare_wire::decode_journal_batch;
use opentelemetry::metrics::Meter;
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    Counts, GapKind, History, HistoryFault, MissingOffsets, Portion, Recorded, Settings,
    metrics::Metrics,
};

/// What one transaction records at most. More would save little, and hold up those who wait for the store.
const PORTION_ENTRIES: usize = 5000;
const PORTION_BYTES: usize = 8 << 20;

/// How long the newest message of the journal is waited for. In one that holds nothing, none comes.
const NEWEST_WITHIN: Duration = Duration::from_secs(10);

/// The pauses between two tries of a store or a stream that is away.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// How long a recorder that came second lets the first one go ahead.
const STANDS_BACK: Duration = Duration::from_secs(1);

/// How often what is too old is removed.
const FORGETS_EVERY: Duration = Duration::from_secs(600);

/// What the recorder works with.
pub struct Recorder {
    history: History,
    settings: Settings,
    broker: Broker,
    clock: Clock,
    metrics: Metrics,
}

/// Why reading ended.
enum Ended {
    /// The process stops.
    Stopping,
    /// The stream was lost, or another recorder is ahead: look where things stand.
    LookAgain(Duration),
}

impl Recorder {
    /// Puts a recorder together.
    pub fn new(
        broker: &Broker,
        history: History,
        settings: Settings,
        clock: Clock,
        meter: &Meter,
    ) -> Self {
        Self {
            metrics: Metrics::new(meter, clock.clone()),
            history,
            settings,
            broker: broker.clone(),
            clock,
        }
    }
}

/// Records until `shutdown`. Neither a lost broker nor a lost store ends it.
///
/// Several may run at once, and any of them may be killed at any moment: what one has recorded, no other
/// records again.
pub async fn record_journal(recorder: Recorder, shutdown: CancellationToken) {
    info!("recording the journal");
    let recording = async {
        let mut pause = PAUSES.0;
        while !shutdown.is_cancelled() {
            let wait = match recorder.record_until_lost(&shutdown).await {
                Ok(Ended::Stopping) => return,
                Ok(Ended::LookAgain(wait)) => {
                    pause = PAUSES.0;
                    wait
                }
                Err(fault) => {
                    recorder.metrics.failed();
                    warn!(fault = %chain(&*fault), "the journal cannot be recorded; trying again");
                    pause = (pause * 2).min(PAUSES.1);
                    pause
                }
            };
            shutdown.run_until_cancelled(time::sleep(wait)).await;
        }
    };
    let forgetting = shutdown.run_until_cancelled(recorder.forget_regularly());
    tokio::join!(recording, forgetting);
}

type AnyFault = Box<dyn std::error::Error + Send + Sync>;

impl Recorder {
    async fn record_until_lost(&self, shutdown: &CancellationToken) -> Result<Ended, AnyFault> {
        let Some(starting) = shutdown.run_until_cancelled(self.start()).await else {
            return Ok(Ended::Stopping);
        };
        let (mut next, mut reader) = starting?;
        loop {
            let reading = shutdown.run_until_cancelled(self.read(next, &mut reader));
            let Some(portion) = reading.await else {
                reader.close().await;
                return Ok(Ended::Stopping);
            };
            let Some(portion) = portion else {
                return Ok(Ended::LookAgain(PAUSES.0));
            };
            match self.record_patiently(&portion, shutdown).await? {
                Some(Recorded::Done(counts)) => self.recorded(&portion, counts),
                Some(Recorded::Elsewhere { .. }) => {
                    reader.close().await;
                    return Ok(Ended::LookAgain(STANDS_BACK));
                }
                None => return Ok(Ended::Stopping),
            }
            next = portion.next;
        }
    }

    /// Where to go on, and a reader from there.
    async fn start(&self) -> Result<(u64, StreamReader), AnyFault> {
        let mut next = self.history.progress().await?.next_offset;
        if next > 0 {
            let newest = self.broker.newest_in_journal(NEWEST_WITHIN).await?;
            // The stream was deleted and declared again, or lost its end in a crash. From the beginning,
            // then: what was recorded before is recognised.
            if newest.is_none_or(|newest| newest + 1 < next) {
                warn!(next, newest, "the journal has begun anew");
                self.history.start_over().await?;
                next = 0;
            }
        }
        let reader: Result<StreamReader, BrokerFault> = self.broker.read_journal(next).await;
        Ok((next, reader?))
    }

    /// The next portion: what is here, once something is. `None` when the stream is lost.
    async fn read(&self, next: u64, reader: &mut StreamReader) -> Option<Portion> {
        let mut portion = Portion {
            from: next,
            next,
            ..Portion::default()
        };
        let (mut entries, mut bytes) = (0, 0);
        let mut message = reader.next().await?;
        loop {
            bytes += message.envelope.body.len();
            take(&mut portion, message);
            entries += portion.batches.last().map_or(0, |b| b.entries.len());
            if entries >= PORTION_ENTRIES || bytes >= PORTION_BYTES {
                return Some(portion);
            }
            // What is not here by now belongs to the next portion.
            match time::timeout(Duration::from_millis(1), reader.next()).await {
                Ok(Some(following)) => message = following,
                Ok(None) | Err(_) => return Some(portion),
            }
        }
    }

    /// Tries until the store answers; `None` when the process stops before.
    async fn record_patiently(
        &self,
        portion: &Portion,
        shutdown: &CancellationToken,
    ) -> Result<Option<Recorded>, HistoryFault> {
        let waiting_since = portion.batches.iter().map(|batch| batch.written_at).min();
        self.metrics.waits_since(waiting_since);
        let mut pause = PAUSES.0;
        loop {
            match self.history.record(portion).await {
                Ok(recorded) => return Ok(Some(recorded)),
                Err(fault) if fault.is_transient() => {
                    self.metrics.failed();
                    warn!(fault = %chain(&fault), "the history is away; what happened waits in the journal");
                }
                Err(fault) => return Err(fault),
            }
            let waited = shutdown.run_until_cancelled(time::sleep(pause));
            if waited.await.is_none() {
                return Ok(None);
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    fn recorded(&self, portion: &Portion, counts: Counts) {
        let newest = portion.batches.iter().map(|batch| batch.written_at).max();
        let newest = newest.map(|written| (written, self.clock.now()));
        self.metrics.recorded(&counts, newest);
        if counts.gaps > 0 {
            warn!(
                gaps = counts.gaps,
                "something is missing from the journal; the history lists it"
            );
        }
    }

    async fn forget_regularly(&self) {
        loop {
            match self.history.forget(&self.settings, self.clock.now()).await {
                Ok(0) => {}
                Ok(rows) => info!(rows, "removed what is too old from the history"),
                Err(fault) => warn!(fault = %chain(&fault), "nothing was removed from the history"),
            }
            time::sleep(FORGETS_EVERY).await;
        }
    }
}

fn take(portion: &mut Portion, message: StreamMessage) {
    let mut miss = |kind, count| portion.missing.push(MissingOffsets { kind, count });
    // The reader begins with the first message that is left.
    if message.offset > portion.next {
        miss(GapKind::Removed, message.offset - portion.next);
    }
    match decode_journal_batch(&message.envelope) {
        Ok(batch) => portion.batches.push(batch),
        Err(fault) => {
            error!(%fault, offset = message.offset, "a batch of the journal cannot be read");
            miss(GapKind::Unreadable, 1);
        }
    }
    portion.next = portion.next.max(message.offset + 1);
}

/// A fault with all its causes.
fn chain(fault: &(dyn std::error::Error + 'static)) -> String {
    let mut text = fault.to_string();
    let mut cause = fault.source();
    while let Some(fault) = cause {
        text = format!("{text}: {fault}");
        cause = fault.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use fanfare_model::{JournalBatch, JournalWriterId, Timestamp};
    use fanfare_wire::{Envelope, encode_journal_batch};

    use super::*;

    fn message(offset: u64) -> StreamMessage {
        let batch = JournalBatch {
            writer: JournalWriterId {
                name: "a".to_owned(),
                epoch: 1,
            },
            sequence: offset + 1,
            written_at: Timestamp::UNIX_EPOCH,
            dropped: 0,
            is_last: false,
            entries: Vec::new(),
        };
        let envelope = encode_journal_batch(&batch);
        StreamMessage { offset, envelope }
    }

    #[test]
    fn what_was_removed_or_cannot_be_read_is_counted() {
        let mut portion = Portion {
            from: 5,
            next: 5,
            ..Portion::default()
        };
        take(&mut portion, message(8));
        take(&mut portion, message(9));
        let unreadable = StreamMessage {
            offset: 10,
            envelope: Envelope {
                body: vec![0xff].into(),
                ..Envelope::default()
            },
        };
        take(&mut portion, unreadable);
        assert_eq!((portion.from, portion.next), (5, 11));
        assert_eq!(portion.batches.len(), 2);
        let missing = [(GapKind::Removed, 3), (GapKind::Unreadable, 1)];
        let missing = missing.map(|(kind, count)| MissingOffsets { kind, count });
        assert_eq!(portion.missing, missing);
    }
}
