//! An endpoint as it is stored: in the database in two parts, an open one and a sealed one; in the snapshot file whole.
//!
//! Fields that a later release adds need a serde default, because old records outlive an upgrade.

use std::{sync::Arc, time::Duration};

use fanfare_model::{
    AuthForm, BodyFormat, ClientCertificate, DisableAfter, DisabledReason, Endpoint, EndpointId,
    EndpointState, EventTypePattern, Filter, HeaderField, HttpVersion, PayloadTemplate, Rate,
    RequestOrigin, RetiringSecret, Schedule, Secret, SignatureScheme, SigningSecret, StatusSet,
    TargetUrl, TenantId, Timestamp, TlsIdentity,
};
use jiff::fmt::serde::timestamp::microsecond;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    NewEndpoint, RegistryFault, Snapshot,
    cipher::{CannotOpen, Cipher},
};

/// A row of the table `endpoints`.
#[derive(sqlx::FromRow)]
pub(crate) struct EndpointRow {
    pub(crate) id: Vec<u8>,
    pub(crate) tenant: String,
    pub(crate) state: String,
    pub(crate) settings: String,
    pub(crate) sealed: Vec<u8>,
    pub(crate) created_at: i64,
    pub(crate) updated_at: i64,
}

/// A whole endpoint, secrets in clear: only ever written encrypted.
#[derive(Serialize, Deserialize)]
pub(crate) struct EndpointRecord {
    id: EndpointId,
    tenant: TenantId,
    state: EndpointState,
    settings: OpenPart,
    secret: SecretPart,
    #[serde(with = "microsecond::required")]
    created_at: Timestamp,
    #[serde(with = "microsecond::required")]
    updated_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct OpenPart {
    url: TargetUrl,
    description: String,
    event_types: Vec<EventTypePattern>,
    #[serde(default)]
    filter: Option<Filter>,
    #[serde(default)]
    template: Option<PayloadTemplate>,
    rate: Option<Rate>,
    max_in_flight: u16,
    timeout_ms: u64,
    schedule: Schedule,
    success: StatusSet,
    permanent: StatusSet,
    #[serde(default)]
    disable_after: DisableAfter,
    #[serde(default)]
    format: BodyFormat,
    #[serde(default)]
    signature: SignatureScheme,
    #[serde(default)]
    http_version: HttpVersion,
    #[serde(default)]
    request_origin: Option<RequestOrigin>,
    #[serde(default)]
    connect_timeout_ms: Option<u64>,
}

/// Headers are sealed too: many carry a credential.
#[derive(Serialize, Deserialize)]
struct SecretPart {
    headers: Vec<(String, String)>,
    signing: Vec<String>,
    #[serde(default)]
    retiring: Vec<Retiring>,
    #[serde(default)]
    auth: Option<AuthForm>,
    #[serde(default)]
    tls: TlsPart,
}

#[derive(Serialize, Deserialize)]
struct Retiring {
    secret: String,
    #[serde(with = "microsecond::required")]
    until: Timestamp,
}

#[derive(Default, Serialize, Deserialize)]
struct TlsPart {
    /// Chain and key.
    client: Option<(String, String)>,
    ca: Option<String>,
}

impl EndpointRow {
    /// Seals an endpoint for the database.
    pub(crate) fn seal(endpoint: &Endpoint, cipher: &Cipher) -> Self {
        let record = EndpointRecord::from(endpoint);
        let secret = zeroize::Zeroizing::new(to_json(&record.secret));
        Self {
            id: endpoint.id.as_bytes().to_vec(),
            tenant: endpoint.tenant.to_string(),
            state: to_json(&record.state),
            settings: to_json(&record.settings),
            sealed: cipher.seal(secret.as_bytes(), endpoint.id.as_bytes()),
            created_at: endpoint.created_at.as_microsecond(),
            updated_at: endpoint.updated_at.as_microsecond(),
        }
    }

    /// The endpoint as `before` has it, if it is the same: every change makes `updated_at` later. One that was set
    /// aside there is not known well enough to say so.
    pub(crate) fn unchanged_in(&self, before: &Snapshot) -> Option<Arc<Endpoint>> {
        let id = EndpointId::from_uuid(Uuid::from_slice(&self.id).ok()?);
        let known = before.endpoint(id)?;
        let is_same = known.updated_at.as_microsecond() == self.updated_at
            && known.created_at.as_microsecond() == self.created_at
            && !known.state.is_damaged();
        is_same.then(|| Arc::clone(known))
    }

    /// Reads an endpoint back. The fault names the endpoint.
    pub(crate) fn open(&self, cipher: &Cipher) -> Result<Endpoint, RegistryFault> {
        let id = Uuid::from_slice(&self.id).map_err(|source| RegistryFault::Damaged {
            what: "the id of a stored endpoint".to_owned(),
            source: source.into(),
        })?;
        let id = EndpointId::from_uuid(id);
        let secret = match cipher.open(&self.sealed, id.as_bytes()) {
            Ok(secret) => secret,
            Err(CannotOpen::OtherKey(used)) => {
                let given = cipher.key_id();
                return Err(RegistryFault::OtherKey { used, given });
            }
            Err(damaged @ CannotOpen::Damaged) => return Err(damaged_endpoint(id, damaged.into())),
        };
        self.parse(id, &secret)
            .and_then(Endpoint::try_from)
            .map_err(|source| damaged_endpoint(id, source))
    }

