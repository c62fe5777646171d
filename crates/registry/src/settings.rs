//! Where the registry is kept, and how its secrets are encrypted.

use std::{path::PathBuf, time::Duration};

use fanfare_model::{DatabaseLocation, Secret};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{EncryptionKey, EncryptionKeyFault};

/// The registry's settings.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The path of a SQLite file, which is made when it does not exist; or, when several hosts share the registry, a PostgreSQL database: `postgresql://user:password@host:5432/database`.
    pub database: DatabaseLocation,
    /// Where the last known registry is kept, encrypted, for a start without the database.
    pub snapshot_file: Option<PathBuf>,
    /// The key that encrypts endpoints' secrets: 32 bytes as 64 hexadecimal digits or as base64.
    #[serde(serialize_with = "redacted")]
    pub encryption_key: Option<Secret>,
    /// A file that holds the key, instead of `encryption_key`.
    pub encryption_key_file: Option<PathBuf>,
    /// How long a change may go unnoticed when no nudge announces it: 100 ms to 1 h.
    #[serde(
        serialize_with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required::serialize",
        deserialize_with = "refresh_period"
    )]
    pub refresh_every: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            database: DatabaseLocation::Sqlite("fanfare.db".into()),
            snapshot_file: None,
            encryption_key: None,
            encryption_key_file: None,
            refresh_every: Duration::from_secs(5),
        }
    }
}

impl Settings {
    /// The configured key, from wherever it is kept.
    pub(crate) fn key(&self) -> Result<EncryptionKey, EncryptionKeyFault> {
        match (&self.encryption_key, &self.encryption_key_file) {
            (Some(key), None) => EncryptionKey::parse(key.expose()),
            (None, Some(path)) => EncryptionKey::from_file(path),
            (None, None) => Err(EncryptionKeyFault::Missing),
            (Some(_), Some(_)) => Err(EncryptionKeyFault::Twice),
        }
    }
}

fn redacted<S: Serializer>(secret: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(|_| "[redacted]").serialize(serializer)
}

fn refresh_period<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let period = jiff::fmt::serde::unsigned_duration::friendly::compact::required::deserialize(
        deserializer,
    )?;
    if (Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&period) {
        Ok(period)
    } else {
        Err(de::Error::custom("refresh_every must be from 100ms to 1h"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Settings, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn settings_are_read_checked_and_printed_without_the_key() {
        assert_eq!(parse("{}").unwrap(), Settings::default());
        let settings = parse(r#"{"refresh_every": "250ms", "encryption_key": "abc"}"#).unwrap();
        assert_eq!(settings.refresh_every, Duration::from_millis(250));
        let printed = serde_json::to_string(&settings).unwrap() + &format!("{settings:?}");
        assert!(printed.contains("250ms") && printed.contains("[redacted]"));
        assert!(!printed.contains("abc"), "{printed}");
        for bad in [
            r#"{"x": 1}"#,
            r#"{"refresh_every": "0s"}"#,
            r#"{"refresh_every": 5}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn exactly_one_key_must_be_given() {
        assert!(matches!(
            Settings::default().key(),
            Err(EncryptionKeyFault::Missing)
        ));
        let twice = Settings {
            encryption_key: Some(Secret::new("0".repeat(64))),
            encryption_key_file: Some("key".into()),
            ..Settings::default()
        };
        assert!(matches!(twice.key(), Err(EncryptionKeyFault::Twice)));
    }
}
