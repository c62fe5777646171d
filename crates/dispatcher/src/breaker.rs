//! An endpoint's circuit: closed while its receiver answers, open while it looks down.
//!
//! Pure: `now` is passed in. An open circuit lets one probe through when its time has come; a success
//! closes it, a failure opens it for twice as long.

use std::time::Duration;

use fanfare_model::Timestamp;
use fanfare_wire::Circuit;

/// This many failures in a row open the circuit.
const CONSECUTIVE: u32 = 8;
/// This many attempts within [`WINDOW`] are enough to judge by their ratio.
const ENOUGH: u32 = 20;
/// This many of a hundred attempts within [`WINDOW`] failed: too many.
const TOO_MANY_OF_HUNDRED: u32 = 80;
/// Seconds; the ratio is taken over the last 50 to 60 of them.
const WINDOW: i64 = 60;
const BUCKETS: usize = 6;

/// How long the circuit stays open at first. Whoever comes while a probe is out looks again after it.
const SHORTEST: Duration = Duration::from_secs(5);
/// How long it stays open at most, however often the probe failed.
const LONGEST: Duration = Duration::from_secs(300);

/// What an attempt said about the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// It answered, if only to refuse.
    Up,
    /// It did not answer, or said that it cannot.
    Down,
    /// Nothing: it was not asked.
    Unknown,
}

/// The circuit of one endpoint.
#[derive(Debug)]
pub(crate) struct Breaker {
    state: State,
    /// Grows with each opening, so that attempts from before are not counted after.
    generation: u32,
    consecutive: u32,
    window: [Bucket; BUCKETS],
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed,
    Open(Opening),
    /// One probe is out.
    Probing(Opening),
}

#[derive(Debug, Clone, Copy)]
struct Opening {
    since: Timestamp,
    until: Timestamp,
    wait: Duration,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// Which part of time it counts.
    part: i64,
    all: u32,
    failed: u32,
}

/// Whether an attempt may start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It may; hand the pass back with what came of it.
    Go(Pass),
    /// Not before this.
    Wait(Timestamp),
}

/// Names the attempt to the circuit that let it through.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pass {
    generation: u32,
    probe: bool,
}

/// What an attempt did to the circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It was closed and is open.
    Opened {
        /// When the first probe goes.
        until: Timestamp,
    },
    /// It was open since then, and is closed.
    Closed {
        /// Since when it had been open.
        since: Timestamp,
    },
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            state: State::Closed,
            generation: 0,
            consecutive: 0,
            window: [Bucket::default(); BUCKETS],
        }
    }
}

impl Breaker {
    /// Closes the circuit and forgets everything, attempts under way included.
    pub(crate) fn reset(&mut self) {
        *self = Self {
            generation: self.generation.wrapping_add(1),
            ..Self::default()
        };
    }

    /// Whether there is nothing to remember: everyone is let through, and no failure counts any more.
    pub(crate) fn is_as_new(&self, now: Timestamp) -> bool {
        let is_closed = matches!(self.state, State::Closed);
        is_closed && self.consecutive == 0 && self.recent(now).1 == 0
    }

    /// Until when nobody is let through; `None` when an attempt may start.
    pub(crate) fn open_until(&self, now: Timestamp) -> Option<Timestamp> {
        match self.state {
            State::Closed => None,
            State::Open(opening) => (opening.until > now).then_some(opening.until),
            State::Probing(_) => Some(now + SHORTEST),
        }
    }

    /// What it lets through, and since and until when it is open.
    pub(crate) fn circuit(&self, now: Timestamp) -> (Circuit, Option<(Timestamp, Timestamp)>) {
        match self.state {
            State::Closed => (Circuit::Closed, None),
            State::Open(Opening { since, until, .. }) if until > now => {
                (Circuit::Open, Some((since, until)))
            }
            State::Open(Opening { since, until, .. })
            | State::Probing(Opening { since, until, .. }) => {
                (Circuit::HalfOpen, Some((since, until)))
            }
        }
    }

    /// Lets an attempt start, or not. From an open circuit one goes when the time has come.
    pub(crate) fn admit(&mut self, now: Timestamp) -> Admission {
        if let Some(until) = self.open_until(now) {
            return Admission::Wait(until);
        }
        let probe = match self.state {
            State::Open(opening) => {
                self.state = State::Probing(opening);
                true
            }
            State::Closed | State::Probing(_) => false,
        };
        Admission::Go(Pass {
            generation: self.generation,
            probe,
        })
    }

