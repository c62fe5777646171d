//! When a delivery is tried again.
//!
//! `schedule/form.rs` knows how a schedule is written, in text and in JSON.

mod form;

use std::time::Duration;

pub use form::InvalidScheduleText;
pub(crate) use form::{read_wait, write_wait};

/// When each attempt follows the one before.
///
/// Invariant: 1 to 50 attempts, each wait at most 30 days; an exponential one never waits longer than its cap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule(Waits);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Waits {
    /// The wait before each attempt, in seconds. The first is the wait before the first attempt.
    Listed(Vec<u64>),
    /// Computed; the first attempt is made at once.
    Exponential(Exponential),
}

/// Waits that grow by a factor. Times are in seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Exponential {
    base: u64,
    /// In hundredths, from 1 to 100.
    factor: u32,
    cap: u64,
    attempts: u32,
    /// Reckoned from the first failure: no attempt is scheduled later.
    window: Option<u64>,
}

const LONGEST_WAIT: u64 = 30 * 24 * 3600;
const LONGEST_WINDOW: u64 = 365 * 24 * 3600;
const MOST_ATTEMPTS: usize = 50;
const FACTORS: std::ops::RangeInclusive<f64> = 1.0..=100.0;

/// Why something is not a schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a schedule is a list of 1 to 50 waits of at most 30 days, or exponential: `base` (1 s to 30 days), \
     `factor` (1 to 100), `cap` (`base` to 30 days), `attempts` (1 to 50) and, optionally, `window` \
     (1 s to 365 days)"
)]
pub struct InvalidSchedule;

impl Schedule {
    /// A schedule from its waits in seconds.
    pub fn from_seconds(waits: Vec<u64>) -> Result<Self, InvalidSchedule> {
        let fits = (1..=MOST_ATTEMPTS).contains(&waits.len())
            && waits.iter().all(|wait| *wait <= LONGEST_WAIT);
        if fits {
            Ok(Self(Waits::Listed(waits)))
        } else {
            Err(InvalidSchedule)
        }
    }

    /// A schedule whose waits grow from `base` by `factor` up to `cap`; times are in seconds.
    ///
    /// With a `window`, no attempt is scheduled later than that after the first failure.
    pub fn exponential(
        base: u64,
        factor: f64,
        cap: u64,
        attempts: u32,
        window: Option<u64>,
    ) -> Result<Self, InvalidSchedule> {
        let fits = (1..=LONGEST_WAIT).contains(&base)
            && FACTORS.contains(&factor)
            && (base..=LONGEST_WAIT).contains(&cap)
            && (1..=MOST_ATTEMPTS).contains(&(attempts as usize))
            && window.is_none_or(|window| (1..=LONGEST_WINDOW).contains(&window));
        if !fits {
            return Err(InvalidSchedule);
        }
        let factor = (factor * 100.0).round() as u32;
        Ok(Self(Waits::Exponential(Exponential {
            base,
            factor,
            cap,
            attempts,
            window,
        })))
    }

    /// How many attempts a delivery gets at most.
    pub fn attempts(&self) -> usize {
        match &self.0 {
            Waits::Listed(waits) => waits.len(),
            Waits::Exponential(growing) => growing.attempts as usize,
        }
    }

    /// The wait after `failed` failed attempts, the first of which was `elapsed` ago; `None` when no
    /// attempt is left.
    ///
    /// Never shorter than the schedule's wait and at most a fifth longer, by `jitter`.
    pub fn wait_after(&self, failed: u32, elapsed: Duration, jitter: Jitter) -> Option<Duration> {
        let wait = self.seconds_after(failed)?;
        let wait = Duration::from_secs(wait);
        let wait = wait + wait.mul_f64(Jitter::SPREAD * jitter.0);
        let in_time = self
            .window()
            .is_none_or(|window| elapsed.saturating_add(wait) <= window);
        in_time.then_some(wait)
    }

    fn seconds_after(&self, failed: u32) -> Option<u64> {
        match &self.0 {
            Waits::Listed(waits) => waits.get(usize::try_from(failed).ok()?).copied(),
            Waits::Exponential(growing) if failed >= growing.attempts => None,
            Waits::Exponential(_) if failed == 0 => Some(0),
            Waits::Exponential(growing) => Some(growing.seconds_after(failed)),
        }
    }

    fn window(&self) -> Option<Duration> {
        match &self.0 {
            Waits::Listed(_) => None,
            Waits::Exponential(growing) => growing.window.map(Duration::from_secs),
        }
    }
}

impl Exponential {
    /// The wait after at least one failed attempt. In whole hundredths, so that every process computes the same.
    fn seconds_after(&self, failed: u32) -> u64 {
        let cap = u128::from(self.cap) * 100;
        let mut hundredths = u128::from(self.base) * 100;
        for _ in 1..failed {
            hundredths = (hundredths * u128::from(self.factor) / 100).min(cap);
        }
        u64::try_from(hundredths / 100).expect("a wait is at most its cap")
    }
}

impl Default for Schedule {
    /// The example of the Standard Webhooks specification, section "Deliverability and reliability": ten attempts in a little over three days.
    fn default() -> Self {
        const HOUR: u64 = 3600;
        Self(Waits::Listed(vec![
            0,
            5,
            5 * 60,
            30 * 60,
            2 * HOUR,
            5 * HOUR,
            10 * HOUR,
            14 * HOUR,
            20 * HOUR,
            24 * HOUR,
        ]))
    }
}

