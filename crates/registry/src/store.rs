//! The registry as the rest of Fanfare sees it: nouns in, nouns out, over a database that may be away.

mod changes;
mod event_types;

use std::sync::Arc;

use fanfare_model::{
    BodyFormat, Endpoint, EndpointId, EndpointState, EventType, StateChange, StateName, TenantId,
    Timestamp,
};
use serde_json::json;
use tokio::sync::{OnceCell, mpsc};
use uuid::Uuid;

use crate::{
    ApiKey, ApiKeyId, AuditEntry, AuditPage, NewApiKey, NewEndpoint, RegistryFault, Settings,
    Snapshot, api_key,
    backend::{self, ApiKeyRow, AuditQuery, AuditRow, Backend, StateRow},
    cipher::Cipher,
    record::{EndpointRow, state_text},
};

/// How many rows are read ahead of being opened.
const ROWS_UNDER_WAY: usize = 256;

/// The store of endpoints and API keys. Cheap to clone.
///
/// Every change is one transaction: the change itself, its audit entry, and for an endpoint the next
/// version. Two calls never wait for each other longer than a few seconds.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    settings: Settings,
    cipher: Cipher,
    store: OnceCell<Box<dyn Backend>>,
}

/// Which endpoints to list.
#[derive(Debug, Clone, Default)]
pub struct EndpointPage {
    /// Those of this tenant, or of all.
    pub tenant: Option<TenantId>,
    /// Of those, the ones for which all of this holds.
    pub filter: EndpointFilter,
    /// Those after this one.
    pub after: Option<EndpointId>,
    /// At most this many.
    pub limit: u32,
}

/// What endpoints to list are like. What is not set restricts nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointFilter {
    /// In this state.
    pub state: Option<StateName>,
    /// Wanting events of this type, whatever their content.
    pub event_type: Option<EventType>,
    /// With this text in their URL.
    pub url: Option<String>,
    /// Getting bodies in this format.
    pub format: Option<BodyFormat>,
}

impl EndpointFilter {
    /// Whether everything that is set holds of an endpoint.
    pub fn accepts(&self, endpoint: &Endpoint) -> bool {
        let Self {
            state,
            event_type,
            url,
            format,
        } = self;
        state.is_none_or(|state| state == endpoint.state.kind())
            && event_type
                .as_ref()
                .is_none_or(|wanted| endpoint.wants(wanted))
            && url
                .as_ref()
                .is_none_or(|part| endpoint.url.to_string().contains(part))
            && format.is_none_or(|format| format == endpoint.format)
    }
}

impl Registry {
    /// Opens the database, brings its schema up to date and checks the key.
    pub async fn open(settings: &Settings) -> Result<Self, RegistryFault> {
        let registry = Self::connect(settings)?;
        registry.store().await?;
        Ok(registry)
    }

    /// Prepares a registry whose database is opened by the first call that succeeds in it.
    ///
    /// Until then every call says [`RegistryFault::Unavailable`]. `Err` means that the key is unusable.
    pub fn connect(settings: &Settings) -> Result<Self, RegistryFault> {
        let cipher = Cipher::new(&settings.key()?);
        Ok(Self(Arc::new(Inner {
            settings: settings.clone(),
            cipher,
            store: OnceCell::new(),
        })))
    }

    /// Waits for the calls under way and closes the database. Later calls fail.
    pub async fn close(&self) {
        if let Some(store) = self.0.store.get() {
            store.close().await;
        }
    }

    /// Registers an endpoint, active from now on.
    pub async fn create_endpoint(
        &self,
        new: NewEndpoint,
        actor: &str,
        now: Timestamp,
    ) -> Result<Endpoint, RegistryFault> {
        new.validate()?;
        let id = EndpointId::from_uuid(new_uuid(now));
        let endpoint = new.registered(id, stored_precision(now));
        let detail = json!({
            "tenant": &endpoint.tenant,
            "url": &endpoint.url,
            "event_types": &endpoint.event_types,
        });
        let audit = audit_row(now, actor, "endpoint.create", endpoint.id, &detail);
        let row = EndpointRow::seal(&endpoint, &self.0.cipher);
        let store = self.store().await?;
        store
            .insert_endpoint(&row, &audit)
            .await
            .map_err(failed("creating an endpoint"))?;
        Ok(endpoint)
    }

