//! One endpoint's lane: how many requests are in flight, how fast they may start, and who must wait.
//!
//! A delivery waits here for seconds at most; whoever would wait longer is deferred to a slot that the
//! lane reserves, so that a backlog comes back one by one and not as a herd.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use fanfare_model::{DeferReason, Delivery, Endpoint, Rate, Timestamp};
use governor::{
    DefaultDirectRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};
use tokio::{
    sync::{Mutex as FairMutex, Notify},
    time::{self, Instant},
};

use crate::decide::LaneView;

/// The longest that a delivery waits in memory for its turn.
const LONGEST_HOLD: Duration = Duration::from_secs(2);

/// The shortest deferral: the shortest tier of the delay line.
const SHORTEST_DEFERRAL: Duration = Duration::from_secs(1);

/// How far ahead slots are reserved, so that a raised limit or a recovered receiver takes effect soon.
const HORIZON: Duration = Duration::from_secs(300);

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
    held_back_until: Option<Timestamp>,
    /// The endpoint as it was when its receiver said that it is gone.
    gone_since: Option<Timestamp>,
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
    pub(crate) fn view(&self, endpoint: &Endpoint) -> LaneView {
        let state = self.state();
        LaneView {
            held_back_until: state.held_back_until,
            // A change by its owner is a new beginning.
            gone: state.gone_since == Some(endpoint.updated_at),
        }
    }

    /// The start of the last request, to be carried along by whoever waits outside.
    pub(crate) fn last_start(&self) -> Option<Timestamp> {
        self.state().last_start
    }

    /// The receiver asked for the whole endpoint to be left alone.
    pub(crate) fn hold_back(&self, until: Timestamp) {
        let mut state = self.state();
        state.held_back_until = state.held_back_until.max(Some(until));
    }

    /// The receiver is gone for good.
    pub(crate) fn mark_gone(&self, endpoint: &Endpoint) {
        self.state().gone_since = Some(endpoint.updated_at);
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
                    };
                }
            }
            freed.await;
        }
    }

    /// Waits for the rate, with a place in flight held.
    async fn pace(
        self: &Arc<Self>,
        place: Place,
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
        let (until, next_slot) = reserve(state.next_slot, spacing, rand::random(), now);
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

/// The next slot, and where the slots end then.
///
/// Slots beyond the horizon are not reserved: whoever gets one returns within the last quarter before it.
fn reserve(
    next_slot: Option<Timestamp>,
    spacing: Duration,
    jitter: f64,
    now: Timestamp,
) -> (Timestamp, Timestamp) {
    let end = next_slot.map_or(now, |slot| slot.max(now));
    let slot = (end + spacing).max(now + SHORTEST_DEFERRAL);
    if slot <= now + HORIZON {
        (slot, slot)
    } else {
        (now + HORIZON.mul_f64(1.0 - jitter / 4.0), end)
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
            let reserved = reserve(next_slot.map(at), spacing, jitter, at(100));
            assert_eq!(reserved, (at(slot), at(end)), "{next_slot:?} {spacing:?}");
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

    #[test]
    fn a_gone_receiver_is_forgotten_when_its_endpoint_is_changed() {
        let lane = Lane::new();
        let before = endpoint("https://example.com/");
        lane.mark_gone(&before);
        assert!(lane.view(&before).gone);
        let after = Endpoint {
            updated_at: before.updated_at + Duration::from_secs(1),
            ..before
        };
        assert!(!lane.view(&after).gone);
    }
}
