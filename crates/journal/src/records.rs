//! What the history gives back: events, deliveries and attempts, as far as they were recorded.

use std::{fmt, str::FromStr};

use fanfare_model::{
    DeliveryId, DeliveryState, EndpointId, Event, EventKey, EventType, FailureClass, TenantId,
    Timestamp,
};

/// An event that was routed, or of which at least one delivery was handled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRecord {
    /// The event. Lists leave its data out.
    pub event: Event,
    /// When it was routed.
    pub at: Timestamp,
    /// Whether the router's record of it is here. If not, only what its deliveries tell is known: tenant,
    /// source, id and type.
    pub is_complete: bool,
    /// Whether the event had data that was not kept.
    pub data_left_out: bool,
    /// The trace that the producer began.
    pub trace_id: Option<String>,
    /// Its place among the events found.
    pub cursor: Cursor,
    /// Its place in the tenant's feed, once it has one.
    pub feed: Option<FeedCursor>,
}

/// A delivery, as far as the history knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryRecord {
    /// Sent as `webhook-id`.
    pub id: DeliveryId,
    /// Whom it is owed to.
    pub endpoint: EndpointId,
    /// The owner of both.
    pub tenant: TenantId,
    /// What happened.
    pub event_type: EventType,
    /// When it was routed.
    pub at: Timestamp,
    /// How it stands; `unknown` when what became of it may not have been recorded.
    pub state: DeliveryState,
    /// When it came to stand so.
    pub changed_at: Timestamp,
    /// How many times it was replayed.
    pub replay: u32,
    /// How many attempts failed, in this replay.
    pub failed_attempts: u32,
    /// When the first attempt failed that is recorded.
    pub first_failed_at: Option<Timestamp>,
    /// The last failure, if there was one.
    pub last_failure: Option<LastFailure>,
    /// Its place among the deliveries found.
    pub cursor: Cursor,
}

/// How an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastFailure {
    /// What kind of failure.
    pub class: FailureClass,
    /// The status, if the receiver answered.
    pub status: Option<u16>,
    /// A sentence for people.
    pub error: String,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptEntry {
    /// The delivery.
    pub delivery: DeliveryId,
    /// Where it was sent to.
    pub endpoint: EndpointId,
    /// The owner of both.
    pub tenant: TenantId,
    /// What happened.
    pub event_type: EventType,
    /// When it started.
    pub at: Timestamp,
    /// How many microseconds it took.
    pub took_micros: u64,
    /// Which replay of the delivery it belongs to.
    pub replay: u32,
    /// Counted from 1 in each replay.
    pub number: u32,
    /// The status, if the receiver answered.
    pub status: Option<u16>,
    /// How it failed; none when it succeeded.
    pub failure: Option<FailureClass>,
    /// A sentence for people; empty when it succeeded.
    pub error: String,
    /// What followed: `delivered`, `retrying`, `dead_lettered` or `discarded`.
    pub settled: String,
    /// Its place among the attempts found.
    pub cursor: Cursor,
}

/// An event with everything that is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventHistory {
    /// The event, with its data if that was kept.
    pub event: EventRecord,
    /// Its deliveries.
    pub deliveries: Vec<DeliveryRecord>,
    /// Their attempts, oldest first.
    pub attempts: Vec<AttemptEntry>,
}

/// An event in a tenant's feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedEntry {
    /// Its place: what comes later has a greater one.
    pub cursor: FeedCursor,
    /// The event, with its data if that was kept.
    pub event: EventRecord,
    /// How its deliveries stand now.
    pub deliveries: Vec<DeliveryRecord>,
}

/// An event that an endpoint was owed, and how the delivery stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwedEvent {
    /// The event, with its data if that was kept.
    pub event: EventRecord,
    /// The delivery; none when the endpoint was not owed the event, as before it was registered.
    pub delivery: Option<DeliveryRecord>,
}

/// Something that is missing from the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Whose records are missing.
    pub writer: String,
    /// When that writer started, in microseconds since 1970.
    pub epoch: u64,
    /// How it came about.
    pub kind: GapKind,
    /// How many batches or entries are missing, if that is known.
    pub missing: Option<u64>,
    /// What is missing happened after this.
    pub from: Timestamp,
    /// And before this.
    pub to: Timestamp,
}

