//! Reads back what happened: events with their deliveries, attempts, and the feed by which a tenant reconciles.
//!
//! `history/form.rs` says what they look like in JSON, `history/query.rs` how parameters are read.

mod form;
mod query;

use std::sync::Arc;

use axum::{Json, extract::State};
use fanfare_journal::{
    AttemptFilter, Cursor, DeliveryFilter, EventFilter, FeedCursor, FeedFilter, Page,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub(crate) use self::form::ShownAttempt;
use self::form::{ShownEvent, ShownFeedEntry, ShownHistory};
pub(crate) use self::query::Parameters;
use self::query::{outcome, states};
use crate::{
    extract::{Path, Query, TenantPath},
    problem::{Code, Problem, ProblemBody},
    run::Shared,
};

/// How many results a page has unless the caller says otherwise, and at most.
const PAGE: u32 = 50;
const LONGEST_PAGE: u32 = 200;

/// The event that a path names, and its tenant.
#[derive(Deserialize)]
pub(crate) struct EventPath {
    pub(crate) tenant: fanfare_model::TenantId,
    pub(crate) event: String,
}

/// A page of events, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct EventList {
    /// The events, without their data.
    items: Vec<ShownEvent>,
    /// What to send as `after` for the next page; null when this is the last one.
    next: Option<String>,
}

