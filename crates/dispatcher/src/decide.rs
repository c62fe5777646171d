//! Decides what becomes of a delivery: before an attempt, and after one.
//!
//! Pure: no clock, no broker, no randomness of its own. `run.rs` carries the decisions out.

use std::time::Duration;

use fanfare_model::{
    DeadLetterReason, DeferReason, Delivery, DisabledReason, DiscardReason, Endpoint,
    EndpointState, Jitter, Outcome, Schedule, Settlement, StatusSet, Timestamp,
};
use fanfare_registry::Snapshot;

use crate::breaker::Health;

/// The longest that a receiver can hold back its endpoint by `Retry-After`.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// How long the deliveries of a paused endpoint wait at least before the pause is looked at again: as long as they
/// waited already, within these bounds, and up to a quarter more so that they do not return together. Their lane spreads a crowd further.
const LOOK_AGAIN_WHEN_PAUSED: (Duration, Duration) =
    (Duration::from_secs(30), Duration::from_secs(240));

/// How long a delivery waits for a registry that is older than the one it was routed by.
const LOOK_AGAIN_WHEN_BEHIND: Duration = Duration::from_secs(1);

/// What is known of an endpoint's receiver, beyond what the registry says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LaneView {
    /// The receiver asked to be left alone until then.
    pub(crate) held_back_until: Option<Timestamp>,
    /// The receiver looks down; nobody is let through before then.
    pub(crate) open_until: Option<Timestamp>,
    /// The endpoint is to be disabled, and nobody has changed it since.
    pub(crate) given_up: Option<DisabledReason>,
}

/// The endpoint of a delivery, or what becomes of a delivery without one.
pub(crate) fn endpoint_of<'a>(
    delivery: &Delivery,
    snapshot: &'a Snapshot,
    now: Timestamp,
) -> Result<&'a Endpoint, Settlement> {
    match snapshot.endpoint(delivery.endpoint) {
        Some(endpoint) => Ok(endpoint),
        // The router knew a newer registry: the endpoint may be one that is not known here yet.
        None if snapshot.version() < delivery.registry_version => Err(Settlement::Defer {
            until: now + LOOK_AGAIN_WHEN_BEHIND,
            why: DeferReason::RegistryBehind,
        }),
        None => Err(Settlement::Discard {
            reason: DiscardReason::EndpointDeleted,
        }),
    }
}

/// What becomes of a delivery that is not to be attempted now; `None` when it is.
pub(crate) fn before_attempt(
    delivery: &Delivery,
    endpoint: &Endpoint,
    lane: LaneView,
    now: Timestamp,
) -> Option<Settlement> {
    let dead = |reason| {
        let failure = None;
        Some(Settlement::DeadLetter { reason, failure })
    };
    let defer = |until, why| Some(Settlement::Defer { until, why });
    if delivery.deadline.is_some_and(|deadline| deadline < now) {
        return dead(DeadLetterReason::Expired);
    }
    match endpoint.state {
        EndpointState::Disabled { reason, .. } => return dead(why_disabled(reason)),
        EndpointState::Paused => {
            return defer(now + pause(delivery, now), DeferReason::Paused);
        }
        EndpointState::Active => {}
    }
    if let Some(reason) = lane.given_up {
        return dead(why_disabled(reason));
    }
    let held_back = lane.held_back_until.filter(|until| *until > now);
    match (held_back, lane.open_until) {
        (Some(until), open) if Some(until) >= open => defer(until, DeferReason::HeldBack),
        (_, Some(until)) => defer(until, DeferReason::CircuitOpen),
        (_, None) => None,
    }
}

fn pause(delivery: &Delivery, now: Timestamp) -> Duration {
    let waited = now.duration_since(delivery.first_seen);
    let (shortest, longest) = LOOK_AGAIN_WHEN_PAUSED;
    Duration::try_from(waited)
        .unwrap_or_default()
        .clamp(shortest, longest)
}

/// A receiver that is gone stays `gone` in its dead letters, before and after the registry knows.
fn why_disabled(reason: DisabledReason) -> DeadLetterReason {
    match reason {
        DisabledReason::Gone => DeadLetterReason::Gone,
        DisabledReason::Requested | DisabledReason::Failing | DisabledReason::Damaged => {
            DeadLetterReason::Disabled
        }
    }
}

/// What an endpoint says about outcomes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy<'a> {
    pub(crate) schedule: &'a Schedule,
    pub(crate) success: &'a StatusSet,
    pub(crate) permanent: &'a StatusSet,
}

impl<'a> From<&'a Endpoint> for Policy<'a> {
    fn from(endpoint: &'a Endpoint) -> Self {
        Self {
            schedule: &endpoint.schedule,
            success: &endpoint.success,
            permanent: &endpoint.permanent,
        }
    }
}

