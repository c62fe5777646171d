//! How a schedule is written: `0s,5s,5m` or `exponential(base=5s,…)` as text; a list of seconds or an object in JSON.

use std::{fmt, str::FromStr};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, SeqAccess, Visitor, value},
};

use super::{Exponential, InvalidSchedule, Schedule, Waits};

/// Why a text is not a schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a schedule: accepted are 1 to 50 waits of at most 30 days, such as `0,5s,5m,2h`, or \
     `exponential(base=5s,factor=2,cap=1h,attempts=12,window=3d)`, where `window` may be left out"
)]
pub struct InvalidScheduleText {
    text: String,
}

impl FromStr for Schedule {
    type Err = InvalidScheduleText;

    fn from_str(text: &str) -> Result<Self, InvalidScheduleText> {
        let inner = text.trim().strip_prefix("exponential(");
        let read = match inner.and_then(|inner| inner.strip_suffix(')')) {
            Some(members) => read_exponential(members),
            None => {
                let waits = text.split(',').map(read_wait).collect::<Option<_>>();
                waits.and_then(|waits| Self::from_seconds(waits).ok())
            }
        };
        read.ok_or_else(|| InvalidScheduleText {
            text: text.to_owned(),
        })
    }
}

fn read_exponential(members: &str) -> Option<Schedule> {
    let (mut base, mut factor, mut cap, mut attempts, mut window) = (None, None, None, None, None);
    for member in members.split(',') {
        let (name, value) = member.split_once('=')?;
        let given_before = match name.trim() {
            "base" => base.replace(read_wait(value)?).is_some(),
            "factor" => factor.replace(value.trim().parse().ok()?).is_some(),
            "cap" => cap.replace(read_wait(value)?).is_some(),
            "attempts" => attempts.replace(value.trim().parse().ok()?).is_some(),
            "window" => window.replace(read_wait(value)?).is_some(),
            _ => return None,
        };
        if given_before {
            return None;
        }
    }
    Schedule::exponential(base?, factor?, cap?, attempts?, window).ok()
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Waits::Listed(waits) => {
                let waits: Vec<_> = waits.iter().map(|wait| write_wait(*wait)).collect();
                f.write_str(&waits.join(","))
            }
            Waits::Exponential(Exponential {
                base,
                factor,
                cap,
                attempts,
                window,
            }) => {
                let (base, cap, factor) = (write_wait(*base), write_wait(*cap), ratio(*factor));
                write!(
                    f,
                    "exponential(base={base},factor={factor},cap={cap},attempts={attempts}"
                )?;
                if let Some(window) = window {
                    write!(f, ",window={}", write_wait(*window))?;
                }
                f.write_str(")")
            }
        }
    }
}

fn ratio(hundredths: u32) -> f64 {
    f64::from(hundredths) / 100.0
}

/// Whole seconds from `90`, `5s`, `2h 30m` or `3d`.
pub(crate) fn read_wait(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    if let Ok(seconds) = rest.parse() {
        return Some(seconds);
    }
    let mut total = 0_u64;
    while !rest.is_empty() {
        let unit = rest.find(|c: char| !c.is_ascii_digit())?;
        let end = rest[unit..].find(|c: char| !c.is_ascii_alphabetic());
        let end = end.map_or(rest.len(), |length| unit + length);
        let seconds = match &rest[unit..end] {
            "s" => 1,
            "m" | "min" => 60,
            "h" => 3600,
            "d" => 24 * 3600,
            _ => return None,
        };
        let number: u64 = rest[..unit].parse().ok()?;
        total = total.checked_add(number.checked_mul(seconds)?)?;
        rest = rest[end..].trim_start();
    }
    (!text.trim().is_empty()).then_some(total)
}

/// The form that [`read_wait`] reads.
pub(crate) fn write_wait(seconds: u64) -> String {
    let parts = [
        (seconds / 3600, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
    ];
    let parts: String = parts
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, unit)| format!("{number}{unit}"))
        .collect();
    if parts.is_empty() {
        "0s".to_owned()
    } else {
        parts
    }
}

/// An exponential schedule in JSON; times are in seconds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExponentialForm {
    base: u64,
    factor: f64,
    cap: u64,
    attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    window: Option<u64>,
}

impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Waits::Listed(waits) => waits.serialize(serializer),
            Waits::Exponential(growing) => ExponentialForm {
                base: growing.base,
                factor: ratio(growing.factor),
                cap: growing.cap,
                attempts: growing.attempts,
                window: growing.window,
            }
            .serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FormVisitor)
    }
}

