//! The catalogue of event types: what they mean, what their data looks like, and a sample of each.
//!
//! It is optional. An event whose type is not in it, or has no schema, is accepted like any other unless a
//! type or a setting asks for more.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, LazyLock},
};

use fanfare_model::{Event, EventType, Timestamp};
use jsonschema::{PatternOptions, Validator};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An event type as it is put into the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewEventType {
    /// Its name.
    #[serde(rename = "type")]
    pub name: EventType,
    /// What it means.
    #[serde(default)]
    pub description: String,
    /// What its data looks like: a JSON Schema without references to elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// Data as such an event has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample: Option<Value>,
    /// Whether events that are published over HTTP are refused when their data does not fit the schema.
    #[serde(default)]
    pub enforced: bool,
}

/// An event type of the catalogue.
#[derive(Debug, Clone)]
pub struct CataloguedType {
    /// What was put.
    pub definition: NewEventType,
    /// When it was put last.
    pub updated_at: Timestamp,
    schema: Option<Arc<Validator>>,
}

/// Why an event type cannot be put into the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}`: {problem}")]
pub struct InvalidEventType {
    /// The member at fault, such as `schema` or `schema.properties.id.type`.
    pub field: String,
    /// What is wrong with it, and what would be accepted.
    pub problem: String,
}

/// Why the catalogue does not accept an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}`: {problem}")]
pub struct Uncatalogued {
    /// The place in the event, such as `type` or `data.reward.id`.
    pub field: String,
    /// What is wrong there, and what would be accepted.
    pub problem: String,
}

impl NewEventType {
    /// The longest description, in bytes.
    pub const LONGEST_DESCRIPTION: usize = 1000;
    /// The longest schema and the longest sample, in bytes of JSON without white space.
    pub const LONGEST_JSON: usize = 64 * 1024;

    /// Whether it could be put, and why not.
    pub fn validate(&self) -> Result<(), InvalidEventType> {
        self.clone().checked(Timestamp::UNIX_EPOCH).map(drop)
    }

    /// Checks its bounds, compiles the schema, and holds the sample against it.
    pub(crate) fn checked(self, updated_at: Timestamp) -> Result<CataloguedType, InvalidEventType> {
        if self.description.len() > Self::LONGEST_DESCRIPTION {
            let most = Self::LONGEST_DESCRIPTION;
            let problem = format!("accepted is a text of at most {most} bytes");
            return Err(InvalidEventType::of("description", problem));
        }
        for (field, json) in [("schema", &self.schema), ("sample", &self.sample)] {
            let bytes = json.as_ref().map_or(0, |json| json.to_string().len());
            if bytes > Self::LONGEST_JSON {
                let most = Self::LONGEST_JSON;
                let problem = format!("there are {bytes} bytes: accepted are at most {most}");
                return Err(InvalidEventType::of(field, problem));
            }
        }
        if self.enforced && self.schema.is_none() {
            let problem = "there is no schema to enforce: accepted is `schema` beside it, or false";
            return Err(InvalidEventType::of("enforced", problem.to_owned()));
        }
        let schema = self.schema.as_ref().map(compile).transpose()?;
        if let (Some(schema), Some(sample)) = (&schema, &self.sample)
            && let Some((place, problem)) = first_difference(schema, sample)
        {
            let problem = format!("the sample does not fit the schema: {problem}");
            return Err(InvalidEventType::of(&format!("sample{place}"), problem));
        }
        Ok(CataloguedType {
            definition: self,
            updated_at,
            schema,
        })
    }
}

impl InvalidEventType {
    pub(crate) fn too_many() -> Self {
        let most = Catalogue::MOST_TYPES;
        let problem = format!("the catalogue is full: accepted are at most {most} event types");
        Self::of("type", problem)
    }

    fn of(field: &str, problem: String) -> Self {
        Self {
            field: field.to_owned(),
            problem,
        }
    }
}

