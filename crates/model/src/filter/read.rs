//! Reads patterns, keeps their bounds, and says what is wrong at which place.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::{
    Filter, InvalidFilter, Members, Test,
    condition::{Bound, Condition, Number, TextTest, lower},
};

/// The name below which alternatives stand.
pub(super) const EITHER: &str = "$or";
/// The longest text that is compared with, in bytes.
const LONGEST_TEXT: usize = 1024;
/// The most stars of one wildcard.
const MOST_STARS: usize = 8;

const A_LIST: &str =
    "accepted is a list of values and conditions, such as `[\"EUR\", {\"prefix\": \"US\"}]`";
const A_CONDITION: &str = "accepted is a text, a number, a boolean, null, or an object with one of `prefix`, `suffix`, \
     `equals-ignore-case`, `wildcard`, `anything-but`, `numeric`, `exists`";

/// The conditions on texts, which `anything-but` may hold.
const TEXT_TESTS: [&str; 4] = ["prefix", "suffix", "equals-ignore-case", "wildcard"];

type Read<T> = Result<T, InvalidFilter>;

pub(super) fn read(written: &Value) -> Read<Members> {
    let at = At::root();
    let bytes = written.to_string().len();
    if bytes > Filter::MOST_BYTES {
        let most = Filter::MOST_BYTES;
        return Err(at.wrong(&format!(
            "the filter has {bytes} bytes: accepted are at most {most}"
        )));
    }
    Reader { conditions: 0 }.members(&at, written, Level::Event)
}

/// A place in a pattern, in the notation of `JSONPath`.
#[derive(Clone)]
pub(super) struct At {
    path: String,
    depth: usize,
}

impl At {
    pub(super) fn root() -> Self {
        Self {
            path: "$".to_owned(),
            depth: 0,
        }
    }

    pub(super) fn member(&self, name: &str) -> Self {
        let plain = |c: char| c.is_alphanumeric() || c == '_' || c == '-' || c == '$';
        let path = if !name.is_empty() && name.chars().all(plain) {
            format!("{}.{name}", self.path)
        } else {
            format!("{}[{}]", self.path, Value::from(name))
        };
        Self {
            path,
            depth: self.depth + 1,
        }
    }

    pub(super) fn item(&self, n: usize) -> Self {
        Self {
            path: format!("{}[{n}]", self.path),
            depth: self.depth,
        }
    }

    pub(super) fn into_path(self) -> String {
        self.path
    }

    fn wrong(&self, problem: &str) -> InvalidFilter {
        InvalidFilter {
            at: self.path.clone(),
            problem: problem.to_owned(),
        }
    }
}

/// Whether members are attributes of the event, or belong to its data.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    Event,
    Data,
}

struct Reader {
    conditions: usize,
}

impl Reader {
    fn members(&mut self, at: &At, value: &Value, level: Level) -> Read<Members> {
        let Value::Object(object) = value else {
            return Err(at.wrong(&format!(
                "{}: accepted is an object such as `{{\"data\": {{\"currency\": [\"EUR\"]}}}}`",
                kind(value)
            )));
        };
        if object.is_empty() {
            let problem = "an empty pattern: accepted is an object with at least one member, or no \
                           filter at all";
            return Err(at.wrong(problem));
        }
        if at.depth >= Filter::DEEPEST {
            let deepest = Filter::DEEPEST;
            return Err(at.wrong(&format!(
                "too deep: accepted are at most {deepest} levels of members"
            )));
        }
        let mut members = Members::default();
        for (name, value) in object {
            let at = at.member(name);
            if name == EITHER {
                members.either = self.either(&at, value, level)?;
                continue;
            }
            check_name(&at, name, level)?;
            let test = self.test(&at, value, level == Level::Data || name == "data")?;
            members.fields.push((name.as_str().into(), test));
        }
        Ok(members)
    }

