//! Every mode of a CloudEvent, alone and in batches, from AMQP to the receiver.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::TcpStream,
};

use bytes::Bytes;
use fanfare_model::{AttributeValue, BodyFormat, Event, Timestamp, TraceContext};
use fanfare_registry::NewEndpoint;
use fanfare_testkit::{ReceivedRequest, Receiver, TestBroker, Version, wall_clock};
use fanfare_tests::{PATIENCE, Pipeline, on_each_rabbitmq};
use fanfare_wire::{
    Envelope, EventLimits, HeaderValue, decode_event, decode_structured_json, event_envelope,
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

type Encode = fn(&Event, &TraceContext, Timestamp) -> Envelope;

/// By name, and whether the types of extensions survive it over HTTP.
const MODES: [(&str, Encode, bool); 3] = [
    ("structured", event_envelope, true),
    ("protobuf", event_envelope_protobuf, true),
    ("binary", event_envelope_binary, false),
];

/// Data that only survive where they are handed on byte for byte: no JSON and no UTF-8, text that JSON escapes,
/// and JSON as nobody prints it.
const DATA: [(&str, &str, &[u8]); 3] = [
    ("octets", "application/octet-stream", b"\x00\xff\xfe{"),
    (
        "text",
        "text/plain; charset=utf-8",
        "gr\u{fc}\u{df}e \"\\\r\n\u{1}".as_bytes(),
    ),
    ("json", "application/json", br#"{"b" : 1.50,"a":[ ]}"#),
];

/// Each mode in, over AMQP and over HTTP, and CloudEvents in both modes out: attributes and extensions intact, data
/// byte for byte.
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
    let (trace, now) = (TraceContext::default(), wall_clock().now());
    let topology = broker.topology();
    let (url, key) = (pipeline.api("/v1/tenants/t/events"), pipeline.key().await);
    let (mut events, mut messages) = (BTreeMap::new(), Vec::new());
    for (mode, encode, types_are_kept) in MODES {
        for (kind, media_type, data) in DATA {
            let event = whole(&format!("amqp-{mode}-{kind}"), media_type, data);
            let address = topology.event_address(&event.tenant, &event.event_type);
            messages.push((address, encode(&event, &trace, now)));
            events.insert(event.id.clone(), event);

            let event = whole(&format!("http-{mode}-{kind}"), media_type, data);
            let status = post(&url, key.expose(), &encode(&event, &trace, now));
            assert_eq!(status, 202, "{}", event.id);
            let event = if types_are_kept {
                event
            } else {
                as_text(event)
            };
            events.insert(event.id.clone(), event);
        }
    }
    let settings = broker.settings();
    let published = fanfare_broker::publish_plainly(&settings, messages).await;
    published.unwrap();
    for request in receiver.expect_requests(events.len() * 2, PATIENCE).await {
        let (arrived, types_are_kept) = if request.path == "/structured" {
            (read_structured(&request), true)
        } else {
            (read_binary(&request), false)
        };
        let expected = events[&arrived.id].clone();
        let expected = if types_are_kept {
            expected
        } else {
            as_text(expected)
        };
        assert_eq!(arrived, expected, "{}", request.path);
    }
    pipeline.stop().await;
    assert_eq!(receiver.count(), events.len() * 2);
}

/// The same after it was in headers of HTTP, which are text alone.
fn as_text(mut event: Event) -> Event {
    for value in event.extensions.values_mut() {
        *value = AttributeValue::Text(value.as_text().into_owned());
    }
    event
}

/// Publishes a message as it would be over HTTP, and returns the status of the answer.
fn post(url: &str, key: &str, message: &Envelope) -> u16 {
    let (host, path) = url
        .strip_prefix("http://")
        .unwrap()
        .split_once('/')
        .unwrap();
    let media_type = message.properties.content_type.as_deref().unwrap();
    let mut head = format!(
        "POST /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\nauthorization: Bearer {key}\r\n\
         content-type: {media_type}\r\ncontent-length: {}\r\n",
        message.body.len()
    );
    for (name, value) in message.headers.iter() {
        let Some(attribute) = name.strip_prefix("cloudEvents_") else {
            continue;
        };
        let text = match value {
            HeaderValue::Text(text) => text.clone(),
            HeaderValue::Integer(number) => number.to_string(),
            HeaderValue::Boolean(flag) => flag.to_string(),
            HeaderValue::Bytes(_) | HeaderValue::Timestamp(_) | HeaderValue::Other => {
                panic!("`{name}` is no attribute")
            }
        };
        head.push_str(&format!("ce-{attribute}: {}\r\n", escaped(&text)));
    }
    let mut stream = TcpStream::connect(host).expect("the API listens");
    let request = [head.as_bytes(), b"\r\n", &message.body].concat();
    stream.write_all(&request).expect("it reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("it answers");
    let status = String::from_utf8_lossy(&answer[9..12]).into_owned();
    status.parse().expect("a status")
}

/// Space, quotes, the percent sign and all that is not visible ASCII (HTTP binding, section 3.1.3.2).
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'%';
    let written = |byte: u8| match byte {
        byte if plain(byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(written).collect()
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
