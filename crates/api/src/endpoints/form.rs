//! What an endpoint looks like in JSON when it is asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fanfare_model::{
    Auth, AuthForm, BodyFormat, ClientCertificate, DisableAfter, EgressPolicy, Endpoint,
    EventTypePattern, Filter, HeaderField, HttpVersion, PayloadTemplate, Profile, Rate,
    RequestOrigin, Schedule, Secret, SignatureScheme, SigningSecret, StatusSet, TargetUrl,
    TemplateForm, TenantId, TlsIdentity,
};
use fanfare_registry::NewEndpoint;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::schemas::{AuthMembers, DisableRules, schedule_schema, signature_schema};
use crate::problem::{Code, Problem};

/// An endpoint to be created, or what one is to be after a change.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewEndpoint, example = json!({
    "url": "https://example.com/hooks",
    "event_types": ["reward.*"],
    "rate": "50/s burst 10",
}))]
pub(crate) struct EndpointForm {
    /// The kind of receiver, which fills in `format`, `signature`, `success`, `schedule` and `disable_after`
    /// where they are absent: `standard`, `cloudevents`, `raw`, `referralhero`, `github`, `shopify`, `stripe`
    /// or `custom`.
    #[schema(value_type = Option<String>)]
    profile: Option<Profile>,
    /// Where requests go: an absolute http or https URL of a public host.
    #[schema(required = true, nullable = false, value_type = String, format = "uri")]
    url: Option<TargetUrl>,
    /// The event types it wants: a type, the first words of types followed by `.*`, or `*`. 1 to 100.
    #[schema(required = true, nullable = false, value_type = Vec<String>)]
    event_types: Option<Vec<EventTypePattern>>,
    /// What it wants of their content: a JSON pattern over attributes and `data`; anything when absent.
    #[schema(value_type = Option<Object>)]
    filter: Option<Filter>,
    /// What makes the body of its requests: `source`, `media_type` and `parameters`, or `preset` and
    /// `parameters`. The event itself when absent.
    #[schema(value_type = Option<Object>)]
    template: Option<TemplateForm>,
    /// What its owner calls it; at most 500 bytes.
    description: Option<String>,
    /// How fast it may be called, such as `50/s`, `600/min` or `50/s burst 10`; unlimited when absent.
    #[schema(value_type = Option<String>)]
    rate: Option<Rate>,
    /// How many requests may be in flight at once: 1 to 1024, 16 when absent.
    max_in_flight: Option<u16>,
    /// How many seconds one attempt may take in all: 1 to 30, 15 when absent.
    timeout: Option<f64>,
    /// The waits before each attempt, in seconds: 1 to 50 of at most 30 days; or waits that grow. The example
    /// of the Standard Webhooks specification when absent.
    #[schema(schema_with = schedule_schema)]
    schedule: Option<Schedule>,
    /// The statuses that mean success, such as `200,202`; `200-299` when absent.
    #[schema(value_type = Option<String>)]
    success: Option<StatusSet>,
    /// The statuses that mean that trying again is useless; none when absent.
    #[schema(value_type = Option<String>)]
    permanent: Option<StatusSet>,
    /// When failures in a row disable it: after five days of them when absent, never when `{}`.
    #[schema(value_type = Option<DisableRules>)]
    disable_after: Option<DisableAfter>,
    /// What the body of a request is: `standard`, `cloudevents`, `cloudevents-binary` or `raw`.
    #[schema(value_type = Option<String>)]
    format: Option<BodyFormat>,
    /// How requests are signed.
    #[schema(schema_with = signature_schema)]
    signature: Option<SignatureScheme>,
    /// Headers added to every request, at most 30. Their values are never shown again.
    headers: Option<BTreeMap<String, String>>,
    /// What proves to the receiver who calls it, beside the signature. Its secrets are never shown again.
    #[schema(value_type = Option<AuthMembers>)]
    auth: Option<AuthForm>,
    /// What a TLS connection shows and trusts.
    tls: Option<TlsForm>,
    /// The version of HTTP: `auto` when absent, `1.1` or `2`.
    #[schema(value_type = Option<String>)]
    http_version: Option<HttpVersion>,
    /// As whom a receiver of CloudEvents is asked whether it wants to be called: the DNS name of the sending system,
    /// which is also the header `Origin` of every request. It is asked with OPTIONS when it is created or
    /// changed, and has to agree. It is not asked when absent.
    #[schema(value_type = Option<String>)]
    request_origin: Option<RequestOrigin>,
    /// How many seconds connecting may take: 0.1 to 30, and at most `timeout`; as the operator set it when absent.
    connect_timeout: Option<f64>,
    /// The secret that signs: `whsec_` and the base64 of 24 to 64 bytes, or `whsk_` and the base64 of an
    /// ed25519 key; for any other `signature` than `standard` 16 to 256 visible characters. One is made when
    /// absent.
    #[schema(value_type = Option<String>)]
    #[serde(skip_serializing)]
    secret: Option<Secret>,
}