    /// Takes in what came of an attempt.
    pub(crate) fn record(&mut self, pass: &Pass, health: Health, now: Timestamp) -> Option<Change> {
        if pass.generation != self.generation {
            return None;
        }
        match (self.state, health) {
            (State::Probing(_), Health::Unknown) => {
                self.give_back(pass);
                None
            }
            (State::Probing(opening), Health::Up) => {
                self.reset();
                let since = opening.since;
                Some(Change::Closed { since })
            }
            (State::Probing(opening), Health::Down) => {
                let wait = (opening.wait * 2).min(LONGEST);
                self.open(opening.since, wait, now);
                None
            }
            (State::Closed, Health::Up | Health::Down) => {
                self.count(health == Health::Down, now);
                if !self.trips(now) {
                    return None;
                }
                self.open(now, SHORTEST, now);
                let until = now + SHORTEST;
                Some(Change::Opened { until })
            }
            (State::Closed, Health::Unknown) | (State::Open(_), _) => None,
        }
    }

    /// An attempt that was let through was not made: if it was the probe, the next one is.
    pub(crate) fn give_back(&mut self, pass: &Pass) {
        if let State::Probing(opening) = self.state
            && pass.probe
            && pass.generation == self.generation
        {
            self.state = State::Open(opening);
        }
    }

    fn open(&mut self, since: Timestamp, wait: Duration, now: Timestamp) {
        self.reset();
        self.state = State::Open(Opening {
            since,
            until: now + wait,
            wait,
        });
    }

    fn count(&mut self, failed: bool, now: Timestamp) {
        self.consecutive = if failed {
            self.consecutive.saturating_add(1)
        } else {
            0
        };
        let part = part_of(now);
        let bucket = &mut self.window[part.rem_euclid(BUCKETS as i64) as usize];
        if bucket.part != part {
            *bucket = Bucket {
                part,
                ..Bucket::default()
            };
        }
        bucket.all = bucket.all.saturating_add(1);
        bucket.failed = bucket.failed.saturating_add(u32::from(failed));
    }

    /// How many attempts there were lately, and how many of them failed.
    fn recent(&self, now: Timestamp) -> (u64, u64) {
        let recent = part_of(now) - BUCKETS as i64;
        let window = self.window.iter().filter(|bucket| bucket.part > recent);
        window.fold((0, 0), |(all, failed), bucket| {
            (
                all + u64::from(bucket.all),
                failed + u64::from(bucket.failed),
            )
        })
    }

    fn trips(&self, now: Timestamp) -> bool {
        let (all, failed) = self.recent(now);
        let too_many = failed * 100 >= all * u64::from(TOO_MANY_OF_HUNDRED);
        self.consecutive >= CONSECUTIVE || (all >= u64::from(ENOUGH) && too_many)
    }
}

