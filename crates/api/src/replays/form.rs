//! What requests to send something again look like in JSON, and what the operations look like that follow.

use fanfare_model::{EndpointId, EventTypePattern, Rate, TenantId, Timestamp};
use fanfare_registry::Operation;
use fanfare_replay::{Action, Checkpoint, Filter, Outcome, Request};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::problem::{Code, Problem};

/// The longest reason, in bytes.
const LONGEST_WHY: usize = 500;

/// What is to be replayed.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Replay, example = json!({
    "since": "2026-11-24T00:00:00Z", "types": ["reward.*"], "outcome": "missed", "why": "their proxy was down",
}))]
pub(crate) struct ReplayForm {
    /// Events that were routed then or later.
    #[schema(value_type = Option<String>)]
    since: Option<Timestamp>,
    /// Events that were routed before then; until now when absent.
    #[schema(value_type = Option<String>)]
    until: Option<Timestamp>,
    /// Events of these types or families of types; of all when absent.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    types: Vec<EventTypePattern>,
    /// `missed`: what the receiver does not have, as far as is known; `failed`: dead letters alone; `all`: also
    /// what it has.
    #[serde(default)]
    #[schema(value_type = String)]
    outcome: Outcome,
    /// How fast at most, such as `100/s`; the installation's pace when absent. The endpoint's rate holds besides.
    #[schema(value_type = Option<String>)]
    pace: Option<Rate>,
    /// Why, for those who read the audit log.
    why: String,
    /// Whether only to say how many deliveries it would be.
    #[serde(default)]
    dry_run: bool,
}

impl ReplayForm {
    pub(crate) fn read(
        self,
        tenant: TenantId,
        endpoint: EndpointId,
    ) -> Result<(Request, bool), Problem> {
        let filter = Filter {
            since: self.since,
            until: self.until,
            types: self.types,
            outcome: Some(self.outcome),
            ..Filter::to(tenant, endpoint)
        };
        let request = request(Action::Replay, filter, self.pace, self.why)?;
        Ok((request, self.dry_run))
    }
}

/// What a new endpoint is to have from the past.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Backfill, example = json!({"since": "2026-11-01T00:00:00Z", "why": "a new receiver"}))]
pub(crate) struct BackfillForm {
    /// Events that were routed then or later.
    #[schema(value_type = Option<String>)]
    since: Option<Timestamp>,
    /// Events that were routed before then; until now when absent.
    #[schema(value_type = Option<String>)]
    until: Option<Timestamp>,
    /// Of what the endpoint wants, events of these types or families of types; all when absent.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    types: Vec<EventTypePattern>,
    /// How fast at most, such as `100/s`; the installation's pace when absent. The endpoint's rate holds besides.
    #[schema(value_type = Option<String>)]
    pace: Option<Rate>,
    /// Why, for those who read the audit log.
    why: String,
    /// Whether only to say how many deliveries it would be.
    #[serde(default)]
    dry_run: bool,
}

impl BackfillForm {
    pub(crate) fn read(
        self,
        tenant: TenantId,
        endpoint: EndpointId,
    ) -> Result<(Request, bool), Problem> {
        let filter = Filter {
            since: self.since,
            until: self.until,
            types: self.types,
            ..Filter::to(tenant, endpoint)
        };
        let request = request(Action::Backfill, filter, self.pace, self.why)?;
        Ok((request, self.dry_run))
    }
}

/// Whom an event is to be sent to.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Resend, example = json!({"endpoint": "ep_019ac0ffee007000800000000000002a", "why": "they lost it"}))]
pub(crate) struct ResendForm {
    /// The endpoint.
    #[schema(value_type = String)]
    endpoint: EndpointId,
    /// The event's source, needed when several sources use its id.
    source: Option<String>,
    /// Why, for those who read the audit log.
    why: String,
}

impl ResendForm {
    pub(crate) fn read(self, tenant: TenantId, event: String) -> Result<Request, Problem> {
        let filter = Filter {
            source: self.source,
            event: Some(event),
            ..Filter::to(tenant, self.endpoint)
        };
        request(Action::Resend, filter, None, self.why)
    }
}

fn request(
    action: Action,
    filter: Filter,
    pace: Option<Rate>,
    why: String,
) -> Result<Request, Problem> {
    if why.trim().is_empty() || why.len() > LONGEST_WHY {
        let detail = format!("`why` must be a text of 1 to {LONGEST_WHY} bytes");
        return Err(Problem::at("why", Code::InvalidRequest, &detail));
    }
    Ok(Request {
        action,
        filter,
        pace,
        why,
    })
}

/// How many deliveries a request is for.
#[derive(Serialize, ToSchema)]
pub(crate) struct Counted {
    /// How many there are now, as far as is recorded.
    pub(crate) expected: u64,
}

/// Something that is being sent again, or was.
#[derive(Serialize, ToSchema)]
#[schema(as = ReplayOperation)]
pub(crate) struct ShownReplay {
    id: String,
    /// `replay`, `backfill` or `resend`.
    action: String,
    /// What it is for.
    #[schema(value_type = Object)]
    filter: Value,
    /// `pending`, `running`, `done` or `cancelled`.
    state: &'static str,
    /// How many deliveries it was for when it was asked for.
    expected: u64,
    /// How many were sent.
    sent: u64,
    /// How many could not be sent, because the history does not have their data.
    left_out: u64,
    /// How fast at most, if the request said so.
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

impl ShownReplay {
    pub(crate) fn id(&self) -> String {
        self.id.clone()
    }
}

impl From<Operation> for ShownReplay {
    fn from(operation: Operation) -> Self {
        let left_out = Checkpoint::of(&operation).left_out;
        let request = operation.request;
        Self {
            id: operation.id.to_string(),
            action: request.action,
            filter: request.filter,
            state: operation.state.name(),
            expected: request.expected,
            sent: operation.resolved,
            left_out,
            pace: Some(request.pace).filter(|pace| !pace.is_empty()),
            actor: operation.actor,
            why: request.why,
            requested_at: operation.requested_at,
            changed_at: operation.changed_at,
        }
    }
}