    fn either(&mut self, at: &At, value: &Value, level: Level) -> Read<Vec<Members>> {
        let alternatives = value.as_array().filter(|list| !list.is_empty());
        let Some(alternatives) = alternatives else {
            return Err(at.wrong(&format!(
                "{}: accepted is a list of patterns, of which one has to match",
                kind(value)
            )));
        };
        let alternatives = alternatives.iter().enumerate();
        alternatives
            .map(|(n, one)| self.members(&at.item(n), one, level))
            .collect()
    }

    fn test(&mut self, at: &At, value: &Value, may_nest: bool) -> Read<Test> {
        match value {
            Value::Array(list) if list.is_empty() => {
                Err(at.wrong(&format!("an empty list, which nothing matches: {A_LIST}")))
            }
            Value::Array(list) => {
                let list = list.iter().enumerate();
                list.map(|(n, one)| self.condition(&at.item(n), one))
                    .collect::<Read<_>>()
                    .map(Test::Value)
            }
            Value::Object(_) if may_nest => self.members(at, value, Level::Data).map(Test::Members),
            Value::Object(_) => Err(at.wrong(&format!(
                "an object, but attributes have no members, only `data` has: {A_LIST}"
            ))),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                Err(at.wrong(&format!("{} outside a list: {A_LIST}", kind(value))))
            }
        }
    }

    fn condition(&mut self, at: &At, value: &Value) -> Read<Condition> {
        self.count(at)?;
        match value {
            Value::Array(_) => Err(at.wrong(&format!("a list in a list: {A_CONDITION}"))),
            Value::Object(object) => {
                let (name, operand) = only_member(at, object, A_CONDITION)?;
                self.operation(&at.member(name), name, operand)
                    .transpose()
                    .unwrap_or_else(|| {
                        Err(at.wrong(&format!("unknown condition `{name}`: {A_CONDITION}")))
                    })
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                literal(at, value)
            }
        }
    }

    /// The condition of this name; `None` if there is none.
    fn operation(&mut self, at: &At, name: &str, operand: &Value) -> Read<Option<Condition>> {
        let condition = match name {
            "exists" => match operand.as_bool() {
                Some(wanted) => Condition::Exists(wanted),
                None => {
                    return Err(at.wrong(&format!("{}: accepted is true or false", kind(operand))));
                }
            },
            "numeric" => numeric(at, operand)?,
            "anything-but" => Condition::AnythingBut(self.unwanted(at, operand)?),
            _ => return Ok(text_test(at, name, operand)?.map(Condition::Text)),
        };
        Ok(Some(condition))
    }

    /// A value, a list of values, or one condition on texts with a text or a list of them.
    fn unwanted(&mut self, at: &At, operand: &Value) -> Read<Vec<Condition>> {
        const ACCEPTED: &str = "accepted is a value, a list of values, or an object with one of `prefix`, \
                                `suffix`, `equals-ignore-case`, `wildcard`";
        match operand {
            Value::Object(object) => {
                let (name, operand) = only_member(at, object, ACCEPTED)?;
                let inner = at.member(name);
                if !TEXT_TESTS.contains(&name) {
                    return Err(inner.wrong(&format!("unknown condition `{name}`: {ACCEPTED}")));
                }
                let mut read = |at: &At, operand: &Value| {
                    self.count(at)?;
                    let test = text_test(at, name, operand)?;
                    Ok(Condition::Text(test.expect("its name was checked")))
                };
                match operand.as_array().filter(|list| !list.is_empty()) {
                    Some(list) => {
                        let list = list.iter().enumerate();
                        list.map(|(n, one)| read(&inner.item(n), one)).collect()
                    }
                    None => read(&inner, operand).map(|one| vec![one]),
                }
            }
            Value::Array(list) if list.is_empty() => {
                Err(at.wrong(&format!("an empty list: {ACCEPTED}")))
            }
            Value::Array(list) => {
                let list = list.iter().enumerate();
                list.map(|(n, one)| {
                    let at = at.item(n);
                    self.count(&at)?;
                    literal(&at, one)
                })
                .collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                literal(at, operand).map(|one| vec![one])
            }
        }
    }

    fn count(&mut self, at: &At) -> Read<()> {
        self.conditions += 1;
        if self.conditions > Filter::MOST_CONDITIONS {
            let most = Filter::MOST_CONDITIONS;
            return Err(at.wrong(&format!(
                "too many values and conditions: accepted are at most {most} in all"
            )));
        }
        Ok(())
    }
}

