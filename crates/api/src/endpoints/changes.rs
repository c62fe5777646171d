//! Changes what a tenant's endpoints are, and the secrets that they sign with.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    extract::{Request, State},
};
use fanfare_model::Secret;
use fanfare_registry::Rotation;
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    form::{EndpointForm, read_seconds},
    no_such_endpoint,
    patch::Patch,
    shown::{CreatedEndpoint, ShownEndpoint},
};
use crate::{
    auth::Actor,
    extract::{EndpointPath, OptionalJsonBody, Path, read_body},
    problem::{Problem, ProblemBody},
    run::Shared,
};

const MERGE_PATCH: [&str; 2] = ["application/merge-patch+json", "application/json"];

/// Changes an endpoint: what is named, and nothing else.
///
/// The body is a JSON merge patch (RFC 7396) of what endpoints are created with: null resets a member to its
/// default, and members of objects are merged one by one. `auth` is replaced as a whole where `auth.kind` is
/// named; a `profile` fills in anew what it fills in. A `secret` replaces every other at once;
/// `rotate-secret` lets the old one sign on for a while. The change holds for what is sent a few seconds
/// later, and closes an open circuit.
#[utoipa::path(patch, path = "/v1/tenants/{tenant}/endpoints/{endpoint}", tag = "endpoints",
    params(
        ("tenant" = String, Path, description = "The owner.", example = "MF4c1b7e20"),
        ("endpoint" = String, Path, description = "Its id.", example = "ep_019ac0ffee007000800000000000002a"),
    ),
    request_body(content = EndpointForm, content_type = "application/merge-patch+json"),
    responses(
        (status = OK, description = "The endpoint as it is now.", body = ShownEndpoint),
        (status = NOT_FOUND, description = "The tenant has no such endpoint.", body = ProblemBody, content_type = "application/problem+json"),
        (status = "default", description = "Nothing was changed.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn update(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<EndpointPath>,
    Extension(Actor(actor)): Extension<Actor>,
    request: Request,
) -> Result<Json<ShownEndpoint>, Problem> {
    let EndpointPath {
        tenant,
        endpoint: id,
    } = path;
    let patch = Patch::read(&read_body(request, &shared, &MERGE_PATCH).await?)?;
    let api = &shared.api;
    let change = |endpoint| patch.apply(endpoint, api.egress.policy());
    let now = api.clock.now();
    let present = api.registry.endpoint(&tenant, id).await?;
    let present = present.ok_or_else(|| no_such_endpoint(&tenant, id))?;
    shared.ask_for_permission(change(present)?, id).await?;
    let updated = api
        .registry
        .update_endpoint(&tenant, id, change, &actor, now);
    let updated = updated.await?;
    let updated = updated.ok_or_else(|| no_such_endpoint(&tenant, id))?;
    shared.registry_changed();
    Ok(Json(updated.into()))
}

/// A new secret, and how long the old one signs beside it.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Rotation, example = json!({"overlap": 86_400}))]
pub(crate) struct RotationForm {
    /// How many seconds the present secret signs beside the new one: 0 to 30 days, a day when absent.
    overlap: Option<f64>,
    /// The new secret, in the form that endpoints are created with. One of the present kind is made when absent.
    #[schema(value_type = Option<String>)]
    secret: Option<Secret>,
}

/// Gives an endpoint a new secret, beside which the old one signs for a while.
///
/// Meanwhile requests have a signature of each; where a `signature` has room for one alone, it is the old
/// one's. The answer holds the new secret; later answers do not.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/endpoints/{endpoint}/rotate-secret", tag = "endpoints",
    params(
        ("tenant" = String, Path, description = "The owner.", example = "MF4c1b7e20"),
        ("endpoint" = String, Path, description = "Its id.", example = "ep_019ac0ffee007000800000000000002a"),
    ),
    request_body = Option<RotationForm>,
    responses(
        (status = OK, description = "The endpoint as it is now, and its new secret.", body = CreatedEndpoint),
        (status = NOT_FOUND, description = "The tenant has no such endpoint.", body = ProblemBody, content_type = "application/problem+json"),
        (status = "default", description = "Nothing was changed.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn rotate_secret(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<EndpointPath>,
    Extension(Actor(actor)): Extension<Actor>,
    OptionalJsonBody(form): OptionalJsonBody<RotationForm>,
) -> Result<Json<CreatedEndpoint>, Problem> {
    let EndpointPath {
        tenant,
        endpoint: id,
    } = path;
    let overlap = |seconds| read_seconds("overlap", "0 to 2592000", seconds);
    let overlap: Option<Duration> = form.overlap.map(overlap).transpose()?;
    let rotation = Rotation {
        secret: form.secret,
        overlap: overlap.unwrap_or(Rotation::DEFAULT_OVERLAP),
    };
    let (registry, now) = (&shared.api.registry, shared.api.clock.now());
    let rotated = registry.rotate_secret(&tenant, id, &rotation, &actor, now);
    let rotated = rotated.await?;
    let rotated = rotated.ok_or_else(|| no_such_endpoint(&tenant, id))?;
    shared.registry_changed();
    Ok(Json(rotated.into()))
}
