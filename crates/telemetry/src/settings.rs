//! How much is logged, and in which form.

use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

/// The section `[telemetry]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The form of log lines: `json`, `pretty`, or `auto` for `pretty` on a terminal and `json` elsewhere.
    pub log_format: LogFormat,
    /// Which lines are logged: a level, or levels by module such as `info,fanfare_router=debug`.
    pub log_filter: LogFilter,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// `Pretty` when stderr is a terminal, else `Json`.
    #[default]
    Auto,
    /// One JSON object per line, for machines.
    Json,
    /// One line of text, for people.
    Pretty,
}

/// Which lines are logged, in the syntax of `tracing_subscriber::EnvFilter`.
///
/// Invariant: it parses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LogFilter(String);

/// Why a text is not a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a log filter: accepted are a level (error, warn, info, debug, trace) and \
     levels by module, separated by commas, such as `info,fanfare_router=debug`"
)]
pub struct InvalidFilter(String);

impl LogFilter {
    pub(crate) fn directives(&self) -> EnvFilter {
        EnvFilter::try_new(&self.0).expect("the filter was parsed when it was made")
    }

    /// Whether someone asked by name for more of the AMQP library's lines than its errors.
    pub(crate) fn asks_for_lapin(&self) -> bool {
        self.0
            .split(',')
            .map(str::trim)
            .any(|directive| directive.starts_with("lapin") && directive != "lapin=error")
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self("info,lapin=error".to_owned())
    }
}

impl TryFrom<String> for LogFilter {
    type Error = InvalidFilter;

    fn try_from(text: String) -> Result<Self, InvalidFilter> {
        // An unknown level would otherwise be taken for the name of a module and silence everything.
        let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
        let bare_words_are_levels = text
            .split(',')
            .filter(|directive| !directive.contains(['=', '[', ':', '_']))
            .all(is_level);
        if bare_words_are_levels && EnvFilter::try_new(&text).is_ok() {
            Ok(Self(text))
        } else {
            Err(InvalidFilter(text))
        }
    }
}

impl From<LogFilter> for String {
    fn from(filter: LogFilter) -> Self {
        filter.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_levels_and_levels_by_module() {
        for good in [
            "info",
            "WARN",
            "off",
            "info,fanfare_router=debug",
            "warn,lapin=error",
        ] {
            assert!(LogFilter::try_from(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", "loud", "inof,lapin=error", "fanfare_router=loud"] {
            assert!(LogFilter::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
