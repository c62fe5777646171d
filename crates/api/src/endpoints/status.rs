//! What state an endpoint is in, and why: as the registry, its dispatcher and the history know it.

use std::sync::Arc;

use axum::{Json, extract::State};
use fanfare_journal::{AttemptEntry, AttemptFilter, History, HistoryFault, OutcomeFilter, Page};
use fanfare_model::{DisabledReason, Endpoint, EndpointState, Rate, Timestamp};
use fanfare_registry::{AuditEntry, AuditPage, Registry, RegistryFault};
use fanfare_wire::{Circuit, EndpointStanding};
use serde::Serialize;
use utoipa::ToSchema;

use super::no_such_endpoint;
use crate::{
    Announcer,
    extract::{EndpointPath, Path},
    history::ShownAttempt,
    problem::{Problem, ProblemBody},
    run::Shared,
};

/// How many failures are shown.
const LAST_FAILURES: u32 = 5;

/// What state an endpoint is in, and why.
#[derive(Default, Serialize, ToSchema)]
pub struct EndpointStatus {
    /// `active`, `paused` or `disabled`.
    state: &'static str,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// Who made it so: `cli`, the id of an API key, or `dispatcher`.
    by: Option<String>,
    /// Why it is disabled: `requested`, `gone` or `failing`; null when it is not.
    #[schema(value_type = Option<String>)]
    reason: Option<DisabledReason>,
    /// The dispatcher that calls it; null when none answered. Then what only it knows is null as well.
    dispatcher: Option<String>,
    /// `closed` when requests go, `open` when none do because the receiver looks down, `half_open` when one is
    /// to show whether it is back; `unknown` when no dispatcher answered.
    circuit: &'static str,
    /// Since when the circuit is open.
    #[schema(value_type = Option<String>, format = DateTime)]
    circuit_open_since: Option<Timestamp>,
    /// When it lets the next request through.
    #[schema(value_type = Option<String>, format = DateTime)]
    circuit_open_until: Option<Timestamp>,
    /// Until when the receiver asked to be left alone, by `Retry-After`.
    #[schema(value_type = Option<String>, format = DateTime)]
    held_back_until: Option<Timestamp>,
    /// How fast it may be called; unlimited when null.
    #[schema(value_type = Option<String>)]
    rate: Option<Rate>,
    /// Until when deliveries that wait for the rate, or for a place in flight, have their turn.
    #[schema(value_type = Option<String>, format = DateTime)]
    queued_until: Option<Timestamp>,
    /// Requests under way.
    in_flight: Option<usize>,
    /// How many of them there may be at present: fewer than `max_in_flight` when requests time out.
    at_most_in_flight: Option<u16>,
    /// How many attempts in a row failed, as far as its dispatcher remembers.
    failed_in_a_row: Option<u32>,
    /// When the first of them did.
    #[schema(value_type = Option<String>, format = DateTime)]
    failing_since: Option<Timestamp>,
    /// The last success that was recorded.
    last_success: Option<ShownAttempt>,
    /// The last failures that were recorded, newest first; null when the history did not answer.
    last_failures: Option<Vec<ShownAttempt>>,
}

/// Asks the registry, the dispatcher and the history. Only the registry has to answer.
pub async fn endpoint_status(
    registry: &Registry,
    history: &History,
    announcer: Option<&Announcer>,
    endpoint: &Endpoint,
) -> Result<EndpointStatus, RegistryFault> {
    let standing = async { announcer?.standing_of(endpoint.id).await };
    let recorded = async |outcome, limit| attempts(history, endpoint, outcome, limit).await;
    let (made, standing, success, failures) = tokio::join!(
        made_so(registry, endpoint),
        standing,
        recorded(OutcomeFilter::Succeeded, 1),
        recorded(OutcomeFilter::Failed, LAST_FAILURES),
    );
    let shown = |found: Vec<AttemptEntry>| found.into_iter().map(ShownAttempt::from).collect();
    Ok(EndpointStatus {
        last_success: success
            .ok()
            .and_then(|found| found.into_iter().next())
            .map(Into::into),
        last_failures: failures.ok().map(shown),
        ..known(endpoint, made?, standing)
    })
}

/// The entry of the audit log about what the state is.
async fn made_so(
    registry: &Registry,
    endpoint: &Endpoint,
) -> Result<Option<AuditEntry>, RegistryFault> {
    for action in ["endpoint.set_state", "endpoint.create"] {
        let page = AuditPage {
            action: Some(action.to_owned()),
            subject: Some(endpoint.id.to_string()),
            ..AuditPage::latest(1)
        };
        if let Some(entry) = registry.audit(&page).await?.into_iter().next() {
            return Ok(Some(entry));
        }
    }
    Ok(None)
}

