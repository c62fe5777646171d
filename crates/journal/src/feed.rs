//! Reads a part of a tenant's feed, narrowed to an endpoint or to states.

use fanfare_model::{DeliveryState, EndpointId, TenantId};

use crate::{FeedCursor, FeedEntry, History, HistoryFault, Page, StateFilter};

/// Which events of a feed to give. What is not set restricts nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FeedFilter {
    /// Those owed to this endpoint, with that delivery alone.
    pub endpoint: Option<EndpointId>,
    /// Those with a delivery that stands in one of these ways; all, if there is none.
    pub states: Vec<StateFilter>,
}

/// The next events of a feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedPart {
    /// The events that match.
    pub entries: Vec<FeedEntry>,
    /// Up to where the feed was read: where to go on. `None` when there was never anything to read.
    pub next: Option<FeedCursor>,
    /// Whether there is more already.
    pub more: bool,
}

/// How many events are read at once, and how often within one call: a narrow filter over a long feed is
/// answered in parts.
const READ_AT_ONCE: u32 = 500;
const MOST_READS: usize = 10;

impl History {
    /// The next events of a tenant's feed that match, each with the state of its deliveries.
    ///
    /// Fewer than asked for, even none, is no end: `more` tells. Whoever goes on from `next` misses nothing.
    pub async fn feed_part(
        &self,
        tenant: &TenantId,
        filter: &FeedFilter,
        page: Page<FeedCursor>,
    ) -> Result<FeedPart, HistoryFault> {
        let limit = page.limit as usize;
        let mut part = FeedPart {
            entries: Vec::new(),
            next: page.after,
            more: true,
        };
        for _ in 0..MOST_READS {
            let read = Page {
                after: part.next,
                limit: if filter.is_narrow() {
                    READ_AT_ONCE
                } else {
                    page.limit + 1
                },
            };
            let entries = self.feed(tenant, read).await?;
            let is_end = entries.len() < read.limit as usize;
            let is_cut = filter.take(entries, limit, &mut part);
            part.more = is_cut || !is_end;
            if is_cut || is_end {
                break;
            }
        }
        Ok(part)
    }
}

impl FeedFilter {
    fn is_narrow(&self) -> bool {
        self.endpoint.is_some() || !self.states.is_empty()
    }

    /// Adds what matches, and says whether entries were left for lack of room.
    fn take(&self, entries: Vec<FeedEntry>, limit: usize, part: &mut FeedPart) -> bool {
        for mut entry in entries {
            if part.entries.len() == limit {
                return true;
            }
            part.next = Some(entry.cursor);
            if self.keep(&mut entry) {
                part.entries.push(entry);
            }
        }
        false
    }

    fn keep(&self, entry: &mut FeedEntry) -> bool {
        if let Some(endpoint) = self.endpoint {
            entry.deliveries.retain(|one| one.endpoint == endpoint);
        }
        let matches =
            |state| self.states.is_empty() || self.states.contains(&StateFilter::of(state));
        !self.is_narrow() || entry.deliveries.iter().any(|one| matches(one.state))
    }
}

impl StateFilter {
    /// The one that finds a state.
    pub fn of(state: DeliveryState) -> Self {
        match state {
            DeliveryState::Owed => Self::Owed,
            DeliveryState::Retrying { .. } => Self::Retrying,
            DeliveryState::Delivered => Self::Delivered,
            DeliveryState::DeadLettered { .. } => Self::DeadLettered,
            DeliveryState::Discarded => Self::Discarded,
            DeliveryState::Unknown => Self::Unknown,
        }
    }

    /// Reads names separated by commas; `missed` stands for [`StateFilter::MISSED`].
    pub fn parse_list(text: &str) -> Result<Vec<Self>, InvalidState> {
        let mut states = Vec::new();
        for name in text.split(',') {
            let named = Self::ALL.into_iter().filter(|state| state.name() == name);
            let meant: Vec<_> = match name {
                "missed" => Self::MISSED.to_vec(),
                _ => named.collect(),
            };
            if meant.is_empty() {
                return Err(InvalidState);
            }
            for state in meant {
                if !states.contains(&state) {
                    states.push(state);
                }
            }
        }
        Ok(states)
    }
}

/// Why a text names no states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "accepted are `owed`, `retrying`, `delivered`, `dead_lettered`, `discarded`, `unknown`, separated by \
     commas, and `missed` for the last three"
)]
pub struct InvalidState;

impl std::str::FromStr for crate::OutcomeFilter {
    type Err = InvalidOutcome;

    fn from_str(text: &str) -> Result<Self, InvalidOutcome> {
        match text {
            "succeeded" => Ok(Self::Succeeded),
            "failed" => Ok(Self::Failed),
            class => class
                .parse()
                .map(Self::FailedWith)
                .map_err(|_| InvalidOutcome),
        }
    }
}

/// Why a text names no outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "accepted are `succeeded`, `failed`, or the class of a failure such as `timeout` or `status_5xx`"
)]
pub struct InvalidOutcome;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OutcomeFilter;

    #[test]
    fn states_and_outcomes_are_read_by_their_names() {
        for state in StateFilter::ALL {
            assert_eq!(StateFilter::parse_list(state.name()), Ok(vec![state]));
        }
        let missed = StateFilter::parse_list("unknown,missed").unwrap();
        assert_eq!(missed.len(), 3);
        for bad in ["", "lost", "owed,", "owed, delivered"] {
            assert_eq!(StateFilter::parse_list(bad), Err(InvalidState), "{bad}");
        }
        assert_eq!("failed".parse(), Ok(OutcomeFilter::Failed));
        assert!("timeout".parse::<OutcomeFilter>().is_ok());
        assert!("bad".parse::<OutcomeFilter>().is_err());
    }
}