/// Searches a tenant's events, newest first.
///
/// With `endpoint` or `state`, the events that were owed to an endpoint, each with that delivery. History
/// is written a moment after things happen, and kept for a time.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/events", tag = "history",
    params(
        ("tenant" = String, Path, description = "The tenant.", example = "MF4c1b7e20"),
        ("endpoint" = Option<String>, Query, description = "Only what was owed to this endpoint."),
        ("state" = Option<String>, Query, description = "Only deliveries that stand so, separated by commas: `owed`, `retrying`, `delivered`, `dead_lettered`, `discarded`, `unknown`; `missed` for the last three."),
        ("type" = Option<String>, Query, description = "Only this type; with `endpoint` or `state` also a family such as `reward.*`."),
        ("source" = Option<String>, Query, description = "Only from this source."),
        ("id" = Option<String>, Query, description = "Only events with this id."),
        ("since" = Option<String>, Query, description = "Only what was routed then or later, RFC 3339."),
        ("until" = Option<String>, Query, description = "Only what was routed before then, RFC 3339."),
        ("limit" = Option<u32>, Query, description = "At most this many: 1 to 200, 50 unless given."),
        ("after" = Option<String>, Query, description = "The `next` of the page before."),
    ),
    responses(
        (status = OK, description = "A page of them, which may be empty.", body = EventList),
        (status = "default", description = "They cannot be searched.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn events(
    State(shared): State<Arc<Shared>>,
    Path(TenantPath { tenant }): Path<TenantPath>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Json<EventList>, Problem> {
    let asked = Parameters::of(
        &parameters,
        &[
            "endpoint", "state", "type", "source", "id", "since", "until", "limit", "after",
        ],
    )?;
    let limit = asked.limit(PAGE, LONGEST_PAGE)?;
    let page = Page {
        after: asked.cursor::<Cursor>("after")?,
        // One more tells whether there is a next page.
        limit: limit + 1,
    };
    let (from, to) = (asked.moment("since")?, asked.moment("until")?);
    let history = &shared.api.history;
    let mut found: Vec<ShownEvent> = if asked.has("endpoint") || asked.has("state") {
        for other in ["source", "id"] {
            asked.refuse(other, "cannot be combined with `endpoint` or `state`")?;
        }
        let filter = DeliveryFilter {
            tenant: Some(tenant),
            endpoint: asked.value("endpoint")?,
            event_types: asked.value("type")?.into_iter().collect(),
            states: states(&asked)?,
            from,
            to,
            ..DeliveryFilter::default()
        };
        let found = history.deliveries(&filter, page).await?;
        found.into_iter().map(ShownEvent::from).collect()
    } else {
        let filter = EventFilter {
            tenant: Some(tenant),
            event_type: asked.value("type")?,
            source: asked.text("source"),
            id: asked.text("id"),
            from,
            to,
        };
        let found = history.events(&filter, page).await?;
        found.into_iter().map(ShownEvent::from).collect()
    };
    let next = cut(&mut found, limit, |event| event.cursor());
    Ok(Json(EventList { items: found, next }))
}

/// Shows an event with every delivery and its attempts.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/events/{event}", tag = "history",
    params(
        ("tenant" = String, Path, description = "The tenant.", example = "MF4c1b7e20"),
        ("event" = String, Path, description = "The event's id.", example = "31-unlocked"),
        ("source" = Option<String>, Query, description = "Its source, needed when several sources use this id."),
    ),
    responses(
        (status = OK, description = "The event.", body = ShownHistory),
        (status = NOT_FOUND, description = "The history holds no such event.", body = ProblemBody, content_type = "application/problem+json"),
        (status = "default", description = "It cannot be shown.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn event(
    State(shared): State<Arc<Shared>>,
    Path(EventPath { tenant, event: id }): Path<EventPath>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Json<ShownHistory>, Problem> {
    let asked = Parameters::of(&parameters, &["source"])?;
    let filter = EventFilter {
        tenant: Some(tenant.clone()),
        source: asked.text("source"),
        id: Some(id.clone()),
        ..EventFilter::default()
    };
    let page = Page {
        after: None,
        limit: 2,
    };
    let history = &shared.api.history;
    let found = history.events(&filter, page).await?;
    let no_such_event = || {
        let detail = format!("the history of tenant `{tenant}` holds no event `{id}`");
        Problem::new(Code::NoSuchEvent, &detail)
    };
    let [event] = found.as_slice() else {
        if found.is_empty() {
            return Err(no_such_event());
        }
        let detail = "several sources use this id: say which one is meant";
        return Err(Problem::at("source", Code::InvalidRequest, detail));
    };
    let whole = history.event(&event.key()).await?;
    Ok(Json(whole.ok_or_else(no_such_event)?.into()))
}

/// A page of attempts, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct AttemptList {
    /// The attempts.
    items: Vec<ShownAttempt>,
    /// What to send as `after` for the next page; null when this is the last one.
    next: Option<String>,
}

/// Searches a tenant's attempts, newest first.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/attempts", tag = "history",
    params(
        ("tenant" = String, Path, description = "The tenant.", example = "MF4c1b7e20"),
        ("endpoint" = Option<String>, Query, description = "Only those at this endpoint."),
        ("outcome" = Option<String>, Query, description = "Only those that `succeeded`, `failed`, or failed so: a class such as `timeout` or `status_5xx`."),
        ("type" = Option<String>, Query, description = "Only of events of this type."),
        ("delivery" = Option<String>, Query, description = "Only of this delivery: the `webhook-id` that the receiver saw."),
        ("event" = Option<String>, Query, description = "Only of events with this id."),
        ("since" = Option<String>, Query, description = "Only what started then or later, RFC 3339."),
        ("until" = Option<String>, Query, description = "Only what started before then, RFC 3339."),
        ("limit" = Option<u32>, Query, description = "At most this many: 1 to 200, 50 unless given."),
        ("after" = Option<String>, Query, description = "The `next` of the page before."),
    ),
    responses(
        (status = OK, description = "A page of them, which may be empty.", body = AttemptList),
        (status = "default", description = "They cannot be searched.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn attempts(
    State(shared): State<Arc<Shared>>,
    Path(TenantPath { tenant }): Path<TenantPath>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Json<AttemptList>, Problem> {
    let asked = Parameters::of(
        &parameters,
        &[
            "endpoint", "outcome", "type", "delivery", "event", "since", "until", "limit", "after",
        ],
    )?;
    let limit = asked.limit(PAGE, LONGEST_PAGE)?;
    let filter = AttemptFilter {
        tenant: Some(tenant),
        endpoint: asked.value("endpoint")?,
        event_type: asked.value("type")?,
        outcome: outcome(&asked)?,
        delivery: asked.value("delivery")?,
        event_id: asked.text("event"),
        from: asked.moment("since")?,
        to: asked.moment("until")?,
    };
    let page = Page {
        after: asked.cursor("after")?,
        limit: limit + 1,
    };
    let found = shared.api.history.attempts(&filter, page).await?;
    let mut found: Vec<_> = found.into_iter().map(ShownAttempt::from).collect();
    let next = cut(&mut found, limit, |attempt| attempt.cursor());
    Ok(Json(AttemptList { items: found, next }))
}

/// A part of a tenant's feed, oldest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct Feed {
    /// The events, each with its data and with the state of its deliveries as it is now.
    items: Vec<ShownFeedEntry>,
    /// Where to go on: send it as `after`, now or at any later time. Null when nothing was ever recorded.
    next: Option<String>,
    /// Whether there is more already.
    more: bool,
}

/// Reads a tenant's events in the order in which they were recorded, to reconcile.
///
/// The order never changes, and what is recorded later comes later: whoever keeps `next` and goes on from
/// there misses nothing and reads nothing twice. The state of a delivery is the one it has when it is
/// read, so what was still open is worth reading again. `endpoint` and `state` leave events out; `next`
/// passes over them.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/feed", tag = "history",
    params(
        ("tenant" = String, Path, description = "The tenant.", example = "MF4c1b7e20"),
        ("endpoint" = Option<String>, Query, description = "Only events that were owed to this endpoint, with that delivery alone."),
        ("state" = Option<String>, Query, description = "Only events with a delivery that stands so, separated by commas: `owed`, `retrying`, `delivered`, `dead_lettered`, `discarded`, `unknown`; `missed` for the last three."),
        ("limit" = Option<u32>, Query, description = "At most this many: 1 to 200, 50 unless given."),
        ("after" = Option<String>, Query, description = "The `next` of the answer before."),
    ),
    responses(
        (status = OK, description = "The next events, if there are any.", body = Feed),
        (status = "default", description = "The feed cannot be read.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn feed(
    State(shared): State<Arc<Shared>>,
    Path(TenantPath { tenant }): Path<TenantPath>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Json<Feed>, Problem> {
    let asked = Parameters::of(&parameters, &["endpoint", "state", "limit", "after"])?;
    let filter = FeedFilter {
        endpoint: asked.value("endpoint")?,
        states: states(&asked)?,
    };
    let page = Page {
        after: asked.cursor::<FeedCursor>("after")?,
        limit: asked.limit(PAGE, LONGEST_PAGE)?,
    };
    let part = shared.api.history.feed_part(&tenant, &filter, page).await?;
    Ok(Json(Feed {
        items: part.entries.into_iter().map(ShownFeedEntry::from).collect(),
        next: part.next.map(|cursor| cursor.to_string()),
        more: part.more,
    }))
}

/// Cuts the one result that tells whether there are more, and says where the next page begins.
fn cut<T>(found: &mut Vec<T>, limit: u32, cursor: impl Fn(&T) -> String) -> Option<String> {
    let limit = limit as usize;
    let next = (found.len() > limit).then(|| cursor(&found[limit - 1]));
    found.truncate(limit);
    next
}