/// The failed attempts before this one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Past {
    pub(crate) failed: u32,
    pub(crate) first_at: Option<Timestamp>,
}

impl From<&Delivery> for Past {
    fn from(delivery: &Delivery) -> Self {
        Self {
            failed: delivery.failed_attempts,
            first_at: delivery.failures.as_ref().map(|past| past.first_at),
        }
    }
}

/// What becomes of a delivery after an attempt.
pub(crate) fn after_attempt(
    outcome: &Outcome,
    past: Past,
    policy: Policy<'_>,
    jitter: Jitter,
    now: Timestamp,
) -> Settlement {
    let Some(failure) = outcome.failure(policy.success) else {
        return Settlement::Delivered;
    };
    let dead = |reason, failure| Settlement::DeadLetter {
        reason,
        failure: Some(failure),
    };
    match outcome {
        Outcome::Blocked { .. } => return dead(DeadLetterReason::Blocked, failure),
        Outcome::Unbuildable { .. } => return dead(DeadLetterReason::Template, failure),
        Outcome::Answered { status: 410, .. } => return dead(DeadLetterReason::Gone, failure),
        Outcome::Answered { status, .. } if policy.permanent.contains(*status) => {
            return dead(DeadLetterReason::Refused, failure);
        }
        Outcome::Answered { .. }
        | Outcome::TimedOut
        | Outcome::NameNotResolved { .. }
        | Outcome::NotConnected { .. }
        | Outcome::TlsFailed { .. }
        | Outcome::NoToken { .. } => {}
    }
    let elapsed = past.first_at.map(|first| now.duration_since(first));
    let elapsed = elapsed.and_then(|elapsed| Duration::try_from(elapsed).ok());
    let (failed, elapsed) = (past.failed.saturating_add(1), elapsed.unwrap_or_default());
    match policy.schedule.wait_after(failed, elapsed, jitter) {
        Some(wait) => Settlement::Retry {
            at: now + wait.max(hold_back(outcome).unwrap_or_default()),
            failure,
        },
        None => dead(DeadLetterReason::Exhausted, failure),
    }
}

/// How long the receiver wants its whole endpoint to be left alone.
pub(crate) fn hold_back(outcome: &Outcome) -> Option<Duration> {
    match outcome {
        Outcome::Answered {
            status: 429 | 503,
            retry_after: Some(wait),
        } => Some((*wait).min(LONGEST_RETRY_AFTER)),
        Outcome::Answered { .. }
        | Outcome::TimedOut
        | Outcome::NameNotResolved { .. }
        | Outcome::NotConnected { .. }
        | Outcome::TlsFailed { .. }
        | Outcome::NoToken { .. }
        | Outcome::Blocked { .. }
        | Outcome::Unbuildable { .. } => None,
    }
}

