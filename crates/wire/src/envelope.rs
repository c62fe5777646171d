//! A message in no library's terms: properties, headers and a body.

use std::{borrow::Cow, fmt};

use bytes::Bytes;
use fanfare_model::{Timestamp, TraceContext};

/// The `app_id` of every message that Fanfare makes.
pub(crate) const APP_ID: &str = "fanfare";

/// A message as a queue holds it. `Debug` shows no body and no header values.
#[derive(Clone, Default, PartialEq)]
pub struct Envelope {
    /// What every message has.
    pub properties: Properties,
    /// What only some have.
    pub headers: Headers,
    /// The payload.
    pub body: Bytes,
}

impl Envelope {
    /// The bytes that the publisher chose: the body, and the headers by name and value.
    pub fn size(&self) -> usize {
        self.body.len() + self.headers.size()
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("properties", &self.properties)
            .field("headers", &self.headers)
            .field("body", &format_args!("{} bytes", self.body.len()))
            .finish()
    }
}

/// The properties that Fanfare reads and sets. Each text has at most 255 bytes on the wire.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Properties {
    /// Names the message.
    pub message_id: Option<String>,
    /// Names what it is about.
    pub correlation_id: Option<String>,
    /// What kind of message it is; AMQP calls it `type`.
    pub message_type: Option<String>,
    /// The media type of the body.
    pub content_type: Option<String>,
    /// Which program made it.
    pub app_id: Option<String>,
    /// When it was made, in whole seconds.
    pub timestamp: Option<Timestamp>,
}

impl Properties {
    /// The properties of a message that Fanfare makes.
    pub(crate) fn ours(
        message_id: String,
        correlation_id: String,
        message_type: &str,
        content_type: &str,
        now: Timestamp,
    ) -> Self {
        Self {
            message_id: Some(message_id),
            correlation_id: Some(correlation_id),
            message_type: Some(message_type.to_owned()),
            content_type: Some(content_type.to_owned()),
            app_id: Some(APP_ID.to_owned()),
            timestamp: Some(whole_seconds(now)),
        }
    }
}

/// The moment as AMQP can carry it.
pub(crate) fn whole_seconds(moment: Timestamp) -> Timestamp {
    Timestamp::from_second(moment.as_second()).expect("a shortened moment stays in range")
}

/// The headers of a message, each name once, in order.
#[derive(Clone, Default, PartialEq)]
pub struct Headers(Vec<(Cow<'static, str>, HeaderValue)>);

impl Headers {
    /// The value of a header.
    pub fn get(&self, name: &str) -> Option<&HeaderValue> {
        self.iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }

    /// The value of a header that is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            HeaderValue::Text(text) => Some(text),
            HeaderValue::Bytes(_)
            | HeaderValue::Integer(_)
            | HeaderValue::Boolean(_)
            | HeaderValue::Timestamp(_)
            | HeaderValue::Other => None,
        }
    }

    /// The value of a header that is bytes. Text counts: bytes that are UTF-8 may arrive as text.
    pub fn bytes(&self, name: &str) -> Option<Bytes> {
        match self.get(name)? {
            HeaderValue::Bytes(bytes) => Some(bytes.clone()),
            HeaderValue::Text(text) => Some(Bytes::copy_from_slice(text.as_bytes())),
            HeaderValue::Integer(_)
            | HeaderValue::Boolean(_)
            | HeaderValue::Timestamp(_)
            | HeaderValue::Other => None,
        }
    }

    /// Sets a header, in place of an earlier one of that name.
    pub fn insert(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<HeaderValue>,
    ) -> &mut Self {
        let (name, value) = (name.into(), value.into());
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
        self
    }

    /// Removes every header whose name starts with `prefix`.
    pub fn remove_prefix(&mut self, prefix: &str) {
        self.0.retain(|(name, _)| !name.starts_with(prefix));
    }

    /// Every header, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &HeaderValue)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }

    /// How many headers there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes of all names and values.
    pub fn size(&self) -> usize {
        self.iter()
            .map(|(name, value)| name.len() + value.size())
            .sum()
    }

    /// Sets `traceparent` and `tracestate`, as far as the context has them.
    pub(crate) fn insert_trace(&mut self, trace: &TraceContext) {
        for (name, value) in [
            ("traceparent", &trace.traceparent),
            ("tracestate", &trace.tracestate),
        ] {
            if let Some(value) = value {
                self.insert(name, value.as_str());
            }
        }
    }
}

/// Takes the headers as they are: a name that comes twice is kept twice, and [`Headers::get`] finds the first.
impl FromIterator<(Cow<'static, str>, HeaderValue)> for Headers {
    fn from_iter<I: IntoIterator<Item = (Cow<'static, str>, HeaderValue)>>(headers: I) -> Self {
        Self(headers.into_iter().collect())
    }
}

impl IntoIterator for Headers {
    type Item = (Cow<'static, str>, HeaderValue);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// The value of a header. `Debug` shows its kind and size alone.
#[derive(Clone, PartialEq)]
pub enum HeaderValue {
    /// A string that is valid UTF-8.
    Text(String),
    /// A byte array, or a string that is not UTF-8.
    Bytes(Bytes),
    /// An integer of any width.
    Integer(i64),
    /// A boolean.
    Boolean(bool),
    /// Seconds since 1970.
    Timestamp(i64),
    /// Anything else, such as a table or a float; read, but never sent.
    Other,
}

impl HeaderValue {
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::Integer(_) | Self::Timestamp(_) => 8,
            Self::Boolean(_) | Self::Other => 1,
        }
    }
}

impl fmt::Debug for HeaderValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Text(_) => "text",
            Self::Bytes(_) => "binary",
            Self::Integer(_) => "integer",
            Self::Boolean(_) => "boolean",
            Self::Timestamp(_) => "timestamp",
            Self::Other => "other",
        };
        write!(f, "{kind} of {} bytes", self.size())
    }
}

impl From<&str> for HeaderValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for HeaderValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Bytes> for HeaderValue {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<i64> for HeaderValue {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<bool> for HeaderValue {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_neither_bodies_nor_header_values() {
        let mut envelope = Envelope {
            body: Bytes::from_static(b"secret body"),
            ..Envelope::default()
        };
        envelope
            .headers
            .insert("authorization", "secret header")
            .insert("token", Bytes::from_static(b"secret bytes"))
            .insert("x-number", 4711);
        let shown = format!("{envelope:?}");
        for hidden in ["secret", "4711"] {
            assert!(!shown.contains(hidden), "{shown}");
        }
        assert!(shown.contains("text of 13 bytes"), "{shown}");
        assert!(shown.contains("body: 11 bytes"), "{shown}");
    }

    #[test]
    fn a_header_has_one_value_and_keeps_its_place() {
        let mut headers = Headers::default();
        headers
            .insert("a", "1")
            .insert("x-death", "2")
            .insert("x-death-count", 3)
            .insert("a", true);
        assert_eq!(headers.len(), 3);
        assert_eq!(headers.get("a"), Some(&HeaderValue::Boolean(true)));
        assert_eq!(headers.text("a"), None);
        headers.remove_prefix("x-death");
        assert_eq!(
            headers.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            ["a"]
        );
    }
}
