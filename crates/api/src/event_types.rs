//! The catalogue of event types: shows it, changes it, and holds published events against it.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{Extension, Json, extract::State, http::StatusCode};
use fanfare_model::{Event, EventType, Timestamp};
use fanfare_registry::{Catalogue, CataloguedType, NewEventType, Registry};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    auth::Actor,
    extract::{JsonBody, Path},
    problem::{Code, Problem, ProblemBody},
    run::Shared,
};

/// The catalogue as it was read last, and the version of the registry that it belongs to.
#[derive(Default)]
pub(crate) struct KnownEventTypes(Mutex<Option<(u64, Arc<Catalogue>)>>);

impl KnownEventTypes {
    /// The catalogue at this version of the registry or a later one.
    ///
    /// While the store is away, the one that was read last goes on to be used: events are accepted through an
    /// outage. Only where none was ever read, nothing can be said.
    async fn at(&self, version: u64, registry: &Registry) -> Result<Arc<Catalogue>, Problem> {
        let known = self.get();
        if let Some((of, catalogue)) = &known
            && *of >= version
        {
            return Ok(Arc::clone(catalogue));
        }
        match (registry.catalogue().await, known) {
            (Ok((version, catalogue)), _) => {
                let catalogue = Arc::new(catalogue);
                *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
                    Some((version, Arc::clone(&catalogue)));
                Ok(catalogue)
            }
            (Err(fault), Some((_, catalogue))) if fault.is_transient() => Ok(catalogue),
            (Err(fault), _) => Err(Problem::from(fault)),
        }
    }

    fn get(&self) -> Option<(u64, Arc<Catalogue>)> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.clone()
    }
}

/// Refuses an event that its type, or the setting, does not accept.
pub(crate) async fn check(shared: &Shared, event: &Event) -> Result<(), Problem> {
    let version = shared.api.snapshots.version().unwrap_or(0);
    let known = &shared.event_types;
    let catalogue = known.at(version, &shared.api.registry).await?;
    let all = shared.api.settings.enforce_event_types;
    catalogue.check(event, all).map_err(|refused| {
        let code = if refused.field == "type" {
            Code::UnknownEventType
        } else {
            Code::SchemaMismatch
        };
        Problem::at(&refused.field, code, &refused.problem)
    })
}

/// What is put into the catalogue.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewEventType, example = json!({
    "description": "A subscriber referred enough people for a reward.",
    "schema": {"type": "object", "required": ["reward"]},
    "sample": {"reward": {"id": 31}},
    "enforced": true,
}))]
pub(crate) struct EventTypeForm {
    /// What it means; at most 1,000 bytes.
    #[serde(default)]
    description: String,
    /// The JSON Schema of its data, without references to elsewhere; at most 64 KiB.
    #[schema(value_type = Option<Object>)]
    schema: Option<Value>,
    /// Data as such an event has it; at most 64 KiB.
    sample: Option<Value>,
    /// Whether events that do not fit the schema are refused when they are published over HTTP.
    #[serde(default)]
    enforced: bool,
}

