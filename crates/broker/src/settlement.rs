//! How a message ends at the broker: acknowledged when all its parts are settled, or handed back.
//!
//! | how it was handed back | verb | counts towards the delivery limit |
//! | --- | --- | --- |
//! | we stopped before handling it | `basic.nack` | up to 4.2 yes, from 4.3 no |
//! | its handler panicked | `basic.reject` | yes |
//! | the connection was lost | none | yes |
//!
//! Source: RabbitMQ `docs/quorum-queues`, section "Poison Message Handling", and the 4.3 release notes.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::sync::mpsc;
use tracing::warn;

/// What to tell the broker about one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Acknowledge,
    HandBack,
    HandBackAsSuspect,
}

#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) epoch: u64,
    pub(crate) tag: u64,
    pub(crate) verb: Verb,
}

/// The duty to settle one part of a message.
///
/// A message is acknowledged when every part of it is settled. A part that is dropped unsettled hands
/// the whole message back, once no other part is held any more.
#[derive(Debug)]
#[must_use = "a receipt that is dropped hands its message back"]
pub struct Receipt {
    message: Arc<Unsettled>,
}

#[derive(Debug)]
struct Unsettled {
    epoch: u64,
    tag: u64,
    /// Those not settled yet.
    parts: AtomicUsize,
    all_parts: AtomicUsize,
    suspect: AtomicBool,
    current_epoch: Arc<AtomicU64>,
    verdicts: mpsc::Sender<Verdict>,
}

impl Receipt {
    pub(crate) fn new(
        (epoch, tag): (u64, u64),
        current_epoch: Arc<AtomicU64>,
        verdicts: mpsc::Sender<Verdict>,
    ) -> Self {
        Self {
            message: Arc::new(Unsettled {
                epoch,
                tag,
                parts: AtomicUsize::new(1),
                all_parts: AtomicUsize::new(1),
                suspect: AtomicBool::new(false),
                current_epoch,
                verdicts,
            }),
        }
    }

    /// Divides the duty: the message is acknowledged when all `parts` are settled. None means now.
    pub fn split(self, parts: usize) -> Vec<Self> {
        // Nobody else holds a share yet: splitting consumes the only receipt or one part of it.
        self.message.parts.fetch_add(parts, Ordering::AcqRel);
        self.message.all_parts.store(parts, Ordering::Release);
        let shares = (0..parts).map(|_| Self {
            message: Arc::clone(&self.message),
        });
        let shares = shares.collect();
        self.settle();
        shares
    }

    /// Everything that had to follow from this part is confirmed.
    pub fn settle(self) {
        self.message.parts.fetch_sub(1, Ordering::AcqRel);
    }

    /// Gives the whole message back to its queue, to be handled again here or elsewhere.
    pub fn hand_back(self) {}

    /// Whether the message has more parts than this one, settled or not.
    pub fn is_shared(&self) -> bool {
        self.message.all_parts.load(Ordering::Acquire) > 1
    }

    /// Whether the connection that the message came over is gone, so that the broker will give it out again.
    pub fn is_void(&self) -> bool {
        self.message.is_void()
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.message.suspect.store(true, Ordering::Release);
        }
    }
}

impl Unsettled {
    fn is_void(&self) -> bool {
        self.current_epoch.load(Ordering::Acquire) != self.epoch
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        if self.is_void() {
            return;
        }
        let settled = *self.parts.get_mut() == 0;
        let verb = match (settled, *self.suspect.get_mut()) {
            (true, _) => Verb::Acknowledge,
            (false, false) => Verb::HandBack,
            (false, true) => Verb::HandBackAsSuspect,
        };
        let (epoch, tag) = (self.epoch, self.tag);
        // The buffer holds more verdicts than there are messages out, so it is full only if it is closed.
        if self
            .verdicts
            .try_send(Verdict { epoch, tag, verb })
            .is_err()
        {
            warn!(
                tag,
                "a settled message cannot be acknowledged any more; it will be repeated"
            );
        }
    }
}

/// Turns settled delivery tags into as few acknowledgements as possible.
///
/// Invariant: every tag below `next` is settled; `ahead` holds the settled ones above it.
#[derive(Debug)]
pub(crate) struct AckWindow {
    next: u64,
    ahead: BTreeSet<u64>,
}

