//! Sends again what the history holds: what an endpoint missed, what a new one is to have, one event.
//!
//! The answer comes once the operation is written down; a process with the role `api` runs it. `replays/form.rs`
//! says what requests and operations look like in JSON.

mod form;

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use fanfare_registry::{Operation, OperationId, OperationPage};
use fanfare_replay::{Action, PLACE};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use self::form::{BackfillForm, Counted, ReplayForm, ResendForm, ShownReplay};
use crate::{
    auth::Actor,
    extract::{EndpointPath, JsonBody, Path, Query, TenantPath},
    history::{EventPath, Parameters},
    problem::{Code, Problem, ProblemBody},
    run::Shared,
};

/// How many operations a page has unless the caller says otherwise, and at most.
const PAGE: u32 = 50;
const LONGEST_PAGE: u32 = 200;

/// How many operations, of whatever tenant, are read at once.
const READ_AT_ONCE: u32 = 500;

/// The operation that a path names, and the tenant.
#[derive(Deserialize)]
pub(crate) struct ReplayPath {
    tenant: fanfare_model::TenantId,
    replay: OperationId,
}

/// Replays to an endpoint what it was owed: what it missed, unless the request says otherwise.
///
/// What is still being tried comes by itself and is left out. Deliveries keep their `webhook-id`, have fresh
/// attempts, and are sent no faster than the endpoint's rate. A dead letter that is replayed leaves its queue.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/endpoints/{endpoint}/replay", tag = "history",
    params(
        ("tenant" = String, Path, description = "The owner.", example = "MF4c1b7e20"),
        ("endpoint" = String, Path, description = "Its id.", example = "ep_019ac0ffee007000800000000000002a"),
    ),
    request_body = ReplayForm,
    responses(
        (status = OK, description = "How many deliveries it would be, for a dry run.", body = Counted),
        (status = ACCEPTED, description = "It will be sent.", body = ShownReplay,
            headers(("Location" = String, description = "The path of the operation."))),
        (status = NOT_FOUND, description = "The tenant has no such endpoint.", body = ProblemBody, content_type = "application/problem+json"),
        (status = CONFLICT, description = "The endpoint is disabled: enable it first.", body = ProblemBody, content_type = "application/problem+json"),
        (status = "default", description = "Nothing will be sent.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn replay(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<EndpointPath>,
    Extension(actor): Extension<Actor>,
    JsonBody(form): JsonBody<ReplayForm>,
) -> Result<Response, Problem> {
    let (request, dry_run) = form.read(path.tenant, path.endpoint)?;
    ask(&shared, request, dry_run, &actor).await
}

/// Sends to an endpoint the events of the past that it would have been owed, had it been there.
///
/// Its types and its filter decide, as they are now; what it was owed already is left out.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/endpoints/{endpoint}/backfill", tag = "history",
    params(
        ("tenant" = String, Path, description = "The owner.", example = "MF4c1b7e20"),
        ("endpoint" = String, Path, description = "Its id.", example = "ep_019ac0ffee007000800000000000002a"),
    ),
    request_body = BackfillForm,
    responses(
        (status = OK, description = "How many deliveries it would be, for a dry run.", body = Counted),
        (status = ACCEPTED, description = "It will be sent.", body = ShownReplay,
            headers(("Location" = String, description = "The path of the operation."))),
        (status = NOT_FOUND, description = "The tenant has no such endpoint.", body = ProblemBody, content_type = "application/problem+json"),
        (status = CONFLICT, description = "The endpoint is disabled: enable it first.", body = ProblemBody, content_type = "application/problem+json"),
        (status = "default", description = "Nothing will be sent.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn backfill(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<EndpointPath>,
    Extension(actor): Extension<Actor>,
    JsonBody(form): JsonBody<BackfillForm>,
) -> Result<Response, Problem> {
    let (request, dry_run) = form.read(path.tenant, path.endpoint)?;
    ask(&shared, request, dry_run, &actor).await
}

/// Sends one event to one endpoint, whether the endpoint has it, missed it or never wanted it.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/events/{event}/resend", tag = "history",
    params(
        ("tenant" = String, Path, description = "The tenant.", example = "MF4c1b7e20"),
        ("event" = String, Path, description = "The event's id.", example = "31-unlocked"),
    ),
    request_body = ResendForm,
    responses(
        (status = ACCEPTED, description = "It will be sent.", body = ShownReplay,
            headers(("Location" = String, description = "The path of the operation."))),
        (status = NOT_FOUND, description = "The tenant has no such endpoint, or the history no such event.", body = ProblemBody, content_type = "application/problem+json"),
        (status = CONFLICT, description = "The endpoint is disabled: enable it first.", body = ProblemBody, content_type = "application/problem+json"),
        (status = "default", description = "Nothing will be sent.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn resend(
    State(shared): State<Arc<Shared>>,
    Path(EventPath { tenant, event }): Path<EventPath>,
    Extension(actor): Extension<Actor>,
    JsonBody(form): JsonBody<ResendForm>,
) -> Result<Response, Problem> {
    ask(&shared, form.read(tenant, event)?, false, &actor).await
}

async fn ask(
    shared: &Shared,
    request: fanfare_replay::Request,
    dry_run: bool,
    Actor(actor): &Actor,
) -> Result<Response, Problem> {
    let desk = &shared.api.replays;
    let expected = desk.dry_run(&request).await?;
    if dry_run {
        return Ok(Json(Counted { expected }).into_response());
    }
    if expected == 0 && request.action == Action::Resend {
        let detail = "the history does not have the event's data, so it cannot be sent";
        return Err(Problem::new(Code::NoSuchEvent, detail));
    }
    let tenant = request.filter.tenant.clone();
    let operation = desk.request(request, expected, actor).await?;
    let location = format!("/v1/tenants/{tenant}/replays/{}", operation.id);
    let headers = [(header::LOCATION, location)];
    let shown = Json(ShownReplay::from(operation));
    Ok((StatusCode::ACCEPTED, headers, shown).into_response())
}

/// A page of operations, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct ReplayList {
    /// The operations.
    items: Vec<ShownReplay>,
    /// What to send as `after` for the next page; null when this is the last one.
    next: Option<String>,
}

/// Lists what a tenant's endpoints were sent again, newest first.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/replays", tag = "history",
    params(
        ("tenant" = String, Path, description = "The tenant.", example = "MF4c1b7e20"),
        ("limit" = Option<u32>, Query, description = "At most this many: 1 to 200, 50 unless given."),
        ("after" = Option<String>, Query, description = "The `next` of the page before."),
    ),
    responses(
        (status = OK, description = "A page of them, which may be empty.", body = ReplayList),
        (status = "default", description = "They cannot be listed.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Path(TenantPath { tenant }): Path<TenantPath>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Json<ReplayList>, Problem> {
    let asked = Parameters::of(&parameters, &["limit", "after"])?;
    let limit = asked.limit(PAGE, LONGEST_PAGE)? as usize;
    let mut before = asked.value("after")?;
    let mut items: Vec<ShownReplay> = Vec::new();
    loop {
        let page = OperationPage {
            open_only: false,
            before,
            limit: READ_AT_ONCE,
        };
        let read = shared.api.registry.operations(&page).await?;
        before = read.last().map(|last| last.id);
        let is_last = read.len() < READ_AT_ONCE as usize;
        let ours = read.into_iter().filter(|one| is_of(one, &tenant));
        items.extend(ours.map(ShownReplay::from));
        if items.len() > limit || is_last {
            break;
        }
    }
    let next = (items.len() > limit).then(|| items[limit - 1].id());
    items.truncate(limit);
    Ok(Json(ReplayList { items, next }))
}

/// Shows how far an operation is.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/replays/{replay}", tag = "history",
    params(
        ("tenant" = String, Path, description = "The tenant.", example = "MF4c1b7e20"),
        ("replay" = String, Path, description = "Its id.", example = "op_019ac0ffee007000800000000000002a"),
    ),
    responses(
        (status = OK, description = "The operation.", body = ShownReplay),
        (status = NOT_FOUND, description = "The tenant has no such operation.", body = ProblemBody, content_type = "application/problem+json"),
        (status = "default", description = "It cannot be shown.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn show(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<ReplayPath>,
) -> Result<Json<ShownReplay>, Problem> {
    Ok(Json(find(&shared, &path).await?.into()))
}

/// Stops an operation. What it has sent stays sent.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/replays/{replay}/cancel", tag = "history",
    params(
        ("tenant" = String, Path, description = "The tenant.", example = "MF4c1b7e20"),
        ("replay" = String, Path, description = "Its id.", example = "op_019ac0ffee007000800000000000002a"),
    ),
    responses(
        (status = OK, description = "It is over: cancelled, or done before.", body = ShownReplay),
        (status = NOT_FOUND, description = "The tenant has no such operation.", body = ProblemBody, content_type = "application/problem+json"),
        (status = "default", description = "It was not stopped.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn cancel(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<ReplayPath>,
    Extension(Actor(actor)): Extension<Actor>,
) -> Result<Json<ShownReplay>, Problem> {
    find(&shared, &path).await?;
    let cancelled = shared.api.replays.cancel(path.replay, &actor).await?;
    let operation = cancelled.ok_or_else(|| no_such_replay(&path))?;
    Ok(Json(operation.into()))
}

async fn find(shared: &Shared, path: &ReplayPath) -> Result<Operation, Problem> {
    let found = shared.api.registry.operation(path.replay).await?;
    let found = found.filter(|operation| is_of(operation, &path.tenant));
    found.ok_or_else(|| no_such_replay(path))
}

/// Whether it is an operation on the history of this tenant.
fn is_of(operation: &Operation, tenant: &fanfare_model::TenantId) -> bool {
    let request = &operation.request;
    request.place == PLACE && request.filter["tenant"] == tenant.as_str()
}

fn no_such_replay(ReplayPath { tenant, replay }: &ReplayPath) -> Problem {
    let detail = format!("tenant `{tenant}` has no replay `{replay}`");
    Problem::new(Code::NoSuchOperation, &detail)
}
