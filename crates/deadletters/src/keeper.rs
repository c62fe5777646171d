//! Carries out what is asked for, whoever asked, and asks for what the rules say.
//!
//! Every process with the role `api` has a keeper. Only one passes over a queue at a time, and a request
//! by a rule has a key, so that however many keepers there are, it is made once.

use std::{collections::HashSet, time::Duration};

use fanfare_broker::{Inbox, Message, Place};
use fanfare_model::{EndpointId, EndpointState, TenantId};
use fanfare_registry::Snapshots;
use fanfare_wire::{Envelope, EventLimits, decode_event};
use jiff::SignedDuration;
use serde::Deserialize;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{DeadLettersFault, Desk, Request, Seen, rules};

/// How often it is looked whether something was asked for.
const LOOKING: Duration = Duration::from_secs(2);

/// How long a keeper waits after a fault.
const AFTER_FAULT: Duration = Duration::from_secs(10);

/// How often old dead letters are looked for, if they are to be discarded.
const LOOKING_FOR_OLD: Duration = Duration::from_secs(600);

/// By how many seconds an index is behind that no rule relies on. Journals show signs of life every 30 seconds.
const FAR_BEHIND: i64 = 90;

/// Carries out operations and rules until `shutdown`. A lost broker or store is waited for.
pub async fn keep(desk: Desk, snapshots: Snapshots, shutdown: CancellationToken) {
    tokio::join!(
        carry_out(&desk, &shutdown),
        follow_recoveries(&desk, &shutdown),
        follow_states(&desk, &snapshots, &shutdown),
        discard_old(&desk, &shutdown),
    );
}

async fn carry_out(desk: &Desk, shutdown: &CancellationToken) {
    let mut pause = LOOKING;
    while shutdown
        .run_until_cancelled(time::sleep(pause))
        .await
        .is_some()
    {
        pause = LOOKING;
        for place in Place::ALL {
            if let Err(fault) = desk.run(place, shutdown, &mut |_| {}).await {
                let error = &fault as &dyn std::error::Error;
                warn!(error, %place, "an operation was interrupted; it goes on later");
                pause = AFTER_FAULT;
            }
        }
    }
}

/// What `endpoint.recovered` says.
#[derive(Deserialize)]
struct Recovered {
    endpoint: EndpointId,
}

/// Hears that receivers answer again.
async fn follow_recoveries(desk: &Desk, shutdown: &CancellationToken) {
    if !desk.settings.replay_on_recovery {
        return;
    }
    let mut inbox: Inbox = desk.broker.recoveries();
    while let Some(message) = inbox.next_until(shutdown).await {
        let Message {
            envelope,
            routing_key,
            receipt,
            ..
        } = message;
        if let Some((tenant, endpoint, occasion)) = recovery(&envelope, &routing_key) {
            let why = "its receiver answers again";
            ask(desk, rules::on_recovery(&tenant, endpoint, why, &occasion)).await;
        }
        receipt.settle();
    }
    inbox.close().await;
}

/// Whose receiver answers again, and what names this occasion.
fn recovery(envelope: &Envelope, routing_key: &str) -> Option<(TenantId, EndpointId, String)> {
    let event = decode_event(envelope, Some(routing_key), &EventLimits::default())
        .ok()?
        .event;
    if !event.is_operational() {
        return None;
    }
    let recovered: Recovered = serde_json::from_slice(event.data.as_deref()?).ok()?;
    Some((event.tenant, recovered.endpoint, event.id))
}

/// Notices that a disabled endpoint was enabled.
async fn follow_states(desk: &Desk, snapshots: &Snapshots, shutdown: &CancellationToken) {
    if !desk.settings.replay_on_recovery {
        return;
    }
    let mut disabled: HashSet<EndpointId> = HashSet::new();
    let mut seen = None;
    while shutdown
        .run_until_cancelled(time::sleep(LOOKING))
        .await
        .is_some()
    {
        let Some(snapshot) = snapshots.current() else {
            continue;
        };
        if seen == Some(snapshot.version()) {
            continue;
        }
        seen = Some(snapshot.version());
        let mut enabled: Vec<(TenantId, EndpointId)> = Vec::new();
        let mut still = HashSet::new();
        for endpoint in snapshot.endpoints() {
            match endpoint.state {
                EndpointState::Disabled { .. } => _ = still.insert(endpoint.id),
                EndpointState::Active if disabled.contains(&endpoint.id) => {
                    enabled.push((endpoint.tenant.clone(), endpoint.id));
                }
                EndpointState::Active | EndpointState::Paused => {}
            }
        }
        disabled = still;
        for (tenant, endpoint) in enabled {
            let occasion = format!("v{}", snapshot.version());
            let request = rules::on_recovery(&tenant, endpoint, "it was enabled", &occasion);
            ask(desk, request).await;
        }
    }
}

/// Discards what rests for too long.
async fn discard_old(desk: &Desk, shutdown: &CancellationToken) {
    let days = desk.settings.discard_after_days;
    let mut next = Instant::now();
    while days > 0
        && shutdown
            .run_until_cancelled(time::sleep_until(next))
            .await
            .is_some()
    {
        next = Instant::now() + LOOKING_FOR_OLD;
        if let Some(request) = rules::discard_after(days, desk.clock.now()) {
            ask(desk, request).await;
        }
    }
}

/// How many messages a request is for: by the index, unless that is far behind.
async fn count(desk: &Desk, request: &Request) -> Result<u64, DeadLettersFault> {
    let (place, filter) = (request.place, &request.filter);
    let counted = desk.view().count(place, filter).await?;
    let is_behind = match counted.seen {
        Seen::Index { as_of, .. } => {
            desk.clock.now().duration_since(as_of) > SignedDuration::from_secs(FAR_BEHIND)
        }
        Seen::Queue { .. } => false,
    };
    if is_behind {
        return Ok(desk
            .view()
            .past_the_index()
            .count(place, filter)
            .await?
            .found);
    }
    Ok(counted.found)
}

/// Asks for what a rule says, if there is anything that it is for.
async fn ask(desk: &Desk, request: Request) {
    let asked = async {
        let expected = count(desk, &request).await?;
        if expected == 0 {
            return Ok(None);
        }
        let asked = desk.request(request, expected, rules::ACTOR).await?;
        Ok::<_, DeadLettersFault>(Some(asked.operation))
    };
    match asked.await {
        Ok(Some(operation)) => info!(
            operation = %operation.id, expected = operation.request.expected,
            why = operation.request.why, "a rule asked for an operation on dead letters"
        ),
        Ok(None) => {}
        Err(fault) => {
            let error = &fault as &dyn std::error::Error;
            warn!(error, "a rule about dead letters could not be followed");
        }
    }
}
