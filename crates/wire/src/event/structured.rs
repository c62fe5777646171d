//! Structured mode: the whole event as one JSON object (CloudEvents JSON format 1.0.2).

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt, str,
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use fanfare_model::{AttributeValue, Event};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::value::RawValue;

use super::{
    EventDefaults,
    attributes::Attributes,
    rejection::{EventRejection, RejectionCode},
    rules,
};

/// Reads an event. JSON data is kept byte for byte, as a slice of `body`.
pub(super) fn decode(body: &Bytes, defaults: EventDefaults<'_>) -> Result<Event, EventRejection> {
    let mut members: Members<'_> = serde_json::from_slice(body).map_err(|fault| {
        EventRejection::new(
            RejectionCode::MalformedJson,
            None,
            format!("the body is not a JSON object with distinct members: {fault}"),
        )
    })?;
    let data = members.0.remove("data");
    let data_base64 = members.0.remove("data_base64");

    let mut attributes = Attributes::default();
    for (name, value) in members.0 {
        if let Some(value) = attribute_value(&name, value)? {
            attributes.insert(&name, value)?;
        }
    }
    let data = Data::choose(data, data_base64)?;
    // The data is read last, by the rules of its media type.
    let mut event = attributes.into_event(None, defaults)?;
    rules::check_attributes(&event)?;
    match data {
        Data::Absent => {}
        // It was parsed as a part of the body, so it needs no check of its own.
        Data::Json(raw) if event.has_json_data() => {
            event.data = Some(body.slice_ref(raw.get().as_bytes()));
        }
        Data::Json(raw) => event.data = text_data(raw, event.content_type())?,
        Data::Base64(raw) => {
            event.data = Some(base64_data(raw)?);
            rules::check_data(&event)?;
        }
    }
    Ok(event)
}

/// The event as a JSON object.
///
/// JSON data is embedded as it is, without the white space around it; other text as a string; anything else in base64.
pub fn encode_structured(event: &Event) -> Bytes {
    serde_json::to_vec(&Structured(event))
        .expect("strings, numbers and valid JSON always serialize")
        .into()
}

/// The members of a JSON object, each once, not yet read.
struct Members<'a>(BTreeMap<String, &'a RawValue>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Members<'de>, M::Error> {
                let mut members = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    match members.entry(name) {
                        Entry::Vacant(entry) => _ = entry.insert(value),
                        Entry::Occupied(entry) => {
                            let name = entry.key().escape_debug();
                            return Err(de::Error::custom(format_args!("`{name}` comes twice")));
                        }
                    }
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// The value of an attribute; a null means that it is not set.
fn attribute_value(name: &str, raw: &RawValue) -> Result<Option<AttributeValue>, EventRejection> {
    let json = raw.get();
    let value = match json.as_bytes().first() {
        Some(b'n') => return Ok(None),
        Some(b'"') => serde_json::from_str(json).map(AttributeValue::Text),
        Some(b't' | b'f') => serde_json::from_str(json).map(AttributeValue::Boolean),
        _ => serde_json::from_str(json).map(AttributeValue::Integer),
    };
    let expected = "a string, a boolean or a 32-bit integer";
    let value = value.map_err(|_| EventRejection::invalid(name, expected))?;
    Ok(Some(value))
}

/// Where the data of an event stands in the JSON object.
enum Data<'a> {
    Absent,
    Json(&'a RawValue),
    Base64(&'a RawValue),
}

impl<'a> Data<'a> {
    fn choose(
        data: Option<&'a RawValue>,
        data_base64: Option<&'a RawValue>,
    ) -> Result<Self, EventRejection> {
        match (data, data_base64.filter(|raw| raw.get() != "null")) {
            (None, None) => Ok(Self::Absent),
            (Some(raw), None) => Ok(Self::Json(raw)),
            (None, Some(raw)) => Ok(Self::Base64(raw)),
            (Some(_), Some(_)) => Err(EventRejection::invalid_data(
                "data_base64",
                "`data` and `data_base64` are both set: accepted is one of them",
            )),
        }
    }
}

/// Data that is not JSON: the content of a JSON string. Null means that there is none.
fn text_data(raw: &RawValue, media_type: &str) -> Result<Option<Bytes>, EventRejection> {
    match serde_json::from_str::<Option<String>>(raw.get()) {
        Ok(text) => Ok(text.map(Bytes::from)),
        Err(_) => Err(EventRejection::invalid_data(
            "data",
            format!(
                "`data` must be a string, because `datacontenttype` is `{media_type}`: send a \
                 string, `data_base64`, or a JSON media type"
            ),
        )),
    }
}

fn base64_data(raw: &RawValue) -> Result<Bytes, EventRejection> {
    serde_json::from_str::<String>(raw.get())
        .ok()
        .and_then(|text| BASE64.decode(text).ok())
        .map(Bytes::from)
        .ok_or_else(|| {
            let detail = "`data_base64` must be a string in base64 (RFC 4648, section 4)";
            EventRejection::invalid_data("data_base64", detail)
        })
}

struct Structured<'a>(&'a Event);

impl Serialize for Structured<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(event) = self;
        let mut object = serializer.serialize_map(None)?;
        object.serialize_entry("specversion", "1.0")?;
        object.serialize_entry("id", &event.id)?;
        object.serialize_entry("source", &event.source)?;
        object.serialize_entry("type", &event.event_type)?;
        object.serialize_entry("tenant", &event.tenant)?;
        for (name, text) in [
            ("subject", event.subject.as_deref()),
            ("time", event.time.as_ref().map(|time| time.as_str())),
            ("datacontenttype", event.data_content_type.as_deref()),
            ("dataschema", event.data_schema.as_deref()),
        ] {
            if let Some(text) = text {
                object.serialize_entry(name, text)?;
            }
        }
        for (name, value) in &event.extensions {
            match value {
                AttributeValue::Boolean(value) => object.serialize_entry(name, value)?,
                AttributeValue::Integer(value) => object.serialize_entry(name, value)?,
                AttributeValue::Text(_) | AttributeValue::Binary(_) => {
                    object.serialize_entry(name, &value.as_text())?;
                }
            }
        }
        if let Some(data) = &event.data {
            if event.has_json_data()
                && let Ok(raw) = serde_json::from_slice::<&RawValue>(data)
            {
                object.serialize_entry("data", raw)?;
            } else if !event.has_json_data()
                && let Ok(text) = str::from_utf8(data)
            {
                object.serialize_entry("data", text)?;
            } else {
                object.serialize_entry("data_base64", &BASE64.encode(data))?;
            }
        }
        object.end()
    }
}
