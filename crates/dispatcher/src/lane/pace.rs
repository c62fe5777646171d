//! How fast requests of a lane may start.
//!
//! The generic cell rate algorithm by `governor`, on a clock that never jumps. Wall time enters once, when a lane
//! goes on from starts that were made elsewhere or earlier.

use std::time::Duration;

use fanfare_model::{Rate, Timestamp};
use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, FakeRelativeClock},
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed},
};
use tokio::time::Instant;

/// The pace of a lane, for the rate that it was asked for last.
#[derive(Default)]
pub(super) struct Pace {
    gate: Option<Gate>,
    pub(super) last_start: Option<Timestamp>,
    tenure: u64,
    /// Another owner of the partition may have started a request as late as this.
    inherited: Option<Timestamp>,
}

impl Pace {
    /// Whether there is nothing to remember: no rate, or all of its burst is there again.
    pub(super) fn is_as_new(&self) -> bool {
        self.gate.as_ref().is_none_or(Gate::is_rested)
    }

    /// Begins anew when the partition was another's meanwhile, who may have started requests until `inherited`.
    pub(super) fn begin(&mut self, tenure: u64, inherited: impl FnOnce() -> Option<Timestamp>) {
        if self.tenure != tenure {
            self.tenure = tenure;
            self.gate = None;
            self.inherited = inherited();
        }
    }

    /// Takes a start if the rate allows one now, else says how long it will not.
    ///
    /// `carried` is the last start that the delivery knows of.
    pub(super) fn take(
        &mut self,
        rate: Rate,
        carried: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), Duration> {
        let gate = match self.gate.take() {
            Some(gate) if gate.rate == rate => gate,
            Some(_) => Gate::new(rate, Some(Duration::ZERO)),
            None => {
                let known = carried.max(self.last_start).max(self.inherited);
                Gate::new(rate, known.map(|last| since(last, now)))
            }
        };
        let taken = self.gate.insert(gate).take();
        if taken.is_ok() {
            self.last_start = Some(now);
        }
        taken
    }

    /// The last start, while it still matters to whoever goes on at this rate.
    pub(super) fn unsettled_start(&self, now: Timestamp) -> Option<Timestamp> {
        let (gate, last) = (self.gate.as_ref()?, self.last_start?);
        (since(last, now) < gate.rests_for()).then_some(last)
    }
}

/// What lets starts through at one rate.
struct Gate {
    rate: Rate,
    limiter: RateLimiter<NotKeyed, InMemoryState, FakeRelativeClock, NoOpMiddleware<Nanos>>,
    /// Told the time rather than asked for it, so that a gate can begin in the past.
    clock: FakeRelativeClock,
    told: Instant,
}

impl Gate {
    /// Begins as though the burst had been used up this long ago, or with all of it.
    fn new(rate: Rate, used_up: Option<Duration>) -> Self {
        let quota = Quota::with_period(rate.interval()).expect("a rate has an interval");
        let clock = FakeRelativeClock::default();
        let limiter =
            RateLimiter::direct_with_clock(quota.allow_burst(rate.burst()), clock.clone());
        if let Some(ago) = used_up {
            let taken = limiter.check_n(rate.burst());
            debug_assert!(
                matches!(taken, Ok(Ok(()))),
                "a new gate lets one burst through"
            );
            clock.advance(ago);
        }
        Self {
            rate,
            limiter,
            clock,
            told: Instant::now(),
        }
    }

    fn take(&mut self) -> Result<(), Duration> {
        let now = Instant::now();
        self.clock.advance(now.duration_since(self.told));
        self.told = now;
        let taken = self.limiter.check();
        taken.map_err(|until| until.wait_time_from(self.clock.now()))
    }

    /// How long after a start it can matter.
    fn rests_for(&self) -> Duration {
        self.rate.interval() * self.rate.burst().get()
    }

    fn is_rested(&self) -> bool {
        self.told.elapsed() >= self.rests_for()
    }
}

/// A start in the future is a clock that differs; then it is as if it were now.
fn since(start: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(start)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tokio::time;

    use super::*;
    use crate::samples::at;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_nothing_to_remember_once_the_whole_burst_is_back() {
        let mut pace = Pace::default();
        assert!(pace.is_as_new());
        for _ in 0..3 {
            _ = pace.take(rate("1/s burst 5"), None, at(0));
        }
        for (after, is_as_new) in [(0, false), (4999, false), (1, true)] {
            time::advance(Duration::from_millis(after)).await;
            assert_eq!(pace.is_as_new(), is_as_new, "{after}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn starts_never_exceed_rate_and_burst_in_any_window() {
        for (text, burst, interval) in [("50/s burst 10", 10, 20), ("1/min", 1, 60_000)] {
            let mut pace = Pace::default();
            let mut starts = Vec::new();
            let begin = Instant::now();
            while starts.len() < 60 {
                match pace.take(rate(text), None, at(0)) {
                    Ok(()) => starts.push(begin.elapsed().as_millis()),
                    Err(wait) => time::sleep(wait).await,
                }
                // A rest gathers at most one burst.
                if starts.len() == 30 {
                    time::sleep(Duration::from_millis(interval * 100)).await;
                }
            }
            for (first, from) in starts.iter().enumerate() {
                for (last, to) in starts.iter().enumerate().skip(first) {
                    let most = (to - from) / u128::from(interval) + burst;
                    assert!(((last - first) as u128) < most, "{text} {from} {to}");
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_exactly_where_another_owner_left_it() {
        let seconds = |text, carried: Option<i64>, inherited: Option<i64>| {
            let mut pace = Pace::default();
            pace.begin(1, || inherited.map(at));
            let taken = pace.take(rate(text), carried.map(at), at(100));
            taken.err().map_or(0, |wait| wait.as_secs())
        };
        for (text, carried, inherited, wait) in [
            ("1/min", None, None, 0),
            ("1/min", Some(30), None, 0),
            ("1/min", Some(70), None, 30),
            ("1/min", Some(70), Some(90), 50),
            ("1/min", None, Some(100), 60),
            ("1/min", Some(200), None, 60),
            // Five at once, all of them used at the last start: one came back since.
            ("1/min burst 5", Some(30), None, 0),
            ("1/min burst 5", Some(70), None, 30),
        ] {
            assert_eq!(
                seconds(text, carried, inherited),
                wait,
                "{text} {carried:?} {inherited:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_tenure_and_a_new_rate_begin_without_a_burst() {
        let mut pace = Pace::default();
        pace.begin(1, || None);
        assert_eq!(pace.take(rate("1/min burst 3"), None, at(100)), Ok(()));
        pace.begin(1, || Some(at(100)));
        assert_eq!(pace.take(rate("1/min burst 3"), None, at(100)), Ok(()));
        pace.begin(2, || Some(at(100)));
        let wait = pace.take(rate("1/min burst 3"), None, at(100));
        assert_eq!(wait, Err(Duration::from_secs(60)));
        let wait = pace.take(rate("1/s"), None, at(100));
        assert_eq!(wait, Err(Duration::from_secs(1)));
        assert_eq!(pace.unsettled_start(at(100)), Some(at(100)));
        assert_eq!(pace.unsettled_start(at(102)), None);
    }
}
