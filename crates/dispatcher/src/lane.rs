//! One endpoint's lane: how many requests are in flight, how fast they may start, and who must wait.
//!
//! A delivery waits here for seconds at most; whoever would wait longer is deferred to a slot that the
//! lane reserves, so that a backlog comes back one by one and not as a herd.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use fanfare_model::{DeferReason, Delivery, Endpoint, Outcome, Settlement, Timestamp};
use governor::{
    DefaultDirectRateLimiter,
    clock::{Clock as _, DefaultClock},
};
use tokio::{
    sync::{Mutex as FairMutex, Notify},
    time::{self, Instant},
};

use self::{
    pace::Pace,
    slots::{expected_wait, reserve, spacing},
    standing::Standing,
};
use crate::{
    breaker::{Admission, Pass},
    decide::LaneView,
};

mod pace;
mod slots;
mod standing;
#[cfg(test)]
mod tests;

pub(crate) use self::standing::Turn;

/// The longest that a delivery waits in memory for its turn.
const LONGEST_HOLD: Duration = Duration::from_secs(2);

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
    pace: Pace,
    /// Reserved slots end here.
    next_slot: Option<Timestamp>,
    standing: Standing,
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
        self.state().pace.last_start
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
            let limiter = self
                .state()
                .pace
                .limiter_for(rate, delivery.last_start, now());
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
        state.pace.last_start = Some(now());
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

impl State {
    /// How long an attempt takes: the average, or the age of the oldest in flight if that is more.
    fn slowness(&self) -> Duration {
        let oldest = self
            .in_flight
            .first_key_value()
            .map(|(_, start)| start.elapsed());
        self.typical.max(oldest).unwrap_or_default()
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