fn check_name(at: &At, name: &str, level: Level) -> Read<()> {
    if name.starts_with('$') {
        let problem = format!("unknown operator `{name}`: accepted is `{EITHER}`");
        return Err(at.wrong(&problem));
    }
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if level == Level::Event && (name.is_empty() || !name.bytes().all(fits)) {
        let problem = "no attribute of an event has this name: accepted are `data` and names of \
                       attributes, which are lower-case letters and digits, such as `type`, `subject`";
        return Err(at.wrong(problem));
    }
    Ok(())
}

/// The one member of an object.
fn only_member<'v>(
    at: &At,
    object: &'v Map<String, Value>,
    accepted: &str,
) -> Read<(&'v str, &'v Value)> {
    let mut members = object.iter();
    match (members.next(), members.next()) {
        (Some((name, operand)), None) => Ok((name, operand)),
        (None, _) => Err(at.wrong(&format!("an empty object: {accepted}"))),
        (Some(_), Some(_)) => Err(at.wrong(&format!(
            "several conditions in one object: {accepted}; conditions of which one is enough are items \
             of the list"
        ))),
    }
}

fn literal(at: &At, value: &Value) -> Read<Condition> {
    match value {
        Value::Null => Ok(Condition::Null),
        Value::Bool(value) => Ok(Condition::Boolean(*value)),
        Value::Number(number) => Ok(Condition::Number(Number::of(number))),
        Value::String(_) => {
            let text = text(at, value)?;
            Ok(Condition::Text(TextTest::Equals(text.into())))
        }
        Value::Array(_) | Value::Object(_) => Err(at.wrong(&format!(
            "{}: accepted is a text, a number, a boolean or null",
            kind(value)
        ))),
    }
}

/// The condition of this name on texts; `None` if there is none.
fn text_test(at: &At, name: &str, operand: &Value) -> Read<Option<TextTest>> {
    let ignoring_case = |at: &At| {
        let Some(object) = operand.as_object() else {
            return Ok(None);
        };
        let accepted = "accepted is a text or `{\"equals-ignore-case\": \"…\"}`";
        let (name, operand) = only_member(at, object, accepted)?;
        let at = at.member(name);
        if name == "equals-ignore-case" {
            text(&at, operand).map(Some)
        } else {
            Err(at.wrong(&format!("unknown condition `{name}`: {accepted}")))
        }
    };
    let in_lower_case = |text: &str| lower(text).collect::<String>().into_boxed_str();
    let test = match name {
        "equals-ignore-case" => TextTest::EqualsIgnoringCase(in_lower_case(text(at, operand)?)),
        "prefix" => match ignoring_case(at)? {
            Some(prefix) => TextTest::PrefixIgnoringCase(in_lower_case(prefix)),
            None => TextTest::Prefix(text(at, operand)?.into()),
        },
        "suffix" => match ignoring_case(at)? {
            Some(suffix) => TextTest::SuffixIgnoringCase(in_lower_case(suffix)),
            None => TextTest::Suffix(text(at, operand)?.into()),
        },
        "wildcard" => wildcard(at, text(at, operand)?)?,
        _ => return Ok(None),
    };
    Ok(Some(test))
}

fn text<'v>(at: &At, value: &'v Value) -> Read<&'v str> {
    let Some(text) = value.as_str() else {
        return Err(at.wrong(&format!("{}: accepted is a text", kind(value))));
    };
    if text.len() > LONGEST_TEXT {
        let bytes = text.len();
        return Err(at.wrong(&format!(
            "a text of {bytes} bytes: accepted are at most {LONGEST_TEXT}"
        )));
    }
    Ok(text)
}