/// A certificate to show and one to trust, in PEM.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Tls)]
struct TlsForm {
    /// The certificate that proves who connects, followed by its intermediates.
    certificate: Option<String>,
    /// The private key of `certificate`. Never shown again.
    key: Option<String>,
    /// Certificates that are trusted as roots, for this endpoint alone.
    ca: Option<String>,
}

impl EndpointForm {
    /// The endpoint asked for, if every member is accepted and its URL may be called.
    pub(super) fn read(
        self,
        tenant: TenantId,
        egress: &EgressPolicy,
    ) -> Result<NewEndpoint, Problem> {
        let new = self.read_members(tenant, egress)?;
        new.validate().map_err(|invalid| Problem::from(&invalid))?;
        Ok(new)
    }

    /// What an endpoint is to be. It keeps its secrets unless it is given another, which replaces them all.
    pub(super) fn read_for(
        self,
        endpoint: Endpoint,
        egress: &EgressPolicy,
    ) -> Result<NewEndpoint, Problem> {
        let mut new = self.read_members(endpoint.tenant, egress)?;
        if new.secrets.is_empty() {
            (new.secrets, new.retiring) = (endpoint.secrets, endpoint.retiring);
        }
        new.validate().map_err(|invalid| Problem::from(&invalid))?;
        Ok(new)
    }

    fn read_members(self, tenant: TenantId, egress: &EgressPolicy) -> Result<NewEndpoint, Problem> {
        let url = self
            .url
            .ok_or_else(|| missing("url", "an absolute URL such as https://example.com/hooks"))?;
        check_url("url", &url, egress)?;
        let event_types = self.event_types.ok_or_else(|| {
            missing(
                "event_types",
                "a list of types and patterns such as `reward.*`, or `[\"*\"]`",
            )
        })?;
        let mut new = NewEndpoint::new(tenant, url, event_types);
        if let Some(profile) = self.profile {
            new.prefill(profile);
            if profile == Profile::Custom && self.signature.is_none() {
                let expected = "a signature such as `{\"header\": \"X-Signature\"}`, because `profile` is `custom`";
                return Err(missing("signature", expected));
            }
        }
        new.filter = self.filter;
        new.template = self.template.map(read_template).transpose()?;
        new.description = self.description.unwrap_or_default();
        new.rate = self.rate;
        new.permanent = self.permanent.unwrap_or(new.permanent);
        set(&mut new.max_in_flight, self.max_in_flight);
        set(&mut new.schedule, self.schedule);
        set(&mut new.success, self.success);
        set(&mut new.disable_after, self.disable_after);
        set(&mut new.format, self.format);
        set(&mut new.signature, self.signature);
        set(&mut new.http_version, self.http_version);
        if let Some(seconds) = self.timeout {
            new.timeout = read_seconds("timeout", "1 to 30", seconds)?;
        }
        let connect_timeout = self.connect_timeout;
        new.connect_timeout = connect_timeout
            .map(|seconds| read_seconds("connect_timeout", "0.1 to 30", seconds))
            .transpose()?;
        new.request_origin = self.request_origin;
        new.headers = read_headers(&self.headers.unwrap_or_default())?;
        new.auth = read_auth(self.auth, egress)?;
        new.tls = self.tls.map(TlsForm::read).transpose()?.unwrap_or_default();
        new.secrets = read_secret(self.secret.as_ref(), &new.signature)?;
        Ok(new)
    }
}

