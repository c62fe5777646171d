//! What the journal holds: what was routed, attempted and settled, in numbered batches.
//!
//! History, search and reconciliation are built from it. Each writer numbers its batches, so a reader
//! recognises repeats and knows what is missing.

use std::{fmt, str::FromStr, sync::Arc};

use jiff::Timestamp;

use crate::{
    DeadLetterReason, Delivery, DeliveryId, DiscardReason, EndpointId, Event, EventType,
    FailureClass, Settlement, TenantId,
};

/// What one writer has to say at once. Never holds back for the sake of size: an empty one is a sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalBatch {
    /// Who wrote it.
    pub writer: JournalWriterId,
    /// Counts the batches of the writer from 1, without gaps.
    pub sequence: u64,
    /// When it was written.
    pub written_at: Timestamp,
    /// How many entries the writer could not keep since the batch before.
    pub dropped: u64,
    /// Whether the writer ends in order with this batch.
    pub is_last: bool,
    /// In the order in which they happened there.
    pub entries: Vec<JournalEntry>,
}

/// A process that writes a journal, from its start to its end.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JournalWriterId {
    /// The role and the process, such as `dispatcher on host-1`. A process that starts again has the same.
    pub name: String,
    /// When it started, in microseconds since 1970. A later start has a higher one.
    pub epoch: u64,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JournalEntry {
    /// An event was routed.
    Routed(RoutedEvent),
    /// A dispatcher did something with a delivery.
    Handled(HandledDelivery),
    /// A person or a rule did something with a delivery.
    Acted(ActedDelivery),
}

/// An event, and whom it is owed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutedEvent {
    /// The event; without its data when that is not to be kept.
    pub event: Arc<Event>,
    /// Whether the event had data that is not kept here.
    pub data_left_out: bool,
    /// When it was routed.
    pub at: Timestamp,
    /// The trace that the producer began.
    pub trace_id: Option<String>,
    /// The deliveries that it led to.
    pub owed: Vec<OwedDelivery>,
}

/// A delivery as the router made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwedDelivery {
    /// The delivery.
    pub id: DeliveryId,
    /// Whom it is owed to.
    pub endpoint: EndpointId,
    /// Not to be attempted earlier than this.
    pub not_before: Option<Timestamp>,
    /// Whether the dispatcher will tell when it is delivered. If not, nobody knows.
    pub is_told: bool,
}

/// What names an event, and its type.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EventKey {
    /// In which it happened.
    pub tenant: TenantId,
    /// Where it happened.
    pub source: String,
    /// Its id within the source.
    pub id: String,
    /// What happened. No part of the name.
    pub event_type: EventType,
}

impl From<&Event> for EventKey {
    fn from(event: &Event) -> Self {
        Self {
            tenant: event.tenant.clone(),
            source: event.source.clone(),
            id: event.id.clone(),
            event_type: event.event_type.clone(),
        }
    }
}

/// What became of a delivery that was handled once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandledDelivery {
    /// The delivery.
    pub delivery: DeliveryId,
    /// Whom it is owed to.
    pub endpoint: EndpointId,
    /// What is owed.
    pub event: EventKey,
    /// How many times it had been replayed.
    pub replay: u32,
    /// When it was settled.
    pub at: Timestamp,
    /// The request that was made, when one was and it is to be kept.
    pub attempt: Option<AttemptRecord>,
    /// How many attempts failed, this one included.
    pub failed_attempts: u32,
    /// How the delivery stands now.
    pub state: DeliveryState,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRecord {
    /// Counted from 1 in each replay.
    pub number: u32,
    /// When it started.
    pub started_at: Timestamp,
    /// How many microseconds it took.
    pub took_micros: u64,
    /// The status, if the receiver answered.
    pub status: Option<u16>,
    /// What kind of failure; none when it succeeded.
    pub failure: Option<FailureClass>,
    /// A sentence for people, without secrets and bodies; empty when it succeeded.
    pub error: String,
}

/// What a person or a rule did with a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActedDelivery {
    /// The delivery.
    pub delivery: DeliveryId,
    /// Whom it is owed to.
    pub endpoint: EndpointId,
    /// What is owed.
    pub event: EventKey,
    /// The replay that begins, or that ends by being discarded.
    pub replay: u32,
    /// When it was done.
    pub at: Timestamp,
    /// What was done.
    pub action: DeliveryAction,
    /// Who did it.
    pub actor: String,
    /// The operation that it was part of.
    pub operation: String,
}

/// What can be done with a delivery by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryAction {
    /// It is owed once more.
    Replayed,
    /// It is not owed any more.
    Discarded,
}

/// How a delivery stands, as far as the journal tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// Routed or replayed, and nothing else is known of it.
    Owed,
    /// Failed, and to be tried again.
    Retrying {
        /// Not earlier than this.
        at: Timestamp,
    },
    /// The receiver has it.
    Delivered,
    /// Given up on.
    DeadLettered {
        /// Why.
        reason: DeadLetterReason,
    },
    /// Not owed any more.
    Discarded,
    /// Open, and what became of it may have been lost on its way to the history.
    Unknown,
}

