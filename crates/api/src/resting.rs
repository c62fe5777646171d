//! Messages that rest until somebody deals with them: dead letters, rejected events, what found no way, and
//! what ended processes. Looks at them, and asks for what is to be done.
//!
//! `resting/form.rs` says what they look like in JSON. What is asked for is carried out by every process with
//! the role `api`; `operations.rs` tells how far it is.

mod form;

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use fanfare_broker::Place;
use fanfare_deadletters::{Action, Filter, GroupBy, Request, View};
use fanfare_model::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use self::form::{Asked, RequestForm, ShownFound, ShownGroup, ShownMessage, ShownSeen};
use crate::{
    auth::Actor,
    extract::{JsonBody, Path, Query},
    history::Parameters,
    operations::ShownOperation,
    problem::{Code, Problem, ProblemBody},
    run::Shared,
};

/// How many messages a page has unless the caller says otherwise, and at most.
const PAGE: u32 = 50;
const LONGEST_PAGE: u32 = 200;

/// The parameters by which messages are narrowed down, and where they are looked for.
const FILTERS: [&str; 8] = [
    "tenant",
    "endpoint",
    "type",
    "reason",
    "status",
    "since",
    "until",
    "from_queue",
];

/// How long a key for a repeated request may be.
const LONGEST_KEY: usize = 200;

fn named_place<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Place, D::Error> {
    let name = String::deserialize(deserializer)?;
    name.parse().map_err(serde::de::Error::custom)
}

/// The queue that a path names.
#[derive(Deserialize)]
pub(crate) struct PlacePath {
    #[serde(deserialize_with = "named_place")]
    place: Place,
}

/// The message that a path names.
#[derive(Deserialize)]
pub(crate) struct MessagePath {
    #[serde(deserialize_with = "named_place")]
    place: Place,
    message: String,
}

/// What a path asks to be done.
#[derive(Deserialize)]
pub(crate) struct ActionPath {
    #[serde(deserialize_with = "named_place")]
    place: Place,
    action: Action,
}

/// A page of messages, those that rest longest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct MessageList {
    /// The messages, without their payload.
    items: Vec<ShownMessage>,
    /// What to send as `after` for the next page; null when this is the last one.
    next: Option<String>,
    /// Where they were looked for.
    seen: ShownSeen,
}

