//! What can be asked for: which deliveries, to which endpoint, and why.

use std::{fmt, str::FromStr};

use fanfare_journal::{DeliveryFilter, StateFilter};
use fanfare_model::{EndpointId, EventTypePattern, Rate, TenantId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::ReplayFault;

/// What is done with the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// What an endpoint was owed is sent to it again.
    Replay,
    /// An endpoint gets the events that it would have been owed, had it been there.
    Backfill,
    /// One event is sent to an endpoint, whether it was owed to it or not.
    Resend,
}

impl Action {
    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::Backfill => "backfill",
            Self::Resend => "resend",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        let all = [Self::Replay, Self::Backfill, Self::Resend];
        all.into_iter().find(|action| action.name() == name)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which deliveries a replay is for, by what became of them. What is still open comes by itself and is left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// What the receiver does not have, as far as is known: dead letters, what was discarded, what is unknown.
    #[default]
    Missed,
    /// Dead letters alone.
    Failed,
    /// All of these, and what the receiver has.
    All,
}

impl Outcome {
    const ALL: [Self; 3] = [Self::Missed, Self::Failed, Self::All];

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Missed => "missed",
            Self::Failed => "failed",
            Self::All => "all",
        }
    }

    fn states(self) -> Vec<StateFilter> {
        let mut states = StateFilter::MISSED.to_vec();
        match self {
            Self::Missed => {}
            Self::Failed => states = vec![StateFilter::DeadLettered],
            Self::All => states.push(StateFilter::Delivered),
        }
        states
    }
}

/// Why a text names no outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("accepted are `missed`, `failed` and `all`")]
pub struct InvalidOutcome;

impl FromStr for Outcome {
    type Err = InvalidOutcome;

    fn from_str(text: &str) -> Result<Self, InvalidOutcome> {
        let named = Self::ALL.into_iter().find(|known| known.name() == text);
        named.ok_or(InvalidOutcome)
    }
}

/// Which deliveries are meant: to one endpoint, and of them those for which all that is set holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// The endpoint's owner.
    pub tenant: TenantId,
    /// Whom they go to.
    pub endpoint: EndpointId,
    /// Events whose type one of these matches; any, if there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<EventTypePattern>,
    /// Events routed then or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Events routed before then: until the request unless it says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Of a replay, what became of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Of a resend, where the event happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Of a resend, the event's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
}

impl Filter {
    /// Everything for an endpoint.
    pub fn to(tenant: TenantId, endpoint: EndpointId) -> Self {
        Self {
            tenant,
            endpoint,
            types: Vec::new(),
            since: None,
            until: None,
            outcome: None,
            source: None,
            event: None,
        }
    }

    /// Refuses what has no meaning for the action.
    pub(crate) fn check(&self, action: Action) -> Result<(), ReplayFault> {
        let refused = |field, why| Err(ReplayFault::refused(field, why));
        match action {
            Action::Resend if self.event.is_none() => {
                refused("event", "`event` is needed: the id of the event to send")
            }
            Action::Resend
                if self.since.is_some() || self.until.is_some() || !self.types.is_empty() =>
            {
                refused("event", "`event` already says which event is meant")
            }
            Action::Replay | Action::Backfill if self.event.is_some() || self.source.is_some() => {
                refused("event", "one event is sent by a resend")
            }
            Action::Backfill | Action::Resend if self.outcome.is_some() => {
                refused("outcome", "`outcome` is for replays alone")
            }
            Action::Replay | Action::Backfill | Action::Resend => {
                let is_empty = |since| self.until.is_some_and(|until| since >= until);
                if self.since.is_some_and(is_empty) {
                    return refused("until", "`until` must be later than `since`");
                }
                Ok(())
            }
        }
    }

    /// What to ask the history for.
    pub(crate) fn of_history(&self) -> DeliveryFilter {
        DeliveryFilter {
            tenant: Some(self.tenant.clone()),
            endpoint: Some(self.endpoint),
            event_types: self.types.clone(),
            states: self.outcome.unwrap_or_default().states(),
            from: self.since,
            to: self.until,
            ..DeliveryFilter::default()
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// What to do.
    pub action: Action,
    /// With which deliveries.
    pub filter: Filter,
    /// How fast at most; the installation's own pace unless given. The endpoint's rate holds besides.
    pub pace: Option<Rate>,
    /// Why, for those who read the audit.
    pub why: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter() -> Filter {
        let endpoint = "ep_00000000000000000000000000000002".parse().unwrap();
        Filter::to("t".parse().unwrap(), endpoint)
    }

    #[test]
    fn what_has_no_meaning_is_refused_by_its_name() {
        let at = |second| Timestamp::from_second(second).ok();
        let event = Some("1".to_owned());
        let check = |action, change: &dyn Fn(&mut Filter), refused: Option<&str>| {
            let mut filter = filter();
            change(&mut filter);
            let field = match filter.check(action) {
                Err(ReplayFault::Refused { field, .. }) => Some(field),
                other => other.map(|()| None).unwrap(),
            };
            assert_eq!(field, refused, "{action} {filter:?}");
            let text = serde_json::to_string(&filter).unwrap();
            assert_eq!(serde_json::from_str::<Filter>(&text).unwrap(), filter);
        };
        let all = |f: &mut Filter| f.outcome = Some(Outcome::All);
        check(Action::Replay, &|_| {}, None);
        check(Action::Replay, &all, None);
        check(
            Action::Replay,
            &|f| (f.since, f.until) = (at(1), at(2)),
            None,
        );
        check(Action::Backfill, &|f| f.since = at(1), None);
        check(Action::Resend, &|f| f.event = event.clone(), None);
        check(Action::Resend, &|_| {}, Some("event"));
        check(Action::Replay, &|f| f.event = event.clone(), Some("event"));
        check(Action::Backfill, &all, Some("outcome"));
        check(
            Action::Replay,
            &|f| (f.since, f.until) = (at(2), at(2)),
            Some("until"),
        );
        check(
            Action::Resend,
            &|f| (f.event, f.since) = (event.clone(), at(2)),
            Some("event"),
        );
    }

    #[test]
    fn names_read_back_what_they_print_and_what_is_open_is_never_meant() {
        for outcome in Outcome::ALL {
            assert_eq!(outcome.name().parse(), Ok(outcome));
            let states = outcome.states();
            assert!(states.contains(&StateFilter::DeadLettered));
            for open in [StateFilter::Owed, StateFilter::Retrying] {
                assert!(!states.contains(&open), "{}", outcome.name());
            }
        }
        assert_eq!("some".parse::<Outcome>(), Err(InvalidOutcome));
        for action in [Action::Replay, Action::Backfill, Action::Resend] {
            assert_eq!(Action::named(action.name()), Some(action));
        }
    }
}
