//! Renders templates: what they may use, how values are written, and what a fault looks like.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, LazyLock, OnceLock},
};

use jiff::Timestamp;
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value,
    escape_formatter,
    value::{Object, ValueKind},
};
use url::form_urlencoded::byte_serialize;

use super::{
    PayloadTemplate, TemplateFault,
    scan::{IN_TEXT, NameKind, Scanned},
};
use crate::{
    Event,
    event::is_json,
    event_view::{Attribute, attribute},
};

/// What one rendering may use: an instruction costs 1, and so do 64 bytes of text, so this bounds the time
/// to some ten milliseconds and the memory to 13 MB. It pays for `tojson` of the largest event three times.
const FUEL: u64 = 200_000;

/// The functions of the language.
const FUNCTIONS: [&str; 4] = ["dict", "loop", "namespace", "range"];

/// How many members of the data `facts` shows unless it is told otherwise, and at most.
const FACTS: usize = 10;
const MOST_FACTS: usize = 50;

/// How values are written into the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escaping {
    Json,
    Form,
    Markup,
    Plain,
}

impl Escaping {
    pub(super) fn of(media_type: &str) -> Self {
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        let essence = essence.to_ascii_lowercase();
        match &*essence {
            _ if is_json(&essence) => Self::Json,
            "application/x-www-form-urlencoded" => Self::Form,
            "text/html" | "text/xml" | "application/xml" => Self::Markup,
            _ if essence.ends_with("+xml") => Self::Markup,
            _ => Self::Plain,
        }
    }

    /// The name of a template that is written so.
    fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Form => "form",
            Self::Markup => "markup",
            Self::Plain => "plain",
        }
    }
}

/// The language, without anything that reaches outside. Immutable.
static LANGUAGE: LazyLock<Environment<'static>> = LazyLock::new(language);

fn language() -> Environment<'static> {
    let mut language = Environment::new();
    language.set_fuel(Some(FUEL));
    language.set_recursion_limit(50);
    // Faults tell their place in debug mode alone.
    language.set_debug(true);
    language.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    language.remove_global("debug");
    language.set_auto_escape_callback(|name| match name {
        "json" => AutoEscape::Json,
        "markup" => AutoEscape::Html,
        "form" => AutoEscape::Custom("form".into()),
        _ => AutoEscape::None,
    });
    language.set_formatter(write_value);
    language.add_filter(IN_TEXT, in_text);
    language.add_filter("cut", cut);
    language.add_filter("facts", facts);
    language.add_filter("mrkdwn", |text: &str| {
        text.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
    });
    language
}

fn write_value(
    out: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    let escaping = state.auto_escape().clone();
    if value.is_none() && escaping != AutoEscape::Json {
        return Ok(());
    }
    if !matches!(escaping, AutoEscape::Custom(_)) {
        return escape_formatter(out, state, value);
    }
    let text = value.to_string();
    if value.is_safe() {
        return out.write_str(&text).map_err(Error::from);
    }
    for part in byte_serialize(text.as_bytes()) {
        out.write_str(part).map_err(Error::from)?;
    }
    Ok(())
}

/// Writes a value into a text of JSON: texts as they are, the absence of a value as nothing.
fn in_text(value: &Value) -> Result<Value, Error> {
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    let quoted = serde_json::to_string(&plain(value)).expect("a text is always JSON");
    Ok(Value::from_safe_string(
        quoted[1..quoted.len() - 1].to_owned(),
    ))
}

/// A value as people read it.
fn plain(value: &Value) -> String {
    use ValueKind::{Iterable, Map, None, Seq, Undefined};
    let kind = value.kind();
    if matches!(kind, None | Undefined) {
        String::new()
    } else if matches!(kind, Seq | Map | Iterable) {
        serde_json::to_string(value).unwrap_or_default()
    } else {
        value.to_string()
    }
}

/// The first characters of a text, with `…` for what was cut off.
fn cut(value: &Value, most: usize) -> Result<String, Error> {
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    let text = plain(value);
    Ok(match text.char_indices().nth(most) {
        Some(_) => {
            let kept: String = text.chars().take(most.saturating_sub(1)).collect();
            format!("{kept}…")
        }
        None => text,
    })
}

/// Names and values of the first members of an object, as texts; the value alone if it is none.
fn facts(value: &Value, most: Option<usize>) -> Vec<Value> {
    let pair = |name: String, value: &Value| Value::from(vec![name, plain(value)]);
    if value.is_undefined() || value.is_none() {
        return Vec::new();
    }
    if value.kind() != ValueKind::Map {
        return vec![pair("data".to_owned(), value)];
    }
    let names = value.try_iter().into_iter().flatten();
    names
        .take(most.unwrap_or(FACTS).min(MOST_FACTS))
        .map(|name| pair(name.to_string(), &value.get_item(&name).unwrap_or_default()))
        .collect()
}

