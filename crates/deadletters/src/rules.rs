//! What is done with dead letters without a person asking for it, if the settings say so.
//!
//! Pure: makes requests, each under a key that is the same whichever process makes it.

use fanfare_broker::Place;
use fanfare_model::{EndpointId, TenantId, Timestamp};
use jiff::SignedDuration;

use crate::{Action, Filter, Request};

/// Who the audit says asked.
pub(crate) const ACTOR: &str = "rule";

/// The longest that a request for the same discard is remembered as the same: an hour.
const DISCARD_EVERY: i64 = 3600;

/// Replays what an endpoint missed, since its receiver is back. What expired stays.
pub(crate) fn on_recovery(
    tenant: &TenantId,
    endpoint: EndpointId,
    why: &str,
    occasion: &str,
) -> Request {
    Request {
        place: Place::DeadLetters,
        action: Action::Replay,
        filter: Filter {
            tenant: Some(tenant.clone()),
            endpoint: Some(endpoint),
            not_reasons: vec!["expired".to_owned()],
            ..Filter::default()
        },
        all: false,
        pace: None,
        why: format!("rule `replay_on_recovery`: {why}"),
        request_key: Some(format!("recovery:{endpoint}:{occasion}")),
    }
}

/// Discards what rests for longer than so many days; `None` when nothing is ever to be discarded.
pub(crate) fn discard_after(days: u32, now: Timestamp) -> Option<Request> {
    let days = (days > 0).then_some(days)?;
    let kept = SignedDuration::from_hours(i64::from(days) * 24);
    let before = now.checked_sub(kept).ok()?;
    let hour = now.as_second().div_euclid(DISCARD_EVERY);
    Some(Request {
        place: Place::DeadLetters,
        action: Action::Discard,
        filter: Filter {
            before: Some(before),
            ..Filter::default()
        },
        all: false,
        pace: None,
        why: format!("rule `discard_after_days`: older than {days} days"),
        request_key: Some(format!("discard:{days}:{hour}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_dead_letters_are_discarded_once_an_hour_if_at_all() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert!(discard_after(0, at(0)).is_none());
        let request = discard_after(7, at(7 * 86_400 + 3599)).unwrap();
        assert_eq!(request.filter.before, Some(at(3599)));
        let key = |second| discard_after(7, at(second)).unwrap().request_key;
        assert_eq!(key(3600 * 1000), key(3600 * 1001 - 1));
        assert_ne!(key(3600 * 1000), key(3600 * 1001));
        assert!(request.filter.check(request.all).is_ok());
    }
}
