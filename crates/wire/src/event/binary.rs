//! Binary mode: the attributes as headers, the data as body.
//!
//! CloudEvents binds to AMQP 1.0 alone; RabbitMQ keeps its application properties as headers, and
//! producers of AMQP 0-9-1 set the same names.

use fanfare_model::{AttributeValue, Event, Timestamp};

use super::{EventDefaults, attributes::Attributes, rejection::EventRejection, rules};
use crate::{Envelope, HeaderValue, Headers};

/// What attributes are prefixed with; the first is how we write them (CloudEvents AMQP binding, "AMQP Application Property Names").
const PREFIXES: [&str; 2] = ["cloudEvents_", "cloudEvents:"];

/// Whether there is an attribute among the headers.
pub(super) fn has_attributes(headers: &Headers) -> bool {
    headers
        .iter()
        .any(|(name, _)| attribute_name(name).is_some())
}

/// Reads an event. The data shares the body's bytes.
pub(super) fn decode(
    envelope: &Envelope,
    defaults: EventDefaults<'_>,
) -> Result<Event, EventRejection> {
    let mut attributes = Attributes::default();
    for (header, value) in envelope.headers.iter() {
        let Some(name) = attribute_name(header) else {
            continue;
        };
        if name == "datacontenttype" {
            let expected = "set as the `content_type` property of the message";
            return Err(EventRejection::invalid(name, expected));
        }
        attributes.insert(name, attribute_value(name, value)?)?;
    }
    if let Some(content_type) = &envelope.properties.content_type {
        let value = AttributeValue::Text(content_type.clone());
        attributes.insert("datacontenttype", value)?;
    }
    let data = Some(envelope.body.clone()).filter(|body| !body.is_empty());
    let event = attributes.into_event(data, defaults)?;
    rules::check_event(&event)?;
    Ok(event)
}

/// The attributes of an event as headers. Its media type is a property, not a header.
pub(super) fn headers(event: &Event) -> Headers {
    let texts = [
        ("specversion", Some("1.0")),
        ("id", Some(&*event.id)),
        ("source", Some(&*event.source)),
        ("type", Some(event.event_type.as_str())),
        ("tenant", Some(event.tenant.as_str())),
        ("subject", event.subject.as_deref()),
        ("time", event.time.as_ref().map(|time| time.as_str())),
        ("dataschema", event.data_schema.as_deref()),
    ];
    let texts = texts
        .into_iter()
        .filter_map(|(name, text)| Some((name, HeaderValue::from(text?))));
    let extensions = event.extensions.iter().map(|(name, value)| {
        let value = match value {
            AttributeValue::Boolean(value) => HeaderValue::Boolean(*value),
            AttributeValue::Integer(value) => HeaderValue::Integer((*value).into()),
            AttributeValue::Text(value) => HeaderValue::Text(value.clone()),
            AttributeValue::Binary(value) => HeaderValue::Bytes(value.clone()),
        };
        (name.as_str(), value)
    });
    texts
        .chain(extensions)
        .map(|(name, value)| (format!("{}{name}", PREFIXES[0]).into(), value))
        .collect()
}

fn attribute_name(header: &str) -> Option<&str> {
    PREFIXES
        .iter()
        .find_map(|prefix| header.strip_prefix(prefix))
}

fn attribute_value(name: &str, value: &HeaderValue) -> Result<AttributeValue, EventRejection> {
    let value = match value {
        HeaderValue::Text(text) => Some(AttributeValue::Text(text.clone())),
        HeaderValue::Bytes(bytes) => Some(AttributeValue::Binary(bytes.clone())),
        HeaderValue::Integer(number) => i32::try_from(*number).ok().map(AttributeValue::Integer),
        HeaderValue::Boolean(value) => Some(AttributeValue::Boolean(*value)),
        HeaderValue::Timestamp(second) => Timestamp::from_second(*second)
            .ok()
            .map(|moment| AttributeValue::Text(moment.to_string())),
        HeaderValue::Other => None,
    };
    let expected = "a string, a boolean, a 32-bit integer, a timestamp or bytes";
    value.ok_or_else(|| EventRejection::invalid(name, expected))
}
