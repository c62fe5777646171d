//! What messages that rest, and requests about them, look like in JSON.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use fanfare_broker::Place;
use fanfare_deadletters::{Action, Entry, Filter, Found, Group, Request, Seen};
use fanfare_model::{EndpointId, EventTypePattern, Rate, TenantId, Timestamp};
use fanfare_wire::HeaderValue;
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use utoipa::ToSchema;

use crate::{
    history::ShownAttempt,
    operations::ShownOperation,
    problem::{Code, Problem},
};

/// How long the reason that the audit log keeps may be, in bytes.
const LONGEST_WHY: usize = 1000;

/// A message that rests, without its payload.
#[derive(Serialize, ToSchema)]
#[schema(as = RestingMessage)]
pub(crate) struct ShownMessage {
    /// Of a dead letter what the receiver sees as `webhook-id`, of another message a digest of it.
    id: String,
    /// Since when it rests, as far as it says.
    #[schema(value_type = Option<String>)]
    since: Option<Timestamp>,
    tenant: Option<String>,
    endpoint: Option<String>,
    #[serde(rename = "type")]
    event_type: Option<String>,
    /// The id of the event, or of the message.
    event_id: Option<String>,
    source: Option<String>,
    /// Why it rests.
    reason: String,
    /// More about the reason, for people.
    detail: Option<String>,
    /// How many attempts failed in the last replay.
    attempts: Option<i64>,
    /// How many times it was replayed.
    replay: u32,
    #[schema(value_type = Option<String>)]
    first_failed_at: Option<Timestamp>,
    last_class: Option<String>,
    last_status: Option<i64>,
    last_error: Option<String>,
    trace_id: Option<String>,
    /// The routing key that a message had which is no dead letter.
    routing_key: String,
    content_type: Option<String>,
    /// The bytes of the payload, where that was looked at.
    bytes: Option<usize>,
}

impl ShownMessage {
    /// By what the next page begins after it.
    pub(super) fn position(&self) -> String {
        let since = self.since.unwrap_or(Timestamp::UNIX_EPOCH);
        format!("{since}~{}", self.id)
    }
}

impl From<Entry> for ShownMessage {
    fn from(entry: Entry) -> Self {
        Self {
            id: entry.id,
            since: entry.since,
            tenant: entry.tenant,
            endpoint: entry.endpoint,
            event_type: entry.event_type,
            event_id: entry.event_id,
            source: entry.event_source,
            reason: entry.reason,
            detail: entry.detail,
            attempts: entry.attempts,
            replay: entry.replay,
            first_failed_at: entry.first_failed_at,
            last_class: entry.last_class,
            last_status: entry.last_status,
            last_error: entry.last_error,
            trace_id: entry.trace_id,
            routing_key: entry.routing_key,
            content_type: entry.content_type,
            bytes: entry.bytes,
        }
    }
}

/// Where messages were looked for.
#[derive(Serialize, ToSchema)]
#[schema(as = Seen)]
pub(crate) struct ShownSeen {
    /// `queue` or `index`.
    place: &'static str,
    /// How many messages were looked at, or how many dead letters the index has.
    messages: u64,
    /// Whether those were all that the queue holds; null for the index.
    complete: Option<bool>,
    /// Until when the index knows what happened.
    #[schema(value_type = Option<String>)]
    as_of: Option<Timestamp>,
    /// How many messages the queue held at that moment, beside what the index has.
    in_queue: Option<u32>,
}

impl From<Seen> for ShownSeen {
    fn from(seen: Seen) -> Self {
        match seen {
            Seen::Queue { messages, complete } => Self {
                place: "queue",
                messages,
                complete: Some(complete),
                as_of: None,
                in_queue: None,
            },
            Seen::Index {
                letters,
                as_of,
                in_queue,
            } => Self {
                place: "index",
                messages: letters,
                complete: None,
                as_of: Some(as_of),
                in_queue,
            },
        }
    }
}

/// Messages that have something in common.
#[derive(Serialize, ToSchema)]
#[schema(as = MessageGroup)]
pub(crate) struct ShownGroup {
    /// What they have in common.
    by: BTreeMap<&'static str, Option<String>>,
    count: u64,
    /// Since when the oldest of them rests.
    #[schema(value_type = Option<String>)]
    oldest: Option<Timestamp>,
    /// Since when the newest of them rests.
    #[schema(value_type = Option<String>)]
    newest: Option<Timestamp>,
}

impl From<Group> for ShownGroup {
    fn from(group: Group) -> Self {
        let by = group.by.into_iter();
        Self {
            by: by.map(|(by, value)| (by.name(), value)).collect(),
            count: group.count,
            oldest: group.oldest,
            newest: group.newest,
        }
    }
}

