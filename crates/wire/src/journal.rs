//! The journal: batches of what was routed, attempted and settled, on their way to the history.

use std::sync::Arc;

use bytes::Bytes;
use fanfare_model::{
    ActedDelivery, AttemptRecord, DeliveryAction, DeliveryId, DeliveryState, EndpointId, EventKey,
    HandledDelivery, JournalBatch, JournalEntry, JournalWriterId, OwedDelivery, RoutedEvent,
    Timestamp,
};
use prost::Message as _;

use crate::{
    DecodeFault, Envelope, Headers, Properties,
    conversion::{
        VERSION, bounded_error, check_size, event_from_proto, event_to_proto, invalid, moment,
        optional_moment, sixteen,
    },
    proto::{self, acted_delivery::Action, handled_delivery::State, journal_entry::Entry},
};

const MESSAGE_TYPE: &str = "fanfare.journal.v1";
const CONTENT_TYPE: &str = "application/vnd.fanfare.journal+protobuf";

/// The message that carries a batch. Moments travel in whole microseconds, error texts up to 500 characters.
pub fn encode_journal_batch(batch: &JournalBatch) -> Envelope {
    let body = proto::JournalBatch {
        version: VERSION,
        writer: batch.writer.name.clone(),
        epoch: batch.writer.epoch,
        sequence: batch.sequence,
        written_at: batch.written_at.as_microsecond(),
        dropped: batch.dropped,
        is_last: batch.is_last,
        entries: batch.entries.iter().map(entry_to_proto).collect(),
    };
    let id = format!("journal-{}-{}", batch.writer.epoch, batch.sequence);
    let now = batch.written_at;
    Envelope {
        properties: Properties::ours(id.clone(), id, MESSAGE_TYPE, CONTENT_TYPE, now),
        headers: Headers::default(),
        body: body.encode_to_vec().into(),
    }
}

/// The batch in a message. Entries of kinds that this program does not know are left out.
pub fn decode_journal_batch(envelope: &Envelope) -> Result<JournalBatch, DecodeFault> {
    check_size(envelope.body.len())?;
    let body = Bytes::clone(&envelope.body);
    let batch = proto::JournalBatch::decode(body).map_err(|source| DecodeFault::Malformed {
        what: "journal batch",
        source,
    })?;
    if batch.version != VERSION {
        return Err(DecodeFault::UnknownVersion {
            what: "journal batch",
            version: batch.version,
        });
    }
    let entries = batch.entries.into_iter().filter_map(|entry| entry.entry);
    Ok(JournalBatch {
        writer: JournalWriterId {
            name: batch.writer,
            epoch: batch.epoch,
        },
        sequence: batch.sequence,
        written_at: moment("written_at", batch.written_at)?,
        dropped: batch.dropped,
        is_last: batch.is_last,
        entries: entries
            .filter_map(|entry| entry_from_proto(entry).transpose())
            .collect::<Result<_, _>>()?,
    })
}

fn entry_to_proto(entry: &JournalEntry) -> proto::JournalEntry {
    let entry = match entry {
        JournalEntry::Routed(routed) => Entry::Routed(proto::RoutedEvent {
            event: Some(proto::Event {
                data: routed.event.data.clone(),
                ..event_to_proto(&routed.event)
            }),
            data_left_out: routed.data_left_out,
            at: routed.at.as_microsecond(),
            trace_id: routed.trace_id.clone(),
            owed: routed.owed.iter().map(owed_to_proto).collect(),
        }),
        JournalEntry::Handled(handled) => Entry::Handled(handled_to_proto(handled)),
        JournalEntry::Acted(acted) => Entry::Acted(proto::ActedDelivery {
            name: Some(name_to_proto(acted.delivery, acted.endpoint, &acted.event)),
            replay: acted.replay,
            at: acted.at.as_microsecond(),
            action: match acted.action {
                DeliveryAction::Replayed => Action::Replayed,
                DeliveryAction::Discarded => Action::Discarded,
            }
            .into(),
            actor: acted.actor.clone(),
            operation: acted.operation.clone(),
        }),
    };
    proto::JournalEntry { entry: Some(entry) }
}

/// `None` for what a newer version may say that is not understood here.
fn entry_from_proto(entry: Entry) -> Result<Option<JournalEntry>, DecodeFault> {
    Ok(match entry {
        Entry::Routed(routed) => Some(JournalEntry::Routed(routed_from_proto(routed)?)),
        Entry::Handled(handled) => handled_from_proto(handled)?.map(JournalEntry::Handled),
        Entry::Acted(acted) => acted_from_proto(acted)?.map(JournalEntry::Acted),
    })
}

fn owed_to_proto(owed: &OwedDelivery) -> proto::OwedDelivery {
    proto::OwedDelivery {
        id: Bytes::copy_from_slice(owed.id.as_bytes()),
        endpoint: Bytes::copy_from_slice(owed.endpoint.as_bytes()),
        not_before: owed.not_before.map(Timestamp::as_microsecond),
        is_untold: !owed.is_told,
    }
}

