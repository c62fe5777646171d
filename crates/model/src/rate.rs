//! How fast an endpoint may be called.

use std::{fmt, num::NonZeroU32, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// Request starts per unit of time, and how many may come at once.
///
/// Promise 2.3: in any window T the starts never exceed `rate x T + burst`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RateText", into = "RateText")]
pub struct Rate {
    count: NonZeroU32,
    unit: RateUnit,
    burst: NonZeroU32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RateUnit {
    Second,
    Minute,
    Hour,
}

impl Rate {
    /// The time between two starts at a steady pace.
    pub fn interval(&self) -> Duration {
        let unit = match self.unit {
            RateUnit::Second => Duration::from_secs(1),
            RateUnit::Minute => Duration::from_secs(60),
            RateUnit::Hour => Duration::from_secs(3600),
        };
        unit / self.count.get()
    }

    /// How many starts there may be in a minute at a steady pace, rounded up.
    pub fn per_minute(&self) -> u64 {
        let count = u64::from(self.count.get());
        match self.unit {
            RateUnit::Second => count * 60,
            RateUnit::Minute => count,
            RateUnit::Hour => count.div_ceil(60),
        }
    }

    /// How many starts may come at once after a rest.
    pub fn burst(&self) -> NonZeroU32 {
        self.burst
    }

    /// The same rate with another burst.
    pub fn with_burst(self, burst: NonZeroU32) -> Self {
        Self { burst, ..self }
    }
}

/// Why a text is not a rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a rate: accepted are a number from 1 to 100000 and a unit, such as `50/s`, \
     `600/min` or `20/h`, optionally with a burst from 1 to 100000, such as `50/s burst 10`"
)]
pub struct InvalidRate {
    text: String,
}

impl FromStr for Rate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        let parse = || {
            let (rate, burst) = match text.split_once(" burst ") {
                Some((rate, burst)) => (rate, bounded(burst)?),
                None => (text, NonZeroU32::MIN),
            };
            let (count, unit) = rate.split_once('/')?;
            let unit = match unit.trim() {
                "s" | "sec" | "second" => RateUnit::Second,
                "m" | "min" | "minute" => RateUnit::Minute,
                "h" | "hour" => RateUnit::Hour,
                _ => return None,
            };
            Some(Self {
                count: bounded(count)?,
                unit,
                burst,
            })
        };
        parse().ok_or_else(|| InvalidRate {
            text: text.to_owned(),
        })
    }
}

fn bounded(text: &str) -> Option<NonZeroU32> {
    let number: NonZeroU32 = text.trim().parse().ok()?;
    (number.get() <= 100_000).then_some(number)
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.unit {
            RateUnit::Second => "s",
            RateUnit::Minute => "min",
            RateUnit::Hour => "h",
        };
        write!(f, "{}/{unit}", self.count)?;
        if self.burst.get() > 1 {
            write!(f, " burst {}", self.burst)?;
        }
        Ok(())
    }
}

/// The textual form, for serde.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
struct RateText(String);

impl TryFrom<RateText> for Rate {
    type Error = InvalidRate;

    fn try_from(text: RateText) -> Result<Self, InvalidRate> {
        text.0.parse()
    }
}

impl From<Rate> for RateText {
    fn from(rate: Rate) -> Self {
        Self(rate.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_people_write_them() {
        for (text, interval_ms, burst, printed) in [
            ("50/s", 20, 1, "50/s"),
            ("50/second burst 10", 20, 10, "50/s burst 10"),
            ("600/min", 100, 1, "600/min"),
            ("1/h", 3_600_000, 1, "1/h"),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(
                rate.interval(),
                Duration::from_millis(interval_ms),
                "{text}"
            );
            assert_eq!(rate.burst().get(), burst, "{text}");
            assert_eq!(rate.to_string(), printed);
        }
        for bad in [
            "",
            "50",
            "0/s",
            "-1/s",
            "1/day",
            "100001/s",
            "1/s burst 0",
            "1/s burst",
        ] {
            assert!(bad.parse::<Rate>().is_err(), "{bad:?} was accepted");
        }
    }
}
