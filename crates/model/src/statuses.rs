//! Sets of HTTP status codes, such as the ones that mean success to an endpoint.

use std::{fmt, ops::RangeInclusive, str::FromStr};

use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};

/// A set of status codes, written `200-299` or `200,202,410`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StatusSet(Ranges);

/// Nearly every endpoint has one at most, and there are many endpoints.
type Ranges = SmallVec<[RangeInclusive<u16>; 1]>;

impl StatusSet {
    /// Every 2xx: what success means unless an endpoint says otherwise.
    pub fn success() -> Self {
        Self(smallvec![200..=299])
    }

    /// No status at all.
    pub fn none() -> Self {
        Self(Ranges::new())
    }

    /// Whether the set holds this code.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

/// Why a text is not a set of status codes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a set of status codes: accepted are codes from 200 to 599 and ranges of them, \
     separated by commas, such as `200-299` or `200,202`"
)]
pub struct InvalidStatusSet {
    text: String,
}

impl FromStr for StatusSet {
    type Err = InvalidStatusSet;

    fn from_str(text: &str) -> Result<Self, InvalidStatusSet> {
        if text.trim().is_empty() {
            return Ok(Self::none());
        }
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first: u16 = first.trim().parse().ok()?;
            let last: u16 = last.trim().parse().ok()?;
            (200 <= first && first <= last && last <= 599).then_some(first..=last)
        };
        text.split(',')
            .map(range)
            .collect::<Option<Ranges>>()
            .filter(|ranges| ranges.len() <= 50)
            .map(Self)
            .ok_or_else(|| InvalidStatusSet {
                text: text.to_owned(),
            })
    }
}

impl fmt::Display for StatusSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, range) in self.0.iter().enumerate() {
            let comma = if n > 0 { "," } else { "" };
            let (first, last) = (range.start(), range.end());
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}-{last}")?;
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for StatusSet {
    type Error = InvalidStatusSet;

    fn try_from(text: String) -> Result<Self, InvalidStatusSet> {
        text.parse()
    }
}

impl From<StatusSet> for String {
    fn from(set: StatusSet) -> Self {
        set.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_what_they_name() {
        let set: StatusSet = "200, 300-399".parse().unwrap();
        for (status, held) in [
            (200, true),
            (201, false),
            (300, true),
            (399, true),
            (400, false),
        ] {
            assert_eq!(set.contains(status), held, "{status}");
        }
        assert_eq!(set.to_string(), "200,300-399");
        assert_eq!("".parse(), Ok(StatusSet::none()));
        for bad in ["x", "199", "600", "300-200", "200-", "1xx"] {
            assert!(bad.parse::<StatusSet>().is_err(), "{bad:?} was accepted");
        }
    }
}
