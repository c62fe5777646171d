//! Turns batches of the journal into rows. Pure.
//!
//! Batches of different writers overtake each other, and a batch may come twice. So nothing here depends on
//! the order of writers: of two things said about a delivery, the one that happened later counts.

use std::collections::{HashMap, hash_map::Entry};

use fanfare_model::{
    ActedDelivery, AttemptRecord, DeliveryAction, DeliveryId, DeliveryState, EventKey,
    FailureClass, HandledDelivery, JournalBatch, JournalEntry, RoutedEvent,
};

use crate::{
    LastFailure,
    rows::{MICROS_A_DAY, NewAttempt, NewDelivery, NewEvent, Routed, SUCCESS},
    writers::{Writers, signed},
};

/// Rows to be written, each named once.
#[derive(Debug, Default)]
pub(crate) struct TakenIn {
    /// Events that were routed.
    pub(crate) routed: Vec<NewEvent>,
    pub(crate) deliveries: HashMap<DeliveryId, NewDelivery>,
    /// Their numbers are still to be given.
    pub(crate) attempts: Vec<NewAttempt>,
    index: HashMap<Name, usize>,
}

/// What names an event, without its type.
pub(crate) type Name = (String, String, String);

pub(crate) fn name_of(key: &EventKey) -> Name {
    let tenant = key.tenant.as_str().to_owned();
    (tenant, key.source.clone(), key.id.clone())
}

impl TakenIn {
    /// Takes in what is new in these batches.
    pub(crate) fn of<'a>(
        batches: impl IntoIterator<Item = &'a JournalBatch>,
        writers: &mut Writers,
    ) -> Self {
        let mut taken = Self::default();
        for batch in batches {
            if !writers.note(batch) {
                continue;
            }
            for entry in &batch.entries {
                match entry {
                    JournalEntry::Routed(routed) => taken.routed(routed),
                    JournalEntry::Handled(handled) => taken.handled(handled),
                    JournalEntry::Acted(acted) => taken.acted(acted),
                }
            }
        }
        taken
    }

    /// Whether the event itself is among these rows.
    pub(crate) fn has_event(&self, key: &EventKey) -> bool {
        self.index.contains_key(&name_of(key))
    }

    /// The days of the attempts, counted from 1970.
    pub(crate) fn days<'a>(batches: impl IntoIterator<Item = &'a JournalBatch>) -> Vec<i64> {
        let entries = batches.into_iter().flat_map(|batch| &batch.entries);
        let mut days: Vec<i64> = entries
            .filter_map(|entry| match entry {
                JournalEntry::Handled(handled) => handled.attempt.as_ref(),
                JournalEntry::Routed(_) | JournalEntry::Acted(_) => None,
            })
            .map(|attempt| day_of(attempt.started_at.as_microsecond()))
            .collect();
        days.sort_unstable();
        days.dedup();
        days
    }

    fn routed(&mut self, routed: &RoutedEvent) {
        let key = EventKey::from(&*routed.event);
        let at = routed.at.as_microsecond();
        // An event that was routed twice is the same event; the first time counts.
        if let Entry::Vacant(vacant) = self.index.entry(name_of(&key)) {
            vacant.insert(self.routed.len());
            self.routed.push(NewEvent {
                key: key.clone(),
                at,
                routed: Some(Routed {
                    event: routed.event.clone(),
                    data_left_out: routed.data_left_out,
                    trace_id: routed.trace_id.clone(),
                }),
            });
        }
        for owed in &routed.owed {
            self.merge(NewDelivery {
                id: owed.id,
                endpoint: owed.endpoint,
                event: key.clone(),
                at,
                state: DeliveryState::Owed,
                changed_at: at,
                due_at: owed.not_before.map_or(at, |moment| moment.as_microsecond()),
                is_told: owed.is_told,
                replay: 0,
                failed_attempts: 0,
                first_failed_at: None,
                last_failure: None,
            });
        }
    }

    fn handled(&mut self, handled: &HandledDelivery) {
        let at = handled.at.as_microsecond();
        let failure = handled.attempt.as_ref().and_then(last_failure);
        self.merge(NewDelivery {
            id: handled.delivery,
            endpoint: handled.endpoint,
            event: handled.event.clone(),
            at,
            state: handled.state,
            changed_at: at,
            due_at: match handled.state {
                DeliveryState::Retrying { at } => at.as_microsecond(),
                DeliveryState::Owed
                | DeliveryState::Delivered
                | DeliveryState::DeadLettered { .. }
                | DeliveryState::Discarded
                | DeliveryState::Unknown => at,
            },
            is_told: true,
            replay: handled.replay,
            failed_attempts: handled.failed_attempts,
            first_failed_at: failure.as_ref().map(|_| at),
            last_failure: failure,
        });
        if let Some(attempt) = &handled.attempt {
            self.attempts.push(new_attempt(handled, attempt));
        }
    }

    fn acted(&mut self, acted: &ActedDelivery) {
        let at = acted.at.as_microsecond();
        self.merge(NewDelivery {
            id: acted.delivery,
            endpoint: acted.endpoint,
            event: acted.event.clone(),
            at,
            state: match acted.action {
                DeliveryAction::Replayed => DeliveryState::Owed,
                DeliveryAction::Discarded => DeliveryState::Discarded,
            },
            changed_at: at,
            due_at: at,
            is_told: true,
            replay: acted.replay,
            failed_attempts: 0,
            first_failed_at: None,
            last_failure: None,
        });
    }

    fn merge(&mut self, new: NewDelivery) {
        match self.deliveries.entry(new.id) {
            Entry::Vacant(vacant) => {
                vacant.insert(new);
            }
            Entry::Occupied(mut occupied) => {
                let old = occupied.get();
                if supersedes(&new, old) {
                    let merged = over(new, old);
                    occupied.insert(merged);
                }
            }
        }
    }
}