    /// The same, but an endpoint that is damaged does not stand in the way of the others: it is set aside, and the
    /// log says so.
    pub(crate) fn open_or_set_aside(&self, cipher: &Cipher) -> Result<Endpoint, RegistryFault> {
        match self.open(cipher) {
            // The key was checked when the store was opened: here it is one row that has another.
            Err(fault @ (RegistryFault::Damaged { .. } | RegistryFault::OtherKey { .. })) => {
                let Some(endpoint) = self.set_aside() else {
                    return Err(fault);
                };
                tracing::error!(
                    endpoint.id = %endpoint.id,
                    tenant = %endpoint.tenant,
                    error = &fault as &dyn std::error::Error,
                    "a stored endpoint is damaged: what it is owed becomes dead letters until it is mended"
                );
                Ok(endpoint)
            }
            read => read,
        }
    }

    /// The endpoint as far as it can be read: disabled, and wanting at least what it wanted. Nothing without its id and
    /// its tenant, by which its events are found.
    fn set_aside(&self) -> Option<Endpoint> {
        let id = EndpointId::from_uuid(Uuid::from_slice(&self.id).ok()?);
        let tenant = self.tenant.parse().ok()?;
        let settings: serde_json::Value = serde_json::from_str(&self.settings).unwrap_or_default();
        let url = part(&settings, "url").unwrap_or_else(|| {
            let nowhere = "https://damaged.invalid/".parse();
            nowhere.expect("it is a URL")
        });
        let any = || vec![EventTypePattern::Any];
        let event_types = part(&settings, "event_types").unwrap_or_else(any);
        let at = |stored| Timestamp::from_microsecond(stored).unwrap_or_default();
        let state = EndpointState::Disabled {
            reason: DisabledReason::Damaged,
            since: at(self.updated_at),
        };
        let mut known = NewEndpoint::new(tenant, url, event_types);
        known.filter = part(&settings, "filter");
        known.description = part(&settings, "description").unwrap_or_default();
        Some(known.of(id, state, at(self.created_at), at(self.updated_at)))
    }

    fn parse(&self, id: EndpointId, secret: &[u8]) -> Result<EndpointRecord, BoxError> {
        Ok(EndpointRecord {
            id,
            tenant: self.tenant.parse()?,
            state: serde_json::from_str(&self.state)?,
            settings: serde_json::from_str(&self.settings)?,
            secret: serde_json::from_slice(secret)?,
            created_at: Timestamp::from_microsecond(self.created_at)?,
            updated_at: Timestamp::from_microsecond(self.updated_at)?,
        })
    }
}

/// A member of the settings, if it can be read.
fn part<T: serde::de::DeserializeOwned>(settings: &serde_json::Value, member: &str) -> Option<T> {
    T::deserialize(settings.get(member)?).ok()
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn damaged_endpoint(id: EndpointId, source: BoxError) -> RegistryFault {
    RegistryFault::Damaged {
        what: format!("the stored endpoint {id}"),
        source,
    }
}

/// The stored form of a state.
pub(crate) fn state_text(state: &EndpointState) -> String {
    to_json(state)
}

/// The names of what differs between an endpoint and what it is to be. No values: some are secret.
pub(crate) fn differences(before: &Endpoint, after: &Endpoint) -> Vec<String> {
    let open = |endpoint: &Endpoint| {
        serde_json::to_value(OpenPart::from(endpoint))
            .expect("records hold nothing that JSON cannot")
    };
    let (old, new) = (open(before), open(after));
    let members = new.as_object().into_iter().flatten();
    let open = members.filter(|(name, value)| old.get(name.as_str()) != Some(*value));
    let secrets = (&before.secrets, &before.retiring) != (&after.secrets, &after.retiring);
    let sealed = [
        ("headers", before.headers != after.headers),
        ("auth", before.auth != after.auth),
        ("tls", before.tls != after.tls),
        ("secret", secrets),
    ];
    let sealed = sealed.iter().filter(|(_, differs)| *differs);
    open.map(|(name, _)| name.trim_end_matches("_ms").to_owned())
        .chain(sealed.map(|(name, _)| (*name).to_owned()))
        .collect()
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("records hold nothing that JSON cannot")
}

impl From<&Endpoint> for EndpointRecord {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            id: endpoint.id,
            tenant: endpoint.tenant.clone(),
            state: endpoint.state.clone(),
            settings: endpoint.into(),
            secret: endpoint.into(),
            created_at: endpoint.created_at,
            updated_at: endpoint.updated_at,
        }
    }
}

