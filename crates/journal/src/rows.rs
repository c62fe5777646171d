//! Rows of the tables, as they are written and as they are read.

use std::collections::BTreeMap;

use bytes::Bytes;
use fanfare_model::{
    AttributeValue, DeadLetterReason, DeliveryId, DeliveryState, EndpointId, Event, EventKey,
    Timestamp,
};
use serde_json::{Map, Value as Json};

use crate::{
    AttemptEntry, Cursor, DeliveryRecord, EventRecord, FeedCursor, Gap, GapKind, HistoryFault,
    LastFailure, Progress, statement::Value,
};

pub(crate) const MICROS_A_DAY: i64 = 86_400_000_000;

/// The class of an attempt that succeeded.
pub(crate) const SUCCESS: &str = "success";

/// Beside the columns, what a row and its part of the indexes take in bytes, estimated.
const OVERHEAD: i64 = 400;

/// An event to be recorded.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NewEvent {
    pub(crate) key: EventKey,
    pub(crate) at: i64,
    /// The event itself; without it, only a delivery of it is known.
    pub(crate) routed: Option<Routed>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Routed {
    pub(crate) event: std::sync::Arc<Event>,
    pub(crate) data_left_out: bool,
    pub(crate) trace_id: Option<String>,
}

impl NewEvent {
    pub(crate) const COLUMNS: [&str; 16] = [
        "seq",
        "feed",
        "tenant",
        "source",
        "id",
        "event_type",
        "is_complete",
        "at",
        "subject",
        "time",
        "content_type",
        "data_schema",
        "extensions",
        "data",
        "data_left_out",
        "trace_id",
    ];

    /// The row with this number, which is also its place in the feed once the event itself is known.
    pub(crate) fn values(&self, seq: i64) -> Vec<Value> {
        let event = self.routed.as_ref().map(|routed| &*routed.event);
        let text = |of: fn(&Event) -> Option<String>| Value::from(event.and_then(of));
        vec![
            seq.into(),
            event.map(|_| seq).into(),
            self.key.tenant.as_str().into(),
            self.key.source.as_str().into(),
            self.key.id.as_str().into(),
            self.key.event_type.as_str().into(),
            event.is_some().into(),
            self.at.into(),
            text(|event| event.subject.clone()),
            text(|event| event.time.as_ref().map(|time| time.as_str().to_owned())),
            text(|event| event.data_content_type.clone()),
            text(|event| event.data_schema.clone()),
            extensions_text(event).into(),
            event
                .and_then(|event| event.data.as_ref().map(|data| data.to_vec()))
                .into(),
            self.routed
                .as_ref()
                .is_some_and(|routed| routed.data_left_out)
                .into(),
            self.routed
                .as_ref()
                .and_then(|routed| routed.trace_id.clone())
                .into(),
        ]
    }

    pub(crate) fn bytes(&self) -> i64 {
        let event = self.routed.as_ref().map_or(0, |routed| routed.event.size());
        OVERHEAD + i64::try_from(event).unwrap_or(i64::MAX / 2)
    }
}

/// A delivery to be recorded. Where there is one already, the newer of both stays.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NewDelivery {
    pub(crate) id: DeliveryId,
    pub(crate) endpoint: EndpointId,
    pub(crate) event: EventKey,
    pub(crate) at: i64,
    pub(crate) state: DeliveryState,
    pub(crate) changed_at: i64,
    /// Nothing new is to be expected before this.
    pub(crate) due_at: i64,
    pub(crate) is_told: bool,
    pub(crate) replay: u32,
    pub(crate) failed_attempts: u32,
    pub(crate) first_failed_at: Option<i64>,
    pub(crate) last_failure: Option<LastFailure>,
}

impl NewDelivery {
    pub(crate) const COLUMNS: [&str; 17] = [
        "id",
        "event_seq",
        "endpoint",
        "tenant",
        "event_type",
        "at",
        "state",
        "changed_at",
        "due_at",
        "is_told",
        "replay",
        "failed_attempts",
        "first_failed_at",
        "reason",
        "last_status",
        "last_class",
        "last_error",
    ];