impl CataloguedType {
    /// Why the data of an event does not fit; `Ok` when it does, or when there is no schema.
    pub fn check(&self, event: &Event) -> Result<(), Uncatalogued> {
        let Some(schema) = &self.schema else {
            return Ok(());
        };
        let name = &self.definition.name;
        if !event.has_json_data() {
            return Err(Uncatalogued {
                field: "datacontenttype".to_owned(),
                problem: format!(
                    "`{}`, but the data of `{name}` has a schema: accepted is JSON",
                    event.content_type()
                ),
            });
        }
        let data = event.data.as_deref().filter(|data| !data.is_empty());
        let data = data.map_or(Ok(Value::Null), serde_json::from_slice);
        let data: Value = data.map_err(|fault| Uncatalogued {
            field: "data".to_owned(),
            problem: format!("not JSON ({fault})"),
        })?;
        match first_difference(schema, &data) {
            None => Ok(()),
            Some((place, problem)) => Err(Uncatalogued {
                field: format!("data{place}"),
                problem: format!("{problem}, as the schema of `{name}` says"),
            }),
        }
    }
}

/// Compiles a schema: one that refers to nothing elsewhere and whose patterns take linear time.
fn compile(schema: &Value) -> Result<Arc<Validator>, InvalidEventType> {
    if !(schema.is_object() || schema.is_boolean()) {
        let problem = "accepted is a JSON Schema, which is an object";
        return Err(InvalidEventType::of("schema", problem.to_owned()));
    }
    if let Some(place) = outward_reference(schema, "schema") {
        let problem = "a reference to elsewhere: accepted are references within the schema, such as \
                       `#/$defs/person`";
        return Err(InvalidEventType::of(&place, problem.to_owned()));
    }
    jsonschema::options()
        .with_pattern_options(PatternOptions::regex())
        .build(schema)
        .map(Arc::new)
        .map_err(|fault| {
            let place = dotted(fault.instance_path());
            let problem = format!("not a JSON Schema: {}", short(&fault.to_string()));
            InvalidEventType::of(&format!("schema{place}"), problem)
        })
}

/// The place of the first reference that leaves the schema, if there is one.
fn outward_reference(schema: &Value, place: &str) -> Option<String> {
    if let Some(list) = schema.as_array() {
        let mut items = list.iter().enumerate();
        return items.find_map(|(n, item)| outward_reference(item, &format!("{place}[{n}]")));
    }
    schema.as_object()?.iter().find_map(|(name, value)| {
        let place = format!("{place}.{name}");
        let refers = ["$ref", "$dynamicRef", "$recursiveRef"].contains(&name.as_str());
        match value.as_str() {
            Some(target) if refers && !target.starts_with('#') => Some(place),
            Some(_) => None,
            None => outward_reference(value, &place),
        }
    })
}

/// Where a value first differs from a schema, and how.
fn first_difference(schema: &Validator, value: &Value) -> Option<(String, String)> {
    let fault = schema.iter_errors(value).next()?;
    let place = dotted(fault.instance_path());
    Some((place, short(&fault.to_string())))
}

/// A JSON Pointer as members separated by dots: `.reward.id`, `.items[0]`.
fn dotted(pointer: &impl fmt::Display) -> String {
    let text = pointer.to_string();
    let parts = text.split('/').skip(1);
    parts
        .map(|part| part.replace("~1", "/").replace("~0", "~"))
        .map(|part| match part.parse::<usize>() {
            Ok(n) => format!("[{n}]"),
            Err(_) => format!(".{part}"),
        })
        .collect()
}

/// Faults quote the value, which may be large.
fn short(text: &str) -> String {
    const LONGEST: usize = 300;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The event types of one version of the registry.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    types: HashMap<EventType, CataloguedType>,
}

impl Catalogue {
    /// How many event types there may be.
    pub const MOST_TYPES: usize = 1000;

