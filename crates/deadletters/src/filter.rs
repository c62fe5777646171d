//! Which of the messages that rest are meant.

use fanfare_journal::LetterFilter;
use fanfare_model::{EndpointId, EventTypePattern, TenantId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{Entry, entry::UNREADABLE};

/// Which messages are meant: those for which every condition holds. Without a condition, all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// Those with one of these ids.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<String>,
    /// Those of this tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Those for this endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<EndpointId>,
    /// Those of this type, or family of types.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub event_type: Option<EventTypePattern>,
    /// Those that rest for this reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Those that rest for other reasons than these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_reasons: Vec<String>,
    /// Those whose last answer had this status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Those that were replayed fewer times than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before_replay: Option<u32>,
    /// Those that rest since before this moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Timestamp>,
    /// Those that rest since this moment or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Timestamp>,
}

/// Why a filter cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    /// It has no condition, which must be meant.
    #[error("a filter without a condition means everything: say so with `all`")]
    Everything,
    /// It has conditions, and everything was asked for.
    #[error("`all` and a condition contradict each other")]
    AllAndSome,
    /// More ids than are looked for at once.
    #[error("at most {0} ids are accepted at once: use another condition")]
    TooManyIds(usize),
}

impl Filter {
    /// How many ids are looked for at once.
    pub const MOST_IDS: usize = 1000;

    /// Whether it means everything.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// Refuses a filter that may mean more than its author thinks.
    pub fn check(&self, all: bool) -> Result<(), InvalidFilter> {
        match (all, self.is_all()) {
            (false, true) => Err(InvalidFilter::Everything),
            (true, false) => Err(InvalidFilter::AllAndSome),
            _ if self.ids.len() > Self::MOST_IDS => Err(InvalidFilter::TooManyIds(Self::MOST_IDS)),
            _ => Ok(()),
        }
    }

    /// The same for the index of dead letters; `None` when it cannot tell which messages are meant.
    pub(crate) fn in_index(&self) -> Option<LetterFilter> {
        if self.reason.as_deref() == Some(UNREADABLE) || self.before_replay.is_some() {
            return None;
        }
        let ids = self.ids.iter().map(|id| id.parse().ok());
        Some(LetterFilter {
            ids: ids.collect::<Option<Vec<_>>>()?,
            tenant: self.tenant.clone(),
            endpoint: self.endpoint,
            event_type: self.event_type.clone(),
            reason: self.reason.clone(),
            not_reasons: self.not_reasons.clone(),
            status: self.status,
            before: self.before,
            after: self.after,
        })
    }

    /// Whether a message is meant. What a message does not say of itself fulfils no condition.
    pub fn matches(&self, entry: &Entry) -> bool {
        let event_type = || entry.event_type.as_deref()?.parse().ok();
        let is = |asked: Option<&str>, found: Option<&str>| asked.is_none() || asked == found;
        let endpoint = self.endpoint.map(|id| id.to_string());
        (self.ids.is_empty() || self.ids.contains(&entry.id))
            && is(
                self.tenant.as_ref().map(TenantId::as_str),
                entry.tenant.as_deref(),
            )
            && is(endpoint.as_deref(), entry.endpoint.as_deref())
            && is(self.reason.as_deref(), Some(&entry.reason))
            && !self.not_reasons.contains(&entry.reason)
            && self
                .event_type
                .as_ref()
                .is_none_or(|pattern| event_type().is_some_and(|found| pattern.matches(&found)))
            && self
                .status
                .is_none_or(|status| entry.last_status == Some(status.into()))
            && self
                .before_replay
                .is_none_or(|replay| entry.replay < replay)
            && self
                .before
                .is_none_or(|before| entry.since.is_some_and(|since| since < before))
            && self
                .after
                .is_none_or(|after| entry.since.is_some_and(|since| since >= after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::tests::dead_letter;

    fn check(narrow: impl FnOnce(&mut Filter), matches: bool) {
        let entry = Entry {
            last_status: Some(503),
            ..dead_letter("t", "exhausted", 100)
        };
        let mut filter = Filter::default();
        narrow(&mut filter);
        assert_eq!(filter.matches(&entry), matches, "{filter:?}");
        let text = serde_json::to_string(&filter).unwrap();
        assert_eq!(serde_json::from_str::<Filter>(&text).unwrap(), filter);
    }

    #[test]
    fn every_condition_has_to_hold() {
        let id = dead_letter("t", "exhausted", 100).id;
        let at = |second| Timestamp::from_second(second).ok();
        check(|_| {}, true);
        check(|f| f.ids = vec!["x".to_owned(), id], true);
        check(|f| f.ids = vec!["x".to_owned()], false);
        for (event_type, matches) in [("reward.*", true), ("order.*", false)] {
            check(
                |f| (f.tenant, f.event_type) = ("t".parse().ok(), event_type.parse().ok()),
                matches,
            );
        }
        check(
            |f| f.endpoint = "ep_00000000000000000000000000000002".parse().ok(),
            false,
        );
        check(|f| f.reason = Some("gone".to_owned()), false);
        check(|f| f.not_reasons = vec!["exhausted".to_owned()], false);
        check(
            |f| (f.status, f.before, f.after) = (Some(503), at(101), at(100)),
            true,
        );
        check(|f| f.before_replay = Some(1), true);
        check(|f| f.before_replay = Some(0), false);
        check(|f| f.before = at(100), false);
        check(|f| f.after = at(101), false);
    }

    #[test]
    fn the_index_is_not_asked_for_what_it_cannot_have() {
        let in_index = |filter: Filter| filter.in_index().is_some();
        assert!(in_index(Filter::default()));
        let ids = |id: &str| Filter {
            ids: vec![id.to_owned()],
            ..Filter::default()
        };
        assert!(in_index(ids(&dead_letter("t", "gone", 1).id)));
        assert!(!in_index(ids("msg_00000000000000000000000000000001")));
        assert!(!in_index(Filter {
            before_replay: Some(1),
            ..Filter::default()
        }));
        assert!(!in_index(Filter {
            reason: Some(UNREADABLE.to_owned()),
            ..Filter::default()
        }));
    }

    #[test]
    fn everything_has_to_be_meant() {
        let some = Filter {
            reason: Some("gone".to_owned()),
            ..Filter::default()
        };
        assert_eq!(
            Filter::default().check(false),
            Err(InvalidFilter::Everything)
        );
        assert_eq!(Filter::default().check(true), Ok(()));
        assert_eq!(some.check(true), Err(InvalidFilter::AllAndSome));
        assert_eq!(some.check(false), Ok(()));
    }
}
