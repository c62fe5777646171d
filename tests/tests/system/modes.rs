//! Every mode of a CloudEvent, alone and in batches, from AMQP to the receiver.

use std::collections::BTreeMap;

use bytes::Bytes;
use fanfare_model::{AttributeValue, BodyFormat, Event, Timestamp, TraceContext};
use fanfare_registry::NewEndpoint;
use fanfare_testkit::{ReceivedRequest, Receiver, TestBroker, Version, wall_clock};
use fanfare_tests::{PATIENCE, Pipeline, on_each_rabbitmq};
use fanfare_wire::{
    Envelope, EventLimits, decode_event, decode_structured_json, event_envelope,
    event_envelope_binary, event_envelope_protobuf,
};

use crate::delivery::event;

on_each_rabbitmq!(
    an_event_arrives_whole_whatever_mode_it_is_published_in,
    each_event_of_a_batch_arrives_or_is_kept_with_its_reason,
);

/// An event with every attribute and kind of extension that JSON keeps, and these data.
fn whole(id: &str, media_type: &str, data: &'static [u8]) -> Event {
    let text = |text: &str| AttributeValue::Text(text.to_owned());
    Event {
        subject: Some("a \u{20ac} 100%".to_owned()),
        time: Some("2026-11-23T16:04:05.5+01:00".parse().unwrap()),
        data_content_type: Some(media_type.to_owned()),
        data_schema: Some("https://example.com/schema".to_owned()),
        extensions: [
            ("flag".to_owned(), AttributeValue::Boolean(true)),
            ("number".to_owned(), AttributeValue::Integer(-7)),
            ("words".to_owned(), text("b \"\u{e4}\"")),
        ]
        .into(),
        data: Some(Bytes::from_static(data)),
        ..Event::for_tests("t", "/modes", id, "a.b", b"")
    }
}

/// Each mode in, and CloudEvents in both modes out: attributes and extensions intact, data byte for byte.
async fn an_event_arrives_whole_whatever_mode_it_is_published_in(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    for (path, format) in [
        ("/structured", BodyFormat::CloudEventsStructured),
        ("/binary", BodyFormat::CloudEventsBinary),
    ] {
        let url = receiver.url(path);
        let adjust = |new: &mut NewEndpoint| new.format = format;
        pipeline.register("t", &url, &["*"], adjust).await;
    }
    // No JSON and no UTF-8, so that only what is handed on byte for byte survives; and JSON as nobody prints it.
    let octets = ("application/octet-stream", &b"\x00\xff\xfe{"[..]);
    let json = ("application/json", &br#"{"b" : 1.50,"a":[ ]}"#[..]);
    type Encode = fn(&Event, &TraceContext, Timestamp) -> Envelope;
    let modes: [(&str, Encode); 3] = [
        ("s", event_envelope),
        ("p", event_envelope_protobuf),
        ("b", event_envelope_binary),
    ];
    let (trace, now) = (TraceContext::default(), wall_clock().now());
    let topology = broker.topology();
    let (mut events, mut messages) = (BTreeMap::new(), Vec::new());
    for (mode, encode) in modes {
        for (kind, (media_type, data)) in [("octets", octets), ("json", json)] {
            let event = whole(&format!("{mode}-{kind}"), media_type, data);
            let address = topology.event_address(&event.tenant, &event.event_type);
            messages.push((address, encode(&event, &trace, now)));
            events.insert(event.id.clone(), event);
        }
    }
    let settings = broker.settings();
    let published = fanfare_broker::publish_plainly(&settings, messages).await;
    published.unwrap();
    for request in receiver.expect_requests(12, PATIENCE).await {
        let (arrived, types_are_kept) = if request.path == "/structured" {
            (read_structured(&request), true)
        } else {
            (read_binary(&request), false)
        };
        let mut expected = events[&arrived.id].clone();
        if !types_are_kept {
            // Headers of HTTP are text alone.
            for value in expected.extensions.values_mut() {
                *value = AttributeValue::Text(value.as_text().into_owned());
            }
        }
        assert_eq!(arrived, expected, "{}", request.path);
    }
    pipeline.stop().await;
}

fn read_structured(request: &ReceivedRequest) -> Event {
    let media_type = request.header("content-type");
    assert!(media_type.starts_with("application/cloudevents+json"));
    decode_structured_json(&request.body, None, &EventLimits::default()).unwrap()
}

/// As the API would take it in: the attributes in headers `ce-…`, percent-encoded.
fn read_binary(request: &ReceivedRequest) -> Event {
    let mut message = Envelope {
        body: request.body.clone(),
        ..Envelope::default()
    };
    message.properties.content_type = Some(request.header("content-type").to_owned());
    for (name, value) in &request.headers {
        if let Some(attribute) = name.as_str().strip_prefix("ce-") {
            let text = unescaped(value.to_str().unwrap());
            message
                .headers
                .insert(format!("cloudEvents_{attribute}"), text);
        }
    }
    let decoded = decode_event(&message, None, &EventLimits::default());
    decoded.unwrap().event
}

fn unescaped(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}

async fn each_event_of_a_batch_arrives_or_is_kept_with_its_reason(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    let url = receiver.url("/a");
    pipeline.register("t", &url, &["*"], |_| {}).await;
    let amqp = pipeline.plain_amqp().await;
    let publish = async |body: String| {
        let address = ("fanfare.events", "t.batch");
        let content_type = "application/cloudevents-batch+json";
        amqp.publish(address, content_type, &[], body.as_bytes())
            .await;
    };
    let other_tenant = event("3", "a").replace(r#""tenant":"t""#, r#""tenant":"u""#);
    let good = [event("1", "a"), event("2", "a")];
    let batch = [&good[0], r#"{"id":"9"}"#, &other_tenant, &good[1]];
    publish(format!("[{}]", batch.join(","))).await;
    publish("[]".to_owned()).await;
    publish("{}".to_owned()).await;

    receiver.expect_requests(2, PATIENCE).await;
    pipeline.expect_depth("fanfare.rejected", 3).await;
    pipeline.expect_depth("fanfare.events", 0).await;
    let mut kept = BTreeMap::new();
    while let Some(message) = amqp.get("fanfare.rejected").await {
        let reason = message.headers["x-fanfare-reason"].clone();
        kept.insert(reason, message);
    }
    for (reason, body, names) in [
        ("missing_attribute", r#"{"id":"9"}"#, "event 1 of the batch"),
        ("tenant_mismatch", &other_tenant, "event 2 of the batch"),
        ("malformed_json", "{}", "not a JSON array"),
    ] {
        let message = &kept[reason];
        assert_eq!(message.body, body.as_bytes(), "{reason}");
        let detail = &message.headers["x-fanfare-detail"];
        assert!(detail.contains(names), "{detail}");
    }
    assert_eq!(receiver.count(), 2, "each event arrived once");
    pipeline.stop().await;
}
