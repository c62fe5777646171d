//! Creates, shows, lists and deletes a tenant's endpoints; `endpoints/changes.rs` changes them,
//! `endpoints/status.rs` says how they stand, `endpoints/trial.rs` tries them out.
//!
//! `endpoints/form.rs` says what an endpoint looks like in JSON when it is asked for, `endpoints/shown.rs` when
//! it is shown.

pub(crate) mod changes;
pub(crate) mod status;
pub(crate) mod trial;

mod form;
mod patch;
mod schemas;
mod shown;

use std::{str::FromStr, sync::Arc};

use axum::{
    Extension, Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use fanfare_model::{BodyFormat, EndpointId, EventType, StateName, TenantId};
use fanfare_registry::{EndpointFilter, EndpointPage};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

pub(crate) use self::shown::ShownEndpoint;
use self::{form::EndpointForm, shown::CreatedEndpoint};
use crate::{
    auth::Actor,
    extract::{EndpointPath, JsonBody, Path, Query, TenantPath},
    problem::{Code, Problem, ProblemBody},
    run::Shared,
};

/// How many endpoints a page has unless the caller says otherwise, and at most.
const PAGE: u32 = 50;
const LONGEST_PAGE: u32 = 200;

/// Creates an endpoint.
///
/// It is called for events that are routed from a few seconds later on. The answer holds the secret that
/// signs its requests; later answers do not.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/endpoints", tag = "endpoints",
    params(("tenant" = String, Path, description = "The owner.", example = "MF4c1b7e20")),
    request_body = EndpointForm,
    responses(
        (status = CREATED, description = "It is registered, and active.", body = CreatedEndpoint,
            headers(("Location" = String, description = "The path of the endpoint."))),
        (status = "default", description = "It was not created.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn create(
    State(shared): State<Arc<Shared>>,
    Path(TenantPath { tenant }): Path<TenantPath>,
    Extension(Actor(actor)): Extension<Actor>,
    JsonBody(form): JsonBody<EndpointForm>,
) -> Result<impl IntoResponse, Problem> {
    let api = &shared.api;
    let new = form.read(tenant, api.egress.policy())?;
    let (nobody_yet, now) = (EndpointId::from_bytes([0; 16]), api.clock.now());
    shared.ask_for_permission(new.clone(), nobody_yet).await?;
    let endpoint = api.registry.create_endpoint(new, &actor, now).await?;
    shared.registry_changed();
    let location = format!("/v1/tenants/{}/endpoints/{}", endpoint.tenant, endpoint.id);
    let headers = [(header::LOCATION, location)];
    let created = CreatedEndpoint::from(endpoint);
    Ok((StatusCode::CREATED, headers, Json(created)))
}

/// Which endpoints to list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
struct Page {
    /// At most this many: 1 to 200.
    #[param(default = 50, minimum = 1, maximum = 200, required = false)]
    limit: u32,
    /// The `next` of the page before.
    #[param(value_type = Option<String>)]
    after: Option<EndpointId>,
    /// Only those in this state: `active`, `paused` or `disabled`.
    #[param(value_type = Option<String>)]
    state: Option<StateName>,
    /// Only those that want events of this type, whatever their content.
    #[param(value_type = Option<String>)]
    event_type: Option<EventType>,
    /// Only those with this text in their URL.
    url: Option<String>,
    /// Only those that get bodies in this format.
    #[param(value_type = Option<String>)]
    format: Option<BodyFormat>,
}

impl Page {
    fn read(parameters: &[(String, String)]) -> Result<Self, Problem> {
        let mut page = Self {
            limit: PAGE,
            after: None,
            state: None,
            event_type: None,
            url: None,
            format: None,
        };
        for (name, value) in parameters {
            let refused = |detail: &str| Problem::at(name, Code::InvalidRequest, detail);
            match name.as_str() {
                "limit" => {
                    let limit = value.parse().ok();
                    let accepted = limit.filter(|limit| (1..=LONGEST_PAGE).contains(limit));
                    let detail = format!("`limit` must be a number from 1 to {LONGEST_PAGE}");
                    page.limit = accepted.ok_or_else(|| refused(&detail))?;
                }
                "after" => {
                    let detail = "`after` must be the `next` of another page";
                    page.after = Some(value.parse().map_err(|_| refused(detail))?);
                }
                "state" => page.state = Some(read(name, value)?),
                "event_type" => page.event_type = Some(read(name, value)?),
                "url" => page.url = Some(value.clone()),
                "format" => page.format = Some(read(name, value)?),
                _ => {
                    let detail = "accepted parameters are `limit`, `after`, `state`, `event_type`, `url` and `format`";
                    return Err(refused(detail));
                }
            }
        }
        Ok(page)
    }
}

fn read<T: FromStr<Err: ToString>>(name: &str, value: &str) -> Result<T, Problem> {
    let read = value.parse();
    read.map_err(|fault: T::Err| Problem::at(name, Code::InvalidRequest, &fault.to_string()))
}

/// A page of endpoints, oldest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct EndpointList {
    /// The endpoints.
    items: Vec<ShownEndpoint>,
    /// What to send as `after` for the next page; null when this is the last one.
    #[schema(value_type = Option<String>)]
    next: Option<EndpointId>,
}

/// Lists a tenant's endpoints, oldest first.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/endpoints", tag = "endpoints",
    params(("tenant" = String, Path, description = "The owner.", example = "MF4c1b7e20"), Page),
    responses(
        (status = OK, description = "A page of them, which may be empty.", body = EndpointList),
        (status = "default", description = "They cannot be listed.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Path(TenantPath { tenant }): Path<TenantPath>,
    Query(parameters): Query<Vec<(String, String)>>,
) -> Result<Json<EndpointList>, Problem> {
    let page = Page::read(&parameters)?;
    let asked = EndpointPage {
        tenant: Some(tenant),
        filter: EndpointFilter {
            state: page.state,
            event_type: page.event_type,
            url: page.url,
            format: page.format,
        },
        after: page.after,
        // One more tells whether there is a next page.
        limit: page.limit + 1,
    };
    let mut endpoints = shared.api.registry.endpoints(&asked).await?;
    let limit = page.limit as usize;
    let next = (endpoints.len() > limit).then(|| endpoints[limit - 1].id);
    endpoints.truncate(limit);
    let items = endpoints.into_iter().map(ShownEndpoint::from).collect();
    Ok(Json(EndpointList { items, next }))
}

/// Shows an endpoint, without its secrets and the values of its headers.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/endpoints/{endpoint}", tag = "endpoints",
    params(
        ("tenant" = String, Path, description = "The owner.", example = "MF4c1b7e20"),
        ("endpoint" = String, Path, description = "Its id.", example = "ep_019ac0ffee007000800000000000002a"),
    ),
    responses(
        (status = OK, description = "The endpoint.", body = ShownEndpoint),
        (status = NOT_FOUND, description = "The tenant has no such endpoint.", body = ProblemBody, content_type = "application/problem+json"),
        (status = "default", description = "It cannot be shown.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn show(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<EndpointPath>,
) -> Result<Json<ShownEndpoint>, Problem> {
    let EndpointPath {
        tenant,
        endpoint: id,
    } = path;
    let endpoint = shared.api.registry.endpoint(&tenant, id).await?;
    let endpoint = endpoint.ok_or_else(|| no_such_endpoint(&tenant, id))?;
    Ok(Json(endpoint.into()))
}

/// Deletes an endpoint. What it is still owed is discarded.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/endpoints/{endpoint}", tag = "endpoints",
    params(
        ("tenant" = String, Path, description = "The owner.", example = "MF4c1b7e20"),
        ("endpoint" = String, Path, description = "Its id.", example = "ep_019ac0ffee007000800000000000002a"),
    ),
    responses(
        (status = NO_CONTENT, description = "It is deleted."),
        (status = NOT_FOUND, description = "The tenant has no such endpoint.", body = ProblemBody, content_type = "application/problem+json"),
        (status = "default", description = "It was not deleted.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn delete(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<EndpointPath>,
    Extension(Actor(actor)): Extension<Actor>,
) -> Result<StatusCode, Problem> {
    let EndpointPath {
        tenant,
        endpoint: id,
    } = path;
    let api = &shared.api;
    let now = api.clock.now();
    if !api
        .registry
        .delete_endpoint(&tenant, id, &actor, now)
        .await?
    {
        return Err(no_such_endpoint(&tenant, id));
    }
    shared.registry_changed();
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) fn no_such_endpoint(tenant: &TenantId, id: EndpointId) -> Problem {
    let detail = format!("tenant `{tenant}` has no endpoint `{id}`");
    Problem::new(Code::NoSuchEndpoint, &detail)
}
