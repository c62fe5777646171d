//! Shows who changed what.

use std::sync::Arc;

use axum::{Json, extract::State};
use fanfare_model::Timestamp;
use fanfare_registry::{AuditEntry, AuditPage};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    extract::Query,
    history::Parameters,
    problem::{Problem, ProblemBody},
    run::Shared,
};

/// One change.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub(crate) struct ShownAudit {
    /// Later entries have higher numbers.
    id: i64,
    #[schema(value_type = String)]
    at: Timestamp,
    actor: String,
    /// What was done, such as `endpoint.create`.
    action: String,
    /// To what: the id.
    subject: String,
    #[schema(value_type = Object)]
    detail: Value,
}

impl From<AuditEntry> for ShownAudit {
    fn from(entry: AuditEntry) -> Self {
        Self {
            id: entry.id,
            at: entry.at,
            actor: entry.actor,
            action: entry.action,
            subject: entry.subject,
            detail: entry.detail,
        }
    }
}

/// A page of changes, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct AuditList {
    items: Vec<ShownAudit>,
    /// What to send as `after` for the next page; null when this is the last one.
    next: Option<i64>,
}

/// Lists who changed what, newest first.
#[utoipa::path(get, path = "/v1/audit", tag = "audit",
    params(
        ("tenant" = Option<String>, Query, description = "Only what concerns this tenant."),
        ("actor" = Option<String>, Query, description = "Only what this caller did."),
        ("action" = Option<String>, Query, description = "Only this action, such as `endpoint.create`, or all that begin so: `endpoint`."),
        ("subject" = Option<String>, Query, description = "Only what was done to this id."),
        ("since" = Option<String>, Query, description = "Only what was done then or later, RFC 3339."),
        ("until" = Option<String>, Query, description = "Only what was done before then, RFC 3339."),
        ("limit" = Option<u32>, Query, description = "At most this many: 1 to 200, 50 unless given."),
        ("after" = Option<i64>, Query, description = "The `next` of the page before."),
    ),
    responses(
        (status = OK, description = "A page of them, which may be empty.", body = AuditList),
        (status = "default", description = "They cannot be listed.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Json<AuditList>, Problem> {
    let asked = Parameters::of(
        &parameters,
        &[
            "tenant", "actor", "action", "subject", "since", "until", "limit", "after",
        ],
    )?;
    let limit = asked.limit(50, 200)?;
    let page = AuditPage {
        tenant: asked.value("tenant")?,
        actor: asked.text("actor"),
        action: asked.text("action"),
        subject: asked.text("subject"),
        since: asked.moment("since")?,
        until: asked.moment("until")?,
        before: asked.value("after")?,
        // One more tells whether there is a next page.
        limit: limit + 1,
    };
    let entries = shared.api.registry.audit(&page).await?;
    let mut items: Vec<_> = entries.into_iter().map(ShownAudit::from).collect();
    let limit = limit as usize;
    let next = (items.len() > limit).then(|| items[limit - 1].id);
    items.truncate(limit);
    Ok(Json(AuditList { items, next }))
}
