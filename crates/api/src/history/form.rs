//! What the history looks like in JSON.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use fanfare_journal::{
    AttemptEntry, DeliveryRecord, EventHistory, EventRecord, FeedEntry, OwedEvent,
};
use fanfare_model::{DeliveryState, Timestamp};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// An event, as far as it was recorded.
#[derive(Serialize, ToSchema)]
#[schema(as = EventRecord)]
pub(crate) struct ShownEvent {
    id: String,
    source: String,
    #[serde(rename = "type")]
    event_type: String,
    tenant: String,
    subject: Option<String>,
    /// When it happened, as the producer wrote it.
    time: Option<String>,
    /// When it was routed.
    #[schema(value_type = String)]
    routed_at: Timestamp,
    trace_id: Option<String>,
    data_content_type: Option<String>,
    /// Whether the router's record of it is here. If not, only what its deliveries tell is known.
    complete: bool,
    /// The deliveries that were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    deliveries: Option<Vec<ShownDelivery>>,
    #[serde(skip)]
    cursor: String,
}

impl ShownEvent {
    pub(crate) fn cursor(&self) -> String {
        self.cursor.clone()
    }
}

impl From<EventRecord> for ShownEvent {
    fn from(record: EventRecord) -> Self {
        let cursor = record.cursor.to_string();
        let event = record.event;
        Self {
            id: event.id,
            source: event.source,
            event_type: event.event_type.to_string(),
            tenant: event.tenant.to_string(),
            subject: event.subject,
            time: event.time.map(|time| time.as_str().to_owned()),
            routed_at: record.at,
            trace_id: record.trace_id,
            data_content_type: event.data_content_type,
            complete: record.is_complete,
            deliveries: None,
            cursor,
        }
    }
}

impl From<OwedEvent> for ShownEvent {
    fn from(owed: OwedEvent) -> Self {
        // Pages of deliveries follow each other by the delivery's place.
        let cursor = owed.delivery.as_ref().map(|one| one.cursor.to_string());
        let deliveries = owed.delivery.map(|delivery| vec![delivery.into()]);
        let event = Self::from(owed.event);
        Self {
            deliveries,
            cursor: cursor.unwrap_or(event.cursor),
            ..event
        }
    }
}

/// What became of an event at one endpoint.
#[derive(Serialize, ToSchema)]
#[schema(as = DeliveryRecord)]
pub(crate) struct ShownDelivery {
    /// What the receiver sees as `webhook-id`.
    id: String,
    endpoint: String,
    /// `owed`, `retrying`, `delivered`, `dead_lettered`, `discarded`; `unknown` when what became of it may
    /// not have been recorded.
    state: &'static str,
    /// Why it is a dead letter.
    reason: Option<&'static str>,
    /// When it is tried again.
    #[schema(value_type = Option<String>)]
    retry_at: Option<Timestamp>,
    /// When it came to stand so.
    #[schema(value_type = String)]
    changed_at: Timestamp,
    /// How many times it was replayed.
    replay: u32,
    /// How many attempts failed, in this replay.
    failed_attempts: u32,
    last_status: Option<u16>,
    last_class: Option<&'static str>,
    last_error: Option<String>,
}

impl From<DeliveryRecord> for ShownDelivery {
    fn from(record: DeliveryRecord) -> Self {
        let reason = match record.state {
            DeliveryState::DeadLettered { reason } => Some(reason.name()),
            DeliveryState::Owed
            | DeliveryState::Retrying { .. }
            | DeliveryState::Delivered
            | DeliveryState::Discarded
            | DeliveryState::Unknown => None,
        };
        let retry_at = match record.state {
            DeliveryState::Retrying { at } => Some(at),
            DeliveryState::Owed
            | DeliveryState::DeadLettered { .. }
            | DeliveryState::Delivered
            | DeliveryState::Discarded
            | DeliveryState::Unknown => None,
        };
        let failure = record.last_failure;
        Self {
            id: record.id.to_string(),
            endpoint: record.endpoint.to_string(),
            state: record.state.name(),
            reason,
            retry_at,
            changed_at: record.changed_at,
            replay: record.replay,
            failed_attempts: record.failed_attempts,
            last_status: failure.as_ref().and_then(|failure| failure.status),
            last_class: failure.as_ref().map(|failure| failure.class.name()),
            last_error: failure.map(|failure| failure.error),
        }
    }
}