/// Tells the two forms apart by what they are, so that a mistake in one is told in its own words.
struct FormVisitor;

impl<'de> Visitor<'de> for FormVisitor {
    type Value = Schedule;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of waits in seconds, or an object with `base`, `factor`, `cap`, `attempts` and, optionally, `window`")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, waits: A) -> Result<Schedule, A::Error> {
        let waits = Vec::deserialize(value::SeqAccessDeserializer::new(waits))?;
        Schedule::from_seconds(waits).map_err(refused)
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Schedule, A::Error> {
        let form = ExponentialForm::deserialize(value::MapAccessDeserializer::new(members))?;
        let ExponentialForm {
            base,
            factor,
            cap,
            attempts,
            window,
        } = form;
        Schedule::exponential(base, factor, cap, attempts, window).map_err(refused)
    }
}

fn refused<E: de::Error>(invalid: InvalidSchedule) -> E {
    E::custom(invalid)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_schedule_is_read_as_people_write_it() {
        for (text, shown) in [
            ("0", "0s"),
            ("0,5s,5m", "0s,5s,5m"),
            (" 0 , 2h 30m, 90, 1d", "0s,2h30m,1m30s,24h"),
            (
                "exponential(base=5s,factor=2,cap=1h,attempts=12,window=3d)",
                "exponential(base=5s,factor=2,cap=1h,attempts=12,window=72h)",
            ),
            (
                "exponential(attempts=3, cap=60, factor=1.25, base=60)",
                "exponential(base=1m,factor=1.25,cap=1m,attempts=3)",
            ),
        ] {
            let schedule: Schedule = text.parse().unwrap();
            assert_eq!(schedule.to_string(), shown, "{text}");
            assert_eq!(shown.parse(), Ok(schedule), "{shown}");
        }
    }

    #[test]
    fn what_is_no_schedule_is_told_what_would_be() {
        for text in [
            "",
            "0,,5s",
            "5ms",
            "soon",
            "-1",
            "1.5h",
            "31d",
            "exponential()",
            "exponential(base=5s)",
            "exponential(base=5s,base=5s,factor=2,cap=1h,attempts=12)",
            "exponential(base=5s,factor=2,cap=1s,attempts=12)",
            "exponential(base=5s,factor=2,cap=1h,attempts=12,speed=3)",
            "exponential(base=5s,factor=2,cap=1h,attempts=12",
        ] {
            let fault = text.parse::<Schedule>().unwrap_err().to_string();
            assert!(fault.contains("accepted are 1 to 50 waits"), "{fault}");
        }
    }

    #[test]
    fn json_is_a_list_or_an_object() {
        let growing = r#"{"base":5,"factor":2.0,"cap":3600,"attempts":12,"window":259200}"#;
        for text in [
            "[0,5,300]",
            growing,
            r#"{"base":5,"factor":1.5,"cap":60,"attempts":3}"#,
        ] {
            let schedule: Schedule = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&schedule).unwrap(), text);
        }
        for (text, expected) in [
            ("[]", "1 to 50 waits"),
            ("[-1]", "integer `-1`"),
            (
                "\"0\"",
                "a list of waits in seconds, or an object with `base`",
            ),
            (r#"{"base":5}"#, "missing field `factor`"),
            (
                r#"{"base":5,"factor":2,"cap":1,"attempts":3}"#,
                "`cap` (`base` to 30 days)",
            ),
            (r#"{"base":5,"speed":1}"#, "unknown field `speed`"),
        ] {
            let fault = serde_json::from_str::<Schedule>(text)
                .unwrap_err()
                .to_string();
            assert!(fault.contains(expected), "{fault}");
        }
    }

    proptest! {
        #[test]
        fn a_written_schedule_reads_back(
            waits in proptest::collection::vec(0..=30 * 24 * 3600_u64, 1..50),
            base in 1..1000_u64,
            factor in 100..=10_000_u32,
            attempts in 1..=50_u32,
            window in proptest::option::of(1..=365 * 24 * 3600_u64),
        ) {
            let listed = Schedule::from_seconds(waits).unwrap();
            let growing = Schedule::exponential(base, ratio(factor), 5000, attempts, window);
            for schedule in [listed, growing.unwrap()] {
                prop_assert_eq!(schedule.to_string().parse(), Ok(schedule));
            }
        }
    }
}