impl From<&Endpoint> for OpenPart {
    fn from(endpoint: &Endpoint) -> Self {
        let milliseconds =
            |time: Duration| u64::try_from(time.as_millis()).expect("a timeout is at most 30 s");
        Self {
            url: endpoint.url.clone(),
            description: endpoint.description.clone().into(),
            event_types: endpoint.event_types.to_vec(),
            filter: endpoint.filter.clone(),
            template: endpoint.template.clone(),
            rate: endpoint.rate,
            max_in_flight: endpoint.max_in_flight,
            timeout_ms: milliseconds(endpoint.timeout),
            schedule: endpoint.schedule.clone(),
            success: endpoint.success.clone(),
            permanent: endpoint.permanent.clone(),
            disable_after: endpoint.disable_after,
            format: endpoint.format,
            signature: endpoint.signature.clone(),
            http_version: endpoint.http_version,
            request_origin: endpoint.request_origin.clone(),
            connect_timeout_ms: endpoint.connect_timeout.map(milliseconds),
        }
    }
}

impl From<&Endpoint> for SecretPart {
    fn from(endpoint: &Endpoint) -> Self {
        let header = |field: &HeaderField| (field.name().to_owned(), field.value().to_owned());
        let retiring = |old: &RetiringSecret| Retiring {
            secret: old.secret.reveal(),
            until: old.until,
        };
        let client =
            |client: &ClientCertificate| (client.chain.clone(), client.key.expose().to_owned());
        Self {
            headers: endpoint.headers.iter().map(header).collect(),
            signing: endpoint.secrets.iter().map(SigningSecret::reveal).collect(),
            retiring: endpoint.retiring.iter().map(retiring).collect(),
            auth: endpoint.auth.as_ref().map(|auth| auth.reveal()),
            tls: TlsPart {
                client: endpoint.tls.client.as_deref().map(client),
                ca: endpoint.tls.ca.as_deref().map(str::to_owned),
            },
        }
    }
}

impl TryFrom<EndpointRecord> for Endpoint {
    type Error = BoxError;

    fn try_from(record: EndpointRecord) -> Result<Self, BoxError> {
        let (settings, secret) = (record.settings, record.secret);
        let headers = secret.headers.iter();
        let read_secret = |text: &String| settings.signature.read_secret(text);
        let retiring = secret.retiring.iter().map(|old| {
            let secret = read_secret(&old.secret)?;
            let until = old.until;
            Ok::<_, BoxError>(RetiringSecret { secret, until })
        });
        let client = secret.tls.client.map(|(chain, key)| {
            let key = Secret::new(key);
            Box::new(ClientCertificate { chain, key })
        });
        // Of many endpoints, the room that nobody uses would add up.
        let mut secrets = secret
            .signing
            .iter()
            .map(read_secret)
            .collect::<Result<Vec<_>, _>>()?;
        secrets.shrink_to_fit();
        Ok(Self {
            id: record.id,
            tenant: record.tenant,
            url: settings.url,
            description: settings.description.into(),
            event_types: settings.event_types.into(),
            filter: settings.filter,
            template: settings.template,
            state: record.state,
            rate: settings.rate,
            max_in_flight: settings.max_in_flight,
            timeout: Duration::from_millis(settings.timeout_ms),
            schedule: settings.schedule,
            success: settings.success,
            permanent: settings.permanent,
            disable_after: settings.disable_after,
            format: settings.format,
            headers: headers
                .map(|(name, value)| HeaderField::new(name, value))
                .collect::<Result<_, _>>()?,
            auth: secret
                .auth
                .map(TryInto::try_into)
                .transpose()?
                .map(Box::new),
            tls: TlsIdentity {
                client,
                ca: secret.tls.ca.map(Into::into),
            },
            http_version: settings.http_version,
            request_origin: settings.request_origin,
            connect_timeout: settings.connect_timeout_ms.map(Duration::from_millis),
            secrets,
            retiring: retiring.collect::<Result<_, _>>()?,
            signature: settings.signature,
            created_at: record.created_at,
            updated_at: record.updated_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_an_earlier_release_still_read() {
        let stored = r#"{"url":"https://example.com/","description":"","event_types":["*"],"rate":null,
            "max_in_flight":16,"timeout_ms":15000,"schedule":[0,5],"success":"200-299","permanent":""}"#;
        let read: OpenPart = serde_json::from_str(stored).unwrap();
        assert_eq!(read.schedule.to_string(), "0s,5s");
        assert_eq!(read.disable_after, DisableAfter::default());
        assert_eq!(read.format, BodyFormat::Standard);
        assert_eq!((read.filter, read.template), (None, None));
        assert_eq!(read.signature, SignatureScheme::Standard);

        let stored = r#"{"headers":[],"signing":["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]}"#;
        let read: SecretPart = serde_json::from_str(stored).unwrap();
        assert!(read.auth.is_none() && read.tls.client.is_none() && read.retiring.is_empty());
    }
}
