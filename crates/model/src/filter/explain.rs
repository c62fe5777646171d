//! Says why an event does not match: the first place that differs, for people.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::{
    Found, Members, Place, Test,
    condition::{Number, Scalar},
    read::{At, EITHER},
};
use crate::EventView;

/// How much of a value is shown.
const LONGEST: usize = 120;

/// The first place at which an event is not what a filter wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// The place, such as `$.data.amount`.
    pub at: String,
    /// What the event has there; `null` in JSON and "nothing" in words when it is absent.
    pub found: Option<String>,
    /// What the filter has there.
    pub wanted: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = self.found.as_deref().unwrap_or("absent");
        write!(f, "`{}` is {found}, wanted is {}", self.at, self.wanted)
    }
}

pub(super) fn mismatch(
    members: &Members,
    written: &Value,
    event: &EventView<'_>,
) -> Option<Mismatch> {
    in_place(members, written, Place::Event(event), &At::root())
}

fn in_place(members: &Members, written: &Value, place: Place<'_>, at: &At) -> Option<Mismatch> {
    for (name, test) in &members.fields {
        let (at, found) = (at.member(name), place.member(name));
        if test.matches(&found) {
            continue;
        }
        let wanted = &written[&**name];
        return Some(match (test, &found) {
            // What is inside tells more than the object as a whole.
            (Test::Members(inner), Found::Json(value)) if value.is_object() => {
                in_place(inner, wanted, Place::Json(value), &at)?
            }
            (Test::Members(inner), Found::Absent) => in_place(inner, wanted, Place::Nothing, &at)?,
            _ => Mismatch {
                at: at.into_path(),
                found: shown(&found),
                wanted: short(&wanted.to_string()),
            },
        });
    }
    if members.either.is_empty() || members.either.iter().any(|one| one.match_in(place)) {
        return None;
    }
    Some(Mismatch {
        at: at.member(EITHER).into_path(),
        found: Some(format!(
            "matched by none of {} patterns",
            members.either.len()
        )),
        wanted: short(&written[EITHER].to_string()),
    })
}

fn shown(found: &Found<'_>) -> Option<String> {
    let text = match found {
        Found::Absent => return None,
        Found::Json(value) => value.to_string(),
        Found::Scalar(Scalar::Null) => "null".to_owned(),
        Found::Scalar(Scalar::Boolean(value)) => value.to_string(),
        Found::Scalar(Scalar::Number(Number::Whole(number))) => number.to_string(),
        Found::Scalar(Scalar::Number(Number::Real(number))) => number.to_string(),
        Found::Scalar(Scalar::Text(text)) => Value::from(&**text).to_string(),
    };
    Some(short(&text))
}

fn short(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
