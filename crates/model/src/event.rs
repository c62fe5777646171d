//! An event: something that happened in a tenant, as CloudEvents 1.0 describes it.
//!
//! Reading one from bytes is the `wire` crate's work.

use std::{borrow::Cow, collections::BTreeMap, fmt, str::FromStr};

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::TenantId;

/// Something that happened in a tenant. Identified by tenant, `source` and `id` together.
///
/// Attribute names and rules: CloudEvents 1.0.2, section "Context Attributes".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The owner of the endpoints it may be sent to; the `tenant` extension on the wire.
    pub tenant: TenantId,
    /// Where it happened: a URI reference, 1 to 1,024 bytes.
    pub source: String,
    /// Its id within `source`: 1 to 255 bytes.
    pub id: String,
    /// What happened; endpoints select by it.
    pub event_type: EventType,
    /// What it is about, within the source.
    pub subject: Option<String>,
    /// When it happened, as the producer wrote it.
    pub time: Option<EventTime>,
    /// The media type of `data`; JSON when absent.
    pub data_content_type: Option<String>,
    /// Where the schema of `data` is described.
    pub data_schema: Option<String>,
    /// Every other attribute, by its name.
    pub extensions: BTreeMap<String, AttributeValue>,
    /// The payload, byte for byte; absent when the producer sent none.
    pub data: Option<Bytes>,
}

impl Event {
    /// The `source` of the events that Fanfare itself publishes about a tenant's endpoints.
    pub const OPERATIONAL_SOURCE: &str = "/fanfare";

    /// Whether Fanfare itself published it. What becomes of such an event is never an event again.
    pub fn is_operational(&self) -> bool {
        self.source == Self::OPERATIONAL_SOURCE
    }

    /// Not to be delivered earlier than this: the `deliverafter` extension.
    pub fn deliver_after(&self) -> Option<Timestamp> {
        self.timestamp_extension("deliverafter")
    }

    /// Worthless after this: the `deliverbefore` extension.
    pub fn deliver_before(&self) -> Option<Timestamp> {
        self.timestamp_extension("deliverbefore")
    }

    /// The media type of the data, with CloudEvents' default applied.
    pub fn content_type(&self) -> &str {
        self.data_content_type
            .as_deref()
            .unwrap_or("application/json")
    }

    /// Whether the data is JSON by its media type (`application/json` or any `+json`).
    pub fn has_json_data(&self) -> bool {
        is_json(self.content_type())
    }

    /// An estimate of the memory that the event holds, in bytes.
    pub fn size(&self) -> usize {
        let extensions: usize = self
            .extensions
            .iter()
            .map(|(name, value)| name.len() + value.as_text().len())
            .sum();
        self.data.as_ref().map_or(0, Bytes::len)
            + self.source.len()
            + self.id.len()
            + self.event_type.as_str().len()
            + extensions
            + size_of::<Self>()
    }

    fn timestamp_extension(&self, name: &str) -> Option<Timestamp> {
        match self.extensions.get(name)? {
            AttributeValue::Text(text) => text.parse().ok(),
            AttributeValue::Boolean(_) | AttributeValue::Integer(_) | AttributeValue::Binary(_) => {
                None
            }
        }
    }

    /// A small event for tests, with JSON data. Panics on an invalid tenant or type.
    #[doc(hidden)]
    pub fn for_tests(tenant: &str, source: &str, id: &str, event_type: &str, data: &[u8]) -> Self {
        Self {
            tenant: tenant.parse().expect("a valid tenant"),
            source: source.to_owned(),
            id: id.to_owned(),
            event_type: event_type.parse().expect("a valid event type"),
            subject: None,
            time: None,
            data_content_type: Some("application/json".to_owned()),
            data_schema: None,
            extensions: BTreeMap::new(),
            data: Some(Bytes::copy_from_slice(data)),
        }
    }
}

/// Whether a media type means JSON: `application/json`, `text/json` or a `+json` suffix.
pub(crate) fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    essence == "application/json" || essence == "text/json" || essence.ends_with("+json")
}

