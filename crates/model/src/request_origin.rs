//! By which name a receiver of CloudEvents is asked whether it wants to be called.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The DNS name of the system that sends, such as `events.example.com`. It names the whole, not one host.
///
/// Source: CloudEvents, "HTTP 1.1 Web Hooks for Event Delivery", section 4.1.1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestOrigin(Box<str>);

/// Why a text is no such name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("accepted is the DNS name of the sending system, such as `events.example.com`")]
pub struct InvalidRequestOrigin;

impl RequestOrigin {
    /// The name, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RequestOrigin {
    type Err = InvalidRequestOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidRequestOrigin> {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(inner)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if text.len() <= 253 && text.split('.').all(is_label) {
            Ok(Self(text.to_ascii_lowercase().into()))
        } else {
            Err(InvalidRequestOrigin)
        }
    }
}

impl fmt::Display for RequestOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for RequestOrigin {
    type Error = InvalidRequestOrigin;

    fn try_from(text: String) -> Result<Self, InvalidRequestOrigin> {
        text.parse()
    }
}

impl From<RequestOrigin> for String {
    fn from(origin: RequestOrigin) -> Self {
        origin.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_dns_name() {
        for (text, read) in [
            ("Events.Example.com", Some("events.example.com")),
            ("x", Some("x")),
            ("", None),
            ("a..b", None),
            ("-a.b", None),
            ("https://a.b", None),
            ("a b", None),
            ("a.b:443", None),
        ] {
            let origin = text.parse::<RequestOrigin>().ok();
            assert_eq!(origin.as_ref().map(RequestOrigin::as_str), read, "{text}");
        }
    }
}