/// Splits at stars. `\*` is a star and `\\` a backslash.
fn wildcard(at: &At, text: &str) -> Read<TextTest> {
    let mut pieces = vec![String::new()];
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        let literal = match character {
            '*' => {
                pieces.push(String::new());
                continue;
            }
            '\\' => characters
                .next()
                .filter(|next| matches!(next, '*' | '\\'))
                .ok_or_else(|| {
                    at.wrong("a `\\` before something else: accepted are `\\*` and `\\\\`")
                })?,
            other => other,
        };
        pieces
            .last_mut()
            .expect("there is always a piece")
            .push(literal);
    }
    let stars = pieces.len() - 1;
    if stars == 0 || stars > MOST_STARS {
        return Err(at.wrong(&format!(
            "a wildcard with {stars} stars: accepted are 1 to {MOST_STARS}"
        )));
    }
    if pieces[1..stars].iter().any(String::is_empty) {
        return Err(at.wrong("two stars in a row: accepted is one"));
    }
    let pieces = pieces.into_iter().map(String::into_boxed_str);
    Ok(TextTest::Wildcard(pieces.collect()))
}

/// `["=", 5]`, `[">=", 5]`, or a range such as `[">", 0, "<=", 5]`.
fn numeric(at: &At, operand: &Value) -> Read<Condition> {
    const ACCEPTED: &str =
        "accepted is `[\"=\", 5]`, `[\">=\", 5]`, or a range such as `[\">\", 0, \"<=\", 5]`";
    let items = operand.as_array().map_or(&[][..], Vec::as_slice);
    let comparison = |n: usize| {
        let (at_operator, at_number) = (at.item(n), at.item(n + 1));
        let operator = items[n]
            .as_str()
            .filter(|operator| ["=", "<", "<=", ">", ">="].contains(operator));
        let operator = operator.ok_or_else(|| {
            at_operator.wrong(&format!(
                "{} is no comparison: accepted are `=`, `<`, `<=`, `>`, `>=`",
                items[n]
            ))
        })?;
        let number = items[n + 1].as_number();
        let number = number.ok_or_else(|| {
            at_number.wrong(&format!("{}: accepted is a number", kind(&items[n + 1])))
        })?;
        Ok((operator, Number::of(number)))
    };
    let bound = |(operator, number): (&str, Number)| Bound {
        number,
        inclusive: operator.ends_with('='),
    };
    let (first, second) = match items.len() {
        2 => (comparison(0)?, None),
        4 => (comparison(0)?, Some(comparison(2)?)),
        _ => return Err(at.wrong(ACCEPTED)),
    };
    let is_low = |(operator, _): (&str, Number)| operator.starts_with('>');
    let (low, high) = match (first, second) {
        (("=", number), None) => return Ok(Condition::Number(number)),
        (one, None) if is_low(one) => (Some(bound(one)), None),
        (one, None) => (None, Some(bound(one))),
        (("=", _), Some(_)) | (_, Some(("=", _))) => return Err(at.wrong(ACCEPTED)),
        (one, Some(other)) if is_low(one) && !is_low(other) => {
            (Some(bound(one)), Some(bound(other)))
        }
        (one, Some(other)) if !is_low(one) && is_low(other) => {
            (Some(bound(other)), Some(bound(one)))
        }
        (_, Some(_)) => return Err(at.wrong(ACCEPTED)),
    };
    if let (Some(low), Some(high)) = (low, high)
        && is_empty(low, high)
    {
        let problem = "no number is in this range: accepted is a lower bound below the upper one";
        return Err(at.wrong(problem));
    }
    Ok(Condition::Range { low, high })
}

fn is_empty(low: Bound, high: Bound) -> bool {
    match low.number.order(high.number) {
        Some(Ordering::Less) => false,
        Some(Ordering::Equal) => !(low.inclusive && high.inclusive),
        Some(Ordering::Greater) | None => true,
    }
}

/// What a value is, in words.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(list) if list.is_empty() => "an empty list",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