/// Checks the syntax, and that everything named is known.
pub(super) fn check(scanned: &Scanned, media_type: &str) -> Result<(), TemplateFault> {
    let name = Escaping::of(media_type).name();
    let template = LANGUAGE
        .template_from_named_str(name, &scanned.source)
        .map_err(|fault| explained(scanned, &fault))?;
    let mut unknown: Vec<_> = template
        .undeclared_variables(false)
        .into_iter()
        .filter(|name| !PayloadTemplate::VARIABLES.contains(&&**name))
        .filter(|name| !FUNCTIONS.contains(&&**name))
        .map(|name| (scanned.find_word(&name), name))
        .collect();
    unknown.sort();
    if let Some((at, name)) = unknown.first() {
        let known = PayloadTemplate::VARIABLES.join("`, `");
        return Err(TemplateFault {
            place: at.map(|at| scanned.place_in_original(at)),
            problem: format!("nothing is called `{name}`: accepted are `{known}`"),
        });
    }
    for name in &scanned.names {
        let (kind, probe, missing) = match name.kind {
            NameKind::Filter => (
                "filter",
                format!("0|{}", name.text),
                ErrorKind::UnknownFilter,
            ),
            NameKind::Test => (
                "test",
                format!("0 is {}", name.text),
                ErrorKind::UnknownTest,
            ),
        };
        let known = LANGUAGE
            .compile_expression(&probe)
            .and_then(|probe| probe.eval(()).map(drop));
        if known.is_err_and(|fault| fault.kind() == missing) {
            return Err(TemplateFault {
                place: Some(scanned.place_in_original(name.at)),
                problem: format!(
                    "there is no {kind} `{}`: docs/templates.md lists those there are",
                    name.text
                ),
            });
        }
    }
    Ok(())
}

/// Renders what was checked.
pub(super) fn render(
    scanned: &Scanned,
    media_type: &str,
    seen: Seen,
) -> Result<Vec<u8>, TemplateFault> {
    let name = Escaping::of(media_type).name();
    let template = LANGUAGE
        .template_from_named_str(name, &scanned.source)
        .map_err(|fault| explained(scanned, &fault))?;
    let mut result = Bounded::default();
    let rendered = template.render_captured_to(Value::from_object(seen), &mut result);
    match rendered.map(drop) {
        _ if result.overflown => {
            let most = PayloadTemplate::MOST_RESULT_BYTES;
            Err(TemplateFault {
                place: None,
                problem: format!("the result has more than {most} bytes"),
            })
        }
        Ok(()) => Ok(result.bytes),
        Err(fault) => Err(explained(scanned, &fault)),
    }
}

/// A fault of the engine in terms of the template as it was written.
fn explained(scanned: &Scanned, fault: &Error) -> TemplateFault {
    let mut range = fault.range().unwrap_or_default();
    if let Some(value) = scanned.value_in_text(range.start) {
        range = value;
    }
    let place = match (range.is_empty(), fault.line()) {
        (false, _) => Some(scanned.place_of(range.start)),
        (true, line) => line.map(|line| (line, 1)),
    };
    let problem = match (fault.kind(), fault.detail()) {
        (ErrorKind::OutOfFuel, _) => {
            "the template does more than one rendering may: it needs fewer or shorter loops"
                .to_owned()
        }
        (ErrorKind::UndefinedError, detail) => {
            let of_what = scanned.source.get(range).unwrap_or_default();
            let what = detail.map_or_else(|| format!("`{of_what}` is undefined"), str::to_owned);
            format!("{what}: `default(…)` or `{{% if … %}}` say what to do then")
        }
        (kind, Some(detail)) => format!("{kind}: {detail}"),
        (kind, None) => kind.to_string(),
    };
    TemplateFault { place, problem }
}

/// Keeps what is written, up to the longest result.
#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
    overflown: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + part.len() > PayloadTemplate::MOST_RESULT_BYTES {
            self.overflown = true;
            return Err(io::Error::other("the result is too long"));
        }
        self.bytes.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a template sees. The data is parsed when it is first asked for.
#[derive(Debug)]
pub(super) struct Seen {
    event: Arc<Event>,
    webhook_id: String,
    first_seen: Timestamp,
    parameters: Value,
    data: OnceLock<Value>,
}

impl Seen {
    pub(super) fn new(
        event: &Arc<Event>,
        webhook_id: &str,
        first_seen: Timestamp,
        parameters: &BTreeMap<String, String>,
    ) -> Self {
        Self {
            event: Arc::clone(event),
            webhook_id: webhook_id.to_owned(),
            first_seen,
            parameters: Value::from_pairs(
                parameters
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str())),
            ),
            data: OnceLock::new(),
        }
    }

    fn attributes(&self) -> Value {
        let names = [
            "specversion",
            "id",
            "source",
            "type",
            "tenant",
            "subject",
            "time",
            "datacontenttype",
            "dataschema",
        ];
        let extensions = self.event.extensions.keys().map(String::as_str);
        let names = names.into_iter().chain(extensions);
        Value::from_pairs(
            names.filter_map(|name| Some((name, attribute_value(&self.event, name)?))),
        )
    }
}

impl Object for Seen {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            "data" => Some(self.data.get_or_init(|| data(&self.event)).clone()),
            "event" => Some(self.attributes()),
            "parameters" => Some(self.parameters.clone()),
            "webhook_id" => Some(self.webhook_id.as_str().into()),
            "time" => Some(match &self.event.time {
                Some(time) => time.as_str().into(),
                None => self.first_seen.to_string().into(),
            }),
            name @ ("id" | "source" | "subject" | "tenant" | "type") => {
                attribute_value(&self.event, name)
            }
            _ => None,
        }
    }
}

fn attribute_value(event: &Event, name: &str) -> Option<Value> {
    Some(match attribute(event, name)? {
        Attribute::Boolean(value) => value.into(),
        Attribute::Integer(value) => value.into(),
        Attribute::Text(text) => text.into(),
    })
}

/// JSON as values whose members keep their order, text as text; nothing for anything else.
fn data(event: &Event) -> Value {
    let Some(data) = &event.data else {
        return Value::UNDEFINED;
    };
    if event.has_json_data() {
        serde_json::from_slice(data).unwrap_or(Value::UNDEFINED)
    } else if event
        .content_type()
        .to_ascii_lowercase()
        .starts_with("text/")
    {
        std::str::from_utf8(data).map_or(Value::UNDEFINED, Value::from)
    } else {
        Value::UNDEFINED
    }
}
