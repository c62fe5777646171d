//! One endpoint's lane: how many requests are in flight, how fast they may start, and who must wait.
//!
//! A delivery waits here for seconds at most, and only a few do; whoever would wait longer is deferred to
//! a slot that the lane reserves, so that a backlog comes back one by one and not as a herd.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use fanfare_model::{DeferReason, Delivery, Endpoint, Outcome, Rate, Settlement, Timestamp};
use fanfare_wire::EndpointStanding;
use tokio::{
    sync::{Mutex as FairMutex, oneshot},
    time::{self, Instant},
};

use self::{
    flood::{Flood, KEEP_AWAY},
    pace::Pace,
    places::{Class, Places},
    slots::{Offer, Slots, duration, is_slot, spacing},
    standing::Standing,
};
use crate::{
    breaker::{Admission, Change, Pass},
    decide::LaneView,
};

mod flood;
mod limit;
mod pace;
mod places;
mod slots;
mod standing;
#[cfg(test)]
mod tests;

pub(crate) use self::{
    flood::Diversion,
    places::{Bounds, Load},
    standing::Turn,
};

/// The longest that a delivery waits in memory for its turn. The delay line is late by up to a second, so with
/// less in hand a lane would not use its rate.
const LONGEST_HOLD: Duration = Duration::from_secs(2);

/// What the neighbours in a partition may have to wait for one lane: as many as are done within this wait
/// here, however many messages they fill.
const MOMENT: Duration = Duration::from_millis(400);

/// How often those who wait look whether it is still worth it. The first sign of a receiver that hangs is
/// that nothing happens.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// The least time between two that come back when a receiver may be back, whose pace is not known then. While it is not,
/// each of them costs a hop, in front of its neighbours.
const LEAST_SPACING: Duration = Duration::from_millis(20);

/// One endpoint's lane.
pub(crate) struct Lane {
    state: Mutex<State>,
    /// Held while waiting for the rate, so that the waiting ones start in the order they came.
    turn: FairMutex<()>,
    bounds: Bounds,
}

#[derive(Default)]
struct State {
    places: Places,
    pace: Pace,
    slots: Slots,
    standing: Standing,
    flood: Flood,
}

/// Whether an attempt may start.
pub(crate) enum Entry {
    /// It may, and counts as in flight until the place is dropped.
    Go(Place),
    /// Not soon enough to wait here.
    Defer(Deferral),
}

/// A wait for a slot.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Deferral {
    pub(crate) until: Timestamp,
    pub(crate) why: DeferReason,
    /// News for routers, if the endpoint is flooded.
    pub(crate) diversion: Option<Diversion>,
}

/// A place in flight.
pub(crate) struct Place {
    /// Absent when the place is given back already.
    lane: Option<Arc<Lane>>,
    number: u64,
    load: Load,
    /// Present from the moment that the attempt may start until its outcome is known.
    pass: Option<Pass>,
    /// When the rate allowed the start, by which its windows are counted.
    pub(crate) started: Option<Timestamp>,
}

/// How a delivery is received.
enum Arrival {
    Place(Place),
    Wait(InLine),
    Defer(Deferral),
}

/// Somebody in line for a place, who leaves the line when this is dropped.
struct InLine {
    lane: Arc<Lane>,
    class: Class,
    ticket: u64,
    granted: oneshot::Receiver<Place>,
}

