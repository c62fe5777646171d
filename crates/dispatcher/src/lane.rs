//! One endpoint's lane: how many requests are in flight, how fast they may start, and who must wait.
//!
//! A delivery waits here for seconds at most; whoever would wait longer is deferred to a slot that the
//! lane reserves, so that a backlog comes back one by one and not as a herd.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use fanfare_model::{
    DeferReason, Delivery, DisabledReason, Endpoint, Outcome, Rate, Settlement, Timestamp,
};
use governor::{
    DefaultDirectRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};
use tokio::{
    sync::{Mutex as FairMutex, Notify},
    time::{self, Instant},
};

use crate::{
    breaker::{Admission, Breaker, Change, Pass},
    decide::{self, LaneView},
};

/// The longest that a delivery waits in memory for its turn.
const LONGEST_HOLD: Duration = Duration::from_secs(2);

/// The shortest deferral: the shortest tier of the delay line.
const SHORTEST_DEFERRAL: Duration = Duration::from_secs(1);

/// How far ahead slots are reserved, so that a raised limit or a recovered receiver takes effect soon.
const HORIZON: Duration = Duration::from_secs(300);

/// The least time between two that come back when a receiver is back.
const LEAST_SPACING: Duration = Duration::from_millis(1);

/// One endpoint's lane.
pub(crate) struct Lane {
    state: Mutex<State>,
    /// Told each time a place in flight becomes free.
    freed: Notify,
    /// Held while waiting for the rate, so that the waiting ones start in the order they came.
    turn: FairMutex<()>,
}

#[derive(Default)]
struct State {
    /// When each request in flight started, by a number that grows.
    in_flight: BTreeMap<u64, Instant>,
    next_number: u64,
    waiting: usize,
    /// How long an attempt takes, as a moving average.
    typical: Option<Duration>,
    limiter: Option<(Rate, Arc<DefaultDirectRateLimiter>)>,
    /// Reserved slots end here.
    next_slot: Option<Timestamp>,
    last_start: Option<Timestamp>,
    standing: Standing,
}

/// What is known of the receiver. A change of the endpoint by its owner is a new beginning.
#[derive(Default)]
struct Standing {
    /// When the endpoint that this is about was changed last.
    as_of: Option<Timestamp>,
    held_back_until: Option<Timestamp>,
    breaker: Breaker,
    /// How many attempts in a row failed, and when the first of them did.
    failing: Option<(u32, Timestamp)>,
    given_up: Option<DisabledReason>,
}

/// What one attempt changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Turn {
    /// The circuit opened or closed.
    pub(crate) circuit: Option<Change>,
    /// The endpoint is to be disabled; told once.
    pub(crate) disable: Option<DisabledReason>,
}

/// Whether an attempt may start.
pub(crate) enum Entry {
    /// It may, and counts as in flight until the place is dropped.
    Go(Place),
    /// Not soon enough to wait here.
    Defer { until: Timestamp, why: DeferReason },
}

/// A place in flight.
pub(crate) struct Place {
    lane: Arc<Lane>,
    number: u64,
    /// Present from the moment that the attempt may start until its outcome is known.
    pass: Option<Pass>,
}

