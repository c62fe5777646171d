//! Changes of what an endpoint is: judged by what was read, and written only if that is still so.

use fanfare_model::{Endpoint, EndpointId, TenantId, Timestamp};
use serde_json::json;

use super::{MOST_TRIES, Registry, audit_row, failed};
use crate::{
    NewEndpoint, RegistryFault, Rotation,
    record::{EndpointRow, differences},
};

impl Registry {
    /// Makes of an endpoint what `change` says, and returns it as it is then. Where there is nothing to change,
    /// nothing is. `Ok(None)` means that the tenant has none with this id.
    ///
    /// `change` is asked again when the endpoint was changed in the meantime.
    pub async fn update_endpoint<E: From<RegistryFault>>(
        &self,
        tenant: &TenantId,
        id: EndpointId,
        change: impl Fn(Endpoint) -> Result<NewEndpoint, E>,
        actor: &str,
        now: Timestamp,
    ) -> Result<Option<Endpoint>, E> {
        let by = ("endpoint.update", actor);
        self.revise(tenant, id, change, by, now).await
    }

    /// Gives an endpoint a new secret, which is the first of its secrets then. `Ok(None)` means that the tenant
    /// has none with this id.
    pub async fn rotate_secret(
        &self,
        tenant: &TenantId,
        id: EndpointId,
        rotation: &Rotation,
        actor: &str,
        now: Timestamp,
    ) -> Result<Option<Endpoint>, RegistryFault> {
        let change = |endpoint| Ok(rotation.apply(endpoint, now)?);
        let by = ("endpoint.rotate_secret", actor);
        self.revise(tenant, id, change, by, now).await
    }

    /// Makes `new` of `endpoint`, if it was not changed since it was read. Its state stays. `Ok(None)` means
    /// that it was changed or deleted.
    ///
    /// `by` is the action and the actor that the audit log gets.
    pub async fn replace_endpoint(
        &self,
        endpoint: &Endpoint,
        new: NewEndpoint,
        (action, actor): (&str, &str),
        now: Timestamp,
    ) -> Result<Option<Endpoint>, RegistryFault> {
        new.validate()?;
        let as_of = endpoint.updated_at;
        let tenant = &endpoint.tenant;
        let new = new.of(
            endpoint.id,
            endpoint.state.clone(),
            endpoint.created_at,
            as_of,
        );
        if new == *endpoint {
            return Ok(Some(new));
        }
        let changed = differences(endpoint, &new);
        let detail = json!({ "tenant": tenant, "changed": changed, "url": &new.url });
        let audit = audit_row(now, actor, action, endpoint.id, &detail);
        let row = EndpointRow::seal(&new, self.cipher());
        let store = self.store().await?;
        let row = store
            .replace_endpoint(&row, as_of.as_microsecond(), &audit)
            .await
            .map_err(failed("changing an endpoint"))?;
        row.map(|row| row.open(self.cipher())).transpose()
    }

    async fn revise<E: From<RegistryFault>>(
        &self,
        tenant: &TenantId,
        id: EndpointId,
        change: impl Fn(Endpoint) -> Result<NewEndpoint, E>,
        by: (&str, &str),
        now: Timestamp,
    ) -> Result<Option<Endpoint>, E> {
        for _ in 0..MOST_TRIES {
            let Some(endpoint) = self.endpoint(tenant, id).await? else {
                return Ok(None);
            };
            let new = change(endpoint.clone())?;
            let changed = self.replace_endpoint(&endpoint, new, by, now).await?;
            if changed.is_some() {
                return Ok(changed);
            }
        }
        Err(RegistryFault::Contended.into())
    }
}