/// Why an attribute cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{attribute}` must be {expected}")]
pub struct InvalidAttribute {
    /// The CloudEvents name of the attribute.
    pub attribute: &'static str,
    /// What would be accepted.
    pub expected: &'static str,
}

/// What happened, in dotted words: `reward.unlocked`.
///
/// Invariant: 1 to 120 printable ASCII characters without space, `*` and `#`; no empty word. With a
/// tenant in front it fits a routing key (255 bytes).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EventType(Box<str>);

impl EventType {
    /// The type as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EventType {
    type Err = InvalidAttribute;

    fn from_str(text: &str) -> Result<Self, InvalidAttribute> {
        let allowed = |b: u8| b.is_ascii_graphic() && b != b'*' && b != b'#';
        let words_are_full = text.split('.').all(|word| !word.is_empty());
        if text.len() <= 120 && words_are_full && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidAttribute {
                attribute: "type",
                expected: "1 to 120 printable ASCII characters in words separated by dots, \
                           without spaces, `*` and `#`",
            })
        }
    }
}

impl TryFrom<String> for EventType {
    type Error = InvalidAttribute;

    fn try_from(text: String) -> Result<Self, InvalidAttribute> {
        text.parse()
    }
}

impl From<EventType> for String {
    fn from(event_type: EventType) -> Self {
        event_type.0.into()
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A moment as the producer wrote it: RFC 3339 text that also parses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventTime(String);

impl EventTime {
    /// The text as the producer wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EventTime {
    type Err = InvalidAttribute;

    fn from_str(text: &str) -> Result<Self, InvalidAttribute> {
        text.parse::<Timestamp>()
            .map(|_| Self(text.to_owned()))
            .map_err(|_| InvalidAttribute {
                attribute: "time",
                expected: "an RFC 3339 timestamp such as 2026-11-23T15:04:05Z",
            })
    }
}

/// The value of an extension attribute (CloudEvents 1.0.2, "Type System"; URIs and timestamps are text).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttributeValue {
    /// A boolean.
    Boolean(bool),
    /// A signed 32-bit integer.
    Integer(i32),
    /// A string, URI or timestamp.
    Text(String),
    /// Bytes.
    Binary(Bytes),
}

impl AttributeValue {
    /// The value in CloudEvents' canonical string encoding.
    pub fn as_text(&self) -> Cow<'_, str> {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        match self {
            Self::Boolean(value) => Cow::Borrowed(if *value { "true" } else { "false" }),
            Self::Integer(value) => Cow::Owned(value.to_string()),
            Self::Text(value) => Cow::Borrowed(value),
            Self::Binary(value) => Cow::Owned(STANDARD.encode(value)),
        }
    }

    /// Bytes from their canonical string encoding.
    pub fn from_base64(text: &str) -> Option<Self> {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let bytes = STANDARD.decode(text).ok()?;
        Some(Self::Binary(bytes.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_type_fits_a_routing_key() {
        for good in ["a", "reward.unlocked", "com.example/x:y", &"x".repeat(120)] {
            assert_eq!(good.parse::<EventType>().unwrap().as_str(), good);
        }
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "a b",
            "a.*",
            "#",
            "ü",
            &"x".repeat(121),
        ] {
            assert!(bad.parse::<EventType>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn schedule_extensions_are_read_as_times() {
        let mut event = Event::for_tests("t", "s", "1", "a", b"{}");
        assert_eq!(event.deliver_after(), None);
        let text = "2026-11-23T15:04:05Z";
        event
            .extensions
            .insert("deliverafter".into(), AttributeValue::Text(text.into()));
        assert_eq!(event.deliver_after(), Some(text.parse().unwrap()));
    }

    #[test]
    fn json_is_recognised_by_media_type() {
        for (media_type, expected) in [
            ("application/json", true),
            ("application/JSON; charset=utf-8", true),
            ("application/vnd.x+json", true),
            ("text/plain", false),
            ("", false),
        ] {
            assert_eq!(is_json(media_type), expected, "{media_type}");
        }
    }
}