    pub(crate) fn values(&self, event_seq: i64) -> Vec<Value> {
        let failure = self.last_failure.as_ref();
        let reason = match self.state {
            DeliveryState::DeadLettered { reason } => Some(reason.name().to_owned()),
            DeliveryState::Owed
            | DeliveryState::Retrying { .. }
            | DeliveryState::Delivered
            | DeliveryState::Discarded
            | DeliveryState::Unknown => None,
        };
        vec![
            self.id.as_bytes().into(),
            event_seq.into(),
            self.endpoint.as_bytes().into(),
            self.event.tenant.as_str().into(),
            self.event.event_type.as_str().into(),
            self.at.into(),
            self.state.name().into(),
            self.changed_at.into(),
            self.due_at.into(),
            self.is_told.into(),
            i64::from(self.replay).into(),
            i64::from(self.failed_attempts).into(),
            self.first_failed_at.into(),
            reason.into(),
            failure
                .and_then(|failure| failure.status.map(i64::from))
                .into(),
            failure
                .map(|failure| failure.class.name().to_owned())
                .into(),
            failure.map(|failure| failure.error.clone()).into(),
        ]
    }

    pub(crate) const BYTES: i64 = OVERHEAD + 200;
}

/// An attempt to be recorded.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NewAttempt {
    pub(crate) seq: i64,
    pub(crate) event_seq: i64,
    pub(crate) delivery: DeliveryId,
    pub(crate) endpoint: EndpointId,
    pub(crate) event: EventKey,
    pub(crate) at: i64,
    pub(crate) replay: u32,
    pub(crate) number: u32,
    pub(crate) took_micros: i64,
    pub(crate) class: &'static str,
    pub(crate) status: Option<u16>,
    pub(crate) error: String,
    pub(crate) state: &'static str,
}

impl NewAttempt {
    pub(crate) const COLUMNS: [&str; 14] = [
        "seq",
        "at",
        "event_seq",
        "delivery",
        "endpoint",
        "tenant",
        "event_type",
        "replay",
        "number",
        "took_micros",
        "class",
        "status",
        "error",
        "state",
    ];

    pub(crate) fn values(&self) -> Vec<Value> {
        vec![
            self.seq.into(),
            self.at.into(),
            self.event_seq.into(),
            self.delivery.as_bytes().into(),
            self.endpoint.as_bytes().into(),
            self.event.tenant.as_str().into(),
            self.event.event_type.as_str().into(),
            i64::from(self.replay).into(),
            i64::from(self.number).into(),
            self.took_micros.into(),
            self.class.into(),
            self.status.map(i64::from).into(),
            self.error.as_str().into(),
            self.state.into(),
        ]
    }

    pub(crate) fn bytes(&self) -> i64 {
        OVERHEAD + i64::try_from(self.error.len()).unwrap_or(i64::MAX / 2)
    }
}

fn extensions_text(event: Option<&Event>) -> String {
    let mut members = Map::new();
    for (name, value) in event.iter().flat_map(|event| &event.extensions) {
        let value = match value {
            AttributeValue::Boolean(value) => Json::Bool(*value),
            AttributeValue::Integer(value) => Json::Number((*value).into()),
            AttributeValue::Text(value) => Json::String(value.clone()),
            // No attribute has a list for a value, so one can stand for bytes.
            AttributeValue::Binary(_) => Json::Array(vec![value.as_text().into()]),
        };
        members.insert(name.clone(), value);
    }
    Json::Object(members).to_string()
}

fn extensions_of(text: &str) -> Option<BTreeMap<String, AttributeValue>> {
    let members: Map<String, Json> = serde_json::from_str(text).ok()?;
    members
        .into_iter()
        .map(|(name, value)| {
            let value = match value {
                Json::Bool(value) => AttributeValue::Boolean(value),
                Json::Number(value) => {
                    AttributeValue::Integer(i32::try_from(value.as_i64()?).ok()?)
                }
                Json::String(value) => AttributeValue::Text(value),
                Json::Array(values) => AttributeValue::from_base64(values.first()?.as_str()?)?,
                Json::Null | Json::Object(_) => return None,
            };
            Some((name, value))
        })
        .collect()
}

#[derive(sqlx::FromRow)]
pub(crate) struct EventRow {
    pub(crate) seq: i64,
    feed: Option<i64>,
    tenant: String,
    source: String,
    id: String,
    event_type: String,
    is_complete: i64,
    at: i64,
    subject: Option<String>,
    time: Option<String>,
    content_type: Option<String>,
    data_schema: Option<String>,
    extensions: String,
    data: Option<Vec<u8>>,
    data_left_out: i64,
    trace_id: Option<String>,
}

