//! Which event types an endpoint wants: a type, a family of types, or all.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::EventType;

/// `reward.unlocked` (that type), `reward.*` (every type that starts with `reward.`) or `*` (all).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum EventTypePattern {
    /// Every type.
    Any,
    /// Every type that starts with this prefix, which ends in a dot.
    Family(Box<str>),
    /// This type alone.
    Exact(EventType),
}

impl EventTypePattern {
    /// Whether the pattern wants this type.
    pub fn matches(&self, event_type: &EventType) -> bool {
        match self {
            Self::Any => true,
            Self::Family(prefix) => event_type.as_str().starts_with(&**prefix),
            Self::Exact(exact) => exact == event_type,
        }
    }
}

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not an event type pattern: accepted are `*`, a type such as `reward.unlocked`, \
     or a type's first words followed by `.*`, such as `reward.*`"
)]
pub struct InvalidPattern {
    /// What was given.
    pub text: String,
}

impl FromStr for EventTypePattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        let invalid = || InvalidPattern {
            text: text.to_owned(),
        };
        if text == "*" {
            return Ok(Self::Any);
        }
        match text.strip_suffix(".*") {
            Some(words) => {
                let words: EventType = words.parse().map_err(|_| invalid())?;
                Ok(Self::Family(format!("{words}.").into()))
            }
            None => Ok(Self::Exact(text.parse().map_err(|_| invalid())?)),
        }
    }
}

impl fmt::Display for EventTypePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Family(prefix) => write!(f, "{prefix}*"),
            Self::Exact(exact) => exact.fmt(f),
        }
    }
}

impl TryFrom<String> for EventTypePattern {
    type Error = InvalidPattern;

    fn try_from(text: String) -> Result<Self, InvalidPattern> {
        text.parse()
    }
}

impl From<EventTypePattern> for String {
    fn from(pattern: EventTypePattern) -> Self {
        pattern.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_want_what_they_say() {
        for (pattern, event_type, wanted) in [
            ("*", "anything.at.all", true),
            ("reward.*", "reward.unlocked", true),
            ("reward.*", "reward.a.b", true),
            ("reward.*", "reward", false),
            ("reward.*", "rewards.unlocked", false),
            ("reward.unlocked", "reward.unlocked", true),
            ("reward.unlocked", "reward.unlocked.twice", false),
        ] {
            let parsed: EventTypePattern = pattern.parse().unwrap();
            assert_eq!(parsed.to_string(), pattern);
            let event_type = event_type.parse().unwrap();
            assert_eq!(
                parsed.matches(&event_type),
                wanted,
                "{pattern} {event_type}"
            );
        }
        for bad in ["", ".*", "*.a", "a*", "a.*.b", "**", "#", "a b"] {
            assert!(
                bad.parse::<EventTypePattern>().is_err(),
                "{bad:?} was accepted"
            );
        }
    }
}
