//! Finds out which settings exist, by asking the types that hold them.
//!
//! A type that is deserialized names its fields and then asks for each value in a way that tells what it
//! accepts. The probe listens and answers nothing, so a setting is known once it is written down as a field.

use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess,
    Visitor,
    value::{Error, StrDeserializer},
};
use toml::Value;

/// Every setting of a type, in the order in which they are declared.
#[derive(Debug)]
pub(super) struct KnownSettings(Vec<(String, Accepts)>);

/// What kind of value a setting accepts. Its type may have rules beyond that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accepts {
    Text,
    WholeNumber { least: i64, most: i64 },
    Number,
    Boolean,
    List,
    Anything,
}

impl KnownSettings {
    /// The settings of `T`, with those of its sections.
    pub(super) fn of<T: DeserializeOwned>() -> Self {
        let mut known = Vec::new();
        collect::<T>(&mut Vec::new(), &mut known);
        Self(known)
    }

    /// The keys, in order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_str())
    }

    /// What the setting of this key accepts; `None` when there is no such setting.
    pub(super) fn accepts(&self, key: &str) -> Option<Accepts> {
        let (_, accepts) = self.0.iter().find(|(known, _)| known == key)?;
        Some(*accepts)
    }

    /// Whether there are settings below this key.
    pub(super) fn is_section(&self, key: &str) -> bool {
        self.keys().any(|known| {
            known
                .strip_prefix(key)
                .is_some_and(|rest| rest.starts_with('.'))
        })
    }

    /// The setting or section that was probably meant: spelled almost so, or of that name in another section.
    pub(super) fn nearest(&self, key: &str) -> Option<&str> {
        let distance = |known: &&str| {
            let whole = strsim::osa_distance(known, key);
            let names = strsim::osa_distance(last_word(known), last_word(key));
            whole.min(names + 1)
        };
        let sections = self.keys().filter_map(|key| Some(key.rsplit_once('.')?.0));
        let nearest = self.keys().chain(sections).min_by_key(distance)?;
        let tolerated = 1 + last_word(key).len() / 3;
        (distance(&nearest) <= tolerated).then_some(nearest)
    }
}

fn last_word(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

impl Accepts {
    /// What would be accepted, when the value is of the wrong kind.
    pub(super) fn instead_of(self, value: &Value) -> Option<String> {
        match (self, value) {
            (Self::WholeNumber { least, most }, Value::Integer(number)) => {
                let beyond = !(least..=most).contains(number);
                let accepted = if most == i64::MAX {
                    format!("a whole number from {least}")
                } else {
                    format!("a whole number from {least} to {most}")
                };
                beyond.then_some(accepted)
            }
            (Self::Text, Value::String(_))
            | (Self::Number, Value::Integer(_) | Value::Float(_))
            | (Self::Boolean, Value::Boolean(_))
            | (Self::List, Value::Array(_))
            | (Self::Anything, _) => None,
            (kind, _) => Some(kind.to_string()),
        }
    }
}

impl fmt::Display for Accepts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text in quotes",
            Self::WholeNumber { .. } => "a whole number",
            Self::Number => "a number",
            Self::Boolean => "true or false",
            Self::List => "a list, such as [\"a\", \"b\"]",
            Self::Anything => "a value",
        })
    }
}

fn collect<T: DeserializeOwned>(path: &mut Vec<&'static str>, known: &mut Vec<(String, Accepts)>) {
    match shape_at::<T>(path) {
        Shape::Section(fields) => {
            for field in fields {
                path.push(field);
                collect::<T>(path, known);
                path.pop();
            }
        }
        Shape::Value(accepts) => known.push((path.join("."), accepts)),
    }
}

/// What a type asks for at the end of a path of field names.
fn shape_at<T: DeserializeOwned>(path: &[&'static str]) -> Shape {
    let mut shape = None;
    let answered = T::deserialize(Probe {
        path,
        shape: &mut shape,
    });
    debug_assert!(answered.is_err(), "the probe never gives a value");
    shape.expect("a type asks for its value when it is deserialized")
}

enum Shape {
    Section(&'static [&'static str]),
    Value(Accepts),
}

struct Probe<'p> {
    path: &'p [&'static str],
    shape: &'p mut Option<Shape>,
}

