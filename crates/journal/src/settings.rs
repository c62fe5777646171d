//! Where the history is kept, and for how long.

use std::{path::PathBuf, time::Duration};

use fanfare_model::DatabaseLocation;
use jiff::fmt::serde::unsigned_duration::friendly::compact;
use serde::{Deserialize, Deserializer, Serialize, de};

/// The `[history]` section.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The SQLite file, apart from the registry's, or `postgres://user:password@host:5432/database`. A file is made, readable by its owner alone, when it does not exist.
    pub database: DatabaseLocation,
    /// How long the history is kept: from 1h to 87840h (10 years). Dead letters stay for as long as they are in their queue.
    #[serde(
        serialize_with = "compact::required::serialize",
        deserialize_with = "keep_for"
    )]
    pub keep_for: Duration,
    /// About how many bytes the history may take before the oldest days are removed: 16 MiB or more.
    #[serde(deserialize_with = "keep_bytes")]
    pub keep_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            database: PathBuf::from("fanfare-history.db").into(),
            keep_for: Duration::from_secs(30 * 24 * 3600),
            keep_bytes: 20 << 30,
        }
    }
}

fn keep_for<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    const HOUR: u64 = 3600;
    let kept = compact::required::deserialize(deserializer)?;
    if (HOUR..=10 * 366 * 24 * HOUR).contains(&kept.as_secs()) {
        Ok(kept)
    } else {
        Err(de::Error::custom(
            "accepted is a duration from 1h to 87840h (10 years)",
        ))
    }
}

fn keep_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let bytes = u64::deserialize(deserializer)?;
    if bytes >= 16 << 20 {
        Ok(bytes)
    } else {
        Err(de::Error::custom(
            "accepted is a whole number from 16777216 (16 MiB)",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Settings, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn settings_are_read_checked_and_printed_without_a_password() {
        assert_eq!(parse("{}").unwrap(), Settings::default());
        let settings = parse(r#"{"database": "postgres://a:hush@b/c", "keep_for": "2160h"}"#);
        let settings = settings.unwrap();
        assert!(matches!(settings.database, DatabaseLocation::Postgres(_)));
        let printed = serde_json::to_string(&settings).unwrap() + &format!("{settings:?}");
        assert!(!printed.contains("hush"), "{printed}");
        for bad in [
            r#"{"x": 1}"#,
            r#"{"keep_for": "1m"}"#,
            r#"{"keep_bytes": 1000}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
