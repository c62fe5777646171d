//! Arbitrary events, deliveries and dead letters, as properties need them.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use fanfare_model::{
    AttributeValue, DeadLetter, Delivery, DeliveryId, EndpointId, Event, EventTime, Failure,
    FailureHistory, Timestamp, TraceContext, Wait,
};
use fanfare_wire::{HeaderValue, Headers};
use proptest::{collection, option, prelude::*, sample};

/// Any moment that Fanfare's own messages can carry.
pub(crate) fn moment() -> impl Strategy<Value = Timestamp> {
    let range = Timestamp::MIN.as_microsecond() + 1..=Timestamp::MAX.as_microsecond();
    range.prop_map(|us| Timestamp::from_microsecond(us).expect("in range"))
}

pub(crate) fn trace() -> impl Strategy<Value = TraceContext> {
    let traceparent = "00-[1-9a-f][0-9a-f]{31}-[1-9a-f][0-9a-f]{15}-0[01]";
    (option::of(traceparent), option::of("[ -~]{0,40}"))
        .prop_map(|(parent, state)| TraceContext::from_headers(parent.as_deref(), state.as_deref()))
}

/// An event that would be accepted. Its data is never empty, its JSON never in white space.
pub(crate) fn event() -> impl Strategy<Value = Event> {
    let identity = (
        "[A-Za-z0-9_-]{1,20}",
        "\\PC{1,40}",
        "\\PC{1,40}",
        "[a-zA-Z0-9:/_-]{1,9}(\\.[a-z]{1,9}){0,3}",
    );
    let described = (
        option::of("\\PC{1,20}"),
        option::of(moment()),
        option::of("\\PC{1,20}"),
        collection::btree_map("x[a-z0-9]{0,10}", attribute_value(), 0..4),
    );
    (identity, described, content()).prop_map(
        |((tenant, source, id, event_type), (subject, time, schema, extensions), content)| {
            let (data_content_type, data) = content;
            let time: Option<EventTime> =
                time.map(|time| time.to_string().parse().expect("a timestamp"));
            Event {
                tenant: tenant.parse().expect("a tenant"),
                source,
                id,
                event_type: event_type.parse().expect("a type"),
                subject,
                time,
                data_content_type,
                data_schema: schema,
                extensions,
                data,
            }
        },
    )
}

fn attribute_value() -> impl Strategy<Value = AttributeValue> {
    prop_oneof![
        any::<bool>().prop_map(AttributeValue::Boolean),
        any::<i32>().prop_map(AttributeValue::Integer),
        "\\PC{0,20}".prop_map(AttributeValue::Text),
        collection::vec(any::<u8>(), 0..20).prop_map(|bytes| AttributeValue::Binary(bytes.into())),
    ]
}

/// A media type and data that fits it.
fn content() -> impl Strategy<Value = (Option<String>, Option<Bytes>)> {
    let json_type = option::of(sample::select(vec![
        "application/json".to_owned(),
        "application/vnd.x+json; charset=utf-8".to_owned(),
    ]));
    let json = (json_type, option::of(json())).prop_map(|(kind, data)| (kind, data));
    let text = "\\PC{1,40}".prop_map(|text| (Some("text/plain".into()), Some(text.into())));
    let binary = collection::vec(any::<u8>(), 1..40)
        .prop_map(|bytes| (Some("application/octet-stream".into()), Some(bytes.into())));
    prop_oneof![json, text, binary]
}

/// JSON as people write it, with the white space and the number forms that a parser would lose.
fn json() -> impl Strategy<Value = Bytes> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("1.0e5".to_owned()),
        Just("\"\\u00e4 \\\" \"".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        "[a-z ]{0,8}".prop_map(|text| format!("\"{text}\"")),
    ];
    let value = leaf.prop_recursive(3, 12, 4, |inner| {
        let items = collection::vec(inner.clone(), 0..4);
        let members = collection::vec(inner, 0..4);
        prop_oneof![
            items.prop_map(|items| format!("[ {} ]", items.join(" ,\n"))),
            members.prop_map(|members| {
                let members: Vec<_> = members.iter().map(|v| format!("\"k\" : {v}")).collect();
                format!("{{{}}}", members.join(", "))
            }),
        ]
    });
    value.prop_map(Bytes::from)
}