/// The acknowledgements that one batch of settled tags needs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Acks {
    /// One acknowledgement for everything up to and including this tag.
    pub(crate) up_to: Option<u64>,
    /// And one each for these.
    pub(crate) single: Vec<u64>,
}

impl AckWindow {
    pub(crate) fn new() -> Self {
        // Delivery tags of a channel count from 1.
        Self {
            next: 1,
            ahead: BTreeSet::new(),
        }
    }

    /// Takes a batch of settled tags: `to_ack` are to be acknowledged, after the others are handed back.
    pub(crate) fn settle(&mut self, to_ack: &[u64], handed_back: &[u64]) -> Acks {
        self.ahead.extend(to_ack.iter().chain(handed_back));
        while self.ahead.remove(&self.next) {
            self.next += 1;
        }
        // RabbitMQ refuses a `multiple` acknowledgement whose own tag is not outstanding, so it must
        // name one of this batch.
        let up_to = to_ack.iter().copied().filter(|tag| *tag < self.next).max();
        let mut single: Vec<u64> = to_ack
            .iter()
            .copied()
            .filter(|tag| *tag >= self.next)
            .collect();
        single.sort_unstable();
        Acks { up_to, single }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_acknowledged_at_once_and_gaps_singly() {
        let mut window = AckWindow::new();
        let acks = |up_to, single: &[u64]| Acks {
            up_to,
            single: single.to_vec(),
        };
        assert_eq!(window.settle(&[1, 2, 3], &[]), acks(Some(3), &[]));
        assert_eq!(window.settle(&[6, 5], &[]), acks(None, &[5, 6]));
        // 5 and 6 are acknowledged already, so the run ends at 4.
        assert_eq!(window.settle(&[4], &[]), acks(Some(4), &[]));
        assert_eq!(window.settle(&[9], &[7]), acks(None, &[9]));
        assert_eq!(window.settle(&[], &[8]), acks(None, &[]));
        assert_eq!(window.settle(&[10], &[]), acks(Some(10), &[]));
        assert_eq!(window.settle(&[12], &[11]), acks(Some(12), &[]));
    }

    fn receipt() -> (Receipt, mpsc::Receiver<Verdict>) {
        let (verdicts, given) = mpsc::channel(8);
        let current = Arc::new(AtomicU64::new(1));
        (Receipt::new((1, 7), current, verdicts), given)
    }

    fn verb(given: &mut mpsc::Receiver<Verdict>) -> Option<Verb> {
        given.try_recv().ok().map(|verdict| verdict.verb)
    }

    #[test]
    fn a_message_is_acknowledged_when_every_part_is_settled() {
        let (receipt, mut given) = receipt();
        let mut parts = receipt.split(3);
        for _ in 0..2 {
            parts.pop().unwrap().settle();
            assert_eq!(verb(&mut given), None);
        }
        parts.pop().unwrap().settle();
        assert_eq!(verb(&mut given), Some(Verb::Acknowledge));
    }

    #[test]
    fn a_part_dropped_unsettled_hands_the_message_back_when_the_others_are_done() {
        let (receipt, mut given) = receipt();
        let mut parts = receipt.split(2);
        parts.pop().unwrap().hand_back();
        assert_eq!(verb(&mut given), None);
        parts.pop().unwrap().settle();
        assert_eq!(verb(&mut given), Some(Verb::HandBack));
    }

    #[test]
    fn a_message_without_parts_is_settled() {
        let (receipt, mut given) = receipt();
        assert!(receipt.split(0).is_empty());
        assert_eq!(verb(&mut given), Some(Verb::Acknowledge));
    }

    #[test]
    fn a_panic_marks_the_message_as_suspect() {
        let (receipt, mut given) = receipt();
        let handler = std::thread::spawn(move || {
            let _held = receipt;
            panic!("a handler fails");
        });
        assert!(handler.join().is_err());
        assert_eq!(verb(&mut given), Some(Verb::HandBackAsSuspect));
    }

    #[test]
    fn nothing_is_said_about_a_message_of_a_lost_connection() {
        let (verdicts, mut given) = mpsc::channel(8);
        let current = Arc::new(AtomicU64::new(1));
        let receipt = Receipt::new((1, 7), Arc::clone(&current), verdicts);
        current.store(2, Ordering::Release);
        assert!(receipt.is_void());
        receipt.settle();
        assert_eq!(verb(&mut given), None);
    }
}
