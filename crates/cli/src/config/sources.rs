//! Where settings are given: a file, the environment, arguments. Gathers them; judges nothing.

use std::{
    env,
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use toml::{
    Value,
    de::{DeTable, DeValue, ValueDeserializer},
};

use super::{ConfigFault, known::KnownSettings};

const DEFAULT_FILE: &str = "fanfare.toml";
const PREFIX: &str = "FANFARE__";
/// The short form of a setting that almost everyone gives.
const AMQP_URL: (&str, &str) = ("FANFARE_AMQP_URL", "broker.url");

/// Everything from which settings are read, beside the built-in defaults.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    file: Option<PathBuf>,
    environment: Vec<(OsString, OsString)>,
    arguments: Vec<(&'static str, &'static str, String)>,
}

impl Sources {
    /// The file (if none is given, `./fanfare.toml` if it exists) and the environment of this process.
    pub fn of_process(file: Option<PathBuf>) -> Self {
        let usual = || Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists());
        Self {
            file: file.or_else(usual),
            environment: env::vars_os().collect(),
            arguments: Vec::new(),
        }
    }

    /// Adds a setting that an argument decides, such as `--data-dir`.
    pub fn with_argument(mut self, flag: &'static str, key: &'static str, value: String) -> Self {
        self.arguments.push((flag, key, value));
        self
    }

    #[cfg(test)]
    pub(super) fn for_tests(file: Option<&Path>, environment: &[(&str, &str)]) -> Self {
        Self {
            file: file.map(Path::to_owned),
            environment: environment
                .iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            arguments: Vec::new(),
        }
    }

    /// All that is given, the weakest first.
    pub(super) fn given(&self, known: &KnownSettings) -> Result<Vec<Given>, ConfigFault> {
        let mut given = Vec::new();
        if let Some(path) = &self.file {
            read_file(path, known, &mut given)?;
        }
        given.extend(self.environment_given()?);
        given.extend(self.arguments.iter().map(|(flag, key, value)| Given {
            key: (*key).to_owned(),
            value: GivenValue::Text(value.clone()),
            origin: Origin::Argument(flag),
        }));
        Ok(given)
    }

    fn environment_given(&self) -> Result<Vec<Given>, ConfigFault> {
        let mut given = Vec::new();
        for (name, value) in &self.environment {
            let Some(name) = name.to_str() else {
                continue;
            };
            let key = match name.strip_prefix(PREFIX) {
                Some(path) => path.replace("__", ".").to_lowercase(),
                None if name == AMQP_URL.0 => AMQP_URL.1.to_owned(),
                None => continue,
            };
            let Some(value) = value.to_str() else {
                return Err(ConfigFault::NotText {
                    variable: name.to_owned(),
                });
            };
            given.push(Given {
                key,
                value: GivenValue::Text(value.to_owned()),
                origin: Origin::Environment(name.to_owned()),
            });
        }
        // The full name is stronger than the short form, and the order of the environment means nothing.
        given.sort_by_key(|given| given.origin != Origin::Environment(AMQP_URL.0.to_owned()));
        Ok(given)
    }
}

/// Where the value of a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody gave one.
    Default,
    /// A line of the configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// A variable of the environment.
    Environment(String),
    /// An argument.
    Argument(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Argument(flag) => f.write_str(flag),
        }
    }
}

/// A value as someone gave it.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) key: String,
    pub(super) value: GivenValue,
    pub(super) origin: Origin,
}

#[derive(Debug)]
pub(super) enum GivenValue {
    /// From a place that has types.
    Typed(Value),
    /// From a place that has only text; what it means depends on the setting.
    Text(String),
}

fn read_file(
    path: &Path,
    known: &KnownSettings,
    given: &mut Vec<Given>,
) -> Result<(), ConfigFault> {
    let text = fs::read_to_string(path).map_err(|source| ConfigFault::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let line_at = |offset: usize| 1 + text[..offset].matches('\n').count();
    // The error's own `Display` would quote the line, which may hold a secret.
    let table = DeTable::parse(&text).map_err(|error| ConfigFault::NotToml {
        path: path.to_owned(),
        line: line_at(error.span().map_or(0, |span| span.start)),
        why: error.message().to_owned(),
    })?;
    flatten("", table.get_ref(), known, &mut |key, offset, value| {
        given.push(Given {
            key,
            value: GivenValue::Typed(value),
            origin: Origin::File {
                path: path.to_owned(),
                line: line_at(offset),
            },
        });
    });
    Ok(())
}

/// Calls `found` for every value, and for every table that is no section, with its key and its place.
fn flatten(
    prefix: &str,
    table: &DeTable<'_>,
    known: &KnownSettings,
    found: &mut impl FnMut(String, usize, Value),
) {
    for (name, value) in table {
        let key = format!("{prefix}{}", name.get_ref());
        if let DeValue::Table(section) = value.get_ref()
            && known.is_section(&key)
        {
            flatten(&format!("{key}."), section, known, found);
        } else {
            let place = name.span().start;
            let value = Value::deserialize(ValueDeserializer::from(value.clone()))
                .expect("what was parsed is a value");
            found(key, place, value);
        }
    }
}
