//! Makes an event from a service's own values.

use std::collections::BTreeMap;

use fanfare_model::{AttributeValue, Event, EventTime, InvalidAttribute, Timestamp};
use fanfare_wire::{EventRejection, RejectionCode, check_event};

use crate::ProducerFault;

/// Makes an [`Event`]; [`EventBuilder::build`] says what is wrong with it, if anything is.
#[derive(Debug, Clone)]
pub struct EventBuilder {
    tenant: String,
    event_type: String,
    source: String,
    id: Option<String>,
    subject: Option<String>,
    time: Option<Timestamp>,
    data: Option<(String, Vec<u8>)>,
    extensions: BTreeMap<String, AttributeValue>,
}

impl EventBuilder {
    /// An event of this type, in this tenant, from this source (a URI reference that names the service).
    pub fn new(tenant: &str, event_type: &str, source: &str) -> Self {
        Self {
            tenant: tenant.to_owned(),
            event_type: event_type.to_owned(),
            source: source.to_owned(),
            id: None,
            subject: None,
            time: None,
            data: None,
            extensions: BTreeMap::new(),
        }
    }

    /// The id, unique within the source. Publish a repeat with the same id: that is how it is recognised.
    #[must_use]
    pub fn id(mut self, id: &str) -> Self {
        self.id = Some(id.to_owned());
        self
    }

    /// What the event is about.
    #[must_use]
    pub fn subject(mut self, subject: &str) -> Self {
        self.subject = Some(subject.to_owned());
        self
    }

    /// When it happened.
    #[must_use]
    pub fn time(mut self, time: Timestamp) -> Self {
        self.time = Some(time);
        self
    }

    /// JSON data, sent byte for byte.
    #[must_use]
    pub fn json(self, data: &[u8]) -> Self {
        self.data("application/json", data)
    }

    /// Data of any media type, sent byte for byte.
    #[must_use]
    pub fn data(mut self, content_type: &str, data: &[u8]) -> Self {
        self.data = Some((content_type.to_owned(), data.to_vec()));
        self
    }

    /// An extension attribute; its name is lower-case letters and digits.
    #[must_use]
    pub fn extension(mut self, name: &str, value: AttributeValue) -> Self {
        self.extensions.insert(name.to_owned(), value);
        self
    }

    /// Not to be delivered before this time.
    #[must_use]
    pub fn deliver_after(self, time: Timestamp) -> Self {
        self.extension("deliverafter", AttributeValue::Text(time.to_string()))
    }

    /// Worthless after this time.
    #[must_use]
    pub fn deliver_before(self, time: Timestamp) -> Self {
        self.extension("deliverbefore", AttributeValue::Text(time.to_string()))
    }

    /// The event, checked by the rules that the router applies.
    pub fn build(self) -> Result<Event, ProducerFault> {
        let (data_content_type, data) = self.data.unzip();
        let tenant = self
            .tenant
            .parse()
            .map_err(|fault| invalid("tenant", RejectionCode::InvalidAttribute, &fault))?;
        let event_type = self.event_type.parse().map_err(|fault: InvalidAttribute| {
            invalid("type", RejectionCode::InvalidAttribute, &fault)
        })?;
        let id = self.id.ok_or_else(|| {
            let expected = "set it with `EventBuilder::id`, the same for every repeat";
            invalid("id", RejectionCode::MissingAttribute, &expected)
        })?;
        let time = self.time.map(|time| time.to_string().parse::<EventTime>());
        let event = Event {
            tenant,
            source: self.source,
            id,
            event_type,
            subject: self.subject,
            time: time.transpose().expect("a printed timestamp parses"),
            data_content_type,
            data_schema: None,
            extensions: self.extensions,
            data: data.map(Into::into),
        };
        check_event(&event).map_err(ProducerFault::Invalid)?;
        Ok(event)
    }
}

fn invalid(field: &str, code: RejectionCode, detail: &dyn std::fmt::Display) -> ProducerFault {
    ProducerFault::Invalid(EventRejection {
        code,
        field: Some(field.to_owned()),
        detail: detail.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_checked_before_it_is_published() {
        let good = EventBuilder::new("t", "a.b", "https://example.com")
            .id("1")
            .json(b"{}");
        assert!(good.clone().build().is_ok());
        for (bad, field) in [
            (EventBuilder::new("t.u", "a.b", "s").id("1"), "tenant"),
            (EventBuilder::new("t", "a b", "s").id("1"), "type"),
            (EventBuilder::new("t", "a", "").id("1"), "source"),
            (EventBuilder::new("t", "a", "s"), "id"),
            (good.json(b"{"), "data"),
        ] {
            match bad.build() {
                Err(ProducerFault::Invalid(rejection)) => {
                    assert_eq!(rejection.field.as_deref(), Some(field), "{rejection}");
                }
                other => panic!("{field}: {other:?}"),
            }
        }
    }
}
