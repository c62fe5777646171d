//! Between our envelope and AMQP's properties and headers.

use bytes::Bytes;
use fanfare_model::Timestamp;
use fanfare_wire::{Envelope, HeaderValue, Headers, Properties};
use lapin::{
    BasicProperties,
    types::{AMQPValue, ByteArray, FieldTable, LongString, ShortString},
};

use crate::PublishFault;

/// Delivery mode 2: on disk before it is confirmed.
const PERSISTENT: u8 = 2;

pub(crate) fn to_properties(
    properties: Properties,
    headers: Headers,
) -> Result<BasicProperties, PublishFault> {
    let Properties {
        message_id,
        correlation_id,
        message_type,
        content_type,
        app_id,
        timestamp,
    } = properties;
    let mut properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
    if let Some(text) = message_id {
        properties = properties.with_message_id(short(text, "message_id")?);
    }
    if let Some(text) = correlation_id {
        properties = properties.with_correlation_id(short(text, "correlation_id")?);
    }
    if let Some(text) = message_type {
        properties = properties.with_type(short(text, "type")?);
    }
    if let Some(text) = content_type {
        properties = properties.with_content_type(short(text, "content_type")?);
    }
    if let Some(text) = app_id {
        properties = properties.with_app_id(short(text, "app_id")?);
    }
    if let Some(time) = timestamp {
        properties = properties.with_timestamp(time.as_second().unsigned_abs());
    }
    if !headers.is_empty() {
        properties = properties.with_headers(to_table(headers)?);
    }
    Ok(properties)
}

pub(crate) fn short(
    text: impl Into<String>,
    what: &'static str,
) -> Result<ShortString, PublishFault> {
    ShortString::try_new(text).map_err(|_| PublishFault::TooLong(what))
}

fn to_table(headers: Headers) -> Result<FieldTable, PublishFault> {
    let mut table = FieldTable::default();
    for (name, value) in headers {
        let value = match value {
            HeaderValue::Text(text) => AMQPValue::LongString(LongString::from(text)),
            HeaderValue::Bytes(bytes) => AMQPValue::ByteArray(ByteArray::from(bytes.to_vec())),
            HeaderValue::Integer(number) => AMQPValue::LongLongInt(number),
            HeaderValue::Boolean(truth) => AMQPValue::Boolean(truth),
            HeaderValue::Timestamp(second) => AMQPValue::Timestamp(second.unsigned_abs()),
            HeaderValue::Other => AMQPValue::Void,
        };
        table.insert(short(name, "a header name")?, value);
    }
    Ok(table)
}

pub(crate) fn from_parts(properties: &BasicProperties, body: Vec<u8>) -> Envelope {
    let text = |value: &Option<ShortString>| value.as_ref().map(|text| text.as_str().to_owned());
    Envelope {
        properties: Properties {
            message_id: text(properties.message_id()),
            correlation_id: text(properties.correlation_id()),
            message_type: text(properties.kind()),
            content_type: text(properties.content_type()),
            app_id: text(properties.app_id()),
            timestamp: properties
                .timestamp()
                .and_then(|second| i64::try_from(second).ok())
                .and_then(|second| Timestamp::from_second(second).ok()),
        },
        headers: properties
            .headers()
            .as_ref()
            .map_or_else(Headers::default, from_table),
        body: Bytes::from(body),
    }
}

fn from_table(table: &FieldTable) -> Headers {
    let mut headers = Headers::default();
    for (name, value) in table {
        headers.insert(name.as_str().to_owned(), from_value(value));
    }
    headers
}

fn from_value(value: &AMQPValue) -> HeaderValue {
    match value {
        AMQPValue::Boolean(truth) => HeaderValue::Boolean(*truth),
        AMQPValue::ShortShortInt(n) => HeaderValue::Integer((*n).into()),
        AMQPValue::ShortShortUInt(n) => HeaderValue::Integer((*n).into()),
        AMQPValue::ShortInt(n) => HeaderValue::Integer((*n).into()),
        AMQPValue::ShortUInt(n) => HeaderValue::Integer((*n).into()),
        AMQPValue::LongInt(n) => HeaderValue::Integer((*n).into()),
        AMQPValue::LongUInt(n) => HeaderValue::Integer((*n).into()),
        AMQPValue::LongLongInt(n) => HeaderValue::Integer(*n),
        AMQPValue::ShortString(text) => HeaderValue::Text(text.as_str().to_owned()),
        AMQPValue::LongString(text) => match std::str::from_utf8(text.as_bytes()) {
            Ok(text) => HeaderValue::Text(text.to_owned()),
            Err(_) => HeaderValue::Bytes(Bytes::copy_from_slice(text.as_bytes())),
        },
        AMQPValue::ByteArray(bytes) => HeaderValue::Bytes(Bytes::copy_from_slice(bytes.as_slice())),
        AMQPValue::Timestamp(second) => {
            i64::try_from(*second).map_or(HeaderValue::Other, HeaderValue::Timestamp)
        }
        AMQPValue::Float(_)
        | AMQPValue::Double(_)
        | AMQPValue::DecimalValue(_)
        | AMQPValue::FieldArray(_)
        | AMQPValue::FieldTable(_)
        | AMQPValue::Void => HeaderValue::Other,
    }
}
