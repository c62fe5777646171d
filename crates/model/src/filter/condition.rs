//! The conditions of a filter on one value.

use std::{borrow::Cow, cmp::Ordering};

use serde_json::Value;

/// A condition on one value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Condition {
    /// The member is there, or is not.
    Exists(bool),
    Null,
    Boolean(bool),
    /// The number, however it is written.
    Number(Number),
    Text(TextTest),
    Range {
        low: Option<Bound>,
        high: Option<Bound>,
    },
    /// A scalar for which none of these hold.
    AnythingBut(Vec<Condition>),
}

/// An end of a range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Bound {
    pub(super) number: Number,
    /// Whether the number itself is within.
    pub(super) inclusive: bool,
}

/// A condition on a text. What ignores case is kept in lower case.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum TextTest {
    Equals(Box<str>),
    EqualsIgnoringCase(Box<str>),
    Prefix(Box<str>),
    PrefixIgnoringCase(Box<str>),
    Suffix(Box<str>),
    SuffixIgnoringCase(Box<str>),
    /// What stands between the stars; at least two pieces.
    Wildcard(Vec<Box<str>>),
}

/// A number of JSON. Whole numbers are kept exactly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Whole(i128),
    Real(f64),
}

/// A value that is neither a list nor an object.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar<'a> {
    Null,
    Boolean(bool),
    Number(Number),
    Text(Cow<'a, str>),
}

impl Condition {
    pub(super) fn wants_presence(&self) -> bool {
        *self == Self::Exists(true)
    }

    pub(super) fn wants_absence(&self) -> bool {
        *self == Self::Exists(false)
    }

    /// Whether it holds for a value that is there.
    pub(super) fn holds(&self, scalar: &Scalar<'_>) -> bool {
        match (self, scalar) {
            (Self::Exists(wanted), _) => *wanted,
            (Self::Null, Scalar::Null) => true,
            (Self::Boolean(wanted), Scalar::Boolean(found)) => wanted == found,
            (Self::Number(wanted), Scalar::Number(found)) => {
                wanted.order(*found) == Some(Ordering::Equal)
            }
            (Self::Text(test), Scalar::Text(text)) => test.holds(text),
            (Self::Range { low, high }, Scalar::Number(found)) => {
                low.is_none_or(|low| low.is_before(*found))
                    && high.is_none_or(|high| high.is_after(*found))
            }
            (Self::AnythingBut(unwanted), _) => !unwanted.iter().any(|one| one.holds(scalar)),
            (
                Self::Null
                | Self::Boolean(_)
                | Self::Number(_)
                | Self::Text(_)
                | Self::Range { .. },
                _,
            ) => false,
        }
    }
}

impl Bound {
    fn is_before(self, found: Number) -> bool {
        match self.number.order(found) {
            Some(Ordering::Less) => true,
            Some(Ordering::Equal) => self.inclusive,
            Some(Ordering::Greater) | None => false,
        }
    }

    fn is_after(self, found: Number) -> bool {
        match self.number.order(found) {
            Some(Ordering::Greater) => true,
            Some(Ordering::Equal) => self.inclusive,
            Some(Ordering::Less) | None => false,
        }
    }
}

impl TextTest {
    fn holds(&self, text: &str) -> bool {
        match self {
            Self::Equals(wanted) => **wanted == *text,
            Self::EqualsIgnoringCase(wanted) => lower(text).eq(wanted.chars()),
            Self::Prefix(prefix) => text.starts_with(&**prefix),
            Self::PrefixIgnoringCase(prefix) => begins_with(lower(text), prefix.chars()),
            Self::Suffix(suffix) => text.ends_with(&**suffix),
            Self::SuffixIgnoringCase(suffix) => {
                begins_with(lower(text).rev(), suffix.chars().rev())
            }
            Self::Wildcard(pieces) => fits(pieces, text),
        }
    }
}

/// A text in lower case, without a copy of it.
pub(super) fn lower(text: &str) -> impl DoubleEndedIterator<Item = char> {
    text.chars().flat_map(char::to_lowercase)
}

fn begins_with(
    mut text: impl Iterator<Item = char>,
    mut beginning: impl Iterator<Item = char>,
) -> bool {
    beginning.all(|wanted| text.next() == Some(wanted))
}

/// Whether the pieces stand in the text in this order, the first at its beginning and the last at its end.
///
/// Each is taken where it comes first: that leaves the most room for those that follow.
fn fits(pieces: &[Box<str>], text: &str) -> bool {
    let [first, middle @ .., last] = pieces else {
        return false;
    };
    let Some(mut rest) = text.strip_prefix(&**first) else {
        return false;
    };
    for piece in middle {
        let Some(at) = rest.find(&**piece) else {
            return false;
        };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(&**last)
}

impl Number {
    pub(super) fn of(number: &serde_json::Number) -> Self {
        match number.as_i128() {
            Some(whole) => Self::Whole(whole),
            // Without serde_json's arbitrary precision, every other number is a finite f64.
            None => Self::Real(number.as_f64().unwrap_or(f64::NAN)),
        }
    }

    pub(super) fn order(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Whole(one), Self::Whole(other)) => Some(one.cmp(&other)),
            (one, other) => one.as_f64().partial_cmp(&other.as_f64()),
        }
    }

    fn as_f64(self) -> f64 {
        match self {
            #[expect(
                clippy::cast_precision_loss,
                reason = "a number with a fraction has this precision anyway"
            )]
            Self::Whole(whole) => whole as f64,
            Self::Real(real) => real,
        }
    }
}

impl<'a> Scalar<'a> {
    /// A JSON value that is neither a list nor an object; those count as null here.
    pub(super) fn of(value: &'a Value) -> Self {
        match value {
            Value::Bool(value) => Self::Boolean(*value),
            Value::Number(number) => Self::Number(Number::of(number)),
            Value::String(text) => Self::Text(Cow::Borrowed(text)),
            Value::Null | Value::Array(_) | Value::Object(_) => Self::Null,
        }
    }

    pub(super) fn integer(value: i32) -> Self {
        Self::Number(Number::Whole(value.into()))
    }
}