/// One message with its payload.
#[derive(Serialize, ToSchema)]
#[schema(as = FoundMessage)]
pub(crate) struct ShownFound {
    message: ShownMessage,
    /// Its headers, if it was read from the queue. What is not text, number or truth is left out.
    #[schema(value_type = Option<Object>)]
    headers: Option<BTreeMap<String, Value>>,
    /// The payload, when it is JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    data: Option<Box<RawValue>>,
    /// The payload in base64, when it is something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
    /// The attempts that are recorded, oldest first.
    attempts: Vec<ShownAttempt>,
    /// Where it was looked for.
    seen: ShownSeen,
}

impl ShownFound {
    pub(super) fn of(found: Found, seen: Seen) -> Self {
        let json = serde_json::from_slice(&found.data).ok();
        let headers = found.headers.map(|headers| {
            let shown = headers.iter().filter_map(|(name, value)| {
                let value = match value {
                    HeaderValue::Text(text) => Value::from(text.as_str()),
                    HeaderValue::Integer(number) => (*number).into(),
                    HeaderValue::Boolean(truth) => (*truth).into(),
                    HeaderValue::Bytes(_) | HeaderValue::Timestamp(_) | HeaderValue::Other => {
                        return None;
                    }
                };
                Some((name.to_owned(), value))
            });
            shown.collect()
        });
        Self {
            message: found.entry.into(),
            headers,
            data_base64: json.is_none().then(|| STANDARD.encode(&found.data)),
            data: json,
            attempts: found.attempts.into_iter().map(Into::into).collect(),
            seen: seen.into(),
        }
    }
}

/// What to do with which messages: those for which every condition holds.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = RestingRequest, example = json!({
    "endpoint": "ep_019ac0ffee007000800000000000002a",
    "why": "the receiver is fixed",
    "dry_run": true,
}))]
#[derive(Default)]
pub(crate) struct RequestForm {
    /// Those with one of these ids; at most 1,000.
    ids: Vec<String>,
    /// Those of this tenant.
    #[schema(value_type = Option<String>)]
    tenant: Option<TenantId>,
    /// Those for this endpoint.
    #[schema(value_type = Option<String>)]
    endpoint: Option<EndpointId>,
    /// Those of this type, or of a family such as `reward.*`.
    #[serde(rename = "type")]
    #[schema(value_type = Option<String>)]
    event_type: Option<EventTypePattern>,
    /// Those that rest for this reason.
    reason: Option<String>,
    /// Those that rest for other reasons than these.
    not_reasons: Vec<String>,
    /// Those whose last answer had this status.
    status: Option<u16>,
    /// Those that rest since then or later.
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    /// Those that rest since before then.
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// Whether all of them are meant. Needed when there is no condition, and refused beside one.
    all: bool,
    /// Why, for those who read the audit log. Needed unless it is a dry run; at most 1,000 bytes.
    why: String,
    /// How fast, such as `100/s`; the installation's own pace unless given.
    #[schema(value_type = Option<String>)]
    pace: Option<Rate>,
    /// Whether only to say how many there are.
    pub(super) dry_run: bool,
}

impl RequestForm {
    /// The request, of which place and action are still to be set.
    pub(super) fn request(self, request_key: Option<String>) -> Result<Request, Problem> {
        let invalid = |field, detail: &str| Problem::at(field, Code::InvalidRequest, detail);
        if self.why.is_empty() && !self.dry_run {
            return Err(invalid("why", "`why` is needed, for the audit log"));
        }
        if self.why.len() > LONGEST_WHY {
            let detail = format!("accepted are at most {LONGEST_WHY} bytes");
            return Err(invalid("why", &detail));
        }
        let filter = Filter {
            ids: self.ids,
            tenant: self.tenant,
            endpoint: self.endpoint,
            event_type: self.event_type,
            reason: self.reason,
            not_reasons: self.not_reasons,
            status: self.status,
            before: self.until,
            after: self.since,
            ..Filter::default()
        };
        let checked = filter.check(self.all);
        checked.map_err(|fault| invalid("all", &fault.to_string()))?;
        Ok(Request {
            place: Place::DeadLetters,
            action: Action::Replay,
            filter,
            all: self.all,
            pace: self.pace,
            why: self.why,
            request_key,
        })
    }
}

/// The answer to a request.
#[derive(Serialize, ToSchema)]
#[schema(as = RestingAnswer)]
pub(crate) struct Asked {
    /// How many messages it is for.
    pub(super) expected: u64,
    /// What is carried out; null when nothing is.
    pub(super) operation: Option<ShownOperation>,
    /// Where they were counted.
    pub(super) seen: ShownSeen,
}
