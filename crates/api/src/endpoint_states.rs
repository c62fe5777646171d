//! Pauses, resumes, disables and enables a tenant's endpoints.
//!
//! Each may be repeated: where there is nothing to change, nothing is, and the answer is the same.

use std::sync::Arc;

use axum::{Extension, Json, extract::State};
use fanfare_model::StateChange;

use crate::{
    auth::Actor,
    endpoints::{ShownEndpoint, no_such_endpoint},
    extract::{EndpointPath, Path},
    problem::{Problem, ProblemBody},
    run::Shared,
};

type Changed = Result<Json<ShownEndpoint>, Problem>;

/// Pauses an endpoint: its deliveries wait until it is resumed.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/endpoints/{endpoint}/pause", tag = "endpoints",
    params(
        ("tenant" = String, Path, description = "The owner.", example = "MF4c1b7e20"),
        ("endpoint" = String, Path, description = "Its id.", example = "ep_019ac0ffee007000800000000000002a"),
    ),
    responses(
        (status = OK, description = "It is paused.", body = ShownEndpoint),
        (status = NOT_FOUND, description = "The tenant has no such endpoint.", body = ProblemBody, content_type = "application/problem+json"),
        (status = CONFLICT, description = "It is disabled: enable it first.", body = ProblemBody, content_type = "application/problem+json"),
        (status = "default", description = "Nothing was changed.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn pause(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<EndpointPath>,
    Extension(actor): Extension<Actor>,
) -> Changed {
    change(&shared, path, actor, StateChange::Pause).await
}

/// Resumes a paused endpoint. What waited follows within a minute or so.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/endpoints/{endpoint}/resume", tag = "endpoints",
    params(
        ("tenant" = String, Path, description = "The owner.", example = "MF4c1b7e20"),
        ("endpoint" = String, Path, description = "Its id.", example = "ep_019ac0ffee007000800000000000002a"),
    ),
    responses(
        (status = OK, description = "It is not paused.", body = ShownEndpoint),
        (status = NOT_FOUND, description = "The tenant has no such endpoint.", body = ProblemBody, content_type = "application/problem+json"),
        (status = CONFLICT, description = "It is disabled: enable it first.", body = ProblemBody, content_type = "application/problem+json"),
        (status = "default", description = "Nothing was changed.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn resume(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<EndpointPath>,
    Extension(actor): Extension<Actor>,
) -> Changed {
    change(&shared, path, actor, StateChange::Resume).await
}

/// Disables an endpoint: what it is owed becomes dead letters.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/endpoints/{endpoint}/disable", tag = "endpoints",
    params(
        ("tenant" = String, Path, description = "The owner.", example = "MF4c1b7e20"),
        ("endpoint" = String, Path, description = "Its id.", example = "ep_019ac0ffee007000800000000000002a"),
    ),
    responses(
        (status = OK, description = "It is disabled.", body = ShownEndpoint),
        (status = NOT_FOUND, description = "The tenant has no such endpoint.", body = ProblemBody, content_type = "application/problem+json"),
        (status = "default", description = "Nothing was changed.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn disable(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<EndpointPath>,
    Extension(actor): Extension<Actor>,
) -> Changed {
    change(&shared, path, actor, StateChange::Disable).await
}

/// Enables a disabled endpoint: it is called for what is owed to it from now on.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/endpoints/{endpoint}/enable", tag = "endpoints",
    params(
        ("tenant" = String, Path, description = "The owner.", example = "MF4c1b7e20"),
        ("endpoint" = String, Path, description = "Its id.", example = "ep_019ac0ffee007000800000000000002a"),
    ),
    responses(
        (status = OK, description = "It is not disabled.", body = ShownEndpoint),
        (status = NOT_FOUND, description = "The tenant has no such endpoint.", body = ProblemBody, content_type = "application/problem+json"),
        (status = "default", description = "Nothing was changed.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn enable(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<EndpointPath>,
    Extension(actor): Extension<Actor>,
) -> Changed {
    change(&shared, path, actor, StateChange::Enable).await
}

async fn change(
    shared: &Shared,
    EndpointPath {
        tenant,
        endpoint: id,
    }: EndpointPath,
    Actor(actor): Actor,
    change: StateChange,
) -> Changed {
    let (registry, now) = (&shared.api.registry, shared.api.clock.now());
    let changed = registry.change_state(&tenant, id, change, &actor, now);
    let endpoint = changed.await?;
    let endpoint = endpoint.ok_or_else(|| no_such_endpoint(&tenant, id))?;
    shared.registry_changed();
    Ok(Json(endpoint.into()))
}