fn failures() -> impl Strategy<Value = FailureHistory> {
    let class = sample::select(vec![
        "dns",
        "connect",
        "tls",
        "timeout",
        "token",
        "status_3xx",
        "status_4xx",
        "status_429",
        "status_5xx",
        "blocked",
        "gone",
        "expired",
        "exhausted",
        "disabled",
        "template",
        "crashed",
    ]);
    let last = (class, option::of(any::<u16>()), "\\PC{0,40}");
    (moment(), moment(), last).prop_map(|(first_at, last_at, (class, status, error))| {
        FailureHistory {
            first_at,
            last_at,
            last: Failure {
                class: class.parse().expect("a class"),
                status,
                error,
            },
        }
    })
}

/// Any delivery of this event.
pub(crate) fn delivery_of(event: Arc<Event>) -> impl Strategy<Value = Delivery> {
    let ids = (any::<[u8; 16]>(), any::<[u8; 16]>());
    let numbers = (any::<u64>(), any::<u32>(), any::<u32>());
    let moments = (
        moment(),
        option::of((moment(), moment())),
        option::of(moment()),
        option::of(moment()),
    );
    (ids, numbers, moments, option::of(failures()), trace()).prop_map(
        move |((id, endpoint), numbers, moments, failures, trace)| {
            let (registry_version, failed_attempts, replay) = numbers;
            let (first_seen, wait, deadline, last_start) = moments;
            Delivery {
                id: DeliveryId::from_bytes(id),
                endpoint: EndpointId::from_bytes(endpoint),
                event: Arc::clone(&event),
                registry_version,
                first_seen,
                failed_attempts,
                replay,
                wait: wait.map(|(since, until)| Wait { since, until }),
                deadline,
                last_start,
                failures,
                trace,
            }
        },
    )
}

/// One to six deliveries of one to three events.
pub(crate) fn deliveries() -> impl Strategy<Value = Vec<Delivery>> {
    collection::vec(event().prop_map(Arc::new), 1..4).prop_flat_map(|events| {
        let delivery = sample::select(events).prop_flat_map(delivery_of);
        collection::vec(delivery, 1..7)
    })
}

pub(crate) fn dead_letter() -> impl Strategy<Value = DeadLetter> {
    let reason = sample::select(vec![
        "exhausted",
        "refused",
        "gone",
        "blocked",
        "expired",
        "disabled",
        "template",
        "crashed",
    ]);
    let delivery = event().prop_map(Arc::new).prop_flat_map(delivery_of);
    (delivery, reason, moment()).prop_map(|(delivery, reason, since)| DeadLetter {
        delivery,
        reason: reason.parse().expect("a reason"),
        since,
    })
}

/// Any bytes, or text near to what a decoder expects.
pub(crate) fn body() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from),
        "[\\[\\]{}\":,a-z0-9\\\\ ]{0,60}".prop_map(Bytes::from),
    ]
}

/// Any headers, many with names that decoders look for.
pub(crate) fn headers() -> impl Strategy<Value = Headers> {
    let name = prop_oneof![
        "(cloudEvents[_:])?(specversion|id|source|type|tenant|time|deliverafter|subject|data)",
        "\\PC{0,20}",
        Just("x-fanfare-record".to_owned()),
        Just("traceparent".to_owned()),
        Just("x-death".to_owned()),
    ];
    let value = prop_oneof![
        "\\PC{0,20}".prop_map(HeaderValue::Text),
        Just(HeaderValue::Text("1.0".to_owned())),
        collection::vec(any::<u8>(), 0..40).prop_map(|bytes| HeaderValue::Bytes(bytes.into())),
        any::<i64>().prop_map(HeaderValue::Integer),
        any::<bool>().prop_map(HeaderValue::Boolean),
        any::<i64>().prop_map(HeaderValue::Timestamp),
        Just(HeaderValue::Other),
    ];
    collection::vec((name.prop_map(Into::into), value), 0..8).prop_map(Headers::from_iter)
}

/// The extensions as a form without types keeps them: bytes become text.
pub(crate) fn without_binary(extensions: &mut BTreeMap<String, AttributeValue>) {
    for value in extensions.values_mut() {
        if let AttributeValue::Binary(_) = value {
            *value = AttributeValue::Text(value.as_text().into_owned());
        }
    }
}
