//! Tries filters and templates with an event that is published nowhere.

use axum::Json;
use bytes::Bytes;
use fanfare_model::{Event, EventView, Filter, PayloadTemplate, TenantId, Timestamp};
use fanfare_wire::{EventLimits, decode_structured_json};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;
use utoipa::ToSchema;

use crate::{
    extract::JsonBody,
    problem::{Code, Problem, ProblemBody},
};

/// A filter, and an event to hold against it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "filter": {"data": {"currency": ["EUR"]}},
    "event": {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.paid", "data": {"currency": "USD"}},
}))]
pub(crate) struct FilterTrial {
    /// The filter, as an endpoint would have it.
    #[schema(value_type = Object)]
    filter: Filter,
    /// A CloudEvent. `tenant` may be left out.
    #[schema(value_type = Object)]
    event: Value,
}

/// Whether an event matches a filter, and why not.
#[derive(Serialize, ToSchema)]
pub(crate) struct FilterVerdict {
    /// Whether it matches.
    matches: bool,
    /// The first place that differs; null when it matches.
    mismatch: Option<ShownMismatch>,
}

/// A place at which an event is not what a filter wants.
#[derive(Serialize, ToSchema)]
#[schema(as = Mismatch)]
struct ShownMismatch {
    /// The place, such as `$.data.currency`.
    #[schema(example = "$.data.currency")]
    at: String,
    /// What the event has there; null when it has nothing.
    found: Option<String>,
    /// What the filter has there.
    wanted: String,
}

/// Says whether an event matches a filter, and why not.
#[utoipa::path(post, path = "/v1/filters/test", tag = "endpoints",
    request_body = FilterTrial,
    responses(
        (status = OK, description = "Whether it matches.", body = FilterVerdict),
        (status = "default", description = "The filter or the event is not accepted.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn test_filter(
    JsonBody(trial): JsonBody<FilterTrial>,
) -> Result<Json<FilterVerdict>, Problem> {
    let event = event(&trial.event)?;
    let mismatch = trial.filter.mismatch(&EventView::new(&event));
    Ok(Json(FilterVerdict {
        matches: mismatch.is_none(),
        mismatch: mismatch.map(|one| ShownMismatch {
            at: one.at,
            found: one.found,
            wanted: one.wanted,
        }),
    }))
}

/// A template, and an event to render with it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "template": {"source": "{\"text\": \"Hello {{ data.name }}\"}"},
    "event": {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.paid", "data": {"name": "Ada"}},
}))]
pub(crate) struct TemplateTrial {
    /// The template, as an endpoint would have it.
    #[schema(value_type = Object)]
    template: PayloadTemplate,
    /// A CloudEvent. `tenant` may be left out.
    #[schema(value_type = Object)]
    event: Value,
}

/// What a template made of an event.
#[derive(Serialize, ToSchema)]
#[schema(as = Rendered)]
pub(crate) struct ShownRendering {
    /// The media type of the request.
    media_type: String,
    /// The body of the request.
    body: String,
}

/// Renders a template with an event.
#[utoipa::path(post, path = "/v1/templates/render", tag = "endpoints",
    request_body = TemplateTrial,
    responses(
        (status = OK, description = "The body that a request would have.", body = ShownRendering),
        (status = "default", description = "The template or the event is not accepted, or the template failed.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn render_template(
    JsonBody(trial): JsonBody<TemplateTrial>,
) -> Result<Json<ShownRendering>, Problem> {
    let event = event(&trial.event)?;
    let rendered = trial
        .template
        .render(&event, "example", Timestamp::UNIX_EPOCH)
        .map_err(|fault| Problem::at("template", Code::InvalidRequest, &fault.to_string()))?;
    Ok(Json(ShownRendering {
        media_type: rendered.media_type,
        body: String::from_utf8_lossy(&rendered.body).into_owned(),
    }))
}

fn event(written: &Value) -> Result<Arc<Event>, Problem> {
    let tenant: TenantId = "example".parse().expect("a word is a tenant's name");
    let body = Bytes::from(written.to_string());
    let event = decode_structured_json(&body, Some(&tenant), &EventLimits::default())?;
    Ok(Arc::new(event))
}
