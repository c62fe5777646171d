//! Protobuf mode: the whole event as one message (CloudEvents Protobuf Event Format 1.0.2).

use bytes::Bytes;
use fanfare_model::{AttributeValue, Event, Timestamp};
use prost::Message as _;

use super::{
    EventDefaults,
    attributes::Attributes,
    rejection::{EventRejection, RejectionCode},
    rules,
};
use crate::proto::cloudevents::{
    CloudEvent,
    cloud_event::{CloudEventAttributeValue, Data, cloud_event_attribute_value::Attr as WireValue},
};

/// The media type of data that is a protobuf message, unless the event names another.
const PROTOBUF_DATA: &str = "application/protobuf";

/// Reads an event. Binary data shares the body's bytes.
pub(super) fn decode(body: &Bytes, defaults: EventDefaults<'_>) -> Result<Event, EventRejection> {
    let message = CloudEvent::decode(body.clone()).map_err(|fault| {
        EventRejection::new(
            RejectionCode::MalformedProtobuf,
            None,
            format!("the body is not an `io.cloudevents.v1.CloudEvent`: {fault}"),
        )
    })?;
    let mut attributes = Attributes::default();
    for (name, value) in message.attributes {
        let value = attribute_value(&name, value)?;
        attributes.insert(&name, value)?;
    }
    for (name, text) in [
        ("specversion", message.spec_version),
        ("id", message.id),
        ("source", message.source),
        ("type", message.r#type),
    ] {
        // An empty string is what protobuf makes of an absent one.
        if !text.is_empty() {
            attributes.insert(name, AttributeValue::Text(text))?;
        }
    }
    let mut event = attributes.into_event(None, defaults)?;
    event.data = match message.data {
        None => None,
        Some(Data::BinaryData(data)) => Some(data),
        Some(Data::TextData(text)) => Some(text.into()),
        Some(Data::ProtoData(any)) => {
            let media_type = || PROTOBUF_DATA.to_owned();
            event.data_content_type.get_or_insert_with(media_type);
            if event.data_schema.is_none() && !any.type_url.is_empty() {
                event.data_schema = Some(any.type_url);
            }
            Some(any.value.into())
        }
    };
    rules::check_event(&event)?;
    Ok(event)
}

/// The event as a protobuf message. Its data goes byte for byte.
pub(super) fn encode(event: &Event) -> Bytes {
    let text = |text: &str| WireValue::CeString(text.to_owned());
    let context = [
        ("tenant", Some(text(event.tenant.as_str()))),
        ("subject", event.subject.as_deref().map(text)),
        // As text, because a timestamp in protobuf forgets how the producer wrote it.
        ("time", event.time.as_ref().map(|time| text(time.as_str()))),
        (
            "datacontenttype",
            event.data_content_type.as_deref().map(text),
        ),
        (
            "dataschema",
            event.data_schema.clone().map(WireValue::CeUri),
        ),
    ];
    let context = context
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    let extensions = event.extensions.iter().map(|(name, value)| {
        let value = match value {
            AttributeValue::Boolean(value) => WireValue::CeBoolean(*value),
            AttributeValue::Integer(value) => WireValue::CeInteger(*value),
            AttributeValue::Text(value) => text(value),
            AttributeValue::Binary(value) => WireValue::CeBytes(value.clone()),
        };
        (name.clone(), value)
    });
    let attributes = context.chain(extensions).map(|(name, value)| {
        let attr = Some(value);
        (name, CloudEventAttributeValue { attr })
    });
    let message = CloudEvent {
        id: event.id.clone(),
        source: event.source.clone(),
        spec_version: "1.0".to_owned(),
        r#type: event.event_type.as_str().to_owned(),
        attributes: attributes.collect(),
        data: event.data.clone().map(Data::BinaryData),
    };
    message.encode_to_vec().into()
}

fn attribute_value(
    name: &str,
    value: CloudEventAttributeValue,
) -> Result<AttributeValue, EventRejection> {
    match value.attr {
        Some(WireValue::CeBoolean(value)) => Ok(AttributeValue::Boolean(value)),
        Some(WireValue::CeInteger(value)) => Ok(AttributeValue::Integer(value)),
        Some(WireValue::CeString(value) | WireValue::CeUri(value) | WireValue::CeUriRef(value)) => {
            Ok(AttributeValue::Text(value))
        }
        Some(WireValue::CeBytes(value)) => Ok(AttributeValue::Binary(value)),
        Some(WireValue::CeTimestamp(value)) => moment(value.seconds, value.nanos)
            .map(|moment| AttributeValue::Text(moment.to_string()))
            .ok_or_else(|| {
                let expected = "a timestamp from year 1 to 9999, with 0 to 999999999 nanoseconds";
                EventRejection::invalid(name, expected)
            }),
        None => {
            let expected = "set to one of the kinds of value that attributes have";
            Err(EventRejection::invalid(name, expected))
        }
    }
}

fn moment(seconds: i64, nanos: i32) -> Option<Timestamp> {
    // A negative fraction would be another notation of the same moment, which protobuf does not have.
    let nanos = u32::try_from(nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000)?;
    Timestamp::new(seconds, nanos.cast_signed()).ok()
}
