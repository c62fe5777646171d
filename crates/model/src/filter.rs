//! Which events an endpoint wants by their content: JSON patterns over attributes and data.
//!
//! A pattern has the shape of what it matches. Members are combined by "and", the list below a member by
//! "or", and `$or` holds patterns of which one has to match. `filter/read.rs` reads patterns and keeps their
//! bounds, `filter/condition.rs` has the conditions on one value, `filter/explain.rs` says why not.

mod condition;
mod explain;
mod read;
mod strict;

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

pub use self::explain::Mismatch;
use self::{
    condition::{Condition, Scalar},
    strict::Strict,
};
use crate::{EventView, event_view::Attribute};

/// A pattern that the content of an event matches or not.
///
/// Invariant: at most [`Filter::MOST_BYTES`] long, [`Filter::DEEPEST`] deep and [`Filter::MOST_CONDITIONS`]
/// wide, so that a match costs at most pattern times event.
#[derive(Clone)]
pub struct Filter(Arc<Compiled>);

struct Compiled {
    /// As it was given, for showing and storing.
    written: Value,
    members: Members,
}

/// Everything that has to hold at one level.
#[derive(Debug, Default)]
struct Members {
    fields: Vec<(Box<str>, Test)>,
    /// The alternatives of `$or`; empty when there is none.
    either: Vec<Members>,
}

/// What has to hold of one member.
#[derive(Debug)]
enum Test {
    /// One of these.
    Value(Vec<Condition>),
    /// All of these, below it.
    Members(Members),
}

/// Why a text or a JSON value is not a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at `{at}`: {problem}")]
pub struct InvalidFilter {
    /// Where in the pattern: `$` is the whole, `$.data.amount[0]` a place in it.
    pub at: String,
    /// What is wrong there, and what would be accepted.
    pub problem: String,
}

impl Filter {
    /// The longest filter, in bytes of JSON without white space.
    pub const MOST_BYTES: usize = 16 * 1024;
    /// How many levels of members a filter may have.
    pub const DEEPEST: usize = 16;
    /// How many values and conditions a filter may have in all.
    pub const MOST_CONDITIONS: usize = 500;

    /// Compiles a pattern.
    pub fn new(written: Value) -> Result<Self, InvalidFilter> {
        let members = read::read(&written)?;
        Ok(Self(Arc::new(Compiled { written, members })))
    }

    /// Whether the event has the content that is wanted.
    pub fn matches(&self, event: &EventView<'_>) -> bool {
        self.0.members.match_in(Place::Event(event))
    }

    /// Why the event does not match; `None` when it does.
    pub fn mismatch(&self, event: &EventView<'_>) -> Option<Mismatch> {
        explain::mismatch(&self.0.members, &self.0.written, event)
    }

    /// The pattern as it was given.
    pub fn as_json(&self) -> &Value {
        &self.0.written
    }
}

/// Where members are looked up.
#[derive(Clone, Copy)]
enum Place<'a> {
    Event(&'a EventView<'a>),
    Json(&'a Value),
    /// Nothing has members here.
    Nothing,
}

/// What is found at the name of a member.
enum Found<'a> {
    Absent,
    Scalar(Scalar<'a>),
    Json(&'a Value),
}

impl<'a> Place<'a> {
    fn member(self, name: &str) -> Found<'a> {
        match self {
            Self::Event(event) if name == "data" => event.data().map_or(Found::Absent, Found::Json),
            Self::Event(event) => match event.attribute(name) {
                Some(Attribute::Boolean(value)) => Found::Scalar(Scalar::Boolean(value)),
                Some(Attribute::Integer(value)) => Found::Scalar(Scalar::integer(value)),
                Some(Attribute::Text(text)) => Found::Scalar(Scalar::Text(text)),
                None => Found::Absent,
            },
            Self::Json(value) => value.get(name).map_or(Found::Absent, Found::Json),
            Self::Nothing => Found::Absent,
        }
    }
}

impl Members {
    fn match_in(&self, place: Place<'_>) -> bool {
        self.fields
            .iter()
            .all(|(name, test)| test.matches(&place.member(name)))
            && (self.either.is_empty() || self.either.iter().any(|one| one.match_in(place)))
    }

    /// Of the items of a list one has to match as a whole. What can have no members has none of them.
    fn match_below(&self, value: &Value) -> bool {
        match value {
            Value::Object(_) => self.match_in(Place::Json(value)),
            Value::Array(items) if !items.is_empty() => {
                items.iter().any(|item| self.match_below(item))
            }
            Value::Array(_)
            | Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_) => self.match_in(Place::Nothing),
        }
    }
}

impl Test {
    fn matches(&self, found: &Found<'_>) -> bool {
        match (self, found) {
            (Self::Value(conditions), Found::Absent) => {
                conditions.iter().any(Condition::wants_absence)
            }
            (Self::Value(conditions), Found::Scalar(scalar)) => conditions
                .iter()
                .any(|one| one.wants_presence() || one.holds(scalar)),
            (Self::Value(conditions), Found::Json(value)) => {
                conditions.iter().any(Condition::wants_presence) || any_holds(conditions, value)
            }
            (Self::Members(members), Found::Json(value)) => members.match_below(value),
            (Self::Members(members), Found::Absent | Found::Scalar(_)) => {
                members.match_in(Place::Nothing)
            }
        }
    }
}

/// Whether a condition holds for the value, or for an item if it is a list.
fn any_holds(conditions: &[Condition], value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| any_holds(conditions, item)),
        Value::Object(_) => false,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            let scalar = Scalar::of(value);
            conditions.iter().any(|one| one.holds(&scalar))
        }
    }
}

impl FromStr for Filter {
    type Err = InvalidFilter;

    fn from_str(text: &str) -> Result<Self, InvalidFilter> {
        let Strict(written) = serde_json::from_str(text).map_err(|fault| InvalidFilter {
            at: "$".to_owned(),
            problem: format!("not JSON ({fault}): accepted is a JSON object"),
        })?;
        Self::new(written)
    }
}

impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Strict(written) = Strict::deserialize(deserializer)?;
        Self::new(written).map_err(de::Error::custom)
    }
}

impl Serialize for Filter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.written.serialize(serializer)
    }
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        self.0.written == other.0.written
    }
}

impl Eq for Filter {}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.written.fmt(f)
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filter({})", self.0.written)
    }
}

#[cfg(test)]
mod tests;
