//! Tries an endpoint out: sends it the sample of an event type once, and tells all about it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{Json, extract::State};
use fanfare_egress::{Egress, Said, ask_for_permission, try_out};
use fanfare_model::{Delivery, Endpoint, EventType, Outcome, TargetUrl, Timestamp, TraceContext};
use fanfare_registry::{Registry, RegistryFault};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::no_such_endpoint;
use crate::{
    extract::{EndpointPath, OptionalJsonBody, Path},
    problem::{Problem, ProblemBody},
    run::Shared,
};

/// What to try an endpoint out with.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = EndpointTrial, example = json!({"type": "reward_unlocked"}))]
pub(crate) struct TrialForm {
    /// The type of the event: one that the endpoint wants and that a sample is known of when absent.
    #[serde(rename = "type")]
    #[schema(value_type = Option<String>)]
    event_type: Option<EventType>,
    /// The data of the event: the sample of its type when absent.
    #[schema(value_type = Option<Object>)]
    data: Option<Value>,
}

/// What was sent to an endpoint to try it out, and what came of it.
#[derive(Serialize, ToSchema)]
pub struct TriedOut {
    /// `succeeded`, or the class of the failure.
    outcome: &'static str,
    /// A sentence for people; null when it succeeded.
    error: Option<String>,
    /// The status, if the receiver answered.
    status: Option<u16>,
    /// How many milliseconds it took.
    took_ms: f64,
    /// Why the receiver does not agree to be called, if it is asked and does not.
    not_allowed: Option<String>,
    /// The type of the event.
    #[serde(rename = "type")]
    event_type: String,
    /// What the receiver saw as `webhook-id`.
    delivery: String,
    /// Where the request went.
    #[schema(value_type = String, format = "uri")]
    url: TargetUrl,
    /// What was sent; null when no request could be built.
    request: Option<ShownSaid>,
    /// What was answered; null when nothing was.
    response: Option<ShownSaid>,
}

impl TriedOut {
    /// Whether the receiver accepted it.
    pub fn succeeded(&self) -> bool {
        self.error.is_none() && self.not_allowed.is_none()
    }
}

/// Headers, and a body or its beginning.
#[derive(Serialize, ToSchema)]
struct ShownSaid {
    /// Without those of the connection; what is secret is `[redacted]`.
    headers: BTreeMap<String, String>,
    /// At most 16 KiB of it, as text.
    body: String,
    /// Whether there was more of it.
    is_cut: bool,
}

impl From<Said> for ShownSaid {
    fn from(said: Said) -> Self {
        let mut headers = BTreeMap::new();
        for (name, value) in said.headers {
            let known: &mut String = headers.entry(name).or_default();
            let separator = if known.is_empty() { "" } else { ", " };
            *known = format!("{known}{separator}{value}");
        }
        Self {
            headers,
            body: String::from_utf8_lossy(&said.body).into_owned(),
            is_cut: said.is_cut,
        }
    }
}

/// Sends an endpoint an event once, as an attempt would, and waits at most `longest`.
///
/// It is no delivery: nothing is recorded, retried or counted, and the state of the endpoint does not matter.
pub async fn try_endpoint(
    registry: &Registry,
    egress: &Egress,
    endpoint: &Endpoint,
    (event_type, data): (Option<EventType>, Option<Vec<u8>>),
    longest: Duration,
    now: Timestamp,
) -> Result<TriedOut, RegistryFault> {
    let event = registry
        .sample_event(endpoint, event_type, data, now)
        .await?;
    let event_type = event.event_type.to_string();
    let trace = TraceContext::default();
    let delivery = Delivery::new(Arc::new(event), endpoint.id, 0, trace, now);
    let timeout = endpoint.timeout.min(longest);
    let (trial, allowed) = tokio::join!(
        try_out(egress, endpoint, &delivery, now, timeout),
        ask_for_permission(egress, endpoint, timeout),
    );
    let failure = trial.outcome.failure(&endpoint.success);
    Ok(TriedOut {
        outcome: failure
            .as_ref()
            .map_or("succeeded", |failure| failure.class.name()),
        error: failure.map(|failure| failure.error),
        status: match trial.outcome {
            Outcome::Answered { status, .. } => Some(status),
            Outcome::TimedOut
            | Outcome::NameNotResolved { .. }
            | Outcome::NotConnected { .. }
            | Outcome::TlsFailed { .. }
            | Outcome::NoToken { .. }
            | Outcome::Blocked { .. }
            | Outcome::Unbuildable { .. } => None,
        },
        took_ms: trial.took.as_secs_f64() * 1000.0,
        not_allowed: allowed.err().map(|refused| refused.to_string()),
        event_type,
        delivery: delivery.id.to_string(),
        url: endpoint.url.clone(),
        request: trial.request.map(ShownSaid::from),
        response: trial.response.map(ShownSaid::from),
    })
}

/// Sends an endpoint the sample of an event type, and tells what came of it.
///
/// The request is exactly that of a delivery. It counts for nothing: not for the circuit, the rate, the
/// history, or disabling; and it is sent also while the endpoint is paused or disabled. It takes no longer
/// than two thirds of the time that a request to this API may take.
#[utoipa::path(post, path = "/v1/tenants/{tenant}/endpoints/{endpoint}/test", tag = "endpoints",
    params(
        ("tenant" = String, Path, description = "The owner.", example = "MF4c1b7e20"),
        ("endpoint" = String, Path, description = "Its id.", example = "ep_019ac0ffee007000800000000000002a"),
    ),
    request_body = Option<TrialForm>,
    responses(
        (status = OK, description = "It was tried out, whatever came of it.", body = TriedOut),
        (status = NOT_FOUND, description = "The tenant has no such endpoint.", body = ProblemBody, content_type = "application/problem+json"),
        (status = "default", description = "It was not tried out.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn test(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<EndpointPath>,
    OptionalJsonBody(form): OptionalJsonBody<TrialForm>,
) -> Result<Json<TriedOut>, Problem> {
    let EndpointPath {
        tenant,
        endpoint: id,
    } = path;
    let api = &shared.api;
    let endpoint = api.registry.endpoint(&tenant, id).await?;
    let endpoint = endpoint.ok_or_else(|| no_such_endpoint(&tenant, id))?;
    let data = form.data.map(|data| data.to_string().into_bytes());
    let (what, longest) = ((form.event_type, data), api.settings.trial_within());
    let now = api.clock.now();
    let tried = try_endpoint(&api.registry, &api.egress, &endpoint, what, longest, now);
    Ok(Json(tried.await?))
}
