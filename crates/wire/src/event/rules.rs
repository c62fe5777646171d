//! What is accepted as an event, whatever form it came in.

use fanfare_model::{AttributeValue, Event, Timestamp};
use serde_json::value::RawValue;

use super::rejection::{EventRejection, RejectionCode};

/// The most bytes that all attributes may have together. They travel in the header frame of a dead
/// letter, and RabbitMQ's default frame has 128 KiB.
const MAX_ATTRIBUTE_BYTES: usize = 32_768;

/// The names that are no extensions: context attributes, the tenant, and the members of the JSON format.
const RESERVED: [&str; 10] = [
    "specversion",
    "id",
    "source",
    "type",
    "tenant",
    "subject",
    "time",
    "datacontenttype",
    "dataschema",
    "data",
];

/// Judges an event that was built rather than read: whether it would be accepted once published.
///
/// The size of the message is not judged here: it depends on the form.
pub fn check_event(event: &Event) -> Result<(), EventRejection> {
    check_attributes(event)?;
    check_data(event)
}

/// The rules of every attribute (CloudEvents 1.0.2, "Context Attributes").
pub(super) fn check_attributes(event: &Event) -> Result<(), EventRejection> {
    let subject = event.subject.as_deref();
    let schema = event.data_schema.as_deref();
    let content_type = event.data_content_type.as_deref();
    let time = event.time.as_ref().map(|time| time.as_str());
    // The media type becomes a property of AMQP, which has at most 255 bytes.
    let media_type = "a media type of at most 255 bytes such as `application/json`";
    for (name, text, max_bytes, expected) in [
        ("id", Some(&*event.id), 255, "1 to 255 bytes of text"),
        (
            "source",
            Some(&*event.source),
            1024,
            "a URI reference of 1 to 1024 bytes",
        ),
        ("subject", subject, usize::MAX, "text that is not empty"),
        (
            "time",
            time,
            64,
            "an RFC 3339 timestamp of at most 64 bytes",
        ),
        ("datacontenttype", content_type, 255, media_type),
        ("dataschema", schema, usize::MAX, "a URI"),
    ] {
        check_text(name, text, max_bytes, expected)?;
    }
    for (name, value) in &event.extensions {
        check_extension(name, value)?;
    }
    check_schedule(event)?;

    let texts = [Some(&*event.id), Some(&*event.source), subject, schema];
    let texts: usize = texts.into_iter().flatten().map(str::len).sum();
    let extensions = event.extensions.iter();
    let extensions = extensions.map(|(name, value)| name.len() + value.as_text().len());
    let bytes = texts + extensions.sum::<usize>();
    if bytes > MAX_ATTRIBUTE_BYTES {
        return Err(EventRejection::new(
            RejectionCode::TooLarge,
            None,
            format!(
                "the attributes have {bytes} bytes, and at most {MAX_ATTRIBUTE_BYTES} are \
                 accepted: large content belongs into the data"
            ),
        ));
    }
    Ok(())
}

/// Data that claims to be JSON must be JSON.
pub(super) fn check_data(event: &Event) -> Result<(), EventRejection> {
    let Some(data) = event.data.as_ref().filter(|_| event.has_json_data()) else {
        return Ok(());
    };
    match serde_json::from_slice::<&RawValue>(data) {
        Ok(_) => Ok(()),
        Err(fault) => Err(EventRejection::invalid_data(
            "data",
            format!(
                "the data is not the JSON that its media type `{}` promises ({fault}): send valid \
                 JSON, or name the media type that it has",
                event.content_type()
            ),
        )),
    }
}

fn check_text(
    name: &str,
    text: Option<&str>,
    max_bytes: usize,
    expected: &str,
) -> Result<(), EventRejection> {
    let Some(text) = text else { return Ok(()) };
    if text.is_empty() || text.len() > max_bytes {
        return Err(EventRejection::invalid(name, expected));
    }
    check_characters(name, text)
}

/// Control characters are no text in CloudEvents, and would end up in headers.
fn check_characters(name: &str, text: &str) -> Result<(), EventRejection> {
    if text.chars().any(char::is_control) {
        let expected = "text without control characters";
        return Err(EventRejection::invalid(name, expected));
    }
    Ok(())
}

fn check_extension(name: &str, value: &AttributeValue) -> Result<(), EventRejection> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if !(1..=20).contains(&name.len()) || !name.bytes().all(allowed) {
        let expected = "named with 1 to 20 lower-case letters and digits, as every attribute";
        return Err(EventRejection::invalid(name, expected));
    }
    if RESERVED.contains(&name) {
        let expected = "set in its own place: it is not the name of an extension";
        return Err(EventRejection::invalid(name, expected));
    }
    match value {
        AttributeValue::Text(text) => check_characters(name, text),
        AttributeValue::Boolean(_) | AttributeValue::Integer(_) | AttributeValue::Binary(_) => {
            Ok(())
        }
    }
}

fn check_schedule(event: &Event) -> Result<(), EventRejection> {
    let moments: [(&str, Option<Timestamp>); 2] = [
        ("deliverafter", event.deliver_after()),
        ("deliverbefore", event.deliver_before()),
    ];
    for (name, moment) in moments {
        if moment.is_none() && event.extensions.contains_key(name) {
            let expected = "an RFC 3339 timestamp such as 2026-11-23T15:04:05Z";
            return Err(EventRejection::invalid(name, expected));
        }
    }
    match (event.deliver_after(), event.deliver_before()) {
        (Some(after), Some(before)) if before <= after => Err(EventRejection::invalid(
            "deliverbefore",
            "later than `deliverafter`",
        )),
        (Some(_) | None, Some(_) | None) => Ok(()),
    }
}
