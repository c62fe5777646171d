//! When an endpoint that keeps failing is disabled.

use std::{fmt, num::NonZeroU32, str::FromStr, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::schedule::{read_wait, write_wait};

/// The rules by which failures in a row disable an endpoint. Without any, none do.
///
/// Invariant: the span is at most 365 days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Form")]
pub struct DisableAfter {
    /// After this many attempts in a row failed.
    consecutive_failures: Option<NonZeroU32>,
    /// When an attempt fails and none succeeded for this long, in seconds.
    failing_for: Option<NonZeroU32>,
}

/// Times are in seconds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    #[serde(default)]
    consecutive_failures: Option<NonZeroU32>,
    #[serde(default)]
    failing_for: Option<u64>,
}

const LONGEST_SPAN: u32 = 365 * 24 * 3600;
const FIVE_DAYS: NonZeroU32 = NonZeroU32::new(5 * 24 * 3600).expect("five days are not nothing");

/// Why something is not a rule for disabling.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "an endpoint is disabled `never`, after a number of `failures` in a row, after failing for a span of \
     1 s to 365 days, or by whichever of both comes first, such as `10 failures or 5d`"
)]
pub struct InvalidDisableAfter;

impl DisableAfter {
    /// No failures disable the endpoint.
    pub const NEVER: Self = Self {
        consecutive_failures: None,
        failing_for: None,
    };

    /// Whether `failed` failures in a row, the first of them at `since`, are too many at `now`.
    pub fn applies(&self, failed: u32, since: Timestamp, now: Timestamp) -> bool {
        let many = self
            .consecutive_failures
            .is_some_and(|most| failed >= most.get());
        // One failure has lasted no time at all.
        let long = self
            .failing_for
            .is_some_and(|span| failed > 1 && elapsed(since, now) >= seconds(span));
        many || long
    }
}

fn span_of(seconds: u64) -> Result<NonZeroU32, InvalidDisableAfter> {
    let span = u32::try_from(seconds).ok().and_then(NonZeroU32::new);
    span.filter(|span| span.get() <= LONGEST_SPAN)
        .ok_or(InvalidDisableAfter)
}

fn seconds(span: NonZeroU32) -> Duration {
    Duration::from_secs(span.get().into())
}

/// How long ago `since` was; nothing when a clock went backwards.
fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

impl Default for DisableAfter {
    fn default() -> Self {
        Self {
            failing_for: Some(FIVE_DAYS),
            ..Self::NEVER
        }
    }
}

impl TryFrom<Form> for DisableAfter {
    type Error = InvalidDisableAfter;

    fn try_from(form: Form) -> Result<Self, InvalidDisableAfter> {
        let Form {
            consecutive_failures,
            failing_for,
        } = form;
        Ok(Self {
            consecutive_failures,
            failing_for: failing_for.map(span_of).transpose()?,
        })
    }
}

impl From<DisableAfter> for Form {
    fn from(rules: DisableAfter) -> Self {
        Self {
            consecutive_failures: rules.consecutive_failures,
            failing_for: rules.failing_for.map(|span| span.get().into()),
        }
    }
}

impl FromStr for DisableAfter {
    type Err = InvalidDisableAfter;

    fn from_str(text: &str) -> Result<Self, InvalidDisableAfter> {
        if text.trim() == "never" {
            return Ok(Self::NEVER);
        }
        let (mut failures, mut span) = (None, None);
        for rule in text.split(" or ") {
            let given_before = match rule.trim().strip_suffix("failures") {
                Some(number) => {
                    let number = number.trim().parse().map_err(|_| InvalidDisableAfter)?;
                    failures.replace(number).is_some()
                }
                None => {
                    let seconds = read_wait(rule).ok_or(InvalidDisableAfter)?;
                    span.replace(seconds).is_some()
                }
            };
            if given_before {
                return Err(InvalidDisableAfter);
            }
        }
        Self::try_from(Form {
            consecutive_failures: failures,
            failing_for: span,
        })
    }
}

impl fmt::Display for DisableAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = self.failing_for.map(|span| write_wait(span.get().into()));
        match (self.consecutive_failures, span) {
            (None, None) => f.write_str("never"),
            (Some(failures), None) => write!(f, "{failures} failures"),
            (None, Some(span)) => f.write_str(&span),
            (Some(failures), Some(span)) => write!(f, "{failures} failures or {span}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_as_people_write_them() {
        for (text, shown) in [
            ("never", "never"),
            ("10 failures", "10 failures"),
            ("5d", "120h"),
            ("90m or 3 failures", "3 failures or 1h30m"),
        ] {
            let rules: DisableAfter = text.parse().unwrap();
            assert_eq!(rules.to_string(), shown);
            assert_eq!(shown.parse(), Ok(rules));
            let json = serde_json::to_string(&rules).unwrap();
            assert_eq!(serde_json::from_str::<DisableAfter>(&json).unwrap(), rules);
        }
        for bad in [
            "",
            "0 failures",
            "0s",
            "366d",
            "soon",
            "1d or 2d",
            "2 failures or",
            "-1 failures",
        ] {
            assert_eq!(
                bad.parse::<DisableAfter>(),
                Err(InvalidDisableAfter),
                "{bad}"
            );
        }
        assert!(serde_json::from_str::<DisableAfter>(r#"{"failing_for":0}"#).is_err());
        assert_eq!(
            serde_json::from_str::<DisableAfter>("{}").unwrap(),
            DisableAfter::NEVER
        );
    }

    #[test]
    fn failures_in_a_row_disable_by_number_or_by_time() {
        let at = |second| Timestamp::from_second(second).unwrap();
        for (rules, failed, now, applies) in [
            ("never", 1_000_000, 1_000_000_000, false),
            ("3 failures", 2, 1_000_000_000, false),
            ("3 failures", 3, 0, true),
            ("1h", 1000, 3599, false),
            ("1h", 2, 3600, true),
            ("1h", 1, 3600, false),
            ("3 failures or 1h", 3, 1, true),
            ("3 failures or 1h", 2, 3600, true),
        ] {
            let parsed: DisableAfter = rules.parse().unwrap();
            assert_eq!(
                parsed.applies(failed, at(0), at(now)),
                applies,
                "{rules} {failed}"
            );
        }
    }
}