impl EventRow {
    /// The columns of a row, of the table called `e`; its data only when asked for.
    pub(crate) fn columns(with_data: bool) -> String {
        let column = |name: &&str| match *name {
            "data" if !with_data => "NULL AS data".to_owned(),
            name => format!("e.{name}"),
        };
        let columns: Vec<_> = NewEvent::COLUMNS.iter().map(column).collect();
        columns.join(", ")
    }
}

pub(crate) fn damaged(what: &'static str) -> HistoryFault {
    HistoryFault::Damaged { what }
}

pub(crate) fn moment(micros: i64) -> Option<Timestamp> {
    Timestamp::from_microsecond(micros).ok()
}

pub(crate) fn sixteen(bytes: &[u8]) -> Option<[u8; 16]> {
    bytes.try_into().ok()
}

impl TryFrom<EventRow> for EventRecord {
    type Error = HistoryFault;

    fn try_from(row: EventRow) -> Result<Self, HistoryFault> {
        read_event(row).ok_or_else(|| damaged("an event"))
    }
}

fn read_event(row: EventRow) -> Option<EventRecord> {
    Some(EventRecord {
        at: moment(row.at)?,
        is_complete: row.is_complete != 0,
        data_left_out: row.data_left_out != 0,
        trace_id: row.trace_id,
        cursor: Cursor {
            at: row.at,
            seq: row.seq,
            endpoint: None,
        },
        feed: row.feed.map(FeedCursor),
        event: Event {
            tenant: row.tenant.parse().ok()?,
            source: row.source,
            id: row.id,
            event_type: row.event_type.parse().ok()?,
            subject: row.subject,
            time: row.time.map(|time| time.parse()).transpose().ok()?,
            data_content_type: row.content_type,
            data_schema: row.data_schema,
            extensions: extensions_of(&row.extensions)?,
            data: row.data.map(Bytes::from),
        },
    })
}

#[derive(sqlx::FromRow)]
pub(crate) struct DeliveryRow {
    id: Vec<u8>,
    pub(crate) event_seq: i64,
    endpoint: Vec<u8>,
    tenant: String,
    event_type: String,
    at: i64,
    state: String,
    changed_at: i64,
    due_at: i64,
    is_told: i64,
    replay: i64,
    failed_attempts: i64,
    first_failed_at: Option<i64>,
    pub(crate) reason: Option<String>,
    last_status: Option<i64>,
    last_class: Option<String>,
    last_error: Option<String>,
    /// When the last gap ended in which outcomes may have been lost.
    hidden_until: Option<i64>,
}

impl DeliveryRow {
    /// The columns of a row, of the table called `d`.
    pub(crate) fn columns() -> String {
        let columns = NewDelivery::COLUMNS.map(|name| format!("d.{name}"));
        let hidden = "(SELECT MAX(to_at) FROM gaps WHERE hides_outcomes = 1) AS hidden_until";
        format!("{}, {hidden}", columns.join(", "))
    }

    /// How the delivery stands. One that is open is unknown when its outcome is not told, or may have
    /// fallen into a gap: a gap that reaches beyond the moment from which something new was expected.
    fn state(&self) -> Option<DeliveryState> {
        let is_hidden = self.hidden_until.is_some_and(|until| until >= self.due_at);
        let open = |state| {
            if is_hidden || self.is_told == 0 {
                DeliveryState::Unknown
            } else {
                state
            }
        };
        Some(match self.state.as_str() {
            "owed" => open(DeliveryState::Owed),
            "retrying" => open(DeliveryState::Retrying {
                at: moment(self.due_at)?,
            }),
            "delivered" => DeliveryState::Delivered,
            "dead_lettered" => DeliveryState::DeadLettered {
                reason: self.reason.as_deref()?.parse::<DeadLetterReason>().ok()?,
            },
            "discarded" => DeliveryState::Discarded,
            _ => return None,
        })
    }
}

impl TryFrom<DeliveryRow> for DeliveryRecord {
    type Error = HistoryFault;

