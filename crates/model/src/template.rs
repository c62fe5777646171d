//! Payload templates: the body of a request in the shape that its receiver accepts.
//!
//! A template is text with expressions (Jinja), or the name of a preset. It sees one event and nothing else:
//! no files, no other templates, no time. What it may use is bounded, and it fails with the line at fault.
//! `template/scan.rs` reads the text, `template/engine.rs` renders it, `template/preset.rs` has the presets.

mod engine;
mod preset;
mod scan;

use std::{collections::BTreeMap, fmt, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::value::RawValue;

pub use self::preset::TemplatePreset;
use self::{engine::Escaping, scan::Scanned};
use crate::{Event, event::is_json};

/// What turns an event into the body of a request, checked and ready to be rendered.
#[derive(Clone)]
pub struct PayloadTemplate(Arc<Checked>);

struct Checked {
    form: TemplateForm,
    media_type: String,
    scanned: Scanned,
}

/// A template as it is written down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateForm {
    /// The text; either this or a preset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The name of a preset; either this or a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// The media type of the result; JSON when absent. A preset has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What the template reads as `parameters.<name>`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
}

/// Why something is not a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", at_place(.field, *.place))]
pub struct InvalidTemplate {
    /// The member of the form at fault, such as `source` or `parameters.chat_id`.
    pub field: String,
    /// The line and the column in the source, both from 1.
    pub place: Option<(usize, usize)>,
    /// What is wrong, and what would be accepted.
    pub problem: String,
}

/// Why a template could not be rendered for an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", at_place("template", *.place))]
pub struct TemplateFault {
    /// The line and the column in the source, both from 1.
    pub place: Option<(usize, usize)>,
    /// What went wrong.
    pub problem: String,
}

/// What a template made of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The body.
    pub body: Vec<u8>,
    /// Its media type.
    pub media_type: String,
}

impl PayloadTemplate {
    /// The longest source, in bytes.
    pub const MOST_SOURCE_BYTES: usize = 32 * 1024;
    /// The longest result, in bytes: twice the largest event unless a setting says otherwise.
    pub const MOST_RESULT_BYTES: usize = 512 * 1024;
    /// How many parameters a template may have.
    pub const MOST_PARAMETERS: usize = 20;
    /// The longest value of a parameter, in bytes.
    pub const LONGEST_PARAMETER: usize = 1000;
    /// The names of what a template sees.
    pub const VARIABLES: [&str; 10] = [
        "data",
        "event",
        "id",
        "parameters",
        "source",
        "subject",
        "tenant",
        "time",
        "type",
        "webhook_id",
    ];

    /// Checks a template: its parts, its syntax, and that it names nothing unknown.
    pub fn new(form: TemplateForm) -> Result<Self, InvalidTemplate> {
        check_parameters(&form.parameters)?;
        let (source, media_type) = match (&form.source, &form.preset) {
            (Some(source), None) => {
                let media_type = form.media_type.as_deref().unwrap_or("application/json");
                (source.as_str(), check_media_type(media_type)?)
            }
            (None, Some(name)) => {
                let preset: &TemplatePreset = TemplatePreset::named(name)?;
                preset.check(&form)?;
                (preset.source, preset.media_type)
            }
            (Some(_), Some(_)) | (None, None) => {
                let problem = "accepted is either `source`, the text of a template, or `preset`, the name of one";
                return Err(InvalidTemplate::of("source", problem));
            }
        };
        if source.len() > Self::MOST_SOURCE_BYTES {
            let (bytes, most) = (source.len(), Self::MOST_SOURCE_BYTES);
            let problem = format!("the template has {bytes} bytes: accepted are at most {most}");
            return Err(InvalidTemplate::of("source", &problem));
        }
        let scanned = scan::scan(source, Escaping::of(media_type) == Escaping::Json)
            .and_then(|scanned| engine::check(&scanned, media_type).map(|()| scanned))
            .map_err(|fault| InvalidTemplate {
                field: "source".to_owned(),
                place: fault.place,
                problem: fault.problem,
            })?;
        let media_type = media_type.to_owned();
        Ok(Self(Arc::new(Checked {
            form,
            media_type,
            scanned,
        })))
    }

