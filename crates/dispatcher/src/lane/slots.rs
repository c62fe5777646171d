//! When those who have to wait come back: one after the other, at the pace that the endpoint can take.
//!
//! Pure: `now` and chance are passed in.

use std::time::Duration;

use fanfare_model::{Timestamp, Wait};

/// The shortest deferral: the shortest tier of the delay line.
const SHORTEST_DEFERRAL: Duration = Duration::from_secs(1);

/// How far ahead slots are reserved. Whoever waits for longer comes back later than this to ask again: soon enough
/// after the last slot, with what the delay line is late by, that the lane does not run dry.
const RESERVED: Duration = Duration::from_secs(200);

/// How far ahead anybody is sent whose slot is near, so that a raised limit, a resume or a receiver that is
/// back takes effect soon.
const HORIZON: Duration = Duration::from_secs(300);

/// How far ahead anybody is sent at all: the longest tier of the delay line.
const LONGEST_DEFERRAL: Duration = Duration::from_secs(8 * 3600);

/// How far ahead anybody is sent who did not ask: how many they are is a guess.
const FURTHEST_UNASKED: Duration = Duration::from_secs(900);

/// With starts as close as this, slots are reserved a tenth closer still. The delay line is late by up to a
/// tenth of a wait, and a lane that nobody is back for wastes its rate.
const CLOSE: Duration = Duration::from_secs(10);

/// The slots of one lane.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// Reserved slots end here.
    end: Option<Timestamp>,
    /// Slots of those who came back and found no room end here. They do not queue again behind everyone.
    near_end: Option<Timestamp>,
    /// How many were sent beyond the reserved slots and have not come back, as far as is known here.
    beyond: u32,
}

impl Slots {
    /// Whether a newcomer has to queue behind reserved slots.
    pub(super) fn are_taken(&self, now: Timestamp) -> bool {
        self.end.is_some_and(|end| end > now)
    }

    /// Until when slots are reserved, if any still are.
    pub(super) fn taken_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.end.max(self.near_end).filter(|end| *end > now)
    }

    /// Takes note of a delivery whose wait is over.
    pub(super) fn came_back(&mut self, wait: Wait) {
        // A long wait of another kind counts as well: an estimate is enough.
        if !is_slot(wait) {
            self.beyond = self.beyond.saturating_sub(1);
        }
    }

    /// The next slot that is not before `from`.
    ///
    /// When that is too far ahead, it is a time to ask again: at most five minutes or a quarter of the wait
    /// after `from`, and up to a quarter of that earlier by `chance`, so that a backlog is no herd.
    pub(super) fn reserve(
        &mut self,
        from: Timestamp,
        spacing: Duration,
        chance: f64,
        now: Timestamp,
    ) -> Timestamp {
        let end = self.end.map_or(from, |end| end.max(from));
        let slot = (end + closer(spacing)).max(now + SHORTEST_DEFERRAL);
        if slot <= from + RESERVED {
            self.end = Some(slot);
            return slot;
        }
        let ahead = ahead(slot, from, spacing.saturating_mul(self.beyond));
        self.beyond = self.beyond.saturating_add(1);
        from + ahead.mul_f64(1.0 - chance / 4.0)
    }

    /// A slot for one who has waited its turn and found no room: behind others like it, before newcomers.
    pub(super) fn reserve_near(
        &mut self,
        from: Timestamp,
        spacing: Duration,
        chance: f64,
        now: Timestamp,
    ) -> Timestamp {
        let end = self.near_end.map_or(from, |end| (end + spacing).max(from));
        let slot = end.max(now + SHORTEST_DEFERRAL);
        if slot > now + RESERVED {
            return self.reserve(from, spacing, chance, now);
        }
        self.near_end = Some(slot);
        slot
    }

    /// Slots for about `many` newcomers who do not ask here first. Nobody knows whether they come, so nothing is
    /// reserved.
    pub(super) fn offer(
        &self,
        from: Timestamp,
        spacing: Duration,
        many: u32,
        now: Timestamp,
    ) -> Offer {
        let start = self.end.map_or(from, |end| end.max(from));
        let start = start.max(now + SHORTEST_DEFERRAL);
        let waiting = spacing.saturating_mul(self.beyond.saturating_add(many));
        Offer {
            from: start,
            spacing: closer(spacing),
            until: from + RESERVED,
            latest: from + ahead(start, from, waiting).min(FURTHEST_UNASKED),
        }
    }
}

/// Slots that others deal out: one by one, `spacing` apart, between `from` and `until`. For whom there is none left may
/// ask again between `until` and `latest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offer {
    pub(super) from: Timestamp,
    pub(super) spacing: Duration,
    pub(super) until: Timestamp,
    pub(super) latest: Timestamp,
}