/// What an outcome says about the receiver as a whole.
///
/// Any answer but one that says "not now" shows that it is up: it may refuse this delivery and take the next.
pub(crate) fn health(outcome: &Outcome, success: &StatusSet) -> Health {
    match outcome {
        Outcome::Answered { status, .. } if success.contains(*status) => Health::Up,
        Outcome::Answered {
            status: 408 | 425 | 429 | 500..=599,
            ..
        }
        | Outcome::TimedOut
        | Outcome::NameNotResolved { .. }
        | Outcome::NotConnected { .. }
        | Outcome::TlsFailed { .. }
        | Outcome::NoToken { .. } => Health::Down,
        Outcome::Answered { .. } => Health::Up,
        Outcome::Blocked { .. } | Outcome::Unbuildable { .. } => Health::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fanfare_model::{AttributeValue, Event, FailureClass, TraceContext};
    use proptest::prelude::*;

    use super::*;
    use crate::samples::{at, endpoint};

    fn answered(status: u16) -> Outcome {
        Outcome::Answered {
            status,
            retry_after: None,
        }
    }

    fn past(failed: u32) -> Past {
        let first_at = (failed > 0).then(|| at(900));
        Past { failed, first_at }
    }

    /// Settles an outcome of the second of three attempts at second 1,000.
    fn settle(outcome: &Outcome) -> Settlement {
        let schedule = Schedule::from_seconds(vec![0, 5, 60]).unwrap();
        let policy = Policy {
            schedule: &schedule,
            success: &StatusSet::success(),
            permanent: &"400,422".parse().unwrap(),
        };
        after_attempt(outcome, past(1), policy, Jitter::NONE, at(1000))
    }

    fn dead_because(settlement: &Settlement) -> Option<DeadLetterReason> {
        match settlement {
            Settlement::DeadLetter { reason, .. } => Some(*reason),
            Settlement::Delivered
            | Settlement::Retry { .. }
            | Settlement::Defer { .. }
            | Settlement::Discard { .. } => None,
        }
    }

    fn retried_at(settlement: &Settlement) -> Option<(i64, FailureClass)> {
        match settlement {
            Settlement::Retry { at, failure } => Some((at.as_second(), failure.class)),
            Settlement::Delivered
            | Settlement::DeadLetter { .. }
            | Settlement::Defer { .. }
            | Settlement::Discard { .. } => None,
        }
    }

    #[test]
    fn success_is_what_the_endpoint_calls_success() {
        for status in [200, 201, 204, 299] {
            assert_eq!(settle(&answered(status)), Settlement::Delivered);
        }
    }

    #[test]
    fn only_a_receiver_that_cannot_take_anything_is_down() {
        let detail = || "x".to_owned();
        for (health_expected, outcomes) in [
            (
                Health::Up,
                [200, 204, 302, 400, 401, 404, 410, 422]
                    .map(answered)
                    .to_vec(),
            ),
            (
                Health::Down,
                [408, 425, 429, 500, 502, 503, 599].map(answered).to_vec(),
            ),
            (
                Health::Down,
                vec![
                    Outcome::TimedOut,
                    Outcome::NameNotResolved { detail: detail() },
                    Outcome::NotConnected { detail: detail() },
                    Outcome::TlsFailed { detail: detail() },
                    Outcome::NoToken { detail: detail() },
                ],
            ),
            (
                Health::Unknown,
                vec![
                    Outcome::Blocked { detail: detail() },
                    Outcome::Unbuildable { detail: detail() },
                ],
            ),
        ] {
            for outcome in outcomes {
                let said = health(&outcome, &StatusSet::success());
                assert_eq!(said, health_expected, "{outcome:?}");
            }
        }
        let odd = "503".parse().unwrap();
        assert_eq!(health(&answered(503), &odd), Health::Up);
    }

    #[test]
    fn no_retry_is_scheduled_beyond_the_window_of_the_schedule() {
        // The first failure was at second 900, this one is at 1,000, the next attempt after 60 s.
        for (window, retried) in [(160, true), (159, false)] {
            let schedule = Schedule::exponential(60, 1.0, 60, 5, Some(window)).unwrap();
            let policy = Policy {
                schedule: &schedule,
                success: &StatusSet::success(),
                permanent: &StatusSet::none(),
            };
            let settlement = after_attempt(&answered(500), past(1), policy, Jitter::NONE, at(1000));
            assert_eq!(retried_at(&settlement).is_some(), retried, "{window}");
        }
    }

    #[test]
    fn failures_that_may_pass_are_tried_again_on_schedule() {
        let detail = || "x".to_owned();
        for (outcome, class) in [
            (answered(302), FailureClass::Status3xx),
            (answered(404), FailureClass::Status4xx),
            (answered(408), FailureClass::Status4xx),
            (answered(425), FailureClass::Status4xx),
            (answered(429), FailureClass::Status429),
            (answered(500), FailureClass::Status5xx),
            (Outcome::TimedOut, FailureClass::Timeout),
            (
                Outcome::NameNotResolved { detail: detail() },
                FailureClass::Dns,
            ),
            (
                Outcome::NotConnected { detail: detail() },
                FailureClass::Connect,
            ),
            (Outcome::TlsFailed { detail: detail() }, FailureClass::Tls),
            (Outcome::NoToken { detail: detail() }, FailureClass::Token),
        ] {
            assert_eq!(
                retried_at(&settle(&outcome)),
                Some((1060, class)),
                "{outcome:?}"
            );
        }
    }

    #[test]
    fn failures_that_will_not_pass_are_dead_letters() {
        let detail = || "x".to_owned();
        for (outcome, reason) in [
            (answered(410), DeadLetterReason::Gone),
            (answered(400), DeadLetterReason::Refused),
            (answered(422), DeadLetterReason::Refused),
            (
                Outcome::Blocked { detail: detail() },
                DeadLetterReason::Blocked,
            ),
            (
                Outcome::Unbuildable { detail: detail() },
                DeadLetterReason::Template,
            ),
        ] {
            assert_eq!(dead_because(&settle(&outcome)), Some(reason), "{outcome:?}");
        }
    }

    #[test]
    fn retry_after_is_heeded_within_bounds_and_only_where_it_means_something() {
        for (status, seconds, expected) in [
            (429, 120, 1120),
            (503, 120, 1120),
            (503, 10, 1060),
            (500, 120, 1060),
            (429, 999_999_999, 1000 + 24 * 3600),
        ] {
            let outcome = Outcome::Answered {
                status,
                retry_after: Some(Duration::from_secs(seconds)),
            };
            let retried = retried_at(&settle(&outcome)).map(|(second, _)| second);
            assert_eq!(retried, Some(expected), "{status} {seconds}");
        }
    }

    proptest! {
        #[test]
        fn every_outcome_is_settled_and_the_attempts_end(
            status in 100_u16..600,
            failed in 0_u32..100,
            waits in proptest::collection::vec(0_u64..1000, 1..20),
        ) {
            let schedule = Schedule::from_seconds(waits.clone()).unwrap();
            let policy = Policy {
                schedule: &schedule,
                success: &StatusSet::success(),
                permanent: &StatusSet::none(),
            };
            let outcome = answered(status);
            let settlement = after_attempt(&outcome, past(failed), policy, Jitter::NONE, at(0));
            let is_retry = retried_at(&settlement).is_some();
            let attempts_left = (failed as usize + 1) < waits.len();
            let fails = !(200..300).contains(&status) && status != 410;
            prop_assert_eq!(is_retry, attempts_left && fails);
        }
    }

    fn delivery() -> Delivery {
        let mut event = Event::for_tests("t", "s", "1", "a", b"{}");
        let deadline = AttributeValue::Text(at(500).to_string());
        event
            .extensions
            .insert("deliverbefore".to_owned(), deadline);
        let id = endpoint("https://example.com/").id;
        Delivery::new(Arc::new(event), id, 3, TraceContext::default(), at(0))
    }

    fn dead(reason: DeadLetterReason) -> Option<Settlement> {
        let failure = None;
        Some(Settlement::DeadLetter { reason, failure })
    }

    fn defer(second: i64, why: DeferReason) -> Option<Settlement> {
        let until = at(second);
        Some(Settlement::Defer { until, why })
    }

    fn disabled(reason: DisabledReason) -> EndpointState {
        let since = at(0);
        EndpointState::Disabled { reason, since }
    }

    fn lane(
        held_back_until: Option<i64>,
        open_until: Option<i64>,
        given_up: Option<DisabledReason>,
    ) -> LaneView {
        LaneView {
            held_back_until: held_back_until.map(at),
            open_until: open_until.map(at),
            given_up,
        }
    }

    fn decided(state: EndpointState, lane: LaneView, second: i64) -> Option<Settlement> {
        let endpoint = Endpoint {
            state,
            ..endpoint("https://example.com/")
        };
        before_attempt(&delivery(), &endpoint, lane, at(second))
    }

    #[test]
    fn the_state_of_the_endpoint_is_decided_in_order() {
        let (requested, gone) = (DisabledReason::Requested, DisabledReason::Gone);
        let worst = lane(Some(160), Some(170), Some(gone));
        for (second, state, expected) in [
            (501, disabled(requested), dead(DeadLetterReason::Expired)),
            (100, disabled(requested), dead(DeadLetterReason::Disabled)),
            (100, disabled(gone), dead(DeadLetterReason::Gone)),
            (10, EndpointState::Paused, defer(40, DeferReason::Paused)),
            (100, EndpointState::Paused, defer(200, DeferReason::Paused)),
            (400, EndpointState::Paused, defer(640, DeferReason::Paused)),
            (100, EndpointState::Active, dead(DeadLetterReason::Gone)),
        ] {
            assert_eq!(decided(state, worst, second), expected);
        }
    }

    #[test]
    fn an_active_endpoint_waits_for_its_receiver() {
        let failing = Some(DisabledReason::Failing);
        for (lane, expected) in [
            (LaneView::default(), None),
            (
                lane(Some(160), None, None),
                defer(160, DeferReason::HeldBack),
            ),
            (lane(Some(100), None, None), None),
            (
                lane(None, Some(150), None),
                defer(150, DeferReason::CircuitOpen),
            ),
            (
                lane(Some(160), Some(150), None),
                defer(160, DeferReason::HeldBack),
            ),
            (
                lane(Some(160), Some(170), None),
                defer(170, DeferReason::CircuitOpen),
            ),
            (
                lane(Some(160), Some(170), failing),
                dead(DeadLetterReason::Disabled),
            ),
        ] {
            assert_eq!(
                decided(EndpointState::Active, lane, 100),
                expected,
                "{lane:?}"
            );
        }
    }

    #[test]
    fn an_endpoint_is_deleted_only_when_the_registry_is_as_new_as_the_delivery() {
        for (version, expected) in [
            (
                2,
                Settlement::Defer {
                    until: at(101),
                    why: DeferReason::RegistryBehind,
                },
            ),
            (
                3,
                Settlement::Discard {
                    reason: DiscardReason::EndpointDeleted,
                },
            ),
            (
                4,
                Settlement::Discard {
                    reason: DiscardReason::EndpointDeleted,
                },
            ),
        ] {
            let snapshot = Snapshot::new(version, Vec::new());
            assert_eq!(endpoint_of(&delivery(), &snapshot, at(100)), Err(expected));
        }
        let snapshot = Snapshot::new(1, vec![endpoint("https://example.com/")]);
        assert!(endpoint_of(&delivery(), &snapshot, at(100)).is_ok());
    }
}
