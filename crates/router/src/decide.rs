//! Decides who is owed an event. Pure.

use std::{sync::Arc, time::Duration};

use fanfare_model::{Delivery, Event, EventView, Jitter, Timestamp, TraceContext};
use fanfare_registry::Snapshot;

/// The deliveries that an event leads to: one for each endpoint of its tenant that wants its type
/// and its content. The data is parsed at most once, and only when a filter looks at it.
///
/// Events of Fanfare itself are owed to endpoints that name their type, not to those that want `*`.
/// Paused and disabled endpoints are owed it as well; what becomes of their deliveries is the
/// dispatcher's decision, made when their turn comes.
pub(crate) fn deliveries(
    event: &Arc<Event>,
    trace: &TraceContext,
    snapshot: &Snapshot,
    now: Timestamp,
) -> Vec<Delivery> {
    // Whoever asked for everything asked for the tenant's events, not for news about its own endpoint.
    let unasked = event.is_operational();
    let content = EventView::new(event);
    snapshot
        .matching(&event.tenant, &event.event_type)
        .filter(|endpoint| !unasked || endpoint.names(&event.event_type))
        .filter(|endpoint| endpoint.wants_content(&content))
        .map(|endpoint| {
            let event = Arc::clone(event);
            let version = snapshot.version();
            let delivery = Delivery::new(event, endpoint.id, version, trace.clone(), now);
            match endpoint
                .schedule
                .wait_after(0, Duration::ZERO, Jitter::NONE)
            {
                Some(first) if delivery.wait.is_none() && !first.is_zero() => {
                    delivery.waiting(now + first, now)
                }
                Some(_) | None => delivery,
            }
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use fanfare_model::{AttributeValue, DisabledReason, Endpoint, EndpointId, EndpointState};
    use proptest::{
        collection::{btree_map, vec},
        prelude::*,
    };
    use serde_json::Value;
    use uuid::Uuid;

    use super::*;

    pub(crate) fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    pub(crate) fn endpoint(
        number: u128,
        tenant: &str,
        pattern: &str,
        state: EndpointState,
    ) -> Endpoint {
        Endpoint {
            event_types: [pattern.parse().unwrap()].into(),
            state,
            ..Endpoint::for_tests(number, tenant, "https://example.com/")
        }
    }

    fn snapshot() -> Snapshot {
        let disabled = EndpointState::Disabled {
            reason: DisabledReason::Requested,
            since: at(0),
        };
        let endpoints = vec![
            endpoint(1, "t", "reward.*", EndpointState::Active),
            endpoint(2, "t", "*", EndpointState::Paused),
            endpoint(3, "t", "reward.unlocked", disabled),
            endpoint(4, "t", "subscriber.deleted", EndpointState::Active),
            endpoint(5, "u", "*", EndpointState::Active),
        ];
        Snapshot::new(7, endpoints)
    }

    fn owed(event: Event) -> Vec<Delivery> {
        let trace = TraceContext::default();
        let mut owed = deliveries(&Arc::new(event), &trace, &snapshot(), at(100));
        owed.sort_by_key(|delivery| delivery.endpoint);
        owed
    }

    fn check(tenant: &str, event_type: &str, expected: &[u128]) {
        let event = Event::for_tests(tenant, "s", "1", event_type, b"{}");
        let ids = owed(event).into_iter().map(|delivery| delivery.endpoint);
        let expected = expected
            .iter()
            .map(|n| EndpointId::from_uuid(Uuid::from_u128(*n)));
        assert!(ids.eq(expected), "{tenant} {event_type}");
    }

    #[test]
    fn an_event_is_owed_to_every_endpoint_of_its_tenant_that_wants_it() {
        check("t", "reward.unlocked", &[1, 2, 3]);
        check("t", "reward.sent", &[1, 2]);
        check("t", "subscriber.deleted", &[2, 4]);
        check("u", "reward.unlocked", &[5]);
        check("v", "reward.unlocked", &[]);
    }

    #[test]
    fn an_event_of_fanfare_itself_is_owed_to_endpoints_that_name_its_type() {
        for (event_type, expected) in [("reward.unlocked", &[1, 3][..]), ("endpoint.disabled", &[])]
        {
            let source = Event::OPERATIONAL_SOURCE;
            let event = Event::for_tests("t", source, "1", event_type, b"{}");
            let ids: Vec<_> = owed(event)
                .iter()
                .map(|delivery| delivery.endpoint)
                .collect();
            let expected = expected
                .iter()
                .map(|n| EndpointId::from_uuid(Uuid::from_u128(*n)));
            assert_eq!(ids, expected.collect::<Vec<_>>(), "{event_type}");
        }
    }

    /// A filter, and by hand what it says of an event's data.
    type Judged = (&'static str, fn(&Value) -> bool);

    /// Filters of which each is decided by one member of the data or by an attribute.
    const FILTERS: [Judged; 5] = [
        (r#"{"data": {"a": [1, "x"]}}"#, |data| {
            data["a"] == 1 || data["a"] == "x"
        }),
        (r#"{"data": {"b": [{"exists": false}]}}"#, |data| {
            data.get("b").is_none()
        }),
        (
            r#"{"$or": [{"data": {"a": [2]}}, {"data": {"b": [2]}}]}"#,
            |data| data["a"] == 2 || data["b"] == 2,
        ),
        (
            r#"{"id": ["1"], "data": {"b": [{"anything-but": 1}]}}"#,
            |data| data.get("b").is_some_and(|b| b != 1),
        ),
        (r#"{"id": ["2"]}"#, |_| false),
    ];

    proptest! {
        #[test]
        fn an_event_is_owed_to_whom_the_naive_match_finds(
            filters in vec((0..FILTERS.len() + 1, any::<bool>()), 0..12),
            data in btree_map("[ab]", prop_oneof![
                (0..4).prop_map(Value::from),
                Just(Value::from("x")),
            ], 0..3),
        ) {
            let data: Value = data.into_iter().collect();
            let endpoints: Vec<_> = filters.iter().enumerate().map(|(n, (filter, typed))| {
                let pattern = if *typed { "a" } else { "b" };
                let state = EndpointState::Active;
                let mut endpoint = endpoint(n as u128 + 1, "t", pattern, state);
                let filter = FILTERS.get(*filter).map(|(text, _)| text.parse().unwrap());
                endpoint.filter = filter;
                endpoint
            }).collect();
            let naive: Vec<_> = filters.iter().zip(&endpoints)
                .filter(|((_, typed), _)| *typed)
                .filter(|((filter, _), _)| FILTERS.get(*filter).is_none_or(|(_, wants)| wants(&data)))
                .map(|(_, endpoint)| endpoint.id)
                .collect();

            let event = Event::for_tests("t", "s", "1", "a", data.to_string().as_bytes());
            let snapshot = Snapshot::new(1, endpoints);
            let trace = TraceContext::default();
            let owed = deliveries(&Arc::new(event), &trace, &snapshot, at(0));
            let mut owed: Vec<_> = owed.iter().map(|delivery| delivery.endpoint).collect();
            owed.sort();
            prop_assert_eq!(owed, naive);
        }
    }

    #[test]
    fn a_delivery_knows_its_registry_version_and_when_it_may_go() {
        let mut event = Event::for_tests("u", "s", "1", "a", b"{}");
        for (name, second) in [("deliverafter", 200), ("deliverbefore", 300)] {
            let text = AttributeValue::Text(at(second).to_string());
            event.extensions.insert(name.to_owned(), text);
        }
        let owed = owed(event);
        let wait = owed[0].wait.unwrap();
        assert_eq!(owed[0].registry_version, 7);
        assert_eq!((wait.since, wait.until), (at(100), at(200)));
        assert_eq!(owed[0].deadline, Some(at(300)));
    }
}