async fn attempts(
    history: &History,
    endpoint: &Endpoint,
    outcome: OutcomeFilter,
    limit: u32,
) -> Result<Vec<AttemptEntry>, HistoryFault> {
    let filter = AttemptFilter {
        tenant: Some(endpoint.tenant.clone()),
        endpoint: Some(endpoint.id),
        outcome: Some(outcome),
        ..AttemptFilter::default()
    };
    let after = None;
    history.attempts(&filter, Page { after, limit }).await
}

/// What the registry and the dispatcher know.
fn known(
    endpoint: &Endpoint,
    made: Option<AuditEntry>,
    standing: Option<EndpointStanding>,
) -> EndpointStatus {
    let (reason, since) = match &endpoint.state {
        EndpointState::Disabled { reason, since } => (Some(*reason), Some(*since)),
        EndpointState::Active | EndpointState::Paused => (None, None),
    };
    let made_at = made.as_ref().map(|entry| entry.at);
    let status = EndpointStatus {
        state: endpoint.state.name(),
        since: since.or(made_at).unwrap_or(endpoint.created_at),
        by: made.map(|entry| entry.actor),
        reason,
        rate: endpoint.rate,
        circuit: "unknown",
        ..EndpointStatus::default()
    };
    let Some(standing) = standing else {
        return status;
    };
    let status = EndpointStatus {
        dispatcher: Some(standing.dispatcher),
        circuit: "closed",
        queued_until: standing.queued_until,
        in_flight: Some(standing.in_flight),
        at_most_in_flight: standing.at_most,
        failed_in_a_row: Some(0),
        ..status
    };
    // What was learned before the last change means nothing any more.
    let receiver = standing.receiver;
    let Some(receiver) = receiver.filter(|known| known.as_of == endpoint.updated_at) else {
        return status;
    };
    EndpointStatus {
        circuit: match receiver.circuit {
            Circuit::Closed => "closed",
            Circuit::Open => "open",
            Circuit::HalfOpen => "half_open",
        },
        circuit_open_since: receiver.open_since,
        circuit_open_until: receiver.open_until,
        held_back_until: receiver.held_back_until,
        failed_in_a_row: Some(receiver.failed),
        failing_since: receiver.failing_since,
        ..status
    }
}

/// Shows what state an endpoint is in, and why.
///
/// The circuit, the holding back and what is in flight are known by the dispatcher that calls it, which is
/// asked; it has two seconds to answer. Attempts come from the history, which may be a little behind.
#[utoipa::path(get, path = "/v1/tenants/{tenant}/endpoints/{endpoint}/status", tag = "endpoints",
    params(
        ("tenant" = String, Path, description = "The owner.", example = "MF4c1b7e20"),
        ("endpoint" = String, Path, description = "Its id.", example = "ep_019ac0ffee007000800000000000002a"),
    ),
    responses(
        (status = OK, description = "How it stands.", body = EndpointStatus),
        (status = NOT_FOUND, description = "The tenant has no such endpoint.", body = ProblemBody, content_type = "application/problem+json"),
        (status = "default", description = "It cannot be shown.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub(crate) async fn status(
    State(shared): State<Arc<Shared>>,
    Path(path): Path<EndpointPath>,
) -> Result<Json<EndpointStatus>, Problem> {
    let EndpointPath {
        tenant,
        endpoint: id,
    } = path;
    let api = &shared.api;
    let endpoint = api.registry.endpoint(&tenant, id).await?;
    let endpoint = endpoint.ok_or_else(|| no_such_endpoint(&tenant, id))?;
    let announcer = Some(&api.announcer);
    let status = endpoint_status(&api.registry, &api.history, announcer, &endpoint);
    Ok(Json(status.await?))
}

#[cfg(test)]
mod tests {
    use fanfare_wire::ReceiverStanding;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn standing(as_of: Timestamp) -> EndpointStanding {
        EndpointStanding {
            endpoint: Endpoint::for_tests(1, "t", "https://example.com/").id,
            dispatcher: "a".to_owned(),
            receiver: Some(ReceiverStanding {
                as_of,
                circuit: Circuit::Open,
                open_since: Some(at(1)),
                open_until: Some(at(6)),
                held_back_until: Some(at(9)),
                failed: 8,
                failing_since: Some(at(0)),
            }),
            in_flight: 1,
            at_most: Some(4),
            queued_until: None,
        }
    }

    #[test]
    fn what_no_dispatcher_tells_or_was_before_the_last_change_is_not_shown() {
        let endpoint = Endpoint::for_tests(1, "t", "https://example.com/");
        let before = at(-1);
        for (standing, circuit, failed, held_back) in [
            (None, "unknown", None, None),
            (Some(standing(before)), "closed", Some(0), None),
            (
                Some(standing(endpoint.updated_at)),
                "open",
                Some(8),
                Some(at(9)),
            ),
        ] {
            let status = known(&endpoint, None, standing);
            let told = (
                status.circuit,
                status.failed_in_a_row,
                status.held_back_until,
            );
            assert_eq!(told, (circuit, failed, held_back));
            assert_eq!(
                (status.state, status.since),
                ("active", endpoint.created_at)
            );
        }
    }
}