/// Lists messages that rest, those that rest longest first.
///
/// Dead letters are looked up in an index that follows their queue; `from_queue` looks into the queue itself,
/// which takes longer. The other queues are always looked into. Looking changes nothing.
#[utoipa::path(get, path = "/v1/resting/{place}", tag = "resting messages",
    params(
        ("place" = String, Path, description = "`dead-letters`, `rejected`, `unroutable` or `crashed`.", example = "dead-letters"),
        ("tenant" = Option<String>, Query, description = "Only those of this tenant."),
        ("endpoint" = Option<String>, Query, description = "Only those for this endpoint."),
        ("type" = Option<String>, Query, description = "Only this type, or a family such as `reward.*`."),
        ("reason" = Option<String>, Query, description = "Only those that rest for this reason."),
        ("status" = Option<u16>, Query, description = "Only those whose last answer had this status."),
        ("since" = Option<String>, Query, description = "Only those that rest since then or later, RFC 3339."),
        ("until" = Option<String>, Query, description = "Only those that rest since before then, RFC 3339."),
        ("from_queue" = Option<bool>, Query, description = "Whether to look into the queue of dead letters itself."),
        ("limit" = Option<u32>, Query, description = "At most this many: 1 to 200, 50 unless given."),
        ("after" = Option<String>, Query, description = "The `next` of the page before."),
    ),
    responses(
        (status = OK, description = "A page of them, which may be empty.", body = MessageList),
        (status = "default", description = "They cannot be listed.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Path(PlacePath { place }): Path<PlacePath>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Json<MessageList>, Problem> {
    let known = [&FILTERS[..], &["limit", "after"]].concat();
    let asked = Parameters::of(&parameters, &known)?;
    let limit = asked.limit(PAGE, LONGEST_PAGE)?;
    let after = asked
        .text("after")
        .map(|text| position(&text))
        .transpose()?;
    let view = view(&shared, &asked)?;
    // One more tells whether there is a next page.
    let looked = view.list(place, &filter(&asked)?, after, limit + 1).await?;
    let mut items: Vec<_> = looked.found.into_iter().map(ShownMessage::from).collect();
    let limit = limit as usize;
    let next = (items.len() > limit).then(|| items[limit - 1].position());
    items.truncate(limit);
    Ok(Json(MessageList {
        items,
        next,
        seen: looked.seen.into(),
    }))
}

/// Messages counted by what they have in common, the largest group first.
#[derive(Serialize, ToSchema)]
pub(crate) struct MessageGroups {
    /// The groups.
    items: Vec<ShownGroup>,
    /// Where they were looked for.
    seen: ShownSeen,
}

/// Counts messages that rest by what they have in common.
#[utoipa::path(get, path = "/v1/resting/{place}/groups", tag = "resting messages",
    params(
        ("place" = String, Path, description = "`dead-letters`, `rejected`, `unroutable` or `crashed`.", example = "dead-letters"),
        ("by" = Option<String>, Query, description = "By what, separated by commas: `endpoint`, `tenant`, `type`, `reason`, `age`. `tenant,endpoint,reason` unless given."),
        ("tenant" = Option<String>, Query, description = "Only those of this tenant."),
        ("endpoint" = Option<String>, Query, description = "Only those for this endpoint."),
        ("type" = Option<String>, Query, description = "Only this type, or a family such as `reward.*`."),
        ("reason" = Option<String>, Query, description = "Only those that rest for this reason."),
        ("status" = Option<u16>, Query, description = "Only those whose last answer had this status."),
        ("since" = Option<String>, Query, description = "Only those that rest since then or later, RFC 3339."),
        ("until" = Option<String>, Query, description = "Only those that rest since before then, RFC 3339."),
        ("from_queue" = Option<bool>, Query, description = "Whether to look into the queue of dead letters itself."),
        ("limit" = Option<u32>, Query, description = "At most this many groups: 1 to 1000, 200 unless given."),
    ),
    responses(
        (status = OK, description = "The groups.", body = MessageGroups),
        (status = "default", description = "They cannot be counted.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn groups(
    State(shared): State<Arc<Shared>>,
    Path(PlacePath { place }): Path<PlacePath>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Json<MessageGroups>, Problem> {
    let known = [&FILTERS[..], &["by", "limit"]].concat();
    let asked = Parameters::of(&parameters, &known)?;
    let limit = asked.limit(200, 1000)?;
    let by = asked.text("by");
    let by = by.as_deref().unwrap_or("tenant,endpoint,reason").split(',');
    let by: Result<Vec<GroupBy>, _> = by.map(str::parse).collect();
    let by = by.map_err(|accepted| Problem::at("by", Code::InvalidRequest, accepted))?;
    let (view, now) = (view(&shared, &asked)?, shared.api.clock.now());
    let looked = view.group(place, &filter(&asked)?, &by, now).await?;
    let groups = looked.found.into_iter().take(limit as usize);
    Ok(Json(MessageGroups {
        items: groups.map(ShownGroup::from).collect(),
        seen: looked.seen.into(),
    }))
}

/// Shows one message with its payload, and a dead letter with its attempts.
#[utoipa::path(get, path = "/v1/resting/{place}/messages/{message}", tag = "resting messages",
    params(
        ("place" = String, Path, description = "`dead-letters`, `rejected`, `unroutable` or `crashed`.", example = "dead-letters"),
        ("message" = String, Path, description = "Its id, as the list has it.", example = "dlv_0123456789abcdef0123456789abcdef"),
        ("from_queue" = Option<bool>, Query, description = "Whether to look into the queue of dead letters itself."),
    ),
    responses(
        (status = OK, description = "The message.", body = ShownFound),
        (status = NOT_FOUND, description = "It does not rest there.", body = ProblemBody, content_type = "application/problem+json"),
        (status = "default", description = "It cannot be shown.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn show(
    State(shared): State<Arc<Shared>>,
    Path(MessagePath { place, message }): Path<MessagePath>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Json<ShownFound>, Problem> {
    let asked = Parameters::of(&parameters, &["from_queue"])?;
    let looked = view(&shared, &asked)?.find(place, &message).await?;
    let found = looked.found.ok_or_else(|| {
        let detail = format!("`{message}` is not in `{place}`");
        Problem::new(Code::NoSuchMessage, &detail)
    })?;
    Ok(Json(ShownFound::of(found, looked.seen)))
}

/// Asks for messages to be replayed, published again or discarded, or says how many there are.
///
/// Only what rests by now is meant. The answer comes before the work is done: its operation tells how far it
/// is. With the header `Idempotency-Key` a request that is repeated is carried out once.
#[utoipa::path(post, path = "/v1/resting/{place}/{action}", tag = "resting messages",
    params(
        ("place" = String, Path, description = "`dead-letters`, `rejected`, `unroutable` or `crashed`.", example = "dead-letters"),
        ("action" = String, Path, description = "`replay` tries dead letters again; `publish` publishes the others again as they were; `discard` takes out for good.", example = "replay"),
        ("Idempotency-Key" = Option<String>, Header, description = "A second request under the same key is the first one; at most 200 bytes."),
    ),
    request_body = RequestForm,
    responses(
        (status = ACCEPTED, description = "It is carried out from now on.", body = Asked),
        (status = OK, description = "Nothing is done: it was a dry run, or there are no such messages.", body = Asked),
        (status = "default", description = "Nothing is done.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn act(
    State(shared): State<Arc<Shared>>,
    Path(ActionPath { place, action }): Path<ActionPath>,
    Extension(Actor(actor)): Extension<Actor>,
    headers: HeaderMap,
    JsonBody(form): JsonBody<RequestForm>,
) -> Result<(StatusCode, Json<Asked>), Problem> {
    let request_key = request_key(&headers, &actor)?;
    let dry_run = form.dry_run;
    let request = Request {
        place,
        action,
        ..form.request(request_key)?
    };
    let desk = &shared.api.desk;
    let counted = desk.dry_run(&request).await?;
    let (expected, seen) = (counted.found, counted.seen.into());
    let mut asked = Asked {
        expected,
        operation: None,
        seen,
    };
    if dry_run || expected == 0 {
        return Ok((StatusCode::OK, Json(asked)));
    }
    let operation = desk.request(request, expected, &actor).await?.operation;
    asked.operation = Some(ShownOperation::from(operation));
    Ok((StatusCode::ACCEPTED, Json(asked)))
}

fn view(shared: &Shared, asked: &Parameters<'_>) -> Result<View, Problem> {
    let view = shared.api.desk.view();
    Ok(match asked.value::<bool>("from_queue")? {
        Some(true) => view.past_the_index(),
        Some(false) | None => view.clone(),
    })
}

fn filter(asked: &Parameters<'_>) -> Result<Filter, Problem> {
    Ok(Filter {
        tenant: asked.value("tenant")?,
        endpoint: asked.value("endpoint")?,
        event_type: asked.value("type")?,
        reason: asked.text("reason"),
        status: asked.value("status")?,
        before: asked.moment("until")?,
        after: asked.moment("since")?,
        ..Filter::default()
    })
}

/// Reads what [`ShownMessage::position`] wrote.
fn position(text: &str) -> Result<(Timestamp, String), Problem> {
    let parts = text.split_once('~');
    let read = parts.and_then(|(since, id)| Some((since.parse().ok()?, id.to_owned())));
    read.ok_or_else(|| {
        let detail = "`after` must be the `next` of an earlier answer";
        Problem::at("after", Code::InvalidRequest, detail)
    })
}

/// The key of a request, apart from those of other callers and of rules.
fn request_key(headers: &HeaderMap, actor: &str) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let key = value.to_str().ok().filter(|key| {
        let length = key.len();
        (1..=LONGEST_KEY).contains(&length)
    });
    match key {
        Some(key) => Ok(Some(format!("http:{actor}:{key}"))),
        None => {
            let detail = format!("accepted is printable ASCII of 1 to {LONGEST_KEY} bytes");
            let code = Code::InvalidRequest;
            Err(Problem::at("Idempotency-Key", code, &detail))
        }
    }
}