fn routed_from_proto(routed: proto::RoutedEvent) -> Result<RoutedEvent, DecodeFault> {
    let event = routed.event.ok_or(DecodeFault::Missing { name: "event" })?;
    let owed = routed.owed.into_iter().map(|owed| {
        Ok(OwedDelivery {
            id: DeliveryId::from_bytes(sixteen("owed.id", &owed.id)?),
            endpoint: EndpointId::from_bytes(sixteen("owed.endpoint", &owed.endpoint)?),
            not_before: optional_moment("owed.not_before", owed.not_before)?,
            is_told: !owed.is_untold,
        })
    });
    Ok(RoutedEvent {
        event: Arc::new(event_from_proto(event)?),
        data_left_out: routed.data_left_out,
        at: moment("at", routed.at)?,
        trace_id: routed.trace_id,
        owed: owed.collect::<Result<_, DecodeFault>>()?,
    })
}

fn name_to_proto(
    delivery: DeliveryId,
    endpoint: EndpointId,
    event: &EventKey,
) -> proto::DeliveryName {
    proto::DeliveryName {
        id: Bytes::copy_from_slice(delivery.as_bytes()),
        endpoint: Bytes::copy_from_slice(endpoint.as_bytes()),
        tenant: event.tenant.as_str().to_owned(),
        source: event.source.clone(),
        event_id: event.id.clone(),
        event_type: event.event_type.as_str().to_owned(),
    }
}

fn name_from_proto(
    name: Option<proto::DeliveryName>,
) -> Result<(DeliveryId, EndpointId, EventKey), DecodeFault> {
    let name = name.ok_or(DecodeFault::Missing { name: "name" })?;
    let tenant = name.tenant.parse();
    let event_type = name.event_type.parse();
    let event = EventKey {
        tenant: tenant.map_err(|_| invalid("tenant", "a tenant's id"))?,
        source: name.source,
        id: name.event_id,
        event_type: event_type.map_err(|_| invalid("event_type", "an event type"))?,
    };
    let id = DeliveryId::from_bytes(sixteen("name.id", &name.id)?);
    let endpoint = EndpointId::from_bytes(sixteen("name.endpoint", &name.endpoint)?);
    Ok((id, endpoint, event))
}

fn handled_to_proto(handled: &HandledDelivery) -> proto::HandledDelivery {
    let attempt = handled.attempt.as_ref().map(|attempt| proto::Attempt {
        number: attempt.number,
        started_at: attempt.started_at.as_microsecond(),
        took_micros: attempt.took_micros,
        status: attempt.status.map(u32::from),
        failure: attempt
            .failure
            .map_or_else(String::new, |class| class.name().to_owned()),
        error: bounded_error(&attempt.error),
    });
    proto::HandledDelivery {
        name: Some(name_to_proto(
            handled.delivery,
            handled.endpoint,
            &handled.event,
        )),
        replay: handled.replay,
        at: handled.at.as_microsecond(),
        attempt,
        failed_attempts: handled.failed_attempts,
        state: match handled.state {
            DeliveryState::Retrying { at } => Some(State::RetryingAt(at.as_microsecond())),
            DeliveryState::Delivered => Some(State::Delivered(true)),
            DeliveryState::DeadLettered { reason } => {
                Some(State::DeadLettered(reason.name().to_owned()))
            }
            DeliveryState::Discarded => Some(State::Discarded(true)),
            // Nobody who handled a delivery says so.
            DeliveryState::Owed | DeliveryState::Unknown => None,
        },
    }
}

fn handled_from_proto(
    handled: proto::HandledDelivery,
) -> Result<Option<HandledDelivery>, DecodeFault> {
    let Some(state) = handled.state else {
        return Ok(None);
    };
    let (delivery, endpoint, event) = name_from_proto(handled.name)?;
    let state = match state {
        State::RetryingAt(at) => DeliveryState::Retrying {
            at: moment("retrying_at", at)?,
        },
        State::Delivered(_) => DeliveryState::Delivered,
        State::DeadLettered(reason) => DeliveryState::DeadLettered {
            reason: reason
                .parse()
                .map_err(|_| invalid("dead_lettered", "a dead-letter reason"))?,
        },
        State::Discarded(_) => DeliveryState::Discarded,
    };
    Ok(Some(HandledDelivery {
        delivery,
        endpoint,
        event,
        replay: handled.replay,
        at: moment("at", handled.at)?,
        attempt: handled.attempt.map(attempt_from_proto).transpose()?,
        failed_attempts: handled.failed_attempts,
        state,
    }))
}

fn attempt_from_proto(attempt: proto::Attempt) -> Result<AttemptRecord, DecodeFault> {
    let failure = match attempt.failure.as_str() {
        "" => None,
        class => Some(
            class
                .parse()
                .map_err(|_| invalid("attempt.failure", "a class of failure"))?,
        ),
    };
    let status = attempt.status.map(u16::try_from).transpose();
    Ok(AttemptRecord {
        number: attempt.number,
        started_at: moment("attempt.started_at", attempt.started_at)?,
        took_micros: attempt.took_micros,
        status: status.map_err(|_| invalid("attempt.status", "a status code"))?,
        failure,
        error: attempt.error,
    })
}

fn acted_from_proto(acted: proto::ActedDelivery) -> Result<Option<ActedDelivery>, DecodeFault> {
    let action = match acted.action() {
        Action::Replayed => DeliveryAction::Replayed,
        Action::Discarded => DeliveryAction::Discarded,
        Action::Unspecified => return Ok(None),
    };
    let (delivery, endpoint, event) = name_from_proto(acted.name)?;
    Ok(Some(ActedDelivery {
        delivery,
        endpoint,
        event,
        replay: acted.replay,
        at: moment("at", acted.at)?,
        action,
        actor: acted.actor,
        operation: acted.operation,
    }))
}