    /// One endpoint of a tenant.
    pub async fn endpoint(
        &self,
        tenant: &TenantId,
        id: EndpointId,
    ) -> Result<Option<Endpoint>, RegistryFault> {
        let store = self.store().await?;
        let row = store
            .endpoint(tenant.as_str(), id.as_bytes())
            .await
            .map_err(failed("reading an endpoint"))?;
        row.map(|row| row.open(&self.0.cipher)).transpose()
    }

    /// A page of endpoints in the order of their ids. A filter looks at every endpoint up to the last one
    /// found. What is damaged is disabled, and not what it was.
    pub async fn endpoints(&self, page: &EndpointPage) -> Result<Vec<Endpoint>, RegistryFault> {
        let tenant = page.tenant.as_ref().map(TenantId::as_str);
        let mut after = page
            .after
            .as_ref()
            .map_or_else(Vec::new, |id| id.as_bytes().to_vec());
        let at_once = if page.filter == EndpointFilter::default() {
            page.limit
        } else {
            page.limit.max(FILTERED_AT_ONCE)
        };
        let (store, mut found) = (self.store().await?, Vec::new());
        loop {
            let rows = store.endpoints(tenant, &after, at_once).await;
            let rows = rows.map_err(failed("listing endpoints"))?;
            for row in &rows {
                let endpoint = row.open_or_set_aside(&self.0.cipher)?;
                if found.len() < page.limit as usize && page.filter.accepts(&endpoint) {
                    found.push(endpoint);
                }
            }
            let read_all = rows.len() < at_once as usize;
            match rows.last() {
                Some(last) if !read_all && found.len() < page.limit as usize => {
                    after.clone_from(&last.id);
                }
                _ => return Ok(found),
            }
        }
    }

    /// Deletes an endpoint. `Ok(false)` means that the tenant has none with this id.
    pub async fn delete_endpoint(
        &self,
        tenant: &TenantId,
        id: EndpointId,
        actor: &str,
        now: Timestamp,
    ) -> Result<bool, RegistryFault> {
        let detail = json!({ "tenant": tenant });
        let audit = audit_row(now, actor, "endpoint.delete", id, &detail);
        let store = self.store().await?;
        store
            .delete_endpoint(tenant.as_str(), id.as_bytes(), &audit)
            .await
            .map_err(failed("deleting an endpoint"))
    }

    /// Pauses, resumes, disables or enables an endpoint as asked for, and returns it as it is then. Where
    /// there is nothing to change, nothing is. `Ok(None)` means that the tenant has none with this id.
    pub async fn change_state(
        &self,
        tenant: &TenantId,
        id: EndpointId,
        change: StateChange,
        actor: &str,
        now: Timestamp,
    ) -> Result<Option<Endpoint>, RegistryFault> {
        // What was read may be outdated when it is written, and then the change is judged anew.
        for _ in 0..MOST_TRIES {
            let Some(endpoint) = self.endpoint(tenant, id).await? else {
                return Ok(None);
            };
            let state = change.apply(&endpoint.state, now)?;
            if state == endpoint.state {
                return Ok(Some(endpoint));
            }
            let changed = self.replace_state(tenant, id, endpoint.updated_at, state, actor, now);
            if let Some(changed) = changed.await? {
                return Ok(Some(changed));
            }
        }
        Err(RegistryFault::Contended)
    }

    /// Gives an endpoint a state, whatever it had. `Ok(None)` means that the tenant has none with this id.
    pub async fn set_state(
        &self,
        tenant: &TenantId,
        id: EndpointId,
        state: EndpointState,
        actor: &str,
        now: Timestamp,
    ) -> Result<Option<Endpoint>, RegistryFault> {
        self.write_state(tenant, id, None, &state, actor, now).await
    }

