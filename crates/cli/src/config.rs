//! The configuration: every crate's settings, composed.
//!
//! In rising order: built-in defaults, one TOML file, the environment (`FANFARE__SECTION__KEY`), arguments.
//! Any text setting can also be given as `<key>_file`, the path of a file that holds it: meant for secrets.

mod known;
mod load;
mod rules;
mod sources;

use std::{io, path::PathBuf, time::Duration};

use fanfare_model::Endpoint;
use jiff::fmt::serde::unsigned_duration::friendly::compact;
use serde::{Deserialize, Deserializer, Serialize, de};

pub(crate) use load::Effective;
pub use load::Loaded;
pub use sources::{Origin, Sources};

/// All settings of the program.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long a shutdown may take before what is left is handed back: longer than the longest attempt.
    #[serde(
        serialize_with = "compact::required::serialize",
        deserialize_with = "grace"
    )]
    pub shutdown_grace: Duration,
    /// How to reach RabbitMQ.
    pub broker: fanfare_broker::Settings,
    /// What is told of what happens.
    pub journal: fanfare_broker::JournalSettings,
    /// Where endpoints are kept.
    pub registry: fanfare_registry::Settings,
    /// Where it is kept what happened, and for how long.
    pub history: fanfare_journal::Settings,
    /// How events are routed.
    pub router: fanfare_router::Settings,
    /// How endpoints are called.
    pub dispatcher: fanfare_dispatcher::Settings,
    /// What is done with what rests.
    pub dead_letters: fanfare_deadletters::Settings,
    /// Where the API listens.
    pub api: fanfare_api::Settings,
    /// What the process tells about itself.
    pub telemetry: fanfare_telemetry::Settings,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            shutdown_grace: Duration::from_secs(45),
            broker: fanfare_broker::Settings::default(),
            journal: fanfare_broker::JournalSettings::default(),
            registry: fanfare_registry::Settings::default(),
            history: fanfare_journal::Settings::default(),
            router: fanfare_router::Settings::default(),
            dispatcher: fanfare_dispatcher::Settings::default(),
            dead_letters: fanfare_deadletters::Settings::default(),
            api: fanfare_api::Settings::default(),
            telemetry: fanfare_telemetry::Settings::default(),
        }
    }
}

impl Config {
    /// Reads the settings from all sources, and judges them as a whole.
    pub fn load(sources: &Sources) -> Result<Loaded<Self>, ConfigFault> {
        let loaded = Loaded::load(sources)?;
        rules::check(&loaded)?;
        Ok(loaded)
    }
}

/// Attempts in flight finish and settle within the grace period, so it must outlast the longest of them.
fn grace<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let grace = compact::required::deserialize(deserializer)?;
    let (_, longest_attempt) = Endpoint::TIMEOUTS;
    if grace > longest_attempt {
        Ok(grace)
    } else {
        let longest = longest_attempt.as_secs();
        Err(de::Error::custom(format_args!(
            "accepted is a duration longer than the longest attempt, {longest}s"
        )))
    }
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFault {
    /// A file that was named cannot be read.
    #[error("reading {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The configuration file is no TOML.
    #[error("{}:{line} is not TOML: {why}", path.display())]
    NotToml {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the parser says.
        why: String,
    },
    /// A variable holds something that is no text.
    #[error("{variable} is not UTF-8")]
    NotText {
        /// The variable.
        variable: String,
    },
    /// There is no such setting.
    #[error("there is no setting `{key}` ({origin}){}", meant(.nearest.as_deref()))]
    Unknown {
        /// The key as given.
        key: String,
        /// Who gave it.
        origin: Origin,
        /// A setting with a name like it.
        nearest: Option<String>,
    },
    /// A value is not accepted.
    #[error("`{key}` ({origin}): {why}")]
    Invalid {
        /// The setting.
        key: String,
        /// Who gave the value.
        origin: Origin,
        /// What would be accepted.
        why: String,
    },
    /// Each value would be accepted, but not together.
    #[error("the settings contradict each other: {why}")]
    Conflict {
        /// What contradicts.
        why: String,
    },
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |key| format!("; did you mean `{key}`?"))
}

#[cfg(test)]
mod page;
#[cfg(test)]
mod tests;