impl Lane {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            state: Mutex::default(),
            turn: FairMutex::new(()),
            bounds,
        }
    }

    /// What the decision before an attempt has to know.
    pub(crate) fn view(&self, endpoint: &Endpoint, now: Timestamp) -> LaneView {
        let mut state = self.state();
        if state.standing.is_of_another(endpoint) {
            state.standing.begin_anew(endpoint);
            state.slots = Slots::default();
        }
        LaneView {
            held_back_until: state.standing.held_back_until,
            open_until: state.standing.breaker.open_until(now),
            given_up: state.standing.given_up,
        }
    }

    /// Whether a new lane in its place would do the same.
    pub(crate) fn is_as_new(&self, now: Timestamp) -> bool {
        let state = self.state();
        state.places.are_as_new()
            && state.slots.taken_until(now).is_none()
            && state.standing.is_as_new(now)
            && state.pace.is_as_new()
    }

    /// How the endpoint stands, for people.
    pub(crate) fn told(&self, now: Timestamp, standing: &mut EndpointStanding) {
        let state = self.state();
        standing.receiver = state.standing.told(now);
        standing.in_flight = state.places.under_way();
        standing.at_most = Some(state.places.at_most());
        standing.queued_until = state.slots.taken_until(now);
    }

    /// The start of the last request, to be carried along by whoever waits outside.
    pub(crate) fn last_start(&self) -> Option<Timestamp> {
        self.state().pace.last_start
    }

    /// The same, while whoever goes on at the endpoint's rate has to know it.
    pub(crate) fn unsettled_start(&self, now: Timestamp) -> Option<Timestamp> {
        self.state().pace.unsettled_start(now)
    }

    /// Begins the pace anew when the partition was another's meanwhile, who may have started requests
    /// until `inherited`.
    pub(crate) fn begin_tenure(&self, tenure: u64, inherited: impl FnOnce() -> Option<Timestamp>) {
        self.state().pace.begin(tenure, inherited);
    }

    /// Ends an attempt: frees its place and takes in what it says about the receiver.
    pub(crate) fn conclude(
        self: &Arc<Self>,
        mut place: Place,
        endpoint: &Endpoint,
        outcome: &Outcome,
        now: Timestamp,
    ) -> Turn {
        let (pass, number) = (place.pass.take(), place.number);
        place.lane = None;
        let mut state = self.state();
        let next_number = state.places.next_number();
        if matches!(outcome, Outcome::TimedOut) {
            let ceiling = self.ceiling(endpoint);
            state.places.limit.timed_out(number, next_number, ceiling);
        } else if outcome.failure(&endpoint.success).is_none() {
            state.places.limit.answered(self.ceiling(endpoint));
        }
        state.places.release(number, place.load);
        self.hand_out(&mut state);
        if state.standing.is_of_another(endpoint) {
            return Turn::default();
        }
        let turn = state.standing.learn(pass, endpoint, outcome, now);
        if let Some(Change::Closed { .. }) = turn.circuit {
            // Slots were reserved for an endpoint that is down. Whoever has one keeps it.
            state.slots = Slots::default();
        }
        turn
    }

    /// Gives those who wait for the endpoint as a whole a slot each, so that they come back one by one.
    pub(crate) fn spread(
        &self,
        settlement: Settlement,
        delivery: &Delivery,
        endpoint: &Endpoint,
        now: Timestamp,
    ) -> (Settlement, Option<Diversion>) {
        let Settlement::Defer { until, why } = settlement else {
            return (settlement, None);
        };
        let mut state = self.state();
        if let Some(wait) = delivery.wait {
            state.slots.came_back(wait);
        }
        let deferral = if why == DeferReason::Paused {
            // Nobody knows until when, so the slots begin now, and an early one is no reason to look sooner.
            let slot = state.slots.reserve(now, LEAST_SPACING, rand::random(), now);
            let least = until + (duration(until, now) / 4).mul_f64(rand::random());
            let diversion = state.diversion(delivery, now, |(slots, many)| {
                slots.offer(until, LEAST_SPACING, many, now)
            });
            Deferral {
                until: slot.max(least),
                why,
                diversion,
            }
        } else {
            let spacing = self.spacing(&state, endpoint).max(LEAST_SPACING);
            state.defer(delivery, (until, why), spacing, now)
        };
        let Deferral {
            until,
            why,
            diversion,
        } = deferral;
        (Settlement::Defer { until, why }, diversion)
    }

    /// Waits briefly for a place in flight and for the rate, in this order.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        delivery: &Delivery,
        load: Load,
        endpoint: &Endpoint,
        now: impl Fn() -> Timestamp,
    ) -> Entry {
        match self.receive(delivery, load, endpoint, now()) {
            Arrival::Place(place) => self.pace(place, endpoint, delivery, now).await,
            Arrival::Wait(mut line) => match self.wait(&mut line, endpoint).await {
                Some(place) => self.pace(place, endpoint, delivery, now).await,
                None => Entry::Defer(self.turn_away(delivery, endpoint, Duration::ZERO, now())),
            },
            Arrival::Defer(deferral) => Entry::Defer(deferral),
        }
    }

    fn receive(
        self: &Arc<Self>,
        delivery: &Delivery,
        load: Load,
        endpoint: &Endpoint,
        now: Timestamp,
    ) -> Arrival {
        let mut state = self.state();
        state.places.allow(self.ceiling(endpoint));
        let class = Class::from(delivery);
        if let Some(wait) = delivery.wait {
            state.slots.came_back(wait);
        }
        let spacing = self.spacing(&state, endpoint);
        let expected = spacing.saturating_mul(state.places.ahead_of(class));
        // Those who have a slot come first where they would miss what a newcomer takes.
        let is_scarce = endpoint.rate.is_some() || expected > MOMENT;
        let queues = is_scarce && !has_waited(delivery) && state.slots.are_taken(now);
        if queues || !state.places.can_hold(load, expected, self.bounds) {
            let to = (now, over(endpoint));
            return Arrival::Defer(state.turn_away(delivery, to, spacing, now));
        }
        if state.places.is_open() {
            let number = state.places.take(load);
            return Arrival::Place(self.place(number, load));
        }
        let (ticket, granted) = state.places.line_up(class, load);
        Arrival::Wait(InLine {
            lane: Arc::clone(self),
            class,
            ticket,
            granted,
        })
    }

    /// Waits for a place, for as long as it is worth it.
    async fn wait(&self, line: &mut InLine, endpoint: &Endpoint) -> Option<Place> {
        let longest = Instant::now() + LONGEST_HOLD;
        loop {
            if let Ok(granted) = time::timeout(LOOK_AGAIN, &mut line.granted).await {
                return granted.ok();
            }
            let state = self.state();
            if Instant::now() >= longest || !self.is_worth_waiting(&state, line.class, endpoint) {
                return None;
            }
        }
    }

    fn is_worth_waiting(&self, state: &State, class: Class, endpoint: &Endpoint) -> bool {
        let ahead = state.places.ahead_of(class).saturating_sub(1);
        let expected = self.spacing(state, endpoint).saturating_mul(ahead);
        state.places.can_hold(Load::NONE, expected, self.bounds)
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
            match self.wait_for_rate(rate, delivery.last_start, &now).await {
                Ok(started) => place.started = Some(started),
                Err(early) => {
                    drop(place);
                    return Entry::Defer(self.turn_away(delivery, endpoint, early, now()));
                }
            }
        }
        let mut state = self.state();
        let now = now();
        match state.standing.breaker.admit(now) {
            Admission::Go(pass) => place.pass = Some(pass),
            Admission::Wait(until) => {
                let spacing = self.spacing(&state, endpoint).max(LEAST_SPACING);
                let why = DeferReason::CircuitOpen;
                let deferral = state.defer(delivery, (until, why), spacing, now);
                drop(state);
                return Entry::Defer(deferral);
            }
        }
        state.places.start(place.number);
        let started = *place.started.get_or_insert(now);
        state.pace.last_start = Some(started);
        drop(state);
        Entry::Go(place)
    }

    /// Waits until the rate allows a start; `Err` says how much longer that is than deliveries wait here.
    async fn wait_for_rate(
        &self,
        rate: Rate,
        carried: Option<Timestamp>,
        now: impl Fn() -> Timestamp,
    ) -> Result<Timestamp, Duration> {
        let longest = Instant::now() + LONGEST_HOLD;
        let Ok(_turn) = time::timeout_at(longest, self.turn.lock()).await else {
            return Err(Duration::ZERO);
        };
        loop {
            let moment = now();
            let taken = self.state().pace.take(rate, carried, moment);
            match taken {
                Ok(()) => return Ok(moment),
                Err(wait) => {
                    if Instant::now() + wait > longest {
                        return Err(wait);
                    }
                    time::sleep(wait).await;
                }
            }
        }
    }

    /// Defers one that waited here in vain, for at least `early`.
    fn turn_away(
        &self,
        delivery: &Delivery,
        endpoint: &Endpoint,
        early: Duration,
        now: Timestamp,
    ) -> Deferral {
        let mut state = self.state();
        let spacing = self.spacing(&state, endpoint);
        state.turn_away(delivery, (now + early, over(endpoint)), spacing, now)
    }

    /// Gives free places to those who wait for one.
    fn hand_out(self: &Arc<Self>, state: &mut State) {
        while let Some(waiter) = state.places.next_in_line() {
            let number = state.places.take(waiter.load);
            if let Err(mut unwanted) = waiter.grant.send(self.place(number, waiter.load)) {
                unwanted.lane = None;
                state.places.release(number, unwanted.load);
            }
        }
    }

    fn place(self: &Arc<Self>, number: u64, load: Load) -> Place {
        Place {
            lane: Some(Arc::clone(self)),
            number,
            load,
            pass: None,
            started: None,
        }
    }

    fn ceiling(&self, endpoint: &Endpoint) -> u16 {
        endpoint.max_in_flight.min(self.bounds.in_flight)
    }

    fn spacing(&self, state: &State, endpoint: &Endpoint) -> Duration {
        let places = &state.places;
        spacing(places.at_most(), places.slowness(), interval(endpoint))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nobody panics while holding a lane")
    }
}