    /// A catalogue of these.
    pub fn new(types: impl IntoIterator<Item = CataloguedType>) -> Self {
        let types = types.into_iter();
        Self {
            types: types
                .map(|one| (one.definition.name.clone(), one))
                .collect(),
        }
    }

    /// The type of this name.
    pub fn get(&self, name: &EventType) -> Option<&CataloguedType> {
        self.types.get(name)
    }

    /// Whether an event may be published: every type must be known and fit its schema when `all` are
    /// enforced, and those that ask for it otherwise.
    pub fn check(&self, event: &Event, all: bool) -> Result<(), Uncatalogued> {
        match self.types.get(&event.event_type) {
            Some(known) if all || known.definition.enforced => known.check(event),
            Some(_) => Ok(()),
            None if all => Err(Uncatalogued {
                field: "type".to_owned(),
                problem: format!(
                    "`{}` is not in the catalogue of event types: accepted are those that \
                     `fanfare event-types list` and `GET /v1/event-types` show",
                    event.event_type
                ),
            }),
            None => Ok(()),
        }
    }
}

/// A catalogue as a file holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogueFile {
    /// The event types in it.
    pub event_types: Vec<NewEventType>,
}

/// The name of the catalogue that comes with Fanfare: the six events of a referral platform.
pub const REFERRAL_CATALOGUE: &str = "referral";

static REFERRAL: LazyLock<CatalogueFile> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../catalogues/referral.json"))
        .expect("the catalogue that comes with Fanfare is one")
});

impl CatalogueFile {
    /// The catalogue of this name that comes with Fanfare.
    pub fn built_in(name: &str) -> Option<&'static Self> {
        (name == REFERRAL_CATALOGUE).then(|| &*REFERRAL)
    }
}

