//! A moment as people write it at the command line: a time, a day, or how long ago.

use std::{str::FromStr, time::Duration};

use fanfare_model::Timestamp;
use jiff::{civil::Date, fmt::friendly::SpanParser, tz::TimeZone};

/// A moment, absolute or counted back from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// At this time.
    At(Timestamp),
    /// This long ago.
    Ago(Duration),
}

impl Moment {
    /// The time that is meant, when it is `now`.
    pub(crate) fn at(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::Ago(ago) => now.checked_sub(ago).unwrap_or(Timestamp::MIN),
        }
    }
}

impl FromStr for Moment {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(time) = text.parse() {
            return Ok(Self::At(time));
        }
        let day = text.parse::<Date>();
        if let Some(start) = day.ok().and_then(|day| day.to_zoned(TimeZone::UTC).ok()) {
            return Ok(Self::At(start.timestamp()));
        }
        ago(text).map(Self::Ago).ok_or(
            "accepted is a time (2026-11-23T12:00:00Z), a day (2026-11-23, in UTC), or how long \
             ago (90m, 6h, 3d, 2w)",
        )
    }
}

fn ago(text: &str) -> Option<Duration> {
    const DAY: u64 = 24 * 60 * 60;
    for (unit, seconds) in [("d", DAY), ("w", 7 * DAY)] {
        let count = text.strip_suffix(unit).and_then(|count| count.parse().ok());
        if let Some(count) = count {
            return seconds.checked_mul(count).map(Duration::from_secs);
        }
    }
    SpanParser::new().parse_unsigned_duration(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_a_day_or_how_long_ago() {
        let now: Timestamp = "2026-11-24T12:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("2026-11-23T15:04:05Z", Some("2026-11-23T15:04:05Z")),
            ("2026-11-23T15:04:05+01:00", Some("2026-11-23T14:04:05Z")),
            ("2026-11-23", Some("2026-11-23T00:00:00Z")),
            ("90m", Some("2026-11-24T10:30:00Z")),
            ("3d", Some("2026-11-21T12:00:00Z")),
            ("2w", Some("2026-11-10T12:00:00Z")),
            ("1h30m", Some("2026-11-24T10:30:00Z")),
            ("tuesday", None),
            ("-3d", None),
            ("", None),
        ] {
            let moment = text.parse::<Moment>().ok();
            let time = moment.map(|moment| moment.at(now).to_string());
            assert_eq!(time.as_deref(), expected, "{text}");
        }
        assert_eq!(Moment::Ago(Duration::MAX).at(now), Timestamp::MIN);
    }
}