    /// Gives an endpoint a state, if it was last changed at `as_of`. `Ok(None)` means that it was changed
    /// since, or that the tenant has none with this id.
    pub async fn replace_state(
        &self,
        tenant: &TenantId,
        id: EndpointId,
        as_of: Timestamp,
        state: EndpointState,
        actor: &str,
        now: Timestamp,
    ) -> Result<Option<Endpoint>, RegistryFault> {
        self.write_state(tenant, id, Some(as_of), &state, actor, now)
            .await
    }

    async fn write_state(
        &self,
        tenant: &TenantId,
        id: EndpointId,
        as_of: Option<Timestamp>,
        state: &EndpointState,
        actor: &str,
        now: Timestamp,
    ) -> Result<Option<Endpoint>, RegistryFault> {
        let detail = json!({ "tenant": tenant, "state": state });
        let audit = audit_row(now, actor, "endpoint.set_state", id, &detail);
        let change = StateRow {
            tenant: tenant.as_str(),
            id: id.as_bytes(),
            state: &state_text(state),
            as_of: as_of.map(Timestamp::as_microsecond),
        };
        let store = self.store().await?;
        let row = store
            .set_state(&change, &audit)
            .await
            .map_err(failed("changing the state of an endpoint"))?;
        row.map(|row| row.open(&self.0.cipher)).transpose()
    }

    /// The version: it grows with every change of an endpoint.
    pub async fn version(&self) -> Result<u64, RegistryFault> {
        let store = self.store().await?;
        store.version().await.map_err(failed("reading the version"))
    }

    /// The version and all endpoints of exactly that version. One that is damaged is set aside.
    ///
    /// What has not changed since `before` is taken from there, which saves opening it.
    pub async fn load(&self, before: Option<Arc<Snapshot>>) -> Result<Snapshot, RegistryFault> {
        let store = self.store().await?;
        let cipher = self.0.cipher.clone();
        // One at a time, because all of them would take as much memory again as the snapshot.
        let (rows, mut read) = mpsc::channel::<EndpointRow>(ROWS_UNDER_WAY);
        // Decrypting many endpoints takes long enough to hold up whatever else this thread would do.
        let opening = tokio::task::spawn_blocking(move || {
            let mut snapshot = Snapshot::default();
            while let Some(row) = read.blocking_recv() {
                let known = before.as_ref().and_then(|before| row.unchanged_in(before));
                match known {
                    Some(endpoint) => snapshot.add(endpoint),
                    None => snapshot.add(Arc::new(row.open_or_set_aside(&cipher)?)),
                }
            }
            Ok::<_, RegistryFault>(snapshot)
        });
        let version = store.load(rows).await;
        let opened = opening.await.expect("reading rows does not panic");
        let version = version.map_err(failed("reading endpoints"))?;
        Ok(opened?.at(version))
    }

    /// Makes a new API key. This is the only time that it is shown.
    pub async fn create_api_key(
        &self,
        name: &str,
        actor: &str,
        now: Timestamp,
    ) -> Result<NewApiKey, RegistryFault> {
        let id = ApiKeyId(new_uuid(now));
        let key = api_key::generate();
        let row = ApiKeyRow {
            id: id.0.into_bytes().to_vec(),
            name: name.to_owned(),
            hash: api_key::digest(key.expose()),
            created_at: now.as_microsecond(),
        };
        let audit = audit_row(now, actor, "api_key.create", id, &json!({ "name": name }));
        let store = self.store().await?;
        store
            .insert_api_key(&row, &audit)
            .await
            .map_err(failed("creating an API key"))?;
        Ok(NewApiKey { id, key })
    }

    /// Whether any API key was ever made.
    pub async fn api_keys_exist(&self) -> Result<bool, RegistryFault> {
        let store = self.store().await?;
        store
            .api_keys_exist()
            .await
            .map_err(failed("looking for API keys"))
    }