    fn try_from(row: DeliveryRow) -> Result<Self, HistoryFault> {
        read_delivery(row).ok_or_else(|| damaged("a delivery"))
    }
}

fn read_delivery(row: DeliveryRow) -> Option<DeliveryRecord> {
    let state = row.state()?;
    let endpoint = EndpointId::from_bytes(sixteen(&row.endpoint)?);
    let last_failure = match row.last_class {
        Some(class) => Some(LastFailure {
            class: class.parse().ok()?,
            status: row.last_status.and_then(|status| status.try_into().ok()),
            error: row.last_error.unwrap_or_default(),
        }),
        None => None,
    };
    Some(DeliveryRecord {
        id: DeliveryId::from_bytes(sixteen(&row.id)?),
        endpoint,
        tenant: row.tenant.parse().ok()?,
        event_type: row.event_type.parse().ok()?,
        at: moment(row.at)?,
        state,
        changed_at: moment(row.changed_at)?,
        replay: row.replay.try_into().ok()?,
        failed_attempts: row.failed_attempts.try_into().ok()?,
        first_failed_at: row.first_failed_at.and_then(moment),
        last_failure,
        cursor: Cursor {
            at: row.at,
            seq: row.event_seq,
            endpoint: Some(endpoint),
        },
    })
}

#[derive(sqlx::FromRow)]
pub(crate) struct AttemptRow {
    seq: i64,
    at: i64,
    delivery: Vec<u8>,
    endpoint: Vec<u8>,
    tenant: String,
    event_type: String,
    replay: i64,
    number: i64,
    took_micros: i64,
    class: String,
    status: Option<i64>,
    error: String,
    state: String,
}

impl TryFrom<AttemptRow> for AttemptEntry {
    type Error = HistoryFault;

    fn try_from(row: AttemptRow) -> Result<Self, HistoryFault> {
        read_attempt(row).ok_or_else(|| damaged("an attempt"))
    }
}

fn read_attempt(row: AttemptRow) -> Option<AttemptEntry> {
    let failure = match row.class.as_str() {
        SUCCESS => None,
        class => Some(class.parse().ok()?),
    };
    Some(AttemptEntry {
        delivery: DeliveryId::from_bytes(sixteen(&row.delivery)?),
        endpoint: EndpointId::from_bytes(sixteen(&row.endpoint)?),
        tenant: row.tenant.parse().ok()?,
        event_type: row.event_type.parse().ok()?,
        at: moment(row.at)?,
        took_micros: row.took_micros.try_into().ok()?,
        replay: row.replay.try_into().ok()?,
        number: row.number.try_into().ok()?,
        status: row.status.and_then(|status| status.try_into().ok()),
        failure,
        error: row.error,
        settled: row.state,
        cursor: Cursor {
            at: row.at,
            seq: row.seq,
            endpoint: None,
        },
    })
}

#[derive(sqlx::FromRow)]
pub(crate) struct GapRow {
    writer: String,
    epoch: i64,
    kind: String,
    missing: Option<i64>,
    from_at: i64,
    to_at: i64,
}

impl TryFrom<GapRow> for Gap {
    type Error = HistoryFault;

    fn try_from(row: GapRow) -> Result<Self, HistoryFault> {
        let read = |row: GapRow| {
            Some(Self {
                writer: row.writer,
                epoch: row.epoch.try_into().ok()?,
                kind: GapKind::named(&row.kind)?,
                missing: row.missing.and_then(|missing| missing.try_into().ok()),
                from: moment(row.from_at)?,
                to: moment(row.to_at)?,
            })
        };
        read(row).ok_or_else(|| damaged("a gap"))
    }
}

#[derive(sqlx::FromRow)]
pub(crate) struct ProgressRow {
    next_offset: i64,
    written_at: i64,
    gaps: i64,
}

impl TryFrom<ProgressRow> for Progress {
    type Error = HistoryFault;

    fn try_from(row: ProgressRow) -> Result<Self, HistoryFault> {
        let read = |row: ProgressRow| {
            Some(Self {
                next_offset: row.next_offset.try_into().ok()?,
                written_at: Some(row.written_at).filter(|at| *at > 0).and_then(moment),
                gaps: row.gaps.try_into().ok()?,
            })
        };
        read(row).ok_or_else(|| damaged("the state of the recorder"))
    }
}