/// Whether what is said about a delivery counts more than what was said before.
///
/// A later replay does. Within one, nothing takes a delivery back from its receiver, and what is owed is
/// older than whatever became of it, also by another clock: a router tells of an event once it has published its
/// deliveries, by when the first may have been attempted.
pub(crate) fn supersedes(new: &NewDelivery, old: &NewDelivery) -> bool {
    new.replay > old.replay
        || (new.replay == old.replay
            && old.state != DeliveryState::Delivered
            && new.state != DeliveryState::Owed
            && (new.state == DeliveryState::Delivered
                || old.state == DeliveryState::Owed
                || new.changed_at >= old.changed_at))
}

/// The same rule for the rows of the table, where `excluded` is the new one.
pub(crate) const SUPERSEDES: &str = "excluded.replay > deliveries.replay \
    OR (excluded.replay = deliveries.replay AND deliveries.state <> 'delivered' \
    AND excluded.state <> 'owed' \
    AND (excluded.state = 'delivered' OR deliveries.state = 'owed' \
    OR excluded.changed_at >= deliveries.changed_at))";

/// What stays of an old row under a new one.
fn over(new: NewDelivery, old: &NewDelivery) -> NewDelivery {
    let same = new.replay == old.replay;
    NewDelivery {
        at: old.at,
        is_told: new.is_told && (new.state != DeliveryState::Owed || old.is_told),
        first_failed_at: match same {
            true => old.first_failed_at.or(new.first_failed_at),
            false => new.first_failed_at,
        },
        last_failure: match same {
            true => new
                .last_failure
                .clone()
                .or_else(|| old.last_failure.clone()),
            false => new.last_failure.clone(),
        },
        ..new
    }
}

