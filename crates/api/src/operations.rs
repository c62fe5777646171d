//! What was asked to be done with messages that rest: how far it is, what it has dealt with, and its end.

use std::sync::Arc;

use axum::{Extension, Json, extract::State};
use fanfare_model::Timestamp;
use fanfare_registry::{Operation, OperationId, OperationItem, OperationPage};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    auth::Actor,
    extract::{Path, Query},
    history::Parameters,
    problem::{Code, Problem, ProblemBody},
    run::Shared,
};

/// How many results a page has unless the caller says otherwise, and at most.
const PAGE: u32 = 50;
const LONGEST_PAGE: u32 = 200;

/// The operation that a path names.
#[derive(Deserialize)]
pub(crate) struct OperationPath {
    operation: OperationId,
}

/// Something that was asked to be done with messages that rest.
#[derive(Serialize, ToSchema)]
#[schema(as = Operation)]
pub(crate) struct ShownOperation {
    id: String,
    /// The queue: `dead-letters`, `rejected`, `unroutable` or `crashed`.
    place: String,
    /// `replay`, `publish` or `discard`.
    action: String,
    /// Which messages; empty for all.
    #[schema(value_type = Object)]
    filter: Value,
    /// `pending`, `running`, `done` or `cancelled`.
    state: &'static str,
    /// How many messages it was for when it was asked for.
    expected: u64,
    /// How many it has dealt with. Each counts once, however often it had to be repeated.
    resolved: u64,
    /// How fast; null for the installation's own pace.
    pace: Option<String>,
    /// Who asked.
    actor: String,
    why: String,
    #[schema(value_type = String)]
    requested_at: Timestamp,
    /// When it changed last; when it is over, when it ended.
    #[schema(value_type = String)]
    changed_at: Timestamp,
}

impl From<Operation> for ShownOperation {
    fn from(operation: Operation) -> Self {
        let request = operation.request;
        Self {
            id: operation.id.to_string(),
            place: request.place,
            action: request.action,
            filter: request.filter,
            state: operation.state.name(),
            expected: request.expected,
            resolved: operation.resolved,
            pace: Some(request.pace).filter(|pace| !pace.is_empty()),
            actor: operation.actor,
            why: request.why,
            requested_at: operation.requested_at,
            changed_at: operation.changed_at,
        }
    }
}

/// A page of operations, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct OperationList {
    items: Vec<ShownOperation>,
    /// What to send as `after` for the next page; null when this is the last one.
    next: Option<String>,
}

