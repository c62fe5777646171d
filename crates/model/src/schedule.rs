//! When a delivery is tried again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The waits before each attempt. The first is the wait before the first attempt.
///
/// Invariant: 1 to 50 waits, each at most 30 days.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u64>", into = "Vec<u64>")]
pub struct Schedule {
    /// Seconds.
    waits: Vec<u64>,
}

const LONGEST_WAIT: u64 = 30 * 24 * 3600;
const MOST_ATTEMPTS: usize = 50;

/// Why a list of waits is not a schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a schedule is a list of 1 to 50 waits in seconds, each from 0 to 2592000 (30 days)")]
pub struct InvalidSchedule;

impl Schedule {
    /// A schedule from its waits in seconds.
    pub fn from_seconds(waits: Vec<u64>) -> Result<Self, InvalidSchedule> {
        let fits = (1..=MOST_ATTEMPTS).contains(&waits.len())
            && waits.iter().all(|wait| *wait <= LONGEST_WAIT);
        if fits {
            Ok(Self { waits })
        } else {
            Err(InvalidSchedule)
        }
    }

    /// How many attempts a delivery gets.
    pub fn attempts(&self) -> usize {
        self.waits.len()
    }

    /// The waits in seconds.
    pub fn seconds(&self) -> &[u64] {
        &self.waits
    }

    /// The wait after `failed` failed attempts; `None` when no attempt is left.
    ///
    /// Never shorter than the schedule's wait and at most a fifth longer, by `jitter`.
    pub fn wait_after(&self, failed: u32, jitter: Jitter) -> Option<Duration> {
        let wait = *self.waits.get(usize::try_from(failed).ok()?)?;
        let wait = Duration::from_secs(wait);
        Some(wait + wait.mul_f64(Jitter::SPREAD * jitter.0))
    }
}

impl Default for Schedule {
    /// The example of the Standard Webhooks specification, section "Deliverability and reliability": ten attempts in a little over three days.
    fn default() -> Self {
        const HOUR: u64 = 3600;
        Self {
            waits: vec![
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
            ],
        }
    }
}

impl TryFrom<Vec<u64>> for Schedule {
    type Error = InvalidSchedule;

    fn try_from(waits: Vec<u64>) -> Result<Self, InvalidSchedule> {
        Self::from_seconds(waits)
    }
}

impl From<Schedule> for Vec<u64> {
    fn from(schedule: Schedule) -> Self {
        schedule.waits
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

    #[test]
    fn the_default_schedule_ends_after_75_hours() {
        let schedule = Schedule::default();
        let total: u64 = schedule.seconds().iter().sum();
        assert_eq!(schedule.attempts(), 10);
        assert_eq!(total, (75 * 60 + 35) * 60 + 5);
    }

    proptest! {
        #[test]
        fn a_wait_keeps_its_bounds_and_the_attempts_end(
            waits in proptest::collection::vec(0..=LONGEST_WAIT, 1..=MOST_ATTEMPTS),
            failed in 0..100_u32,
            jitter in 0.0..=1.0,
        ) {
            let schedule = Schedule::from_seconds(waits.clone()).unwrap();
            match schedule.wait_after(failed, Jitter::new(jitter)) {
                Some(wait) => {
                    let base = waits[failed as usize] as f64;
                    prop_assert!(wait.as_secs_f64() >= base - 1e-6);
                    prop_assert!(wait.as_secs_f64() <= base * (1.0 + Jitter::SPREAD) + 1e-6);
                }
                None => prop_assert!(failed as usize >= waits.len()),
            }
        }
    }

    #[test]
    fn impossible_schedules_are_refused() {
        for bad in [vec![], vec![0; 51], vec![0, LONGEST_WAIT + 1]] {
            assert_eq!(Schedule::from_seconds(bad), Err(InvalidSchedule));
        }
    }
}