impl DeliveryState {
    /// The name in the history.
    pub fn name(self) -> &'static str {
        match self {
            Self::Owed => "owed",
            Self::Retrying { .. } => "retrying",
            Self::Delivered => "delivered",
            Self::DeadLettered { .. } => "dead_lettered",
            Self::Discarded => "discarded",
            Self::Unknown => "unknown",
        }
    }

    /// How a delivery stands after a settlement; `None` when that says nothing new about it.
    pub fn after(settlement: &Settlement) -> Option<Self> {
        Some(match settlement {
            Settlement::Delivered => Self::Delivered,
            Settlement::Retry { at, .. } => Self::Retrying { at: *at },
            Settlement::DeadLetter { reason, .. } => Self::DeadLettered { reason: *reason },
            Settlement::Discard {
                reason: DiscardReason::EndpointDeleted,
            } => Self::Discarded,
            // It waits as before, or a copy of it says what became of it.
            Settlement::Defer { .. }
            | Settlement::Discard {
                reason: DiscardReason::SeenBefore,
            } => return None,
        })
    }
}

/// Which attempts are journalled. Dead letters and discards always are.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum JournalledAttempts {
    /// Every attempt.
    #[default]
    All,
    /// Failed attempts; of the others, that the delivery was delivered.
    Failures,
    /// No attempt. Whether a delivery was delivered is then unknown.
    None,
}

impl JournalledAttempts {
    /// The name in the settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Failures => "failures",
            Self::None => "none",
        }
    }
}

impl fmt::Display for JournalledAttempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for JournalledAttempts {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::All, Self::Failures, Self::None]
            .into_iter()
            .find(|kept| kept.name() == text)
            .ok_or("accepted is `all`, `failures` or `none`")
    }
}

impl HandledDelivery {
    /// What the journal says of a delivery that was settled; `None` when there is nothing to say.
    pub fn of(
        delivery: &Delivery,
        settlement: &Settlement,
        attempt: Option<AttemptRecord>,
        kept: JournalledAttempts,
        at: Timestamp,
    ) -> Option<Self> {
        let state = DeliveryState::after(settlement)?;
        let has_failed = matches!(
            settlement,
            Settlement::Retry { .. }
                | Settlement::DeadLetter {
                    failure: Some(_),
                    ..
                }
        );
        let is_end = matches!(
            state,
            DeliveryState::DeadLettered { .. } | DeliveryState::Discarded
        );
        let (is_told, keeps_attempt) = match kept {
            JournalledAttempts::All => (true, true),
            JournalledAttempts::Failures => (true, has_failed),
            JournalledAttempts::None => (is_end, false),
        };
        is_told.then(|| Self {
            delivery: delivery.id,
            endpoint: delivery.endpoint,
            event: (&*delivery.event).into(),
            replay: delivery.replay,
            at,
            attempt: attempt.filter(|_| keeps_attempt),
            failed_attempts: delivery
                .failed_attempts
                .saturating_add(u32::from(has_failed)),
            state,
        })
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{DeferReason, Failure, TraceContext};

    fn delivery() -> Delivery {
        let event = Arc::new(Event::for_tests("t", "s", "1", "a", b"{}"));
        let endpoint = EndpointId::from_uuid(Uuid::from_u128(1));
        let now = Timestamp::UNIX_EPOCH;
        Delivery::new(event, endpoint, 1, TraceContext::default(), now)
    }

    fn attempt() -> AttemptRecord {
        AttemptRecord {
            number: 1,
            started_at: Timestamp::UNIX_EPOCH,
            took_micros: 5,
            status: Some(200),
            failure: None,
            error: String::new(),
        }
    }

    #[test]
    fn what_is_journalled_depends_on_the_setting_and_on_the_settlement() {
        use JournalledAttempts::{All, Failures, None as Nothing};
        let at = Timestamp::UNIX_EPOCH;
        let failure = || Failure {
            class: FailureClass::Timeout,
            status: None,
            error: "timed out".to_owned(),
        };
        let retry = Settlement::Retry {
            at,
            failure: failure(),
        };
        let dead = Settlement::DeadLetter {
            reason: DeadLetterReason::Exhausted,
            failure: Some(failure()),
        };
        let expired = Settlement::DeadLetter {
            reason: DeadLetterReason::Expired,
            failure: None,
        };
        let deleted = Settlement::Discard {
            reason: DiscardReason::EndpointDeleted,
        };
        let repeat = Settlement::Discard {
            reason: DiscardReason::SeenBefore,
        };
        let defer = Settlement::Defer {
            until: at,
            why: DeferReason::Paused,
        };
        // Whether something is said, whether it has the attempt, and how many attempts failed.
        for (settlement, kept, expected) in [
            (&Settlement::Delivered, All, Some((true, 0))),
            (&Settlement::Delivered, Failures, Some((false, 0))),
            (&Settlement::Delivered, Nothing, None),
            (&retry, All, Some((true, 1))),
            (&retry, Failures, Some((true, 1))),
            (&retry, Nothing, None),
            (&dead, All, Some((true, 1))),
            (&dead, Failures, Some((true, 1))),
            (&dead, Nothing, Some((false, 1))),
            (&expired, Nothing, Some((false, 0))),
            (&deleted, Nothing, Some((false, 0))),
            (&repeat, All, None),
            (&defer, All, None),
        ] {
            let said = HandledDelivery::of(&delivery(), settlement, Some(attempt()), kept, at);
            let said = said.map(|said| (said.attempt.is_some(), said.failed_attempts));
            assert_eq!(said, expected, "{settlement:?} {kept}");
        }
    }

    #[test]
    fn settings_read_back_what_they_print() {
        for kept in [
            JournalledAttempts::All,
            JournalledAttempts::Failures,
            JournalledAttempts::None,
        ] {
            assert_eq!(kept.to_string().parse(), Ok(kept));
        }
        assert!("some".parse::<JournalledAttempts>().is_err());
    }
}