/// One request to a receiver.
#[derive(Serialize, ToSchema)]
#[schema(as = AttemptRecord)]
pub(crate) struct ShownAttempt {
    /// What the receiver sees as `webhook-id`.
    delivery: String,
    endpoint: String,
    #[serde(rename = "type")]
    event_type: String,
    /// When it started.
    #[schema(value_type = String)]
    at: Timestamp,
    took_ms: f64,
    /// Which replay of the delivery it belongs to.
    replay: u32,
    /// Counted from 1 in each replay.
    attempt: u32,
    status: Option<u16>,
    /// `succeeded`, or the class of the failure.
    outcome: &'static str,
    /// A sentence for people; null when it succeeded.
    error: Option<String>,
    /// What followed: `delivered`, `retrying`, `dead_lettered` or `discarded`.
    then: String,
    #[serde(skip)]
    cursor: String,
}

impl ShownAttempt {
    pub(crate) fn cursor(&self) -> String {
        self.cursor.clone()
    }
}

impl From<AttemptEntry> for ShownAttempt {
    fn from(entry: AttemptEntry) -> Self {
        // Exact for every attempt that is shorter than three years.
        #[expect(clippy::cast_precision_loss, reason = "an attempt takes seconds")]
        let took_ms = entry.took_micros as f64 / 1000.0;
        Self {
            delivery: entry.delivery.to_string(),
            endpoint: entry.endpoint.to_string(),
            event_type: entry.event_type.to_string(),
            at: entry.at,
            took_ms,
            replay: entry.replay,
            attempt: entry.number,
            status: entry.status,
            outcome: entry.failure.map_or("succeeded", |class| class.name()),
            error: Some(entry.error).filter(|error| !error.is_empty()),
            then: entry.settled,
            cursor: entry.cursor.to_string(),
        }
    }
}

/// The payload of an event.
#[derive(Serialize, ToSchema)]
pub(crate) struct ShownData {
    /// The data as it was published, when it is JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    data: Option<Box<RawValue>>,
    /// The data in base64, when it is something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
    /// Whether the event had data that was not kept.
    data_left_out: bool,
    /// The other attributes of the CloudEvent.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extensions: BTreeMap<String, String>,
}

impl ShownData {
    fn of(record: &EventRecord) -> Self {
        let event = &record.event;
        let json = event.data.as_ref().filter(|_| event.has_json_data());
        let json = json.and_then(|data| serde_json::from_slice(data).ok());
        let other = event.data.as_ref().filter(|_| json.is_none());
        let extensions = event.extensions.iter();
        Self {
            data_base64: other.map(|data| STANDARD.encode(data)),
            data: json,
            data_left_out: record.data_left_out,
            extensions: extensions
                .map(|(name, value)| (name.clone(), value.as_text().into_owned()))
                .collect(),
        }
    }
}

/// An event with everything that is known of it.
#[derive(Serialize, ToSchema)]
#[schema(as = EventHistory)]
pub(crate) struct ShownHistory {
    event: ShownEvent,
    payload: ShownData,
    deliveries: Vec<ShownDelivery>,
    /// Oldest first.
    attempts: Vec<ShownAttempt>,
}

impl From<EventHistory> for ShownHistory {
    fn from(history: EventHistory) -> Self {
        Self {
            payload: ShownData::of(&history.event),
            event: history.event.into(),
            deliveries: history.deliveries.into_iter().map(Into::into).collect(),
            attempts: history.attempts.into_iter().map(Into::into).collect(),
        }
    }
}

/// An event in the feed.
#[derive(Serialize, ToSchema)]
#[schema(as = FeedEntry)]
pub(crate) struct ShownFeedEntry {
    /// Its place in the feed.
    cursor: String,
    event: ShownEvent,
    payload: ShownData,
    /// How they stand now.
    deliveries: Vec<ShownDelivery>,
}

impl From<FeedEntry> for ShownFeedEntry {
    fn from(entry: FeedEntry) -> Self {
        Self {
            cursor: entry.cursor.to_string(),
            payload: ShownData::of(&entry.event),
            event: entry.event.into(),
            deliveries: entry.deliveries.into_iter().map(Into::into).collect(),
        }
    }
}