/// How a gap came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GapKind {
    /// Batches that were written never arrived, by their numbers.
    Batches,
    /// The writer had no room for entries.
    Entries,
    /// The writer ended without closing its journal, as when it is killed. What it had not written is missing.
    Killed,
    /// The journal removed batches before they were recorded, because they were too old or too many.
    Removed,
    /// A batch could not be read.
    Unreadable,
}

const GAP_NAMES: [(GapKind, &str); 5] = [
    (GapKind::Batches, "batches"),
    (GapKind::Entries, "entries"),
    (GapKind::Killed, "killed"),
    (GapKind::Removed, "removed"),
    (GapKind::Unreadable, "unreadable"),
];

impl GapKind {
    /// The name in the history and in metrics.
    pub fn name(self) -> &'static str {
        let listed = GAP_NAMES.iter().find(|(kind, _)| *kind == self);
        listed.map(|(_, name)| *name).expect("every kind is listed")
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        let listed = GAP_NAMES.iter().find(|(_, known)| *known == name);
        listed.map(|(kind, _)| *kind)
    }
}

/// How far the history has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The offset in the journal of what will be recorded next.
    pub next_offset: u64,
    /// When the newest batch that is recorded was written; `None` before the first.
    pub written_at: Option<Timestamp>,
    /// How many gaps are known.
    pub gaps: u64,
}

/// A place in the order of time: pages of a search follow each other by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    pub(crate) at: i64,
    pub(crate) seq: i64,
    /// Tells deliveries of one event apart; nothing else has it.
    pub(crate) endpoint: Option<EndpointId>,
}

/// A place in a tenant's feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FeedCursor(pub(crate) i64);

/// Why a text is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("accepted is a cursor as an earlier page gave it")]
pub struct InvalidCursor;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.at, self.seq)?;
        match self.endpoint {
            Some(endpoint) => write!(f, "-{endpoint}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let (at, rest) = text.split_once('-').ok_or(InvalidCursor)?;
        let (seq, endpoint) = match rest.split_once('-') {
            Some((seq, endpoint)) => (seq, Some(endpoint)),
            None => (rest, None),
        };
        let endpoint = endpoint.map(str::parse).transpose();
        Ok(Self {
            at: hexadecimal(at)?,
            seq: hexadecimal(seq)?,
            endpoint: endpoint.map_err(|_| InvalidCursor)?,
        })
    }
}

impl fmt::Display for FeedCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "f{:x}", self.0)
    }
}

impl FromStr for FeedCursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let digits = text.strip_prefix('f').ok_or(InvalidCursor)?;
        hexadecimal(digits).map(Self)
    }
}

fn hexadecimal(digits: &str) -> Result<i64, InvalidCursor> {
    if digits.starts_with(['+', '-']) {
        return Err(InvalidCursor);
    }
    i64::from_str_radix(digits, 16).map_err(|_| InvalidCursor)
}

impl EventRecord {
    /// What names the event, and its type.
    pub fn key(&self) -> EventKey {
        (&self.event).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_read_back_what_they_print_and_nothing_else() {
        for endpoint in [None, Some(EndpointId::from_bytes([7; 16]))] {
            let cursor = Cursor {
                at: 1_732_480_000_000_000,
                seq: 77,
                endpoint,
            };
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        let feed = FeedCursor(1234);
        assert_eq!(feed.to_string().parse(), Ok(feed));
        for bad in [
            "", "-", "1", "1-", "1--2", "x-1", "1-+2", "1-2-", "1-2-3", "f1",
        ] {
            assert_eq!(bad.parse::<Cursor>(), Err(InvalidCursor), "{bad}");
        }
        for bad in ["", "f", "1", "f-1", "fx"] {
            assert_eq!(bad.parse::<FeedCursor>(), Err(InvalidCursor), "{bad}");
        }
    }

    #[test]
    fn kinds_of_gaps_read_back_what_they_print() {
        for (kind, name) in GAP_NAMES {
            assert_eq!((kind.name(), GapKind::named(name)), (name, Some(kind)));
        }
    }
}