impl State {
    /// Defers behind everyone who has a slot.
    fn defer(
        &mut self,
        delivery: &Delivery,
        (from, why): (Timestamp, DeferReason),
        spacing: Duration,
        now: Timestamp,
    ) -> Deferral {
        let slots = &mut self.slots;
        let until = slots.reserve(from, spacing, rand::random(), now);
        let diversion = self.diversion(delivery, now, |(slots, many)| {
            slots.offer(from, spacing, many, now)
        });
        Deferral {
            until,
            why,
            diversion,
        }
    }

    /// Defers one that finds no room: a newcomer behind all who have a slot, and one that has waited its
    /// turn before them.
    fn turn_away(
        &mut self,
        delivery: &Delivery,
        (from, why): (Timestamp, DeferReason),
        spacing: Duration,
        now: Timestamp,
    ) -> Deferral {
        if !has_waited(delivery) {
            let from = (from - spacing).max(now);
            return self.defer(delivery, (from, why), spacing, now);
        }
        let chance = rand::random();
        Deferral {
            until: self.slots.reserve_near(from, spacing, chance, now),
            why,
            diversion: None,
        }
    }

    /// Counts a newcomer that is deferred, and says what routers have to know if there are too many.
    fn diversion(
        &mut self,
        delivery: &Delivery,
        now: Timestamp,
        offer: impl FnOnce((&Slots, u32)) -> Offer,
    ) -> Option<Diversion> {
        if delivery.wait.is_some() {
            return None;
        }
        let many = self.flood.deferred(Instant::now())?;
        let Offer {
            from,
            spacing,
            until,
            latest,
        } = offer((&self.slots, many));
        Some(Diversion {
            from,
            spacing,
            until,
            latest,
            expires: now + KEEP_AWAY,
        })
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        self.lane.state().places.leave(self.class, self.ticket);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(lane) = self.lane.take() else {
            return;
        };
        let mut state = lane.state();
        if let Some(pass) = &self.pass {
            state.standing.breaker.give_back(pass);
        }
        state.places.release(self.number, self.load);
        lane.hand_out(&mut state);
    }
}

fn interval(endpoint: &Endpoint) -> Duration {
    endpoint
        .rate
        .map(|rate| rate.interval())
        .unwrap_or_default()
}

/// Whether a delivery has waited its turn already.
fn has_waited(delivery: &Delivery) -> bool {
    delivery.wait.is_some_and(is_slot)
}

/// Why one waits that is not allowed to start.
fn over(endpoint: &Endpoint) -> DeferReason {
    if endpoint.rate.is_some() {
        DeferReason::OverRate
    } else {
        DeferReason::OverShare
    }
}
