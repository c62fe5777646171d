//! The catalogue of event types in the registry.

use fanfare_model::{EventType, Timestamp};
use serde_json::json;

use super::{Registry, audit_row, damaged, failed, stored_precision};
use crate::{
    Catalogue, CataloguedType, InvalidEventType, NewEventType, RegistryFault, backend::EventTypeRow,
};

impl Registry {
    /// Adds or replaces an event type. It is a new version of the registry.
    pub async fn put_event_type(
        &self,
        new: NewEventType,
        actor: &str,
        now: Timestamp,
    ) -> Result<CataloguedType, RegistryFault> {
        let known = new.checked(stored_precision(now))?;
        let definition = &known.definition;
        let detail = json!({ "enforced": definition.enforced });
        let audit = audit_row(now, actor, "event_type.put", &definition.name, &detail);
        let row = EventTypeRow {
            name: definition.name.to_string(),
            definition: serde_json::to_string(definition).expect("a definition is JSON"),
            updated_at: known.updated_at.as_microsecond(),
        };
        let most = i64::try_from(Catalogue::MOST_TYPES).unwrap_or(i64::MAX);
        let store = self.store().await?;
        let put = store.put_event_type(&row, most, &audit).await;
        if !put.map_err(failed("putting an event type"))? {
            return Err(InvalidEventType::too_many().into());
        }
        Ok(known)
    }

    /// Removes an event type. `Ok(false)` means that there is none of this name.
    pub async fn delete_event_type(
        &self,
        name: &EventType,
        actor: &str,
        now: Timestamp,
    ) -> Result<bool, RegistryFault> {
        let audit = audit_row(now, actor, "event_type.delete", name, &json!({}));
        let store = self.store().await?;
        store
            .delete_event_type(name.as_str(), &audit)
            .await
            .map_err(failed("deleting an event type"))
    }

    /// Every event type, by name. One that is damaged has its name alone.
    pub async fn event_types(&self) -> Result<Vec<CataloguedType>, RegistryFault> {
        let (_, rows) = self.event_type_rows().await?;
        let types = rows.into_iter().filter_map(EventTypeRow::open_or_set_aside);
        Ok(types.collect())
    }

    /// The event type of this name.
    pub async fn event_type(
        &self,
        name: &EventType,
    ) -> Result<Option<CataloguedType>, RegistryFault> {
        let (_, rows) = self.event_type_rows().await?;
        let row = rows.into_iter().find(|row| row.name == name.as_str());
        row.map(EventTypeRow::open).transpose()
    }

    /// The version of the registry, and all event types of exactly that version.
    pub async fn catalogue(&self) -> Result<(u64, Catalogue), RegistryFault> {
        let (version, rows) = self.event_type_rows().await?;
        let types = rows.into_iter().filter_map(EventTypeRow::open_or_set_aside);
        Ok((version, Catalogue::new(types)))
    }

    async fn event_type_rows(&self) -> Result<(u64, Vec<EventTypeRow>), RegistryFault> {
        let store = self.store().await?;
        let rows = store.event_types().await;
        rows.map_err(failed("reading event types"))
    }
}

impl EventTypeRow {
    /// The event type, or of one that is damaged its name: its events are accepted as they are, for a producer cannot
    /// mend what is stored here.
    fn open_or_set_aside(self) -> Option<CataloguedType> {
        let name = self.name.clone();
        let fault = match self.open() {
            Ok(known) => return Some(known),
            Err(fault) => fault,
        };
        let error = &fault as &dyn std::error::Error;
        tracing::error!(
            error,
            "a stored event type is damaged: its events are accepted unchecked"
        );
        let bare = NewEventType {
            name: name.parse().ok()?,
            description: String::new(),
            schema: None,
            sample: None,
            enforced: false,
        };
        bare.checked(Timestamp::UNIX_EPOCH).ok()
    }

    fn open(self) -> Result<CataloguedType, RegistryFault> {
        let what = format!("the stored event type `{}`", self.name);
        let updated_at = Timestamp::from_microsecond(self.updated_at).map_err(damaged(&what))?;
        let definition: NewEventType =
            serde_json::from_str(&self.definition).map_err(damaged(&what))?;
        definition.checked(updated_at).map_err(damaged(&what))
    }
}
