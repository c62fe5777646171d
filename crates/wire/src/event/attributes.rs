//! The attributes of an event before they are told apart, the same for all modes.

use std::collections::{BTreeMap, btree_map::Entry};

use bytes::Bytes;
use fanfare_model::{AttributeValue, Event, InvalidAttribute, TenantId};

use super::{
    EventDefaults,
    rejection::{EventRejection, RejectionCode},
};

/// Attributes by name, each once.
#[derive(Default)]
pub(super) struct Attributes(BTreeMap<String, AttributeValue>);

impl Attributes {
    /// Adds an attribute; a second one of the same name is rejected.
    pub(super) fn insert(
        &mut self,
        name: &str,
        value: AttributeValue,
    ) -> Result<(), EventRejection> {
        match self.0.entry(name.to_owned()) {
            Entry::Vacant(entry) => {
                entry.insert(value);
                Ok(())
            }
            Entry::Occupied(_) => Err(EventRejection::invalid(name, "sent once")),
        }
    }

    /// The event with these attributes; what is no context attribute becomes an extension.
    pub(super) fn into_event(
        mut self,
        data: Option<Bytes>,
        defaults: EventDefaults<'_>,
    ) -> Result<Event, EventRejection> {
        if self.required("specversion", "`1.0`")? != "1.0" {
            return Err(EventRejection::invalid("specversion", "`1.0`"));
        }
        Ok(Event {
            id: match (self.text("id")?, defaults.id) {
                (Some(id), _) => id,
                (None, Some(id)) => id.to_owned(),
                (None, None) => {
                    return Err(EventRejection::missing("id", "1 to 255 bytes of text"));
                }
            },
            source: self.required("source", "a URI reference of 1 to 1024 bytes")?,
            event_type: self
                .required("type", "dotted words such as `reward.unlocked`")?
                .parse()
                .map_err(invalid)?,
            tenant: self.tenant(defaults.tenant)?,
            subject: self.text("subject")?,
            time: self
                .text("time")?
                .map(|time| time.parse().map_err(invalid))
                .transpose()?,
            data_content_type: self.text("datacontenttype")?,
            data_schema: self.text("dataschema")?,
            extensions: self.0,
            data,
        })
    }

    fn tenant(&mut self, default: Option<&TenantId>) -> Result<TenantId, EventRejection> {
        let expected = "the id of the tenant: 1 to 128 characters of A-Z, a-z, 0-9, `_` and `-`";
        let Some(sent) = self.text("tenant")? else {
            let missing = || EventRejection::missing("tenant", expected);
            return default.cloned().ok_or_else(missing);
        };
        let sent: TenantId = sent
            .parse()
            .map_err(|_| EventRejection::invalid("tenant", expected))?;
        match default {
            Some(default) if *default != sent => Err(EventRejection::new(
                RejectionCode::TenantMismatch,
                Some("tenant"),
                format!("`tenant` is `{sent}`, but the event was sent to tenant `{default}`"),
            )),
            Some(_) | None => Ok(sent),
        }
    }

    fn required(&mut self, name: &str, expected: &str) -> Result<String, EventRejection> {
        self.text(name)?
            .ok_or_else(|| EventRejection::missing(name, expected))
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, EventRejection> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(AttributeValue::Text(text)) => Ok(Some(text)),
            Some(
                AttributeValue::Boolean(_) | AttributeValue::Integer(_) | AttributeValue::Binary(_),
            ) => Err(EventRejection::invalid(name, "text")),
        }
    }
}

fn invalid(fault: InvalidAttribute) -> EventRejection {
    EventRejection::invalid(fault.attribute, fault.expected)
}
