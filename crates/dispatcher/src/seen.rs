//! Recognises a delivery that is being handled, or was settled, here already.
//!
//! Bounded, in memory, and only as good as the ownership of a partition lasts: receivers recognise the
//! rest by `webhook-id`.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
};

use fanfare_model::{Delivery, DeliveryId};

/// One attempt of one replay of a delivery: copies of it are repeats of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SeenKey {
    id: DeliveryId,
    replay: u32,
    attempt: u32,
}

impl From<&Delivery> for SeenKey {
    fn from(delivery: &Delivery) -> Self {
        Self {
            id: delivery.id,
            replay: delivery.replay,
            attempt: delivery.next_attempt(),
        }
    }
}

/// What is in hand and what was settled lately. Cheap to clone; the clones are one.
#[derive(Clone)]
pub(crate) struct Seen(Arc<Mutex<Window>>);

struct Window {
    in_hand: HashSet<SeenKey>,
    settled: HashSet<SeenKey>,
    /// Invariant: holds what `settled` holds, oldest first, at most `room`.
    order: VecDeque<SeenKey>,
    room: usize,
}

/// Whether a delivery may be handled.
pub(crate) enum Claim {
    /// Nobody else has it. It is in hand until the guard is dropped.
    Fresh(InHand),
    /// A copy of it is in hand.
    InHand,
    /// A copy of it was settled.
    Settled,
}

/// Marks a delivery as in hand.
pub(crate) struct InHand {
    seen: Seen,
    key: SeenKey,
}

impl Seen {
    pub(crate) fn new(room: usize) -> Self {
        Self(Arc::new(Mutex::new(Window {
            in_hand: HashSet::new(),
            settled: HashSet::new(),
            order: VecDeque::new(),
            room,
        })))
    }

    pub(crate) fn claim(&self, key: SeenKey) -> Claim {
        let mut window = self.window();
        if window.settled.contains(&key) {
            Claim::Settled
        } else if window.in_hand.insert(key) {
            let seen = self.clone();
            Claim::Fresh(InHand { seen, key })
        } else {
            Claim::InHand
        }
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.0
            .lock()
            .expect("nobody panics while holding the window")
    }
}

impl InHand {
    /// Remembers the delivery as settled. Call it when the settlement is confirmed, never earlier: a
    /// copy that comes after that is dropped.
    pub(crate) fn remember(self) {
        let mut window = self.seen.window();
        if window.settled.insert(self.key) {
            window.order.push_back(self.key);
        }
        while window.order.len() > window.room {
            if let Some(oldest) = window.order.pop_front() {
                window.settled.remove(&oldest);
            }
        }
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.seen.window().in_hand.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8, attempt: u32) -> SeenKey {
        SeenKey {
            id: DeliveryId::from_bytes([number; 16]),
            replay: 0,
            attempt,
        }
    }

    fn fresh(seen: &Seen, key: SeenKey) -> InHand {
        match seen.claim(key) {
            Claim::Fresh(in_hand) => in_hand,
            Claim::InHand | Claim::Settled => panic!("not fresh: {key:?}"),
        }
    }

    #[test]
    fn a_copy_of_one_in_hand_waits_and_a_copy_of_a_settled_one_is_dropped() {
        let seen = Seen::new(10);
        let in_hand = fresh(&seen, key(1, 1));
        assert!(matches!(seen.claim(key(1, 1)), Claim::InHand));
        drop(in_hand);
        fresh(&seen, key(1, 1)).remember();
        assert!(matches!(seen.claim(key(1, 1)), Claim::Settled));
        // The next attempt is no copy.
        drop(fresh(&seen, key(1, 2)));
    }

    #[test]
    fn the_window_forgets_the_oldest() {
        let seen = Seen::new(2);
        for number in 1..=3 {
            fresh(&seen, key(number, 1)).remember();
        }
        drop(fresh(&seen, key(1, 1)));
        assert!(matches!(seen.claim(key(2, 1)), Claim::Settled));
        let window = seen.window();
        assert_eq!(window.order.len(), window.settled.len());
    }
}
