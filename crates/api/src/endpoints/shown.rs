//! What an endpoint looks like in JSON when it is shown: without what is secret.

use fanfare_model::{
    Auth, BodyFormat, DisableAfter, DisabledReason, Endpoint, EndpointId, EndpointState,
    EventTypePattern, Filter, HttpVersion, PayloadTemplate, Rate, RequestOrigin, Schedule,
    SignatureScheme, StatusSet, TargetUrl, TenantId, Timestamp,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::schemas::{DisableRules, schedule_schema, signature_schema};

/// An endpoint, without what is secret.
#[derive(Serialize, ToSchema)]
#[schema(as = Endpoint)]
pub(crate) struct ShownEndpoint {
    /// Its id.
    #[schema(value_type = String, example = "ep_019ac0ffee007000800000000000002a")]
    id: EndpointId,
    /// Its owner.
    #[schema(value_type = String)]
    tenant: TenantId,
    /// Where requests go.
    #[schema(value_type = String, format = "uri")]
    url: TargetUrl,
    /// What its owner calls it.
    description: String,
    /// The event types it wants.
    #[schema(value_type = Vec<String>)]
    event_types: Vec<EventTypePattern>,
    /// What it wants of their content; anything when null.
    #[schema(value_type = Option<Object>)]
    filter: Option<Filter>,
    /// What makes the body of its requests; the event itself when null.
    #[schema(value_type = Option<Object>)]
    template: Option<PayloadTemplate>,
    /// `active`, `paused` or `disabled`.
    state: &'static str,
    /// Why and since when it is disabled, if it is.
    disabled: Option<Disabled>,
    /// How fast it may be called; unlimited when null.
    #[schema(value_type = Option<String>)]
    rate: Option<Rate>,
    /// How many requests may be in flight at once.
    max_in_flight: u16,
    /// How many seconds one attempt may take in all.
    timeout: f64,
    /// The waits before each attempt, in seconds; or waits that grow.
    #[schema(schema_with = schedule_schema)]
    schedule: Schedule,
    /// The statuses that mean success.
    #[schema(value_type = String)]
    success: StatusSet,
    /// The statuses that mean that trying again is useless.
    #[schema(value_type = String)]
    permanent: StatusSet,
    /// When failures in a row disable it.
    #[schema(value_type = DisableRules)]
    disable_after: DisableAfter,
    /// What the body of a request is.
    #[schema(value_type = String)]
    format: BodyFormat,
    /// How requests are signed.
    #[schema(schema_with = signature_schema)]
    signature: SignatureScheme,
    /// What receivers verify `v1a` signatures with.
    public_keys: Vec<String>,
    /// Until when each secret that was replaced still signs.
    #[schema(value_type = Vec<String>)]
    retiring_until: Vec<Timestamp>,
    /// The names of the headers that are added to every request.
    header_names: Vec<String>,
    /// What proves to the receiver who calls it, without what is secret.
    auth: Option<ShownAuth>,
    /// Whether a client certificate is shown.
    client_certificate: bool,
    /// Whether certificates beside the system's are trusted.
    extra_ca: bool,
    /// The version of HTTP.
    #[schema(value_type = String)]
    http_version: HttpVersion,
    /// As whom it is asked whether it wants to be called.
    #[schema(value_type = Option<String>)]
    request_origin: Option<RequestOrigin>,
    /// How many seconds connecting may take; as the operator set it when null.
    connect_timeout: Option<f64>,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it was changed last.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

/// What proves to a receiver who calls it, without what is secret.
#[derive(Serialize, ToSchema)]
struct ShownAuth {
    /// `basic`, `bearer` or `oauth2`.
    kind: &'static str,
    /// The user name or the client's id.
    who: Option<String>,
    /// Where tokens are fetched.
    #[schema(value_type = Option<String>, format = "uri")]
    token_url: Option<TargetUrl>,
    /// What the token is for.
    scope: Option<String>,
}

impl From<&Auth> for ShownAuth {
    fn from(auth: &Auth) -> Self {
        let (who, token_url, scope) = match auth {
            Auth::Basic { username, .. } => (Some(username.clone()), None, None),
            Auth::Bearer { .. } => (None, None, None),
            Auth::OAuth2(client) => (
                Some(client.client_id.clone()),
                Some(client.token_url.clone()),
                client.scope.clone(),
            ),
        };
        let kind = auth.kind();
        Self {
            kind,
            who,
            token_url,
            scope,
        }
    }
}

/// Why and since when an endpoint is disabled.
#[derive(Serialize, ToSchema)]
struct Disabled {
    /// `requested`, `gone`, `failing` or `damaged`.
    #[schema(value_type = String)]
    reason: DisabledReason,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
}

impl From<Endpoint> for ShownEndpoint {
    fn from(endpoint: Endpoint) -> Self {
        Self {
            id: endpoint.id,
            tenant: endpoint.tenant,
            url: endpoint.url,
            description: endpoint.description.into(),
            event_types: endpoint.event_types.into(),
            filter: endpoint.filter,
            template: endpoint.template,
            state: endpoint.state.name(),
            disabled: match endpoint.state {
                EndpointState::Active | EndpointState::Paused => None,
                EndpointState::Disabled { reason, since } => Some(Disabled { reason, since }),
            },
            rate: endpoint.rate,
            max_in_flight: endpoint.max_in_flight,
            timeout: endpoint.timeout.as_secs_f64(),
            schedule: endpoint.schedule,
            success: endpoint.success,
            permanent: endpoint.permanent,
            disable_after: endpoint.disable_after,
            public_keys: endpoint
                .secrets
                .iter()
                .filter_map(|secret| Some(secret.public_key()?.to_string()))
                .collect(),
            retiring_until: endpoint.retiring.iter().map(|old| old.until).collect(),
            format: endpoint.format,
            signature: endpoint.signature,
            auth: endpoint.auth.as_deref().map(ShownAuth::from),
            client_certificate: endpoint.tls.client.is_some(),
            extra_ca: endpoint.tls.ca.is_some(),
            http_version: endpoint.http_version,
            request_origin: endpoint.request_origin,
            connect_timeout: endpoint.connect_timeout.map(|time| time.as_secs_f64()),
            header_names: endpoint
                .headers
                .iter()
                .map(|header| header.name().to_owned())
                .collect(),
            created_at: endpoint.created_at,
            updated_at: endpoint.updated_at,
        }
    }
}

/// An endpoint that just got its secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedEndpoint {
    /// The endpoint.
    #[serde(flatten)]
    endpoint: ShownEndpoint,
    /// The secret that signs. This is the only time that it is shown.
    #[schema(example = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")]
    secret: String,
}

impl From<Endpoint> for CreatedEndpoint {
    fn from(endpoint: Endpoint) -> Self {
        let newest = endpoint.secrets.first();
        let secret = newest.expect("every endpoint has a secret").reveal();
        let endpoint = endpoint.into();
        Self { endpoint, secret }
    }
}