impl Lane {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::default(),
            freed: Notify::new(),
            turn: FairMutex::new(()),
        }
    }

    /// What the decision before an attempt has to know.
    pub(crate) fn view(&self, endpoint: &Endpoint, now: Timestamp) -> LaneView {
        let mut state = self.state();
        if state.standing.is_of_another(endpoint) {
            state.standing.begin_anew(endpoint);
            state.next_slot = None;
        }
        LaneView {
            held_back_until: state.standing.held_back_until,
            open_until: state.standing.breaker.open_until(now),
            given_up: state.standing.given_up,
        }
    }

    /// The start of the last request, to be carried along by whoever waits outside.
    pub(crate) fn last_start(&self) -> Option<Timestamp> {
        self.state().last_start
    }

    /// Ends an attempt: frees its place and takes in what it says about the receiver.
    pub(crate) fn conclude(
        &self,
        mut place: Place,
        endpoint: &Endpoint,
        outcome: &Outcome,
        now: Timestamp,
    ) -> Turn {
        let pass = place.pass.take();
        drop(place);
        let mut state = self.state();
        if state.standing.is_of_another(endpoint) {
            return Turn::default();
        }
        state.standing.learn(pass, endpoint, outcome, now)
    }

    /// Gives those who wait for the receiver as a whole a slot each, so that they come back one by one.
    pub(crate) fn spread(
        &self,
        settlement: Settlement,
        endpoint: &Endpoint,
        now: Timestamp,
    ) -> Settlement {
        match settlement {
            Settlement::Defer {
                until,
                why: why @ (DeferReason::HeldBack | DeferReason::CircuitOpen),
            } => {
                let until = self.slot(until, endpoint, now);
                Settlement::Defer { until, why }
            }
            Settlement::Delivered
            | Settlement::Retry { .. }
            | Settlement::Defer { .. }
            | Settlement::DeadLetter { .. }
            | Settlement::Discard { .. } => settlement,
        }
    }

    fn slot(&self, from: Timestamp, endpoint: &Endpoint, now: Timestamp) -> Timestamp {
        let interval = endpoint.rate.map(|rate| rate.interval());
        let mut state = self.state();
        let interval = interval.unwrap_or_default().max(LEAST_SPACING);
        let spacing = spacing(endpoint.max_in_flight, state.slowness(), interval);
        let chance = rand::random();
        let (until, next_slot) = reserve(state.next_slot, spacing, chance, from, now);
        state.next_slot = Some(next_slot);
        until
    }

    /// Waits briefly for a place in flight and for the rate, in this order.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        delivery: &Delivery,
        endpoint: &Endpoint,
        now: impl Fn() -> Timestamp,
    ) -> Entry {
        let (cap, interval) = (
            endpoint.max_in_flight,
            endpoint.rate.map(|rate| rate.interval()),
        );
        let interval = interval.unwrap_or_default();
        // Whoever comes back from a slot has waited its turn already.
        let new_here = delivery.wait.is_none();
        let spacing = {
            let state = self.state();
            let expected = expected_wait(state.waiting, cap, state.slowness(), interval);
            let slots_taken = new_here && state.next_slot.is_some_and(|slot| slot > now());
            let spacing = spacing(cap, state.slowness(), interval);
            if expected <= LONGEST_HOLD && !slots_taken {
                Ok(spacing)
            } else {
                Err(spacing)
            }
        };
        let overload = if interval.is_zero() {
            DeferReason::OverShare
        } else {
            DeferReason::OverRate
        };
        match spacing {
            Ok(spacing) => match time::timeout(LONGEST_HOLD, self.place(cap)).await {
                Ok(place) => self.pace(place, endpoint, delivery, now).await,
                Err(_) => self.defer(spacing, DeferReason::OverShare, now()),
            },
            Err(spacing) => self.defer(spacing, overload, now()),
        }
    }

    /// Waits for a place in flight.
    async fn place(self: &Arc<Self>, cap: u16) -> Place {
        let _waiting = Waiting::new(self);
        loop {
            let freed = self.freed.notified();
            {
                let mut state = self.state();
                if state.in_flight.len() < usize::from(cap) {
                    let number = state.next_number;
                    state.next_number += 1;
                    state.in_flight.insert(number, Instant::now());
                    return Place {
                        lane: Arc::clone(self),
                        number,
                        pass: None,
                    };
                }
            }
            freed.await;
        }
    }

    /// Waits for the rate, with a place in flight held.
    async fn pace(
        self: &Arc<Self>,
        mut place: Place,
        endpoint: &Endpoint,
        delivery: &Delivery,
        now: impl Fn() -> Timestamp,
    ) -> Entry {
        if let Some(rate) = endpoint.rate {
            let limiter = self.state().limiter_for(rate, delivery.last_start, now());
            let started = time::timeout(LONGEST_HOLD, self.wait_for_rate(&limiter)).await;
            if !matches!(started, Ok(true)) {
                return self.defer(rate.interval(), DeferReason::OverRate, now());
            }
        }
        let mut state = self.state();
        match state.standing.breaker.admit(now()) {
            Admission::Go(pass) => place.pass = Some(pass),
            Admission::Wait(until) => {
                drop(state);
                let (until, why) = (self.slot(until, endpoint, now()), DeferReason::CircuitOpen);
                return Entry::Defer { until, why };
            }
        }
        // The time spent waiting for the rate says nothing about the receiver.
        state.in_flight.insert(place.number, Instant::now());
        state.last_start = Some(now());
        drop(state);
        Entry::Go(place)
    }

    /// Whether the rate allows a start within the time that deliveries are held here.
    async fn wait_for_rate(&self, limiter: &DefaultDirectRateLimiter) -> bool {
        let _turn = self.turn.lock().await;
        loop {
            match limiter.check() {
                Ok(()) => return true,
                Err(early) => {
                    let wait = early.wait_time_from(DefaultClock::default().now());
                    if wait > LONGEST_HOLD {
                        return false;
                    }
                    time::sleep(wait).await;
                }
            }
        }
    }

    fn defer(&self, spacing: Duration, why: DeferReason, now: Timestamp) -> Entry {
        let mut state = self.state();
        let (until, next_slot) = reserve(state.next_slot, spacing, rand::random(), now, now);
        state.next_slot = Some(next_slot);
        Entry::Defer { until, why }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nobody panics while holding a lane")
    }
}

