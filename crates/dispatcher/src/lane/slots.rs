//! When those who have to wait come back: one after the other, at the pace that the endpoint can take.
//!
//! Pure: `now` and chance are passed in.

use std::time::Duration;

use fanfare_model::Timestamp;

/// The shortest deferral: the shortest tier of the delay line.
const SHORTEST_DEFERRAL: Duration = Duration::from_secs(1);

/// How far ahead slots are reserved, so that a raised limit or a recovered receiver takes effect soon.
const HORIZON: Duration = Duration::from_secs(300);

/// The time between two starts that the receiver and the rate allow.
pub(super) fn spacing(cap: u16, slowness: Duration, interval: Duration) -> Duration {
    (slowness / u32::from(cap.max(1))).max(interval)
}

/// How long a newcomer would wait behind `waiting` others.
pub(super) fn expected_wait(
    waiting: usize,
    cap: u16,
    slowness: Duration,
    interval: Duration,
) -> Duration {
    let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
    spacing(cap, slowness, interval).saturating_mul(waiting)
}

/// The next slot that is not before `from`, and where the slots end then.
///
/// Slots beyond the horizon are not reserved: whoever gets one returns within the last quarter before it.
pub(super) fn reserve(
    next_slot: Option<Timestamp>,
    spacing: Duration,
    jitter: f64,
    from: Timestamp,
    now: Timestamp,
) -> (Timestamp, Timestamp) {
    let end = next_slot.map_or(from, |slot| slot.max(from));
    let slot = (end + spacing).max(now + SHORTEST_DEFERRAL);
    if slot <= from + HORIZON {
        (slot, slot)
    } else {
        (from + HORIZON.mul_f64(1.0 - jitter / 4.0), end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::tests::at;

    #[test]
    fn slots_follow_each_other_up_to_the_horizon() {
        let second = Duration::from_secs(1);
        for (next_slot, spacing, jitter, slot, end) in [
            (None, second * 10, 0.5, 110, 110),
            (None, Duration::ZERO, 0.5, 101, 101),
            (Some(90), second * 10, 0.5, 110, 110),
            (Some(200), second * 10, 0.5, 210, 210),
            (Some(395), second * 10, 0.0, 400, 395),
            (Some(395), second * 10, 1.0, 325, 395),
            (None, second * 3600, 0.0, 400, 100),
        ] {
            let reserved = reserve(next_slot.map(at), spacing, jitter, at(100), at(100));
            assert_eq!(reserved, (at(slot), at(end)), "{next_slot:?} {spacing:?}");
            // Seen from earlier, slots from then on are the same.
            let reserved = reserve(next_slot.map(at), spacing, jitter, at(100), at(50));
            let slot = if spacing.is_zero() { 100 } else { slot };
            assert_eq!(reserved.0, at(slot), "{next_slot:?} {spacing:?}");
        }
    }

    #[test]
    fn a_wait_is_expected_from_the_slower_of_receiver_and_rate() {
        let millis = Duration::from_millis;
        for (waiting, cap, slowness, interval, expected) in [
            (0, 16, 15_000, 0, 0),
            (256, 16, 1, 0, 16),
            (16, 16, 15_000, 0, 15_000),
            (5, 16, 1, 1000, 5000),
        ] {
            let wait = expected_wait(waiting, cap, millis(slowness), millis(interval));
            assert_eq!(
                wait.as_millis(),
                expected,
                "{waiting} {cap} {slowness} {interval}"
            );
        }
    }
}
