//! An event as filters look at it: attributes by name, and data that is parsed when it is first needed.

use std::{borrow::Cow, cell::OnceCell};

use serde_json::Value;

use crate::{AttributeValue, Event};

/// Looks at an event. However many look through the same view, its data is parsed at most once, and never
/// when nobody asks for it.
#[derive(Debug)]
pub struct EventView<'e> {
    event: &'e Event,
    data: OnceCell<Option<Value>>,
}

/// An attribute as something to compare with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Attribute<'e> {
    Boolean(bool),
    Integer(i32),
    Text(Cow<'e, str>),
}

impl<'e> EventView<'e> {
    /// Looks at this event.
    pub fn new(event: &'e Event) -> Self {
        Self {
            event,
            data: OnceCell::new(),
        }
    }

    /// The event looked at.
    pub fn event(&self) -> &'e Event {
        self.event
    }

    /// The data, if it is JSON by its media type and in fact.
    pub fn data(&self) -> Option<&Value> {
        self.data.get_or_init(|| json_data(self.event)).as_ref()
    }

    /// Whether anybody asked for the data so far.
    pub fn data_was_read(&self) -> bool {
        self.data.get().is_some()
    }

    /// The attribute of this name: of CloudEvents, the tenant, or an extension.
    pub(crate) fn attribute(&self, name: &str) -> Option<Attribute<'e>> {
        attribute(self.event, name)
    }
}

/// The data of an event as JSON, if that is what it is.
pub(crate) fn json_data(event: &Event) -> Option<Value> {
    let data = event.data.as_ref().filter(|_| event.has_json_data())?;
    serde_json::from_slice(data).ok()
}

/// The attribute of this name, as CloudEvents calls it.
pub(crate) fn attribute<'e>(event: &'e Event, name: &str) -> Option<Attribute<'e>> {
    let text = match name {
        "specversion" => Some("1.0"),
        "id" => Some(&*event.id),
        "source" => Some(&*event.source),
        "type" => Some(event.event_type.as_str()),
        "tenant" => Some(event.tenant.as_str()),
        "subject" => event.subject.as_deref(),
        "time" => event.time.as_ref().map(|time| time.as_str()),
        "datacontenttype" => event.data_content_type.as_deref(),
        "dataschema" => event.data_schema.as_deref(),
        extension => {
            return Some(match event.extensions.get(extension)? {
                AttributeValue::Boolean(value) => Attribute::Boolean(*value),
                AttributeValue::Integer(value) => Attribute::Integer(*value),
                text @ (AttributeValue::Text(_) | AttributeValue::Binary(_)) => {
                    Attribute::Text(text.as_text())
                }
            });
        }
    };
    text.map(|text| Attribute::Text(Cow::Borrowed(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_by_their_names() {
        let mut event = Event::for_tests("t", "/shop", "7", "a.b", b"{}");
        event.subject = Some("order 7".to_owned());
        event
            .extensions
            .insert("vip".to_owned(), AttributeValue::Boolean(true));
        event
            .extensions
            .insert("level".to_owned(), AttributeValue::Integer(3));
        let view = EventView::new(&event);
        for (name, expected) in [
            ("id", Some(Attribute::Text("7".into()))),
            ("source", Some(Attribute::Text("/shop".into()))),
            ("type", Some(Attribute::Text("a.b".into()))),
            ("tenant", Some(Attribute::Text("t".into()))),
            ("subject", Some(Attribute::Text("order 7".into()))),
            ("time", None),
            ("vip", Some(Attribute::Boolean(true))),
            ("level", Some(Attribute::Integer(3))),
            ("colour", None),
        ] {
            assert_eq!(view.attribute(name), expected, "{name}");
        }
        assert!(!view.data_was_read());
    }

    #[test]
    fn data_is_there_when_it_is_json() {
        for (content_type, data, there) in [
            ("application/json", "{}", true),
            ("application/json", "{", false),
            ("text/plain", "{}", false),
        ] {
            let mut event = Event::for_tests("t", "s", "1", "a", data.as_bytes());
            event.data_content_type = Some(content_type.to_owned());
            let view = EventView::new(&event);
            assert_eq!(view.data().is_some(), there, "{content_type} {data}");
            assert!(view.data_was_read());
        }
    }
}