/// The same for the rows of the table: what each column becomes.
pub(crate) fn column_over(column: &str) -> String {
    match column {
        "id" | "event_seq" | "endpoint" | "tenant" | "event_type" | "at" => String::new(),
        "is_told" => "is_told = CASE WHEN excluded.state = 'owed' THEN deliveries.is_told \
                      ELSE excluded.is_told END"
            .to_owned(),
        "first_failed_at" => kept("first_failed_at", "deliveries", "excluded"),
        "last_status" | "last_class" | "last_error" => {
            // The three belong together, so that a failure without a status does not keep an older one.
            format!(
                "{column} = CASE WHEN excluded.replay = deliveries.replay \
                 AND excluded.last_class IS NULL THEN deliveries.{column} \
                 ELSE excluded.{column} END"
            )
        }
        other => format!("{other} = excluded.{other}"),
    }
}

fn kept(column: &str, first: &str, second: &str) -> String {
    format!(
        "{column} = CASE WHEN excluded.replay = deliveries.replay \
         THEN COALESCE({first}.{column}, {second}.{column}) ELSE excluded.{column} END"
    )
}

fn new_attempt(handled: &HandledDelivery, attempt: &AttemptRecord) -> NewAttempt {
    NewAttempt {
        seq: 0,
        event_seq: 0,
        delivery: handled.delivery,
        endpoint: handled.endpoint,
        event: handled.event.clone(),
        at: attempt.started_at.as_microsecond(),
        replay: handled.replay,
        number: attempt.number,
        took_micros: signed(attempt.took_micros),
        class: attempt.failure.map_or(SUCCESS, FailureClass::name),
        status: attempt.status,
        error: attempt.error.clone(),
        state: handled.state.name(),
    }
}

fn last_failure(attempt: &AttemptRecord) -> Option<LastFailure> {
    Some(LastFailure {
        class: attempt.failure?,
        status: attempt.status,
        error: attempt.error.clone(),
    })
}

pub(crate) fn day_of(at: i64) -> i64 {
    at.div_euclid(MICROS_A_DAY)
}

#[cfg(test)]
mod tests {
    use fanfare_model::{DeadLetterReason, EndpointId, Event, Timestamp};

    use super::*;

    fn delivery(replay: u32, state: DeliveryState, changed_at: i64) -> NewDelivery {
        NewDelivery {
            id: DeliveryId::from_bytes([1; 16]),
            endpoint: EndpointId::from_bytes([2; 16]),
            event: (&Event::for_tests("t", "s", "1", "a", b"{}")).into(),
            at: 0,
            state,
            changed_at,
            due_at: changed_at,
            is_told: true,
            replay,
            failed_attempts: 0,
            first_failed_at: None,
            last_failure: None,
        }
    }

    #[test]
    fn of_two_things_said_the_later_counts_whatever_comes_first() {
        use DeliveryState::{DeadLettered, Delivered, Owed, Retrying};
        let retrying = Retrying {
            at: Timestamp::UNIX_EPOCH,
        };
        let dead = DeadLettered {
            reason: DeadLetterReason::Exhausted,
        };
        for (earlier, later) in [
            (delivery(0, Owed, 5), delivery(0, Delivered, 3)),
            (delivery(0, Owed, 5), delivery(0, retrying, 6)),
            (delivery(0, Owed, 5), delivery(0, dead, 3)),
            (delivery(0, retrying, 5), delivery(0, dead, 6)),
            (delivery(0, retrying, 9), delivery(0, Delivered, 6)),
            (delivery(0, dead, 5), delivery(1, Owed, 6)),
            (delivery(0, Delivered, 5), delivery(1, dead, 4)),
        ] {
            assert!(supersedes(&later, &earlier), "{later:?} {earlier:?}");
            assert!(!supersedes(&earlier, &later), "{earlier:?} {later:?}");
        }
    }

    #[test]
    fn days_are_counted_from_1970() {
        for (at, day) in [(0, 0), (-1, -1), (MICROS_A_DAY, 1), (MICROS_A_DAY - 1, 0)] {
            assert_eq!(day_of(at), day);
        }
    }
}