/// Whether a wait may have been one for a slot: whoever comes back from it has waited its turn. From a longer one
/// it has come to ask again.
pub(super) fn is_slot(wait: Wait) -> bool {
    wait.until <= wait.since + RESERVED
}

/// The time between two slots whose starts are `spacing` apart.
fn closer(spacing: Duration) -> Duration {
    if spacing < CLOSE {
        spacing * 9 / 10
    } else {
        spacing
    }
}

fn ahead(slot: Timestamp, from: Timestamp, behind: Duration) -> Duration {
    let wait = duration(slot, from).saturating_add(behind);
    (wait / 4).clamp(HORIZON, LONGEST_DEFERRAL)
}

/// From `from` to `to`; nothing when that is backwards.
pub(super) fn duration(to: Timestamp, from: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// The time between two starts that the receiver and the rate allow.
pub(super) fn spacing(at_once: u16, slowness: Duration, interval: Duration) -> Duration {
    (slowness / u32::from(at_once.max(1))).max(interval)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::samples::at;

    fn slots(end: Option<i64>, beyond: u32) -> Slots {
        Slots {
            end: end.map(at),
            near_end: None,
            beyond,
        }
    }

    #[test]
    fn slots_follow_each_other_and_beyond_them_one_asks_again() {
        let second = Duration::from_secs(1);
        for (end, beyond, spacing, chance, slot, end_then) in [
            (None, 0, second * 10, 0.5, 110, Some(110)),
            (None, 0, Duration::ZERO, 0.5, 101, Some(101)),
            (Some(90), 0, second * 10, 0.5, 110, Some(110)),
            (Some(200), 0, second * 10, 0.5, 210, Some(210)),
            (Some(320), 0, second * 10, 0.0, 400, Some(320)),
            (Some(320), 0, second * 10, 1.0, 325, Some(320)),
            // A quarter of the wait: 230 s of slots and 997 in front, 10 s each.
            (Some(320), 997, second * 10, 0.0, 100 + 2550, Some(320)),
            (None, 0, second * 3600, 0.0, 1000, None),
            (None, u32::MAX, second * 3600, 0.0, 28_900, None),
        ] {
            let mut slots = slots(end, beyond);
            let reserved = slots.reserve(at(100), spacing, chance, at(100));
            assert_eq!(reserved, at(slot), "{end:?} {beyond} {spacing:?}");
            assert_eq!(slots.end, end_then.map(at), "{end:?} {beyond} {spacing:?}");
        }
    }

    #[test]
    fn who_found_no_room_goes_before_newcomers() {
        let mut slots = slots(Some(300), 0);
        let second = Duration::from_secs(1);
        for expected in [101, 102, 103] {
            assert_eq!(
                slots.reserve_near(at(100), second, 0.5, at(100)),
                at(expected)
            );
        }
        assert_eq!(slots.end, Some(at(300)));
    }

    #[test]
    fn an_offer_begins_behind_the_reserved_slots_and_ends_where_no_more_are_reserved() {
        let second = Duration::from_secs(1);
        for (end, many, from, latest) in [
            (None, 1, 101, 400),
            (Some(110), 100, 110, 400),
            (Some(110), 1990, 110, 600),
            (Some(110), 100_000, 110, 1000),
        ] {
            let offer = slots(end, 0).offer(at(100), second, many, at(100));
            let expected = Offer {
                from: at(from),
                spacing: Duration::from_millis(900),
                until: at(300),
                latest: at(latest),
            };
            assert_eq!(offer, expected, "{end:?} {many}");
        }
    }

    proptest! {
        #[test]
        fn nobody_is_sent_further_than_five_minutes_or_a_quarter_of_the_wait(
            spacing in 1..100_000_u64,
            many in 1..3000_u32,
            chance in 0.0..1.0,
        ) {
            let (mut slots, spacing) = (Slots::default(), Duration::from_millis(spacing));
            for number in 1..=many {
                let until = slots.reserve(at(100), spacing, chance, at(100));
                let sent = duration(until, at(100));
                let wait = spacing * number;
                prop_assert!(sent >= SHORTEST_DEFERRAL);
                prop_assert!(sent <= (wait / 4).max(HORIZON), "{sent:?} {wait:?}");
                let beyond = slots.beyond;
                slots.came_back(Wait { since: at(100), until });
                prop_assert_eq!(slots.beyond < beyond, sent > RESERVED);
                slots.beyond = beyond;
            }
        }
    }
}
