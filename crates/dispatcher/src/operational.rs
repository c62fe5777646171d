//! The events that Fanfare itself publishes about a tenant's endpoints.
//!
//! The id of each is derived from what it tells, so that a repeat is recognisable.

use fanfare_model::{
    DeadLetterReason, Delivery, DisabledReason, Endpoint, EndpointId, Event, TenantId, Timestamp,
};
use serde_json::{Value, json};

/// The endpoint was disabled by Fanfare.
pub(crate) fn disabled(
    tenant: &TenantId,
    endpoint: EndpointId,
    reason: DisabledReason,
    since: Timestamp,
) -> Event {
    let id = format!("{endpoint}-disabled-{}", since.as_microsecond());
    let data = json!({ "endpoint": endpoint, "reason": reason, "since": since });
    event(tenant, endpoint, "endpoint.disabled", id, since, &data)
}

/// The endpoint's receiver is back, after its circuit had been open since then.
pub(crate) fn recovered(endpoint: &Endpoint, since: Timestamp, now: Timestamp) -> Event {
    let id = format!("{}-recovered-{}", endpoint.id, since.as_microsecond());
    let data =
        json!({ "endpoint": endpoint.id, "reason": "circuit_closed", "unavailable_since": since });
    event(
        &endpoint.tenant,
        endpoint.id,
        "endpoint.recovered",
        id,
        now,
        &data,
    )
}

/// The delivery was given up on. `None` for deliveries of these very events: one would lead to the next.
pub(crate) fn dead_lettered(
    delivery: &Delivery,
    reason: DeadLetterReason,
    now: Timestamp,
) -> Option<Event> {
    if delivery.event.is_operational() {
        return None;
    }
    let id = format!("{}-dead-lettered-{}", delivery.id, delivery.replay);
    let about = &delivery.event;
    let last = delivery.failures.as_ref().map(|past| &past.last);
    let data = json!({
        "endpoint": delivery.endpoint,
        "reason": reason.name(),
        "delivery": delivery.id.to_string(),
        "attempts": delivery.failed_attempts,
        "last_status": last.and_then(|failure| failure.status),
        "event": { "source": about.source, "id": about.id, "type": about.event_type },
    });
    let (tenant, endpoint) = (&about.tenant, delivery.endpoint);
    let event_type = "delivery.dead_lettered";
    Some(event(tenant, endpoint, event_type, id, now, &data))
}

fn event(
    tenant: &TenantId,
    endpoint: EndpointId,
    event_type: &str,
    id: String,
    now: Timestamp,
    data: &Value,
) -> Event {
    Event {
        tenant: tenant.clone(),
        source: Event::OPERATIONAL_SOURCE.to_owned(),
        id,
        event_type: event_type.parse().expect("the types here are types"),
        subject: Some(endpoint.to_string()),
        time: Some(now.to_string().parse().expect("a printed timestamp parses")),
        data_content_type: Some("application/json".to_owned()),
        data_schema: None,
        extensions: std::collections::BTreeMap::new(),
        data: Some(data.to_string().into()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use fanfare_wire::check_event;

    use super::*;
    use crate::samples::{at, delivery, endpoint};

    #[test]
    fn every_event_is_acceptable_and_a_repeat_has_the_same_id() {
        let endpoint = endpoint("https://example.com/");
        let (tenant, id) = (&endpoint.tenant, endpoint.id);
        let owed = |source| delivery(Event::for_tests("t", source, "1", "a", b"{}"));
        let (first, replayed) = (
            owed("s"),
            Delivery {
                replay: 1,
                ..owed("s")
            },
        );
        let tell = |now| {
            [
                disabled(tenant, id, DisabledReason::Gone, at(5)),
                disabled(tenant, id, DisabledReason::Gone, at(6)),
                recovered(&endpoint, at(5), at(now)),
                recovered(&endpoint, at(6), at(now)),
                dead_lettered(&first, DeadLetterReason::Gone, at(now)).unwrap(),
                dead_lettered(&replayed, DeadLetterReason::Gone, at(now)).unwrap(),
            ]
        };
        let mut ids = HashSet::new();
        for event in tell(7).iter().chain(&tell(8)) {
            assert_eq!(check_event(event), Ok(()), "{event:?}");
            assert!(event.is_operational());
            assert_eq!(event.subject, Some(id.to_string()));
            let data: Value = serde_json::from_slice(event.data.as_ref().unwrap()).unwrap();
            assert_eq!(data["endpoint"], id.to_string());
            assert!(data["reason"].is_string(), "{data}");
            ids.insert(event.id.clone());
        }
        assert_eq!(ids.len(), 6);
    }

    #[test]
    fn a_dead_letter_of_an_operational_event_makes_no_further_event() {
        let event = Event::for_tests("t", Event::OPERATIONAL_SOURCE, "1", "a", b"{}");
        let told = dead_lettered(&delivery(event), DeadLetterReason::Gone, at(7));
        assert_eq!(told, None);
    }
}
