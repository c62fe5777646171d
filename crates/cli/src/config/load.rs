//! Lays what is given over the defaults, and keeps where each value comes from.

use std::{collections::BTreeMap, fs};

use serde::{Serialize, de::DeserializeOwned};
use toml::{Table, Value};

use super::{
    ConfigFault, Origin, Sources,
    known::{Accepts, KnownSettings},
    sources::{Given, GivenValue},
};

/// Settings, and where each of them comes from.
#[derive(Debug, Clone)]
pub struct Loaded<C> {
    /// The settings, parsed and valid.
    pub settings: C,
    origins: BTreeMap<String, Origin>,
}

/// One setting as it is in effect. A secret's value is `[redacted]`, by its own section's doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Effective {
    pub(crate) key: String,
    pub(crate) value: serde_json::Value,
    pub(crate) origin: Origin,
}

impl<C: DeserializeOwned + Serialize> Loaded<C> {
    /// Reads all sources; stronger ones replace the values of weaker ones, key by key.
    pub(super) fn load(sources: &Sources) -> Result<Self, ConfigFault> {
        let known = KnownSettings::of::<C>();
        let mut chosen = BTreeMap::new();
        for given in sources.given(&known)? {
            let origin = given.origin.clone();
            let (key, value) = resolve(given, &known)?;
            chosen.insert(key, (value, origin));
        }
        let values = chosen.iter().map(|(key, (value, _))| (key, value));
        let settings = parse(values).map_err(|whole| blame::<C>(&chosen, &known, &whole))?;
        let origins = chosen
            .into_iter()
            .map(|(key, (_, origin))| (key, origin))
            .collect();
        Ok(Self { settings, origins })
    }

    /// Whether somebody chose this setting, rather than leaving it at its default.
    pub(crate) fn was_given(&self, key: &str) -> bool {
        self.origins.contains_key(key)
    }

    /// Every setting with its value and its origin, in the order of declaration.
    pub(crate) fn effective(&self) -> Vec<Effective> {
        let values = serde_json::to_value(&self.settings).expect("settings have a textual form");
        KnownSettings::of::<C>()
            .keys()
            .map(|key| Effective {
                key: key.to_owned(),
                value: values
                    .pointer(&format!("/{}", key.replace('.', "/")))
                    .cloned()
                    .unwrap_or_default(),
                origin: self.origin(key),
            })
            .collect()
    }

    /// Where the value of a setting comes from.
    pub(super) fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }
}

/// Finds the setting that is meant, and turns text into the kind of value that it accepts.
fn resolve(given: Given, known: &KnownSettings) -> Result<(String, Value), ConfigFault> {
    let Given { key, value, origin } = given;
    if let Some(accepts) = known.accepts(&key) {
        return Ok((key, typed(value, accepts)));
    }
    if known.is_section(&key) {
        let why = "this is a section; its settings are given one by one".to_owned();
        return Err(ConfigFault::Invalid { key, origin, why });
    }
    if let Some(held) = key.strip_suffix("_file")
        && known.accepts(held) == Some(Accepts::Text)
    {
        return Ok((held.to_owned(), content(&key, value, origin)?));
    }
    let nearest = known.nearest(&key).map(str::to_owned);
    Err(ConfigFault::Unknown {
        key,
        origin,
        nearest,
    })
}

fn typed(value: GivenValue, accepts: Accepts) -> Value {
    match value {
        GivenValue::Typed(value) => value,
        GivenValue::Text(text) if accepts == Accepts::Text => Value::String(text),
        GivenValue::Text(text) => text.parse().unwrap_or(Value::String(text)),
    }
}

/// The content of the file that a `…_file` key names, without the line break at its end.
fn content(key: &str, path: GivenValue, origin: Origin) -> Result<Value, ConfigFault> {
    let Value::String(path) = typed(path, Accepts::Text) else {
        return Err(ConfigFault::Invalid {
            key: key.to_owned(),
            origin,
            why: "accepted is the path of a file, in quotes".to_owned(),
        });
    };
    let text = fs::read_to_string(&path).map_err(|source| ConfigFault::Unreadable {
        path: path.into(),
        source,
    })?;
    Ok(Value::String(
        text.trim_end_matches(['\r', '\n']).to_owned(),
    ))
}

fn parse<'v, C: DeserializeOwned>(
    values: impl Iterator<Item = (&'v String, &'v Value)>,
) -> Result<C, toml::de::Error> {
    let mut settings = Table::new();
    for (key, value) in values {
        let mut section = &mut settings;
        let mut words = key.split('.').peekable();
        while let Some(word) = words.next() {
            if words.peek().is_none() {
                section.insert(word.to_owned(), value.clone());
                break;
            }
            section = section
                .entry(word)
                .or_insert_with(|| Value::Table(Table::new()))
                .as_table_mut()
                .expect("a key is a setting or a section, never both");
        }
    }
    Value::Table(settings).try_into()
}

/// Finds the setting at fault: the first that would not even be accepted alone.
fn blame<C: DeserializeOwned>(
    chosen: &BTreeMap<String, (Value, Origin)>,
    known: &KnownSettings,
    whole: &toml::de::Error,
) -> ConfigFault {
    for (key, (value, origin)) in chosen {
        let Err(alone) = parse::<C>([(key, value)].into_iter()) else {
            continue;
        };
        let instead = known
            .accepts(key)
            .and_then(|accepts| accepts.instead_of(value));
        return ConfigFault::Invalid {
            key: key.clone(),
            origin: origin.clone(),
            why: instead.map_or_else(
                || alone.message().to_owned(),
                |instead| format!("accepted is {instead}"),
            ),
        };
    }
    ConfigFault::Conflict {
        why: whole.message().to_owned(),
    }
}