    /// Whose key this is; `None` when it is nobody's.
    pub async fn verify_api_key(&self, presented: &str) -> Result<Option<ApiKey>, RegistryFault> {
        let store = self.store().await?;
        let row = store
            .api_key(&api_key::digest(presented))
            .await
            .map_err(failed("looking for an API key"))?;
        row.map(|row| {
            let id = Uuid::from_slice(&row.id).map_err(damaged("the id of an API key"))?;
            Ok(ApiKey {
                id: ApiKeyId(id),
                name: row.name,
            })
        })
        .transpose()
    }

    /// Writes down what was done to something that is not kept here, such as dead letters.
    pub async fn record(
        &self,
        actor: &str,
        action: &str,
        subject: &str,
        detail: &serde_json::Value,
        now: Timestamp,
    ) -> Result<(), RegistryFault> {
        let audit = audit_row(now, actor, action, subject, detail);
        let store = self.store().await?;
        let written = store.insert_audit(&audit).await;
        written.map_err(failed("writing the audit log"))
    }

    /// The latest changes, newest first.
    pub async fn audit(&self, page: &AuditPage) -> Result<Vec<AuditEntry>, RegistryFault> {
        let query = AuditQuery {
            tenant: page.tenant.as_ref().map(ToString::to_string),
            actor: page.actor.clone(),
            action: page.action.clone(),
            subject: page.subject.clone(),
            since: page.since.map(Timestamp::as_microsecond),
            until: page.until.map(Timestamp::as_microsecond),
            before: page.before,
            limit: page.limit.into(),
        };
        let store = self.store().await?;
        let rows = store.audit(&query).await;
        let rows = rows.map_err(failed("reading the audit log"))?;
        rows.into_iter().map(audit_entry).collect()
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    pub(crate) fn cipher(&self) -> &Cipher {
        &self.0.cipher
    }

    pub(crate) async fn store(&self) -> Result<&dyn Backend, RegistryFault> {
        let Inner {
            settings,
            cipher,
            store,
        } = &*self.0;
        let store = store
            .get_or_try_init(|| backend::open(&settings.database, cipher.key_id()))
            .await?;
        Ok(&**store)
    }
}

/// How many endpoints are read at once to find the ones that a filter accepts.
const FILTERED_AT_ONCE: u32 = 500;

/// How often a change is judged anew because the endpoint was changed in the meantime.
const MOST_TRIES: usize = 8;

/// A UUID of version 7, so that ids sort by age.
pub(crate) fn new_uuid(now: Timestamp) -> Uuid {
    let milliseconds = u64::try_from(now.as_millisecond()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(milliseconds, &rand::random()).into_uuid()
}

/// What is handed back equals what will be read: microseconds.
fn stored_precision(now: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(now.as_microsecond())
        .expect("a timestamp without its nanoseconds is a timestamp")
}

fn audit_entry(row: AuditRow) -> Result<AuditEntry, RegistryFault> {
    Ok(AuditEntry {
        id: row.id,
        at: Timestamp::from_microsecond(row.at).map_err(damaged("the time of an audit entry"))?,
        actor: row.actor,
        action: row.action,
        subject: row.subject,
        detail: serde_json::from_str(&row.detail)
            .map_err(damaged("the detail of an audit entry"))?,
    })
}

pub(crate) fn audit_row(
    now: Timestamp,
    actor: &str,
    action: &str,
    subject: impl ToString,
    detail: &serde_json::Value,
) -> AuditRow {
    AuditRow {
        id: 0,
        at: now.as_microsecond(),
        actor: actor.to_owned(),
        action: action.to_owned(),
        subject: subject.to_string(),
        detail: detail.to_string(),
    }
}

pub(crate) fn failed(doing: &'static str) -> impl FnOnce(sqlx::Error) -> RegistryFault {
    move |source| RegistryFault::Query { doing, source }
}

pub(crate) fn damaged<E: std::error::Error + Send + Sync + 'static>(
    what: &str,
) -> impl FnOnce(E) -> RegistryFault {
    let what = what.to_owned();
    move |source| RegistryFault::Damaged {
        what,
        source: source.into(),
    }
}