impl Probe<'_> {
    fn found<V>(self, shape: Shape) -> Result<V, Error> {
        *self.shape = Some(shape);
        Err(Error::custom("found"))
    }

    /// A visitor that refuses zero belongs to a type like `NonZeroU16`.
    fn whole_number<'de, V: Visitor<'de>>(self, visitor: V, most: i64) -> Result<V::Value, Error> {
        let takes_zero = visitor.visit_u64::<Error>(0).is_ok();
        let least = i64::from(!takes_zero);
        self.found(Shape::Value(Accepts::WholeNumber { least, most }))
    }

    fn signed_number<V>(self, least: i64, most: i64) -> Result<V, Error> {
        self.found(Shape::Value(Accepts::WholeNumber { least, most }))
    }
}

macro_rules! probe {
    ($($method:ident => $accepts:expr;)*) => {
        $(fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            self.found(Shape::Value($accepts))
        })*
    };
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Error;

    probe! {
        deserialize_any => Accepts::Anything;
        deserialize_ignored_any => Accepts::Anything;
        deserialize_identifier => Accepts::Text;
        deserialize_bool => Accepts::Boolean;
        deserialize_char => Accepts::Text;
        deserialize_str => Accepts::Text;
        deserialize_string => Accepts::Text;
        deserialize_bytes => Accepts::Text;
        deserialize_byte_buf => Accepts::Text;
        deserialize_f32 => Accepts::Number;
        deserialize_f64 => Accepts::Number;
        deserialize_seq => Accepts::List;
        deserialize_map => Accepts::Anything;
        deserialize_unit => Accepts::Anything;
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.whole_number(visitor, u8::MAX.into())
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.whole_number(visitor, u16::MAX.into())
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.whole_number(visitor, u32::MAX.into())
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        // TOML's numbers end where `i64` does.
        self.whole_number(visitor, i64::MAX)
    }

    fn deserialize_i8<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        self.signed_number(i8::MIN.into(), i8::MAX.into())
    }

    fn deserialize_i16<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        self.signed_number(i16::MIN.into(), i16::MAX.into())
    }

    fn deserialize_i32<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        self.signed_number(i32::MIN.into(), i32::MAX.into())
    }

    fn deserialize_i64<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        self.signed_number(i64::MIN, i64::MAX)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.path {
            [] => self.found(Shape::Section(fields)),
            [_, ..] => visitor.visit_map(self),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        self.found(Shape::Value(Accepts::Text))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Error> {
        self.found(Shape::Value(Accepts::List))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        _: V,
    ) -> Result<V::Value, Error> {
        self.found(Shape::Value(Accepts::List))
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: V,
    ) -> Result<V::Value, Error> {
        self.found(Shape::Value(Accepts::Anything))
    }
}

/// A section in which only the first field of the path is present.
impl<'de> MapAccess<'de> for Probe<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let name: StrDeserializer<'_, Error> = self.path[0].into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(Probe {
            path: &self.path[1..],
            shape: self.shape,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU16, path::PathBuf, time::Duration};

    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    #[serde(try_from = "Written")]
    #[expect(dead_code, reason = "only its shape matters")]
    struct Outer(Written);

    impl From<Written> for Outer {
        fn from(written: Written) -> Self {
            Self(written)
        }
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape matters")]
    struct Written {
        #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
        grace: Duration,
        inner: Inner,
    }

    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only its shape matters")]
    struct Inner {
        file: Option<PathBuf>,
        share: f64,
        most: NonZeroU16,
        level: i8,
        allow: Vec<String>,
        quiet: bool,
    }

    #[test]
    fn every_field_is_found_with_what_it_accepts() {
        let known = KnownSettings::of::<Outer>();
        assert_eq!(
            known.0,
            [
                ("grace", Accepts::Text),
                ("inner.file", Accepts::Text),
                ("inner.share", Accepts::Number),
                (
                    "inner.most",
                    Accepts::WholeNumber {
                        least: 1,
                        most: 65535
                    }
                ),
                (
                    "inner.level",
                    Accepts::WholeNumber {
                        least: -128,
                        most: 127
                    }
                ),
                ("inner.allow", Accepts::List),
                ("inner.quiet", Accepts::Boolean),
            ]
            .map(|(key, accepts)| (key.to_owned(), accepts))
        );
        assert!(known.is_section("inner"));
        assert!(!known.is_section("inn"));
    }

    #[test]
    fn a_misspelled_key_finds_the_one_that_was_meant() {
        let known = KnownSettings::of::<Outer>();
        for (key, nearest) in [
            ("grcae", Some("grace")),
            ("inner.shares", Some("inner.share")),
            ("iner.most", Some("inner.most")),
            ("allow", Some("inner.allow")),
            ("iner", Some("inner")),
            ("colour", None),
            ("inner.colour", None),
        ] {
            assert_eq!(known.nearest(key), nearest, "{key}");
        }
    }
}
