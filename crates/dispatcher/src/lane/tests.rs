//! A lane as its dispatcher sees it.

use std::collections::BTreeMap;

use fanfare_model::{DisabledReason, Event, TraceContext};

use super::*;
use crate::{
    breaker::Change,
    decide,
    samples::{at, endpoint},
};

const BOUNDS: Bounds = Bounds {
    bytes: 1 << 20,
    messages: 64,
    in_flight: 64,
};

const LOAD: Load = Load {
    bytes: 100,
    share: Load::MESSAGE,
};

fn delivery() -> Delivery {
    let event = Arc::new(Event::for_tests("t", "s", "1", "a", b"{}"));
    let id = endpoint("https://example.com/").id;
    Delivery::new(event, id, 1, TraceContext::default(), at(0))
}

#[tokio::test(start_paused = true)]
async fn no_more_are_in_flight_than_the_endpoint_allows() {
    let lane = Arc::new(Lane::new(BOUNDS));
    let endpoint = Endpoint {
        max_in_flight: 2,
        ..endpoint("https://example.com/")
    };
    let newcomer = delivery();
    let enter = || lane.enter(&newcomer, LOAD, &endpoint, || at(100));
    let Entry::Go(first) = enter().await else {
        panic!("the first has a place")
    };
    let Entry::Go(_second) = enter().await else {
        panic!("the second has a place")
    };
    // With the clock paused, the wait for a place ends at once: nothing else can happen.
    let Entry::Defer(Deferral { until, why, .. }) = enter().await else {
        panic!("the third has none")
    };
    assert_eq!(why, DeferReason::OverShare);
    assert!(until >= at(101));
    drop(first);
    let back = delivery().waiting(until, at(100));
    let entry = lane.enter(&back, LOAD, &endpoint, || at(102)).await;
    assert!(matches!(entry, Entry::Go(_)));
}

