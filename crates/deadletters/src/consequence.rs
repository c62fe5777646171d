//! What follows from dealing with a message: the messages to publish before it is acknowledged.
//!
//! Pure. The pass publishes them, waits for the confirms, and acknowledges.

use std::{fmt, str::FromStr};

use fanfare_broker::{Address, Held, Place, Topology};
use fanfare_model::{ActedDelivery, Delivery, DeliveryAction, EventKey, PartitionKey, Timestamp};
use fanfare_registry::Operation;
use fanfare_wire::{Envelope, decode_bundle, decode_dead_letter, encode_bundle, is_bundle};
use serde::{Deserialize, Serialize};

use crate::Entry;

/// What can be done with messages that rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Try dead letters again: with fresh attempts, under the same id, as the next replay.
    Replay,
    /// Publish again what was rejected, found no way or ended processes.
    Publish,
    /// Take it out for good, and remember what it was.
    Discard,
}

impl Action {
    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::Publish => "publish",
            Self::Discard => "discard",
        }
    }

    /// Whether messages of a place can be dealt with so.
    pub fn fits(self, place: Place) -> bool {
        match self {
            Self::Replay => place == Place::DeadLetters,
            Self::Publish => place != Place::DeadLetters,
            Self::Discard => true,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Action {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Replay, Self::Publish, Self::Discard]
            .into_iter()
            .find(|action| action.name() == text)
            .ok_or("accepted are `replay`, `publish` and `discard`")
    }
}

/// The messages to publish before `held` is acknowledged. `Err` says why it has to stay where it is.
pub(crate) fn consequence(
    action: Action,
    held: &Held,
    topology: &Topology,
    now: Timestamp,
) -> Result<Vec<(Address, Envelope)>, String> {
    match action {
        Action::Discard => Ok(Vec::new()),
        Action::Replay => {
            let letter = decode_dead_letter(&held.envelope).map_err(|fault| fault.to_string())?;
            Ok(vec![to_partition(
                letter.delivery.replayed(now),
                topology,
                now,
            )])
        }
        Action::Publish if is_bundle(&held.envelope) => {
            let deliveries = decode_bundle(&held.envelope).map_err(|fault| fault.to_string())?;
            // Singly, and by the partitions of today: their number may have changed while they rested.
            let again = deliveries.into_iter();
            Ok(again
                .map(|delivery| to_partition(delivery, topology, now))
                .collect())
        }
        Action::Publish => again(held, topology),
    }
}

/// What the journal is told of a dead letter that was dealt with; nothing of other messages.
pub(crate) fn told(
    action: Action,
    entry: &Entry,
    operation: &Operation,
    at: Timestamp,
) -> Option<ActedDelivery> {
    let (action, replay) = match action {
        Action::Replay => (DeliveryAction::Replayed, entry.replay.saturating_add(1)),
        Action::Discard => (DeliveryAction::Discarded, entry.replay),
        Action::Publish => return None,
    };
    Some(ActedDelivery {
        delivery: entry.delivery()?,
        endpoint: entry.endpoint.as_deref()?.parse().ok()?,
        event: EventKey {
            tenant: entry.tenant.as_deref()?.parse().ok()?,
            source: entry.event_source.clone()?,
            id: entry.event_id.clone()?,
            event_type: entry.event_type.as_deref()?.parse().ok()?,
        },
        replay,
        at,
        action,
        actor: operation.actor.clone(),
        operation: operation.id.to_string(),
    })
}

fn to_partition(delivery: Delivery, topology: &Topology, now: Timestamp) -> (Address, Envelope) {
    let address = topology.delivery_address(topology.partition_of(delivery.endpoint));
    (address, encode_bundle(&[delivery], now))
}

/// The message as its producer sent it, where its producer sent it.
fn again(held: &Held, topology: &Topology) -> Result<Vec<(Address, Envelope)>, String> {
    let mut envelope = held.envelope.clone();
    let noted = envelope.headers.text("x-fanfare-routing-key");
    let key = noted.map_or_else(|| held.routing_key.clone(), str::to_owned);
    let reason = envelope.headers.text("x-fanfare-reason");
    if reason == Some("unreadable_delivery") {
        let partition: PartitionKey = key.parse().map_err(str::to_owned)?;
        let known = topology.partitions().any(|known| known == partition);
        if !known {
            return Err(format!("there is no partition `{partition}` any more"));
        }
        tidy(&mut envelope);
        return Ok(vec![(topology.delivery_address(partition), envelope)]);
    }
    tidy(&mut envelope);
    Ok(vec![(topology.event_address_again(key), envelope)])
}

/// Removes what was noted about the message while it travelled.
pub(crate) fn tidy(envelope: &mut Envelope) {
    for prefix in [
        "x-fanfare-",
        "x-death",
        "x-first-death",
        "x-last-death",
        "x-delivery-count",
        "x-acquired-count",
    ] {
        envelope.headers.remove_prefix(prefix);
    }
}