/// Lists operations, newest first.
#[utoipa::path(get, path = "/v1/operations", tag = "resting messages",
    params(
        ("open" = Option<bool>, Query, description = "Whether to list only those that are not over."),
        ("limit" = Option<u32>, Query, description = "At most this many: 1 to 200, 50 unless given."),
        ("after" = Option<String>, Query, description = "The `next` of the page before."),
    ),
    responses(
        (status = OK, description = "A page of them, which may be empty.", body = OperationList),
        (status = "default", description = "They cannot be listed.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Json<OperationList>, Problem> {
    let asked = Parameters::of(&parameters, &["open", "limit", "after"])?;
    let limit = asked.limit(PAGE, LONGEST_PAGE)?;
    let page = OperationPage {
        open_only: asked.value("open")?.unwrap_or(false),
        before: asked.value("after")?,
        // One more tells whether there is a next page.
        limit: limit + 1,
    };
    let operations = shared.api.registry.operations(&page).await?;
    let mut items: Vec<_> = operations.into_iter().map(ShownOperation::from).collect();
    let limit = limit as usize;
    let next = (items.len() > limit).then(|| items[limit - 1].id.clone());
    items.truncate(limit);
    Ok(Json(OperationList { items, next }))
}

/// Shows one operation, and how far it is.
#[utoipa::path(get, path = "/v1/operations/{operation}", tag = "resting messages",
    params(("operation" = String, Path, description = "Its id.", example = "op_019ac0ffee007000800000000000002a")),
    responses(
        (status = OK, description = "The operation.", body = ShownOperation),
        (status = NOT_FOUND, description = "There is no such operation.", body = ProblemBody, content_type = "application/problem+json"),
        (status = "default", description = "It cannot be shown.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn show(
    State(shared): State<Arc<Shared>>,
    Path(OperationPath { operation: id }): Path<OperationPath>,
) -> Result<Json<ShownOperation>, Problem> {
    let operation = shared.api.registry.operation(id).await?;
    known(id, operation)
}

/// A message that an operation has dealt with.
#[derive(Serialize, ToSchema)]
#[schema(as = OperationItem)]
pub(crate) struct ShownItem {
    /// The message's id, and of a dead letter its replay number.
    message: String,
    #[schema(value_type = String)]
    at: Timestamp,
    /// What it was, without its payload.
    #[schema(value_type = Object)]
    was: Value,
}

impl From<OperationItem> for ShownItem {
    fn from(item: OperationItem) -> Self {
        Self {
            message: item.message,
            at: item.at,
            was: item.summary,
        }
    }
}

/// A page of messages that an operation has dealt with.
#[derive(Serialize, ToSchema)]
pub(crate) struct OperationItems {
    items: Vec<ShownItem>,
    /// What to send as `after` for the next page; null when this is the last one.
    next: Option<String>,
}

/// Lists the messages that an operation has dealt with. They are remembered for 90 days after its end.
#[utoipa::path(get, path = "/v1/operations/{operation}/messages", tag = "resting messages",
    params(
        ("operation" = String, Path, description = "Its id.", example = "op_019ac0ffee007000800000000000002a"),
        ("limit" = Option<u32>, Query, description = "At most this many: 1 to 200, 50 unless given."),
        ("after" = Option<String>, Query, description = "The `next` of the page before."),
    ),
    responses(
        (status = OK, description = "A page of them, which may be empty.", body = OperationItems),
        (status = "default", description = "They cannot be listed.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn messages(
    State(shared): State<Arc<Shared>>,
    Path(OperationPath { operation: id }): Path<OperationPath>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Json<OperationItems>, Problem> {
    let asked = Parameters::of(&parameters, &["limit", "after"])?;
    let limit = asked.limit(PAGE, LONGEST_PAGE)?;
    let after = asked.text("after").unwrap_or_default();
    let registry = &shared.api.registry;
    let found = registry.operation_items(id, &after, limit + 1).await?;
    let mut items: Vec<_> = found.into_iter().map(ShownItem::from).collect();
    let limit = limit as usize;
    let next = (items.len() > limit).then(|| items[limit - 1].message.clone());
    items.truncate(limit);
    Ok(Json(OperationItems { items, next }))
}

/// Stops an operation. What it has dealt with stays so; one that is over stays as it is.
#[utoipa::path(post, path = "/v1/operations/{operation}/cancel", tag = "resting messages",
    params(("operation" = String, Path, description = "Its id.", example = "op_019ac0ffee007000800000000000002a")),
    responses(
        (status = OK, description = "The operation as it is now.", body = ShownOperation),
        (status = NOT_FOUND, description = "There is no such operation.", body = ProblemBody, content_type = "application/problem+json"),
        (status = "default", description = "It is not stopped.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn cancel(
    State(shared): State<Arc<Shared>>,
    Path(OperationPath { operation: id }): Path<OperationPath>,
    Extension(Actor(actor)): Extension<Actor>,
) -> Result<Json<ShownOperation>, Problem> {
    let operation = shared.api.desk.cancel(id, &actor).await?;
    known(id, operation)
}

fn known(id: OperationId, operation: Option<Operation>) -> Result<Json<ShownOperation>, Problem> {
    let operation = operation.ok_or_else(|| {
        let detail = format!("there is no operation `{id}`");
        Problem::new(Code::NoSuchOperation, &detail)
    })?;
    Ok(Json(operation.into()))
}