/// A random number from 0 to 1 that the caller drew, so that deliveries that failed together do not return together.
#[derive(Debug, Clone, Copy)]
pub struct Jitter(f64);

impl Jitter {
    /// No jitter at all.
    pub const NONE: Self = Self(0.0);
    /// The share of a wait by which jitter can lengthen it.
    pub const SPREAD: f64 = 0.2;

    /// Keeps `fraction` within 0 and 1.
    pub fn new(fraction: f64) -> Self {
        Self(if fraction.is_finite() {
            fraction.clamp(0.0, 1.0)
        } else {
            0.0
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ZERO: Duration = Duration::ZERO;

    #[test]
    fn the_default_schedule_ends_after_75_hours() {
        let schedule = Schedule::default();
        let total: u64 = (0..).map_while(|n| schedule.seconds_after(n)).sum();
        assert_eq!(schedule.attempts(), 10);
        assert_eq!(total, (75 * 60 + 35) * 60 + 5);
    }

    #[test]
    fn exponential_waits_grow_up_to_their_cap() {
        for (factor, expected) in [
            (2.0, &[0, 5, 10, 20, 40, 60, 60][..]),
            (1.5, &[0, 5, 7, 11, 16, 25, 37]),
            (1.0, &[0, 5, 5, 5, 5, 5, 5]),
        ] {
            let schedule = Schedule::exponential(5, factor, 60, 7, None).unwrap();
            let waits: Vec<_> = (0..).map_while(|n| schedule.seconds_after(n)).collect();
            assert_eq!(waits, expected, "{factor}");
        }
    }

    #[test]
    fn nothing_is_scheduled_beyond_the_window() {
        let schedule = Schedule::exponential(60, 1.0, 60, 10, Some(300)).unwrap();
        for (elapsed, jitter, goes_on) in [
            (0, 1.0, true),
            (240, 0.0, true),
            (241, 0.0, false),
            (240, 0.1, false),
        ] {
            let elapsed = Duration::from_secs(elapsed);
            let wait = schedule.wait_after(3, elapsed, Jitter::new(jitter));
            assert_eq!(wait.is_some(), goes_on, "{elapsed:?} {jitter}");
        }
    }

    proptest! {
        #[test]
        fn a_wait_keeps_its_bounds_and_the_attempts_end(
            waits in proptest::collection::vec(0..=LONGEST_WAIT, 1..=MOST_ATTEMPTS),
            failed in 0..100_u32,
            jitter in 0.0..=1.0,
        ) {
            let schedule = Schedule::from_seconds(waits.clone()).unwrap();
            match schedule.wait_after(failed, ZERO, Jitter::new(jitter)) {
                Some(wait) => {
                    let base = waits[failed as usize] as f64;
                    prop_assert!(wait.as_secs_f64() >= base - 1e-6);
                    prop_assert!(wait.as_secs_f64() <= base * (1.0 + Jitter::SPREAD) + 1e-6);
                }
                None => prop_assert!(failed as usize >= waits.len()),
            }
        }

        #[test]
        fn an_exponential_wait_never_shrinks_nor_exceeds_its_cap_and_window(
            base in 1..=LONGEST_WAIT,
            more in 0..=LONGEST_WAIT,
            factor in FACTORS,
            attempts in 1..=50_u32,
            window in proptest::option::of(1..=LONGEST_WINDOW),
            elapsed in 0..=LONGEST_WINDOW,
            failed in 1..100_u32,
            jitter in 0.0..=1.0,
        ) {
            let cap = (base + more).min(LONGEST_WAIT);
            let schedule = Schedule::exponential(base, factor, cap, attempts, window).unwrap();
            if let Some(nominal) = schedule.seconds_after(failed) {
                prop_assert!((base..=cap).contains(&nominal));
                prop_assert!(failed == 1 || schedule.seconds_after(failed - 1) <= Some(nominal));
            }
            let elapsed = Duration::from_secs(elapsed);
            if let Some(wait) = schedule.wait_after(failed, elapsed, Jitter::new(jitter)) {
                prop_assert!(failed < attempts);
                prop_assert!(wait.as_secs_f64() <= cap as f64 * (1.0 + Jitter::SPREAD) + 1e-6);
                prop_assert!(window.is_none_or(|window| elapsed + wait <= Duration::from_secs(window)));
            }
        }
    }

    #[test]
    fn impossible_schedules_are_refused() {
        for bad in [vec![], vec![0; 51], vec![0, LONGEST_WAIT + 1]] {
            assert_eq!(Schedule::from_seconds(bad), Err(InvalidSchedule));
        }
        for (base, factor, cap, attempts, window) in [
            (0, 2.0, 60, 5, None),
            (5, 0.9, 60, 5, None),
            (5, f64::NAN, 60, 5, None),
            (5, 100.1, 60, 5, None),
            (5, 2.0, 4, 5, None),
            (5, 2.0, LONGEST_WAIT + 1, 5, None),
            (5, 2.0, 60, 0, None),
            (5, 2.0, 60, 51, None),
            (5, 2.0, 60, 5, Some(0)),
            (5, 2.0, 60, 5, Some(LONGEST_WINDOW + 1)),
        ] {
            let made = Schedule::exponential(base, factor, cap, attempts, window);
            assert_eq!(
                made,
                Err(InvalidSchedule),
                "{base} {factor} {cap} {attempts}"
            );
        }
    }
}