impl Standing {
    fn is_of_another(&self, endpoint: &Endpoint) -> bool {
        self.as_of != Some(endpoint.updated_at)
    }

    fn begin_anew(&mut self, endpoint: &Endpoint) {
        let mut breaker = std::mem::take(&mut self.breaker);
        breaker.reset();
        *self = Self {
            as_of: Some(endpoint.updated_at),
            breaker,
            ..Self::default()
        };
    }

    fn learn(
        &mut self,
        pass: Option<Pass>,
        endpoint: &Endpoint,
        outcome: &Outcome,
        now: Timestamp,
    ) -> Turn {
        if let Some(wait) = decide::hold_back(outcome) {
            self.held_back_until = self.held_back_until.max(Some(now + wait));
        }
        let health = decide::health(outcome, &endpoint.success);
        let circuit = pass.and_then(|pass| self.breaker.record(&pass, health, now));
        let disable = self.give_up(endpoint, outcome, now);
        if disable.is_some() {
            self.given_up = disable;
        }
        Turn { circuit, disable }
    }

    /// Counts the failures in a row, and says when they are too many.
    fn give_up(
        &mut self,
        endpoint: &Endpoint,
        outcome: &Outcome,
        now: Timestamp,
    ) -> Option<DisabledReason> {
        // An event that no request can be built from says nothing about the endpoint.
        if matches!(outcome, Outcome::Unbuildable { .. }) {
            return None;
        }
        if decide::failure_of(outcome, &endpoint.success).is_none() {
            self.failing = None;
            return None;
        }
        let (failed, since) = self.failing.unwrap_or((0, now));
        let failed = failed.saturating_add(1);
        self.failing = Some((failed, since));
        let reason = if matches!(outcome, Outcome::Answered { status: 410, .. }) {
            DisabledReason::Gone
        } else if endpoint.disable_after.applies(failed, since, now) {
            DisabledReason::Failing
        } else {
            return None;
        };
        self.given_up.is_none().then_some(reason)
    }
}

impl State {
    /// How long an attempt takes: the average, or the age of the oldest in flight if that is more.
    fn slowness(&self) -> Duration {
        let oldest = self
            .in_flight
            .first_key_value()
            .map(|(_, start)| start.elapsed());
        self.typical.max(oldest).unwrap_or_default()
    }

    fn limiter_for(
        &mut self,
        rate: Rate,
        last_start: Option<Timestamp>,
        now: Timestamp,
    ) -> Arc<DefaultDirectRateLimiter> {
        if let Some((known, limiter)) = &self.limiter
            && *known == rate
        {
            return Arc::clone(limiter);
        }
        let quota = Quota::with_period(rate.interval())
            .expect("a rate of at most 100,000 a second has an interval")
            .allow_burst(rate.burst());
        let limiter = Arc::new(RateLimiter::direct(quota));
        let last_start = last_start.max(self.last_start);
        let started_lately = last_start
            .and_then(|start| Duration::try_from(now.duration_since(start)).ok())
            .is_some_and(|ago| ago < rate.interval() * rate.burst().get());
        // A new limiter begins with a full burst. Where requests started lately, under another rate or
        // another owner, that would be a burst too many.
        if self.limiter.is_some() || started_lately {
            let drained = limiter.check_n(rate.burst());
            drained
                .expect("the burst fits the quota")
                .expect("a new limiter is full");
        }
        self.limiter = Some((rate, Arc::clone(&limiter)));
        limiter
    }
}