fn part_of(now: Timestamp) -> i64 {
    now.as_second().div_euclid(WINDOW / BUCKETS as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::samples::at;

    fn go(breaker: &mut Breaker, second: i64) -> Pass {
        match breaker.admit(at(second)) {
            Admission::Go(pass) => pass,
            Admission::Wait(until) => panic!("open until {until}"),
        }
    }

    fn attempt(breaker: &mut Breaker, second: i64, health: Health) -> Option<Change> {
        let pass = go(breaker, second);
        breaker.record(&pass, health, at(second))
    }

    fn opened(second: i64) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 1..CONSECUTIVE {
            assert_eq!(attempt(&mut breaker, second, Health::Down), None);
        }
        let change = attempt(&mut breaker, second, Health::Down);
        let until = at(second + 5);
        assert_eq!(change, Some(Change::Opened { until }));
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_a_success_among_them_does_not() {
        opened(100);
        let mut breaker = Breaker::default();
        for health in [Health::Down, Health::Up, Health::Unknown].repeat(9) {
            assert_eq!(attempt(&mut breaker, 100, health), None);
        }
    }

    #[test]
    fn too_many_failures_within_the_window_open_it() {
        // Of ten attempts the first and some more succeed; never do eight in a row fail.
        for (pause, succeed, opens) in [
            (0, &[0, 5][..], true),
            (4, &[0, 5], false),
            (0, &[0, 4, 7], false),
        ] {
            let mut breaker = Breaker::default();
            let changes = (0..30).filter_map(|n: i64| {
                let up = succeed.contains(&(n % 10));
                let health = if up { Health::Up } else { Health::Down };
                let pass = Pass {
                    generation: 0,
                    probe: false,
                };
                breaker.record(&pass, health, at(n * pause))
            });
            assert_eq!(changes.count() == 1, opens, "{pause} {succeed:?}");
        }
    }

    #[test]
    fn one_probe_goes_when_the_time_has_come() {
        let mut breaker = opened(100);
        assert_eq!(breaker.admit(at(104)), Admission::Wait(at(105)));
        let open = Some((at(100), at(105)));
        assert_eq!(breaker.circuit(at(104)), (Circuit::Open, open));
        assert_eq!(breaker.circuit(at(105)), (Circuit::HalfOpen, open));
        let probe = go(&mut breaker, 105);
        assert_eq!(breaker.circuit(at(106)), (Circuit::HalfOpen, open));
        assert_eq!(breaker.admit(at(106)), Admission::Wait(at(111)));
        assert_eq!(breaker.open_until(at(106)), Some(at(111)));
        let change = breaker.record(&probe, Health::Up, at(107));
        assert_eq!(change, Some(Change::Closed { since: at(100) }));
        go(&mut breaker, 107);
        go(&mut breaker, 107);
    }

    #[test]
    fn each_failed_probe_doubles_the_wait_up_to_five_minutes() {
        let mut breaker = opened(0);
        let mut now = 5;
        for wait in [10, 20, 40, 80, 160, 300, 300] {
            assert_eq!(attempt(&mut breaker, now, Health::Down), None);
            assert_eq!(breaker.open_until(at(now)), Some(at(now + wait)));
            now += wait;
        }
        let change = attempt(&mut breaker, now, Health::Up);
        assert_eq!(change, Some(Change::Closed { since: at(0) }));
    }

    #[test]
    fn a_probe_that_was_not_made_leaves_its_turn_to_the_next() {
        let mut breaker = opened(100);
        let probe = go(&mut breaker, 105);
        breaker.give_back(&probe);
        let probe = go(&mut breaker, 105);
        assert_eq!(breaker.record(&probe, Health::Unknown, at(105)), None);
        go(&mut breaker, 105);
    }

    #[test]
    fn attempts_from_before_it_opened_say_nothing_after() {
        let mut breaker = Breaker::default();
        let late: Vec<_> = (0..10).map(|_| go(&mut breaker, 100)).collect();
        for pass in &late[..8] {
            breaker.record(pass, Health::Down, at(100));
        }
        let probe = go(&mut breaker, 105);
        assert_eq!(breaker.record(&late[8], Health::Up, at(105)), None);
        breaker.give_back(&late[9]);
        assert!(breaker.open_until(at(105)).is_some());
        assert!(breaker.record(&probe, Health::Up, at(106)).is_some());
        breaker.reset();
        assert_eq!(breaker.record(&late[9], Health::Down, at(106)), None);
        assert_eq!(breaker.consecutive, 0);
    }

    #[test]
    fn a_failure_is_remembered_for_as_long_as_it_counts() {
        let mut breaker = Breaker::default();
        assert!(breaker.is_as_new(at(100)));
        for (health, now, is_as_new) in [
            (Health::Up, 100, true),
            (Health::Down, 101, false),
            (Health::Up, 102, false),
            (Health::Up, 159, false),
            (Health::Up, 160, true),
            (Health::Down, 161, false),
            (Health::Unknown, 1000, false),
            (Health::Up, 1001, true),
        ] {
            let pass = go(&mut breaker, now);
            breaker.record(&pass, health, at(now));
            assert_eq!(breaker.is_as_new(at(now)), is_as_new, "{health:?} {now}");
        }
        assert!(!opened(100).is_as_new(at(10_000)));
    }

    proptest! {
        /// Whatever happens, an open circuit lets one through at a time, and it always closes again for
        /// a receiver that is back.
        #[test]
        fn it_never_lets_a_herd_through_and_never_stays_shut(
            steps in proptest::collection::vec((0..60_i64, 0..3_u8, any::<bool>()), 1..200),
        ) {
            let mut breaker = Breaker::default();
            let (mut now, mut out) = (0, Vec::new());
            for (later, kind, starts) in steps {
                now += later;
                if starts {
                    let open = !matches!(breaker.state, State::Closed);
                    if let Admission::Go(pass) = breaker.admit(at(now)) {
                        prop_assert_eq!(pass.probe, open);
                        let probes = |pass: &Pass| pass.probe && pass.generation == breaker.generation;
                        prop_assert!(!(open && out.iter().any(probes)));
                        out.push(pass);
                    }
                } else if let Some(pass) = out.pop() {
                    let health = [Health::Up, Health::Down, Health::Unknown][usize::from(kind)];
                    breaker.record(&pass, health, at(now));
                }
            }
            for pass in out.drain(..) {
                breaker.give_back(&pass);
            }
            now += 300;
            let pass = go(&mut breaker, now);
            breaker.record(&pass, Health::Up, at(now));
            prop_assert_eq!(breaker.open_until(at(now)), None);
        }
    }
}