/// Data as an event of this type has it, according to a catalogue that comes with Fanfare.
pub fn built_in_sample(name: &EventType) -> Option<&'static Value> {
    let mut types = REFERRAL.event_types.iter();
    types
        .find(|one| one.name == *name)
        .and_then(|one| one.sample.as_ref())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checked(written: &Value) -> Result<CataloguedType, InvalidEventType> {
        let new: NewEventType = serde_json::from_value(written.clone()).unwrap();
        new.checked(Timestamp::UNIX_EPOCH)
    }

    fn reward() -> Value {
        json!({
            "type": "reward.unlocked",
            "schema": {
                "type": "object",
                "required": ["id"],
                "properties": {
                    "id": {"type": "integer"},
                    "items": {"type": "array", "items": {"$ref": "#/$defs/item"}},
                },
                "$defs": {"item": {"type": "string", "maxLength": 3}},
            },
        })
    }

    #[test]
    fn data_is_held_against_the_schema_of_its_type() {
        let known = checked(&reward()).unwrap();
        for (data, field, problem) in [
            (r#"{"id": 5, "items": ["abc"], "more": true}"#, "", ""),
            ("{}", "data", "\"id\" is a required property"),
            (r#"{"id": "5"}"#, "data.id", "is not of type \"integer\""),
            (
                r#"{"id": 5, "items": ["a", "abcd"]}"#,
                "data.items[1]",
                "longer than 3",
            ),
            ("5", "data", "is not of type \"object\""),
            ("", "data", "is not of type \"object\""),
        ] {
            let event = Event::for_tests("t", "s", "1", "reward.unlocked", data.as_bytes());
            match known.check(&event) {
                Ok(()) => assert_eq!(field, "", "{data} was accepted"),
                Err(refused) => {
                    assert_eq!(refused.field, field, "{data}: {refused}");
                    assert!(refused.problem.contains(problem), "{data}: {refused}");
                }
            }
        }
        let mut event = Event::for_tests("t", "s", "1", "reward.unlocked", b"x");
        event.data_content_type = Some("text/plain".to_owned());
        assert_eq!(known.check(&event).unwrap_err().field, "datacontenttype");
    }

    #[test]
    fn what_is_no_event_type_is_refused_at_its_place() {
        for (member, value, field, problem) in [
            (
                "description",
                json!("x".repeat(1001)),
                "description",
                "at most 1000",
            ),
            ("schema", json!(5), "schema", "which is an object"),
            (
                "schema",
                json!({"type": "numbr"}),
                "schema.type",
                "not a JSON Schema",
            ),
            (
                "schema",
                json!({"properties": {"a": 5}}),
                "schema.properties.a",
                "not a JSON Schema",
            ),
            (
                "schema",
                json!({"$ref": "https://example.com/s.json"}),
                "schema.$ref",
                "references within the schema",
            ),
            (
                "schema",
                json!({"$ref": "#/$defs/none"}),
                "schema",
                "not a JSON Schema",
            ),
            (
                "schema",
                json!({"pattern": "(?=a)"}),
                "schema.pattern",
                "not a JSON Schema",
            ),
            (
                "schema",
                json!({"const": "x".repeat(70_000)}),
                "schema",
                "at most 65536",
            ),
            (
                "sample",
                json!({"id": "5"}),
                "sample.id",
                "does not fit the schema",
            ),
        ] {
            let mut written = reward();
            written[member] = value;
            let invalid = checked(&written).unwrap_err();
            assert_eq!(invalid.field, field, "{invalid}");
            assert!(invalid.problem.contains(problem), "{invalid}");
        }
        let enforced = checked(&json!({"type": "a", "enforced": true})).unwrap_err();
        assert_eq!(enforced.field, "enforced");
    }

    #[test]
    fn a_schema_that_refers_to_itself_ends() {
        for schema in [
            json!({"$ref": "#"}),
            json!({"allOf": [{"$ref": "#"}]}),
            json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
            json!({"properties": {"a": {"$ref": "#"}}, "type": "object"}),
        ] {
            if let Ok(known) = checked(&json!({"type": "a", "schema": schema})) {
                let data = "{\"a\":".repeat(100) + "5" + &"}".repeat(100);
                let event = Event::for_tests("t", "s", "1", "a", data.as_bytes());
                drop(known.check(&event));
            }
        }
    }

    #[test]
    fn a_catalogue_refuses_what_it_was_asked_to() {
        let mut lenient = reward();
        lenient["type"] = json!("lenient");
        let mut strict = reward();
        strict["enforced"] = json!(true);
        let catalogue = Catalogue::new([checked(&lenient).unwrap(), checked(&strict).unwrap()]);
        for (name, data, all, field) in [
            ("lenient", "{}", false, None),
            ("lenient", "{}", true, Some("data")),
            ("reward.unlocked", "{}", false, Some("data")),
            ("reward.unlocked", r#"{"id": 1}"#, true, None),
            ("other", "{}", false, None),
            ("other", "{}", true, Some("type")),
        ] {
            let event = Event::for_tests("t", "s", "1", name, data.as_bytes());
            let refused = catalogue.check(&event, all).err();
            let refused = refused.as_ref().map(|refused| &*refused.field);
            assert_eq!(refused, field, "{name} {data} {all}");
        }
    }

    #[test]
    fn the_catalogue_that_comes_with_fanfare_is_acceptable() {
        let file = CatalogueFile::built_in("referral").unwrap();
        assert_eq!(file.event_types.len(), 6);
        for one in &file.event_types {
            let checked = one.clone().checked(Timestamp::UNIX_EPOCH);
            let checked = checked.unwrap_or_else(|invalid| panic!("{}: {invalid}", one.name));
            assert!(
                checked.schema.is_some() && one.sample.is_some() && !one.description.is_empty()
            );
            assert_eq!(built_in_sample(&one.name), one.sample.as_ref());
        }
        assert_eq!(CatalogueFile::built_in("other"), None);
    }
}
