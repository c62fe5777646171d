//! How a receiver behaves towards whoever calls it: answers, fails on demand, or hangs.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use axum::http::StatusCode;

/// How a receiver behaves.
#[derive(Debug, Clone)]
pub(crate) struct Behaviour {
    /// The answer to everything that is not refused and does not fail.
    pub(crate) status: StatusCode,
    /// How long an answer takes.
    pub(crate) delay: Duration,
    /// How many of the requests fail, from 0 to 1.
    pub(crate) fail_rate: f64,
    /// With which status.
    pub(crate) fail_status: StatusCode,
    /// How many attempts of each delivery fail before one may succeed.
    pub(crate) fail_first: u32,
    /// How many of the requests get no answer, from 0 to 1.
    pub(crate) hang_rate: f64,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            status: StatusCode::OK,
            delay: Duration::ZERO,
            fail_rate: 0.0,
            fail_status: StatusCode::SERVICE_UNAVAILABLE,
            fail_first: 0,
            hang_rate: 0.0,
        }
    }
}

/// What is done with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Play {
    Answer,
    Fail,
    Hang,
}

impl Behaviour {
    /// What is done with a request of which so many attempts came before. `dice` is from 0 to 1.
    pub(super) fn play(&self, earlier_attempts: u32, dice: f64) -> Play {
        if earlier_attempts < self.fail_first {
            Play::Fail
        } else if dice < self.hang_rate {
            Play::Hang
        } else if dice < self.hang_rate + self.fail_rate {
            Play::Fail
        } else {
            Play::Answer
        }
    }
}

/// The deliveries whose attempts are counted. More are forgotten, and count from the start again.
const MOST_COUNTED: usize = 100_000;

/// Counts the attempts of each delivery.
#[derive(Debug, Default)]
pub(super) struct Attempts(Mutex<HashMap<String, u32>>);

impl Attempts {
    /// How many came before this one.
    pub(super) fn count(&self, id: &str) -> u32 {
        let mut counts = self.0.lock().expect("nobody panics while counting");
        if counts.len() >= MOST_COUNTED {
            counts.clear();
        }
        let count = counts.entry(id.to_owned()).or_default();
        let earlier = *count;
        *count = count.saturating_add(1);
        earlier
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_fail_and_hang_as_often_as_asked() {
        let behaviour = Behaviour {
            fail_rate: 0.5,
            hang_rate: 0.25,
            fail_first: 2,
            ..Behaviour::default()
        };
        for (earlier, dice, expected) in [
            (0, 0.99, Play::Fail),
            (1, 0.0, Play::Fail),
            (2, 0.0, Play::Hang),
            (2, 0.249, Play::Hang),
            (2, 0.25, Play::Fail),
            (2, 0.749, Play::Fail),
            (9, 0.75, Play::Answer),
        ] {
            assert_eq!(behaviour.play(earlier, dice), expected, "{earlier} {dice}");
        }
        assert_eq!(Behaviour::default().play(0, 0.0), Play::Answer);
    }

    #[test]
    fn attempts_are_counted_for_each_delivery() {
        let attempts = Attempts::default();
        let counted = ["a", "a", "b", "a"].map(|id| attempts.count(id));
        assert_eq!(counted, [0, 1, 0, 2]);
    }
}
