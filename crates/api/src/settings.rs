//! Where the API listens, and how much it takes at once.

use std::{net::SocketAddr, time::Duration};

use jiff::fmt::serde::unsigned_duration::friendly::compact;
use serde::{Deserialize, Deserializer, Serialize, de};

/// The `[api]` section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where to listen. Other machines reach it only when this is no loopback address.
    pub listen: SocketAddr,
    /// The most bytes that the body of a request may have.
    pub max_body_bytes: usize,
    /// Whether events are refused whose type is not in the catalogue, or whose data does not fit its schema.
    /// Otherwise only those whose type asks for it are.
    pub enforce_event_types: bool,
    /// How long a request may take: 3 s to 5 min. A publish waits a third of it for RabbitMQ's confirm.
    #[serde(
        serialize_with = "compact::required::serialize",
        deserialize_with = "request_timeout"
    )]
    pub request_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            // The largest batch of events, and room for the white space in its JSON.
            max_body_bytes: 1200 * 1024,
            enforce_event_types: false,
            request_timeout: Duration::from_secs(30),
        }
    }
}

impl Settings {
    /// How long a publish waits for its confirm: a share of the request's time, so that the caller is
    /// told what happened rather than that it took too long.
    pub(crate) fn confirm_within(&self) -> Duration {
        self.request_timeout / 3
    }

    /// How long a receiver that is tried out has to answer, for the same reason.
    pub(crate) fn trial_within(&self) -> Duration {
        self.request_timeout * 2 / 3
    }
}

fn request_timeout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let timeout = compact::required::deserialize(deserializer)?;
    if (Duration::from_secs(3)..=Duration::from_secs(300)).contains(&timeout) {
        Ok(timeout)
    } else {
        Err(de::Error::custom("request_timeout must be from 3s to 5m"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_checked() {
        let parse = serde_json::from_str::<Settings>;
        assert_eq!(parse("{}").unwrap(), Settings::default());
        let settings = parse(r#"{"listen": "0.0.0.0:80", "request_timeout": "1m"}"#).unwrap();
        assert_eq!(settings.request_timeout, Duration::from_secs(60));
        assert_eq!(settings.confirm_within(), Duration::from_secs(20));
        for bad in [
            r#"{"x": 1}"#,
            r#"{"listen": "8080"}"#,
            r#"{"request_timeout": "2s"}"#,
            r#"{"request_timeout": 30}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
