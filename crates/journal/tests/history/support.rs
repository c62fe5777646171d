//! Journals as tests write them: small numbers make ids, seconds make moments.

#![allow(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::{sync::Arc, time::Duration};

use fanfare_journal::{History, Page, Portion, Recorded};
use fanfare_model::{
    ActedDelivery, AttemptRecord, DeadLetterReason, DeliveryAction, DeliveryId, DeliveryState,
    EndpointId, Event, EventKey, FailureClass, HandledDelivery, JournalBatch, JournalEntry,
    JournalWriterId, OwedDelivery, RoutedEvent, TenantId, Timestamp,
};

/// A writer and the journal that it alone writes.
pub(crate) struct Journal {
    writer: JournalWriterId,
    sequence: u64,
    offset: u64,
    now: Timestamp,
}

impl Journal {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            writer: JournalWriterId {
                name: name.to_owned(),
                epoch: at(0).as_microsecond().unsigned_abs(),
            },
            sequence: 0,
            offset: 0,
            now: at(40),
        }
    }

    /// The writer started then, and wrote nothing before.
    pub(crate) fn started(mut self, moment: Timestamp) -> Self {
        self.writer.epoch = moment.as_microsecond().unsigned_abs();
        self.now = moment;
        self
    }

    /// It is this time now.
    pub(crate) fn at(self, now: Timestamp) -> Self {
        Self { now, ..self }
    }

    /// In the same journal as another writer.
    pub(crate) fn after(self, other: &Self) -> Self {
        Self {
            offset: other.offset,
            ..self
        }
    }

    pub(crate) fn portion(&mut self, entries: Vec<JournalEntry>) -> Portion {
        self.sequence += 1;
        self.offset += 1;
        let batch = JournalBatch {
            writer: self.writer.clone(),
            sequence: self.sequence,
            written_at: self.now,
            dropped: 0,
            is_last: false,
            entries,
        };
        Portion {
            from: self.offset - 1,
            next: self.offset,
            batches: vec![batch],
            missing: Vec::new(),
        }
    }

    pub(crate) async fn record(&mut self, history: &History, entries: Vec<JournalEntry>) {
        let portion = self.portion(entries);
        let recorded = history.record(&portion).await.unwrap();
        assert!(matches!(recorded, Recorded::Done(_)), "{recorded:?}");
    }
}

/// A moment some seconds after the beginning.
pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

pub(crate) fn page(limit: u32) -> Page {
    Page { after: None, limit }
}

pub(crate) fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

pub(crate) fn endpoint(number: u8) -> EndpointId {
    EndpointId::from_bytes([number; 16])
}

pub(crate) fn event(id: &str, kind: &str) -> Event {
    Event::for_tests("t", "/source", id, kind, br#"{"n": 1}"#)
}

pub(crate) fn numbered(number: i64) -> Event {
    event(&format!("{number:05}"), "a")
}

pub(crate) fn key(event: &Event) -> EventKey {
    event.into()
}

pub(crate) fn id_of(event: &Event, number: u8) -> DeliveryId {
    DeliveryId::derive(event, endpoint(number))
}

pub(crate) fn routed(event: &Event, endpoints: &[u8], moment: Timestamp) -> RoutedEvent {
    let owed = endpoints.iter().map(|number| OwedDelivery {
        id: id_of(event, *number),
        endpoint: endpoint(*number),
        not_before: None,
        is_told: true,
    });
    RoutedEvent {
        event: Arc::new(event.clone()),
        data_left_out: false,
        at: moment,
        trace_id: None,
        owed: owed.collect(),
    }
}

/// A delivery that was attempted and accepted, after `adjust` had its way with it.
pub(crate) fn handled(
    event: &Event,
    number: u8,
    attempt: u32,
    moment: Timestamp,
    failed: u32,
    adjust: impl FnOnce(&mut HandledDelivery),
) -> JournalEntry {
    let mut handled = HandledDelivery {
        delivery: id_of(event, number),
        endpoint: endpoint(number),
        event: event.into(),
        replay: 0,
        at: moment,
        attempt: Some(AttemptRecord {
            number: attempt,
            started_at: moment,
            took_micros: 1500,
            status: Some(200),
            failure: None,
            error: String::new(),
        }),
        failed_attempts: failed,
        state: DeliveryState::Delivered,
    };
    adjust(&mut handled);
    JournalEntry::Handled(handled)
}

pub(crate) fn delivered(
    event: &Event,
    number: u8,
    attempt: u32,
    moment: Timestamp,
) -> JournalEntry {
    handled(event, number, attempt, moment, attempt - 1, |_| {})
}

fn failed(
    event: &Event,
    number: u8,
    attempt: u32,
    moment: Timestamp,
    state: DeliveryState,
) -> JournalEntry {
    handled(event, number, attempt, moment, attempt, |one| {
        let attempt = one.attempt.as_mut().unwrap();
        attempt.status = Some(503);
        attempt.failure = Some(FailureClass::Status5xx);
        attempt.error = "the receiver answered 503".to_owned();
        one.state = state;
    })
}

pub(crate) fn retried(event: &Event, number: u8, attempt: u32, moment: Timestamp) -> JournalEntry {
    let again = moment + Duration::from_secs(5);
    failed(
        event,
        number,
        attempt,
        moment,
        DeliveryState::Retrying { at: again },
    )
}

pub(crate) fn dead(event: &Event, number: u8, attempt: u32, moment: Timestamp) -> JournalEntry {
    let reason = DeadLetterReason::Exhausted;
    failed(
        event,
        number,
        attempt,
        moment,
        DeliveryState::DeadLettered { reason },
    )
}

pub(crate) fn acted(
    event: &Event,
    number: u8,
    replay: u32,
    action: DeliveryAction,
    moment: Timestamp,
) -> JournalEntry {
    JournalEntry::Acted(ActedDelivery {
        delivery: id_of(event, number),
        endpoint: endpoint(number),
        event: event.into(),
        replay,
        at: moment,
        action,
        actor: "tester".to_owned(),
        operation: "op-1".to_owned(),
    })
}