    /// Renders the body for an event, which the delivery with this id carries and which was first seen then.
    ///
    /// The work and the memory it takes are bounded, whatever the template and the event are.
    pub fn render(
        &self,
        event: &Arc<Event>,
        webhook_id: &str,
        first_seen: Timestamp,
    ) -> Result<Rendered, TemplateFault> {
        let Checked {
            form,
            media_type,
            scanned,
        } = &*self.0;
        let seen = engine::Seen::new(event, webhook_id, first_seen, &form.parameters);
        let body = engine::render(scanned, media_type, seen)?;
        if is_json(media_type)
            && let Err(fault) = serde_json::from_slice::<&RawValue>(&body)
        {
            return Err(TemplateFault {
                place: None,
                problem: format!(
                    "the result is not the JSON that its media type `{media_type}` promises ({fault} of the \
                     result)"
                ),
            });
        }
        Ok(Rendered {
            body,
            media_type: media_type.clone(),
        })
    }

    /// The template as it was written down.
    pub fn form(&self) -> &TemplateForm {
        &self.0.form
    }

    /// The media type of what it renders.
    pub fn media_type(&self) -> &str {
        &self.0.media_type
    }
}

impl InvalidTemplate {
    fn of(field: &str, problem: &str) -> Self {
        Self {
            field: field.to_owned(),
            place: None,
            problem: problem.to_owned(),
        }
    }
}

fn at_place(what: &str, place: Option<(usize, usize)>) -> String {
    match place {
        Some((line, column)) => format!("{what}, line {line}, column {column}: "),
        None => format!("{what}: "),
    }
}

fn check_media_type(media_type: &str) -> Result<&str, InvalidTemplate> {
    let visible = |b: u8| (0x20..0x7f).contains(&b);
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b);
    let essence = media_type.split(';').next().unwrap_or_default().trim_end();
    let fits = essence.split_once('/').is_some_and(|(kind, subtype)| {
        [kind, subtype]
            .iter()
            .all(|part| !part.is_empty() && part.bytes().all(token))
    });
    if fits && media_type.len() <= 100 && media_type.bytes().all(visible) {
        Ok(media_type)
    } else {
        let problem = "accepted is a media type of at most 100 visible ASCII characters, such as \
                       `application/json` or `text/plain; charset=utf-8`";
        Err(InvalidTemplate::of("media_type", problem))
    }
}

fn check_parameters(parameters: &BTreeMap<String, String>) -> Result<(), InvalidTemplate> {
    if parameters.len() > PayloadTemplate::MOST_PARAMETERS {
        let most = PayloadTemplate::MOST_PARAMETERS;
        return Err(InvalidTemplate::of(
            "parameters",
            &format!("accepted are at most {most}"),
        ));
    }
    for (name, value) in parameters {
        let field = format!("parameters.{name}");
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if name.is_empty() || name.len() > 40 || !name.bytes().all(word) {
            let problem = "accepted as a name are 1 to 40 lower-case letters, digits and `_`";
            return Err(InvalidTemplate::of(&field, problem));
        }
        if value.len() > PayloadTemplate::LONGEST_PARAMETER {
            let most = PayloadTemplate::LONGEST_PARAMETER;
            let problem = format!("accepted is a text of at most {most} bytes");
            return Err(InvalidTemplate::of(&field, &problem));
        }
    }
    Ok(())
}

impl<'de> Deserialize<'de> for PayloadTemplate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let form = TemplateForm::deserialize(deserializer)?;
        Self::new(form).map_err(de::Error::custom)
    }
}

impl Serialize for PayloadTemplate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.form.serialize(serializer)
    }
}

impl PartialEq for PayloadTemplate {
    fn eq(&self, other: &Self) -> bool {
        self.0.form == other.0.form
    }
}

impl Eq for PayloadTemplate {}

impl fmt::Debug for PayloadTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PayloadTemplate")
            .field(&self.0.form)
            .finish()
    }
}

#[cfg(test)]
mod tests;
