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

    /// Every event type, by name.
    pub async fn event_types(&self) -> Result<Vec<CataloguedType>, RegistryFault> {
        let (_, rows) = self.event_type_rows().await?;
        rows.into_iter().map(EventTypeRow::open).collect()
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
        let types: Vec<_> = rows
            .into_iter()
            .map(EventTypeRow::open)
            .collect::<Result<_, _>>()?;
        Ok((version, Catalogue::new(types)))
    }

    async fn event_type_rows(&self) -> Result<(u64, Vec<EventTypeRow>), RegistryFault> {
        let store = self.store().await?;
        let rows = store.event_types().await;
        rows.map_err(failed("reading event types"))
    }
}

impl EventTypeRow {
    fn open(self) -> Result<CataloguedType, RegistryFault> {
        let what = format!("the stored event type `{}`", self.name);
        let updated_at = Timestamp::from_microsecond(self.updated_at).map_err(damaged(&what))?;
        let definition: NewEventType =
            serde_json::from_str(&self.definition).map_err(damaged(&what))?;
        definition.checked(updated_at).map_err(damaged(&what))
    }
}
