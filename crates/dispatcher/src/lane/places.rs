//! The places in flight of a lane, and who waits for one.
//!
//! First attempts and retries wait apart and take turns, so that neither keeps the other out.

use std::{collections::BTreeMap, time::Duration};

use fanfare_model::Delivery;
use tokio::{sync::oneshot, time::Instant};

use super::{Place, limit::Limit};

/// What a delivery takes while it is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    /// Its size.
    pub(crate) bytes: usize,
    /// Its part of a message, of which so many may be unsettled, in parts of [`Load::MESSAGE`].
    pub(crate) share: u32,
}

impl Load {
    /// A whole message.
    pub(crate) const MESSAGE: u32 = 1024;

    /// Nothing more than what is here.
    pub(super) const NONE: Self = Self { bytes: 0, share: 0 };
}

/// What one lane may take of what all share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// The most bytes, waiting and in flight.
    pub(crate) bytes: usize,
    /// The most messages that wait for longer than a moment.
    pub(crate) messages: u16,
    /// The most requests in flight, whatever the endpoint allows.
    pub(crate) in_flight: u16,
}

/// Who waits for a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    First = 0,
    Retry = 1,
}

impl From<&Delivery> for Class {
    fn from(delivery: &Delivery) -> Self {
        if delivery.failed_attempts == 0 {
            Self::First
        } else {
            Self::Retry
        }
    }
}

/// Somebody who waits for a place.
pub(super) struct Waiter {
    pub(super) load: Load,
    pub(super) grant: oneshot::Sender<Place>,
}

/// Places in flight, by a number that grows.
#[derive(Default)]
pub(super) struct Places {
    /// When each request started; `None` while it waits for the rate.
    taken: BTreeMap<u64, Option<Instant>>,
    pacing: usize,
    next_number: u64,
    /// How many the endpoint allows, as of the last that came.
    ceiling: u16,
    pub(super) limit: Limit,
    /// How long an attempt takes, as a moving average.
    typical: Option<Duration>,
    waiting: [BTreeMap<u64, Waiter>; 2],
    /// Whose turn it is when both wait.
    next: usize,
    bytes: usize,
    waiting_share: u32,
}

impl Places {
    /// Takes note of what the endpoint allows now.
    pub(super) fn allow(&mut self, ceiling: u16) {
        self.ceiling = ceiling;
    }

    /// How many may be in flight now.
    pub(super) fn at_most(&self) -> u16 {
        self.limit.at_most(self.ceiling)
    }

    /// How many requests are under way.
    pub(super) fn under_way(&self) -> usize {
        self.taken.values().flatten().count()
    }

    pub(super) fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Whether somebody who comes now need not wait for a place.
    pub(super) fn is_open(&self) -> bool {
        self.has_room() && self.waiting.iter().all(BTreeMap::is_empty)
    }

    /// Whether nobody is here.
    pub(super) fn are_empty(&self) -> bool {
        self.taken.is_empty() && self.waiting.iter().all(BTreeMap::is_empty)
    }

    /// Whether there is nothing to remember.
    pub(super) fn are_as_new(&self) -> bool {
        self.are_empty() && self.at_most() == self.ceiling.max(1)
    }

    fn has_room(&self) -> bool {
        self.taken.len() < usize::from(self.at_most())
    }

    /// How many starts come before that of a newcomer.
    pub(super) fn ahead_of(&self, class: Class) -> u32 {
        let [mine, others] = [class as usize, 1 - class as usize].map(|n| self.waiting[n].len());
        // While both wait, each gets every second place.
        let ahead = self.pacing + mine + mine.min(others);
        u32::try_from(ahead).unwrap_or(u32::MAX)
    }

    /// Whether the lane is within its bounds with one more that waits, for this long.
    pub(super) fn can_hold(&self, load: Load, expected: Duration, bounds: Bounds) -> bool {
        let share = self.waiting_share.saturating_add(load.share);
        let many = share > u32::from(bounds.messages) * Load::MESSAGE;
        let large = self.bytes.saturating_add(load.bytes) > bounds.bytes && !self.are_empty();
        !large && (expected <= super::MOMENT || (expected <= super::LONGEST_HOLD && !many))
    }

    /// How long an attempt takes: the average, or the age of the oldest in flight if that is more.
    pub(super) fn slowness(&self) -> Duration {
        let oldest = self.taken.values().find_map(Option::as_ref);
        let oldest = oldest.map(Instant::elapsed);
        self.typical.max(oldest).unwrap_or_default()
    }

    /// Takes a place.
    pub(super) fn take(&mut self, load: Load) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.taken.insert(number, None);
        self.pacing += 1;
        self.bytes += load.bytes;
        number
    }

    /// The request of a place starts.
    pub(super) fn start(&mut self, number: u64) {
        // The time spent waiting for the rate says nothing about the receiver.
        if let Some(start @ None) = self.taken.get_mut(&number) {
            *start = Some(Instant::now());
            self.pacing -= 1;
        }
    }

    /// Gives a place back.
    pub(super) fn release(&mut self, number: u64, load: Load) {
        match self.taken.remove(&number) {
            Some(Some(start)) => {
                let took = start.elapsed();
                let smoothed = self
                    .typical
                    .map_or(took, |typical| (typical * 4 + took) / 5);
                self.typical = Some(smoothed);
            }
            Some(None) => self.pacing -= 1,
            None => return,
        }
        self.bytes -= load.bytes;
    }

    /// Lines up for a place.
    pub(super) fn line_up(&mut self, class: Class, load: Load) -> (u64, oneshot::Receiver<Place>) {
        let (grant, granted) = oneshot::channel();
        let ticket = self.next_number;
        self.next_number += 1;
        self.waiting[class as usize].insert(ticket, Waiter { load, grant });
        self.waiting_share += load.share;
        self.bytes += load.bytes;
        (ticket, granted)
    }

    /// Leaves the line, if it is not over yet.
    pub(super) fn leave(&mut self, class: Class, ticket: u64) {
        if let Some(waiter) = self.waiting[class as usize].remove(&ticket) {
            self.forget(waiter.load);
        }
    }

    fn forget(&mut self, load: Load) {
        self.waiting_share -= load.share;
        self.bytes -= load.bytes;
    }

    /// Who is next, while there is room.
    pub(super) fn next_in_line(&mut self) -> Option<Waiter> {
        if !self.has_room() {
            return None;
        }
        for class in [self.next, 1 - self.next] {
            if let Some((_, waiter)) = self.waiting[class].pop_first() {
                self.next = 1 - class;
                self.forget(waiter.load);
                return Some(waiter);
            }
        }
        None
    }
}