/// An event type of the catalogue.
#[derive(Serialize, ToSchema)]
#[schema(as = EventType)]
pub(crate) struct ShownEventType {
    /// Its name.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "reward.unlocked")]
    name: EventType,
    /// What it means.
    description: String,
    /// The JSON Schema of its data.
    #[schema(value_type = Option<Object>)]
    schema: Option<Value>,
    /// Data as such an event has it.
    sample: Option<Value>,
    /// Whether events that do not fit the schema are refused when they are published over HTTP.
    enforced: bool,
    /// When it was put last.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

impl From<CataloguedType> for ShownEventType {
    fn from(known: CataloguedType) -> Self {
        let CataloguedType {
            definition,
            updated_at,
            ..
        } = known;
        Self {
            name: definition.name,
            description: definition.description,
            schema: definition.schema,
            sample: definition.sample,
            enforced: definition.enforced,
            updated_at,
        }
    }
}

/// The whole catalogue.
#[derive(Serialize, ToSchema)]
pub(crate) struct EventTypeList {
    /// The event types, by name.
    items: Vec<ShownEventType>,
}

/// The event type that a path names.
#[derive(Deserialize)]
pub(crate) struct EventTypePath {
    #[serde(rename = "type")]
    name: EventType,
}

/// Lists the catalogue of event types, by name.
#[utoipa::path(get, path = "/v1/event-types", tag = "event types",
    responses(
        (status = OK, description = "All of them; there are at most 1,000.", body = EventTypeList),
        (status = "default", description = "They cannot be listed.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
) -> Result<Json<EventTypeList>, Problem> {
    let types = shared.api.registry.event_types().await?;
    let items = types.into_iter().map(ShownEventType::from).collect();
    Ok(Json(EventTypeList { items }))
}

/// Shows an event type.
#[utoipa::path(get, path = "/v1/event-types/{type}", tag = "event types",
    params(("type" = String, Path, description = "Its name.", example = "reward.unlocked")),
    responses(
        (status = OK, description = "The event type.", body = ShownEventType),
        (status = NOT_FOUND, description = "It is not in the catalogue.", body = ProblemBody, content_type = "application/problem+json"),
        (status = "default", description = "It cannot be shown.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn show(
    State(shared): State<Arc<Shared>>,
    Path(EventTypePath { name }): Path<EventTypePath>,
) -> Result<Json<ShownEventType>, Problem> {
    let known = shared.api.registry.event_type(&name).await?;
    let known = known.ok_or_else(|| not_catalogued(&name))?;
    Ok(Json(known.into()))
}

/// Adds or replaces an event type.
#[utoipa::path(put, path = "/v1/event-types/{type}", tag = "event types",
    params(("type" = String, Path, description = "Its name.", example = "reward.unlocked")),
    request_body = EventTypeForm,
    responses(
        (status = OK, description = "It is in the catalogue.", body = ShownEventType),
        (status = "default", description = "It was not put.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn put(
    State(shared): State<Arc<Shared>>,
    Path(EventTypePath { name }): Path<EventTypePath>,
    Extension(Actor(actor)): Extension<Actor>,
    JsonBody(form): JsonBody<EventTypeForm>,
) -> Result<Json<ShownEventType>, Problem> {
    let new = NewEventType {
        name,
        description: form.description,
        schema: form.schema,
        sample: form.sample,
        enforced: form.enforced,
    };
    let now = shared.api.clock.now();
    let known = shared.api.registry.put_event_type(new, &actor, now).await?;
    shared.registry_changed();
    Ok(Json(known.into()))
}

/// Removes an event type. Events of this type are accepted as those of types that were never catalogued.
#[utoipa::path(delete, path = "/v1/event-types/{type}", tag = "event types",
    params(("type" = String, Path, description = "Its name.", example = "reward.unlocked")),
    responses(
        (status = NO_CONTENT, description = "It is removed."),
        (status = NOT_FOUND, description = "It is not in the catalogue.", body = ProblemBody, content_type = "application/problem+json"),
        (status = "default", description = "It was not removed.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn delete(
    State(shared): State<Arc<Shared>>,
    Path(EventTypePath { name }): Path<EventTypePath>,
    Extension(Actor(actor)): Extension<Actor>,
) -> Result<StatusCode, Problem> {
    let now = shared.api.clock.now();
    let registry = &shared.api.registry;
    if !registry.delete_event_type(&name, &actor, now).await? {
        return Err(not_catalogued(&name));
    }
    shared.registry_changed();
    Ok(StatusCode::NO_CONTENT)
}

fn not_catalogued(name: &EventType) -> Problem {
    let detail = format!("the catalogue has no event type `{name}`");
    Problem::new(Code::NoSuchEventType, &detail)
}