#[tokio::test(start_paused = true)]
async fn a_slow_rate_defers_to_slots_one_interval_apart() {
    let lane = Arc::new(Lane::new(BOUNDS));
    let endpoint = Endpoint {
        rate: Some("1/min".parse().unwrap()),
        ..endpoint("https://example.com/")
    };
    let enter = async || lane.enter(&delivery(), LOAD, &endpoint, || at(100)).await;
    assert!(matches!(enter().await, Entry::Go(_)));
    for slot in [160, 220, 280] {
        let Entry::Defer(Deferral { until, why, .. }) = enter().await else {
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
        let entry = Arc::new(Lane::new(BOUNDS))
            .enter(&delivery, LOAD, &endpoint, || at(100))
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
    match lane.enter(&delivery(), LOAD, endpoint, || at(second)).await {
        Entry::Go(place) => lane.conclude(place, endpoint, &answered(status), at(second)),
        Entry::Defer(deferral) => panic!("{deferral:?}"),
    }
}

#[tokio::test]
async fn an_open_circuit_sends_everyone_to_a_slot_of_its_own_and_lets_one_probe_through() {
    let (lane, endpoint) = (
        Arc::new(Lane::new(BOUNDS)),
        endpoint("https://example.com/"),
    );
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
            let (spread, _) = lane.spread(deferred.clone(), &delivery(), &endpoint, at(100));
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
    let enter = async || lane.enter(&back, LOAD, &endpoint, || at(106)).await;
    // A probe that is not made leaves its turn to the next.
    let Entry::Go(dropped) = enter().await else {
        panic!("the probe goes")
    };
    drop(dropped);
    let Entry::Go(probe) = enter().await else {
        panic!("the next probe goes")
    };
    let Entry::Defer(Deferral { why, .. }) = enter().await else {
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
        let lane = Arc::new(Lane::new(BOUNDS));
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

/// Lets `many` newcomers come at once to a lane whose receiver answers nobody, and tells after how many
/// milliseconds each was sent away.
async fn crowd(
    lane: &Arc<Lane>,
    endpoint: &Endpoint,
    many: usize,
    load: Load,
) -> (Vec<u128>, Vec<Place>) {
    let begun = Instant::now();
    let newcomer = delivery();
    let enter = async || match lane.enter(&newcomer, load, endpoint, || at(100)).await {
        Entry::Go(place) => Err(place),
        Entry::Defer(_) => Ok(begun.elapsed().as_millis()),
    };
    let entries = futures_util::future::join_all((0..many).map(|_| enter())).await;
    let (mut away, mut places) = (Vec::new(), Vec::new());
    for entry in entries {
        match entry {
            Ok(after) => away.push(after),
            Err(place) => places.push(place),
        }
    }
    assert_eq!(places.len(), 16, "in flight");
    (away, places)
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_hangs_keeps_no_crowd_waiting() {
    let (lane, endpoint) = (
        Arc::new(Lane::new(BOUNDS)),
        endpoint("https://example.com/"),
    );
    let (away, places) = crowd(&lane, &endpoint, 1000, LOAD).await;
    let soon = away.iter().filter(|after| **after <= 250).count();
    assert!(soon >= 900, "{soon} of {} are sent away soon", away.len());
    assert!(away.iter().all(|after| *after <= 2200), "{away:?}");
    // Of those who come now, no more are asked to wait than would be done in a moment.
    let newcomer = delivery();
    let enter = || lane.enter(&newcomer, LOAD, &endpoint, || at(100));
    let begun = Instant::now();
    let entries = futures_util::future::join_all((0..100).map(async |_| {
        let entry = enter().await;
        assert!(matches!(entry, Entry::Defer(_)));
        begun.elapsed()
    }));
    let waited = entries.await.into_iter().filter(|took| !took.is_zero());
    assert!(waited.count() <= 4);
    drop(places);
    assert!(lane.state().places.are_empty());
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_takes_what_is_free_unless_a_rate_gives_it_to_others() {
    for (rate, goes) in [(None, true), (Some("1/h burst 100"), false)] {
        let lane = Arc::new(Lane::new(BOUNDS));
        let endpoint = Endpoint {
            rate: rate.map(|rate| rate.parse().unwrap()),
            ..endpoint("https://example.com/")
        };
        let (why, spacing) = (DeferReason::OverShare, Duration::from_secs(1));
        let to = (at(100), why);
        let waits = lane.state().defer(&delivery(), to, spacing, at(100));
        assert!(waits.until > at(100));
        let entry = lane.enter(&delivery(), LOAD, &endpoint, || at(100)).await;
        assert_eq!(matches!(entry, Entry::Go(_)), goes, "{rate:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lane_is_bounded_in_bytes() {
    let (lane, endpoint) = (
        Arc::new(Lane::new(BOUNDS)),
        endpoint("https://example.com/"),
    );
    let large = Load {
        bytes: 60 << 10,
        ..LOAD
    };
    let (away, _places) = crowd(&lane, &endpoint, 100, large).await;
    let at_once = away.iter().filter(|after| **after == 0).count();
    assert_eq!(at_once, 100 - (1 << 20) / (60 << 10));
}

#[tokio::test(start_paused = true)]
async fn first_attempts_and_retries_take_turns() {
    let endpoint = Endpoint {
        max_in_flight: 1,
        ..endpoint("https://example.com/")
    };
    let lane = Arc::new(Lane::new(BOUNDS));
    let Entry::Go(busy) = lane.enter(&delivery(), LOAD, &endpoint, || at(100)).await else {
        panic!("the first has a place")
    };
    let order = Mutex::new(Vec::new());
    let (lane_ref, order_ref, endpoint_ref) = (&lane, &order, &endpoint);
    let one = |failed_attempts: u32| async move {
        let delivery = Delivery {
            failed_attempts,
            ..delivery()
        };
        let entry = lane_ref
            .enter(&delivery, LOAD, endpoint_ref, || at(100))
            .await;
        assert!(matches!(entry, Entry::Go(_)), "{failed_attempts}");
        order_ref.lock().unwrap().push(failed_attempts);
    };
    let all = futures_util::future::join_all([1, 1, 1, 0, 0].map(one));
    let leave = async {
        time::sleep(Duration::from_millis(10)).await;
        drop(busy);
    };
    tokio::join!(all, leave);
    assert_eq!(*order.lock().unwrap(), [0, 1, 0, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_told_once_with_times_that_lie_ahead() {
    let endpoint = endpoint("https://example.com/");
    let lane = Lane::new(BOUNDS);
    for why in [DeferReason::Paused, DeferReason::CircuitOpen] {
        let until = at(130);
        let settlement = || Settlement::Defer { until, why };
        let mut told = Vec::new();
        for _ in 0..1000 {
            let (settlement, diversion) =
                lane.spread(settlement(), &delivery(), &endpoint, at(100));
            let Settlement::Defer { until, .. } = settlement else {
                panic!("{settlement:?}")
            };
            assert!(until >= at(130) && until <= at(430), "{until}");
            told.extend(diversion);
            time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(told.len(), 1, "{why:?}");
        let Diversion {
            from,
            until,
            latest,
            ..
        } = told[0];
        assert!(
            from >= at(130) && until >= from && latest > until,
            "{told:?}"
        );
        assert_eq!(told[0].expires, at(110));
        time::advance(KEEP_AWAY).await;
    }
}

#[test]
fn a_crowd_at_a_paused_endpoint_comes_back_little_by_little() {
    for (crowd, rate, latest, most_per_second) in [
        (20_000, None, at(400), 400),
        // What the receiver can take once the pause is over says nothing about when to look.
        (1, Some("1/h"), at(138), 1),
    ] {
        let lane = Lane::new(BOUNDS);
        let endpoint = Endpoint {
            rate: rate.map(|rate| rate.parse().unwrap()),
            ..endpoint("https://example.com/")
        };
        let mut back: BTreeMap<i64, u32> = BTreeMap::new();
        for _ in 0..crowd {
            let paused = Settlement::Defer {
                until: at(130),
                why: DeferReason::Paused,
            };
            let (settlement, _) = lane.spread(paused, &delivery(), &endpoint, at(100));
            let Settlement::Defer { until, .. } = settlement else {
                panic!("{settlement:?}")
            };
            assert!(until >= at(130) && until <= latest, "{until}");
            *back.entry(until.as_second()).or_default() += 1;
        }
        let most = back.values().max();
        assert!(most <= Some(&most_per_second), "{most:?} of {crowd}");
    }
}

#[tokio::test]
async fn a_changed_rate_holds_at_once_for_what_is_new_and_never_begins_with_a_burst() {
    let slow = Endpoint {
        rate: Some("1/h burst 3".parse().unwrap()),
        ..endpoint("https://example.com/")
    };
    let lane = Arc::new(Lane::new(BOUNDS));
    let enter = async |endpoint: &Endpoint| {
        lane.view(endpoint, at(100));
        let entry = lane.enter(&delivery(), LOAD, endpoint, || at(100)).await;
        matches!(entry, Entry::Go(_))
    };
    for goes in [true, true, true, false, false] {
        assert_eq!(enter(&slow).await, goes);
    }
    let changed = |rate: &str| Endpoint {
        rate: Some(rate.parse().unwrap()),
        updated_at: slow.updated_at + Duration::from_secs(1),
        ..slow.clone()
    };
    assert!(!enter(&changed("2/h burst 3")).await);
    for _ in 0..5 {
        assert!(enter(&changed("1000/s burst 1")).await);
    }
}

#[tokio::test]
async fn a_lane_is_kept_while_anything_in_it_could_matter() {
    let lane = Arc::new(Lane::new(BOUNDS));
    let endpoint = endpoint("https://example.com/");
    let newcomer = delivery();
    let attempt = async |outcome, second| {
        lane.view(&endpoint, at(second));
        let entry = lane.enter(&newcomer, LOAD, &endpoint, || at(second)).await;
        let Entry::Go(place) = entry else {
            panic!("there is room")
        };
        assert!(!lane.is_as_new(at(second)), "one is in flight");
        lane.conclude(place, &endpoint, &outcome, at(second));
        lane.is_as_new(at(second))
    };
    assert!(lane.is_as_new(at(100)));
    assert!(attempt(answered(200), 100).await);
    assert!(!attempt(Outcome::TimedOut, 101).await);
    // The circuit has forgotten the failure by now, but half as many as before may be in flight.
    assert!(!attempt(answered(200), 1000).await);
    for _ in 0..1000 {
        attempt(answered(200), 1000).await;
    }
    assert!(attempt(answered(200), 1000).await);
}