/// Counts a delivery as waiting, however its wait ends.
struct Waiting<'a>(&'a Lane);

impl<'a> Waiting<'a> {
    fn new(lane: &'a Lane) -> Self {
        lane.state().waiting += 1;
        Self(lane)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.lane.state();
        if let Some(pass) = &self.pass {
            state.standing.breaker.give_back(pass);
        }
        if let Some(start) = state.in_flight.remove(&self.number) {
            let took = start.elapsed();
            let smoothed = state
                .typical
                .map_or(took, |typical| (typical * 4 + took) / 5);
            state.typical = Some(smoothed);
        }
        drop(state);
        self.lane.freed.notify_one();
    }
}

/// The time between two starts that the receiver and the rate allow.
fn spacing(cap: u16, slowness: Duration, interval: Duration) -> Duration {
    (slowness / u32::from(cap.max(1))).max(interval)
}

/// How long a newcomer would wait behind `waiting` others.
fn expected_wait(waiting: usize, cap: u16, slowness: Duration, interval: Duration) -> Duration {
    let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
    spacing(cap, slowness, interval).saturating_mul(waiting)
}

/// The next slot that is not before `from`, and where the slots end then.
///
/// Slots beyond the horizon are not reserved: whoever gets one returns within the last quarter before it.
fn reserve(
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
    use fanfare_model::{Event, TraceContext};

    use super::*;
    use crate::request::tests::{at, endpoint};

    fn delivery() -> Delivery {
        let event = Arc::new(Event::for_tests("t", "s", "1", "a", b"{}"));
        let id = endpoint("https://example.com/").id;
        Delivery::new(event, id, 1, TraceContext::default(), at(0))
    }

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

    #[tokio::test(start_paused = true)]
    async fn no_more_are_in_flight_than_the_endpoint_allows() {
        let lane = Arc::new(Lane::new());
        let endpoint = Endpoint {
            max_in_flight: 2,
            ..endpoint("https://example.com/")
        };
        let newcomer = delivery();
        let enter = || lane.enter(&newcomer, &endpoint, || at(100));
        let Entry::Go(first) = enter().await else {
            panic!("the first has a place")
        };
        let Entry::Go(_second) = enter().await else {
            panic!("the second has a place")
        };
        // With the clock paused, the wait for a place ends at once: nothing else can happen.
        let Entry::Defer { until, why } = enter().await else {
            panic!("the third has none")
        };
        assert_eq!(why, DeferReason::OverShare);
        assert!(until >= at(101));
        drop(first);
        let back = delivery().waiting(until, at(100));
        let entry = lane.enter(&back, &endpoint, || at(102)).await;
        assert!(matches!(entry, Entry::Go(_)));
    }

    #[tokio::test]
    async fn a_slow_rate_defers_to_slots_one_interval_apart() {
        let lane = Arc::new(Lane::new());
        let endpoint = Endpoint {
            rate: Some("1/min".parse().unwrap()),
            ..endpoint("https://example.com/")
        };
        let enter = async || lane.enter(&delivery(), &endpoint, || at(100)).await;
        assert!(matches!(enter().await, Entry::Go(_)));
        for slot in [160, 220, 280] {
            let Entry::Defer { until, why } = enter().await else {
                panic!("over the rate")
            };
            assert_eq!((until, why), (at(slot), DeferReason::OverRate));
        }
    }

    #[tokio::test]
    async fn a_rate_goes_on_where_another_owner_left_it() {
        let endpoint = Endpoint {
            rate: Some("1/min".parse().unwrap()),
            ..endpoint("https://example.com/")
        };
        for (last_start, goes) in [(None, true), (Some(at(30)), true), (Some(at(70)), false)] {
            let delivery = Delivery {
                last_start,
                ..delivery()
            };
            let entry = Arc::new(Lane::new())
                .enter(&delivery, &endpoint, || at(100))
                .await;
            assert_eq!(matches!(entry, Entry::Go(_)), goes, "{last_start:?}");
        }
    }

    fn answered(status: u16) -> Outcome {
        Outcome::Answered {
            status,
            retry_after: None,
        }
    }

    async fn attempt(lane: &Arc<Lane>, endpoint: &Endpoint, status: u16, second: i64) -> Turn {
        lane.view(endpoint, at(second));
        match lane.enter(&delivery(), endpoint, || at(second)).await {
            Entry::Go(place) => lane.conclude(place, endpoint, &answered(status), at(second)),
            Entry::Defer { until, why } => panic!("{why:?} until {until}"),
        }
    }

    #[tokio::test]
    async fn an_open_circuit_sends_everyone_to_a_slot_of_its_own_and_lets_one_probe_through() {
        let (lane, endpoint) = (Arc::new(Lane::new()), endpoint("https://example.com/"));
        for _ in 0..7 {
            let turn = attempt(&lane, &endpoint, 503, 100).await;
            assert_eq!(turn, Turn::default());
        }
        let until = at(105);
        let turn = attempt(&lane, &endpoint, 503, 100).await;
        assert_eq!(turn.circuit, Some(Change::Opened { until }));
        let view = lane.view(&endpoint, at(100));
        assert_eq!(view.open_until, Some(until));

        let deferred = decide::before_attempt(&delivery(), &endpoint, view, at(100)).unwrap();
        let slots: Vec<_> = (0..100)
            .map(|_| {
                let spread = lane.spread(deferred.clone(), &endpoint, at(100));
                let Settlement::Defer { until, .. } = spread else {
                    panic!("{spread:?}")
                };
                until
            })
            .collect();
        assert!(
            slots[0] > until && slots.is_sorted_by(|a, b| a < b),
            "{slots:?}"
        );

        let back = delivery().waiting(until, at(100));
        let enter = async || lane.enter(&back, &endpoint, || at(106)).await;
        // A probe that is not made leaves its turn to the next.
        let Entry::Go(dropped) = enter().await else {
            panic!("the probe goes")
        };
        drop(dropped);
        let Entry::Go(probe) = enter().await else {
            panic!("the next probe goes")
        };
        let Entry::Defer { why, .. } = enter().await else {
            panic!("a second one goes beside the probe")
        };
        assert_eq!(why, DeferReason::CircuitOpen);
        let turn = lane.conclude(probe, &endpoint, &answered(200), at(107));
        assert_eq!(turn.circuit, Some(Change::Closed { since: at(100) }));
        assert!(matches!(enter().await, Entry::Go(_)));
    }

    #[tokio::test]
    async fn an_endpoint_is_given_up_once_and_a_change_is_a_new_beginning() {
        for (rules, statuses, expected) in [
            ("never", &[410][..], Some(DisabledReason::Gone)),
            ("2 failures", &[404, 404], Some(DisabledReason::Failing)),
            ("2 failures", &[404, 200, 404], None),
            ("never", &[404, 404, 404], None),
        ] {
            let lane = Arc::new(Lane::new());
            let before = Endpoint {
                disable_after: rules.parse().unwrap(),
                ..endpoint("https://example.com/")
            };
            let mut last = None;
            for status in statuses {
                last = attempt(&lane, &before, *status, 100).await.disable;
            }
            assert_eq!(last, expected, "{rules} {statuses:?}");
            assert_eq!(lane.view(&before, at(100)).given_up, expected);
            let again = attempt(&lane, &before, 410, 100).await.disable;
            let told = expected.is_none().then_some(DisabledReason::Gone);
            assert_eq!(again, told, "told once: {rules} {statuses:?}");
            let after = Endpoint {
                updated_at: before.updated_at + Duration::from_secs(1),
                ..before
            };
            assert_eq!(lane.view(&after, at(100)), LaneView::default());
        }
    }
}