impl From<&Endpoint> for EndpointForm {
    /// The form that asks for the endpoint as it is, but for its secrets.
    fn from(endpoint: &Endpoint) -> Self {
        let header = |field: &HeaderField| (field.name().to_owned(), field.value().to_owned());
        let client = endpoint.tls.client.as_ref();
        let tls = TlsForm {
            certificate: client.map(|client| client.chain.clone()),
            key: client.map(|client| client.key.expose().to_owned()),
            ca: endpoint.tls.ca.as_deref().map(str::to_owned),
        };
        let template = endpoint.template.as_ref();
        Self {
            profile: None,
            url: Some(endpoint.url.clone()),
            event_types: Some(endpoint.event_types.to_vec()),
            filter: endpoint.filter.clone(),
            template: template.map(|template| template.form().clone()),
            description: Some(endpoint.description.clone().into()),
            rate: endpoint.rate,
            max_in_flight: Some(endpoint.max_in_flight),
            timeout: Some(endpoint.timeout.as_secs_f64()),
            schedule: Some(endpoint.schedule.clone()),
            success: Some(endpoint.success.clone()),
            permanent: Some(endpoint.permanent.clone()),
            disable_after: Some(endpoint.disable_after),
            format: Some(endpoint.format),
            signature: Some(endpoint.signature.clone()),
            headers: Some(endpoint.headers.iter().map(header).collect()),
            auth: endpoint.auth.as_deref().map(Auth::reveal),
            tls: Some(tls),
            http_version: Some(endpoint.http_version),
            request_origin: endpoint.request_origin.clone(),
            connect_timeout: endpoint.connect_timeout.map(|time| time.as_secs_f64()),
            secret: None,
        }
    }
}

fn set<T>(member: &mut T, asked: Option<T>) {
    if let Some(asked) = asked {
        *member = asked;
    }
}

fn check_url(field: &str, url: &TargetUrl, egress: &EgressPolicy) -> Result<(), Problem> {
    egress
        .check_url(url)
        .map_err(|blocked| refused(field, &blocked.to_string()))
}

fn read_auth(auth: Option<AuthForm>, egress: &EgressPolicy) -> Result<Option<Auth>, Problem> {
    let auth = auth.map(Auth::try_from).transpose();
    let auth = auth.map_err(|invalid| {
        let field = format!("auth.{}", invalid.member);
        refused(&field, &invalid.to_string())
    })?;
    if let Some(Auth::OAuth2(client)) = &auth {
        check_url("auth.token_url", &client.token_url, egress)?;
    }
    Ok(auth)
}

impl TlsForm {
    fn read(self) -> Result<TlsIdentity, Problem> {
        let client = match (self.certificate, self.key) {
            (Some(chain), Some(key)) => {
                let key = Secret::new(key);
                Some(Box::new(ClientCertificate { chain, key }))
            }
            (None, None) => None,
            (Some(_), None) => {
                return Err(missing(
                    "tls.key",
                    "the private key of `tls.certificate`, in PEM",
                ));
            }
            (None, Some(_)) => {
                return Err(missing(
                    "tls.certificate",
                    "the certificate of `tls.key`, in PEM",
                ));
            }
        };
        let ca = self.ca.map(Into::into);
        let tls = TlsIdentity { client, ca };
        match fanfare_egress::check_tls(&tls) {
            Ok(()) => Ok(tls),
            Err(invalid) => Err(refused(invalid.member, &invalid.to_string())),
        }
    }
}

fn read_template(form: TemplateForm) -> Result<PayloadTemplate, Problem> {
    PayloadTemplate::new(form).map_err(|invalid| {
        let member = format!("template.{}", invalid.field);
        refused(&member, &invalid.to_string())
    })
}

pub(super) fn read_seconds(field: &str, range: &str, seconds: f64) -> Result<Duration, Problem> {
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        let detail = format!("`{field}` must be a number of seconds from {range}");
        refused(field, &detail)
    })
}

fn read_headers(headers: &BTreeMap<String, String>) -> Result<Vec<HeaderField>, Problem> {
    let mut names = BTreeSet::new();
    let read = |(name, value): (&String, &String)| {
        let member = format!("headers.{name}");
        let field =
            HeaderField::new(name, value).map_err(|fault| refused(&member, &fault.to_string()))?;
        if names.insert(field.name().to_owned()) {
            Ok(field)
        } else {
            let detail = format!("header `{}` is there twice", field.name());
            Err(refused(&member, &detail))
        }
    };
    headers.iter().map(read).collect()
}

fn read_secret(
    secret: Option<&Secret>,
    signature: &SignatureScheme,
) -> Result<Vec<SigningSecret>, Problem> {
    let Some(secret) = secret else {
        return Ok(Vec::new());
    };
    match signature.read_secret(secret.expose()) {
        Ok(secret) => Ok(vec![secret]),
        Err(invalid) => Err(refused("secret", &invalid.to_string())),
    }
}

fn missing(field: &str, expected: &str) -> Problem {
    refused(
        field,
        &format!("`{field}` is missing: accepted is {expected}"),
    )
}

pub(super) fn refused(field: &str, detail: &str) -> Problem {
    Problem::at(field, Code::InvalidRequest, detail)
}
