//! What an endpoint looks like in JSON: as it is asked for, and as it is shown.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fanfare_model::{
    DisableAfter, DisabledReason, EgressPolicy, Endpoint, EndpointId, EndpointState,
    EventTypePattern, HeaderField, Rate, Schedule, Secret, SigningSecret, StatusSet, TargetUrl,
    TenantId, Timestamp,
};
use fanfare_registry::NewEndpoint;
use serde::{Deserialize, Serialize};
use utoipa::{
    ToSchema,
    openapi::{
        ArrayBuilder, ObjectBuilder, OneOfBuilder, RefOr, Schema, SchemaFormat,
        schema::{KnownFormat, Type},
    },
};

use crate::problem::{Code, Problem};

/// An endpoint to be created.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewEndpoint, example = json!({
    "url": "https://example.com/hooks",
    "event_types": ["reward.*"],
    "rate": "50/s burst 10",
}))]
pub(crate) struct EndpointForm {
    /// Where requests go: an absolute http or https URL of a public host.
    #[schema(required = true, nullable = false, value_type = String, format = "uri")]
    url: Option<TargetUrl>,
    /// The event types it wants: a type, the first words of types followed by `.*`, or `*`. 1 to 100.
    #[schema(required = true, nullable = false, value_type = Vec<String>)]
    event_types: Option<Vec<EventTypePattern>>,
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
    /// Headers added to every request, at most 30. Their values are never shown again.
    headers: Option<BTreeMap<String, String>>,
    /// The secret that signs: `whsec_` and the base64 of 24 to 64 bytes. One is made when absent.
    #[schema(value_type = Option<String>)]
    secret: Option<Secret>,
}

impl EndpointForm {
    /// The endpoint asked for, if every member is accepted and its URL may be called.
    pub(super) fn read(
        self,
        tenant: TenantId,
        egress: &EgressPolicy,
    ) -> Result<NewEndpoint, Problem> {
        let url = self
            .url
            .ok_or_else(|| missing("url", "an absolute URL such as https://example.com/hooks"))?;
        egress
            .check_url(&url)
            .map_err(|blocked| refused("url", &blocked.to_string()))?;
        let event_types = self.event_types.ok_or_else(|| {
            missing(
                "event_types",
                "a list of types and patterns such as `reward.*`, or `[\"*\"]`",
            )
        })?;
        let defaults = NewEndpoint::new(tenant, url, event_types);
        let new = NewEndpoint {
            description: self.description.unwrap_or_default(),
            rate: self.rate,
            max_in_flight: self.max_in_flight.unwrap_or(defaults.max_in_flight),
            timeout: match self.timeout {
                Some(seconds) => read_timeout(seconds)?,
                None => defaults.timeout,
            },
            schedule: self.schedule.unwrap_or(defaults.schedule),
            success: self.success.unwrap_or(defaults.success),
            permanent: self.permanent.unwrap_or(defaults.permanent),
            disable_after: self.disable_after.unwrap_or(defaults.disable_after),
            headers: read_headers(&self.headers.unwrap_or_default())?,
            secrets: read_secret(self.secret.as_ref())?,
            tenant: defaults.tenant,
            url: defaults.url,
            event_types: defaults.event_types,
        };
        new.validate().map_err(|invalid| Problem::from(&invalid))?;
        Ok(new)
    }
}

fn read_timeout(seconds: f64) -> Result<Duration, Problem> {
    Duration::try_from_secs_f64(seconds).map_err(|_| {
        refused(
            "timeout",
            "`timeout` must be a number of seconds from 1 to 30",
        )
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

fn read_secret(secret: Option<&Secret>) -> Result<Vec<SigningSecret>, Problem> {
    let Some(secret) = secret else {
        return Ok(Vec::new());
    };
    match secret.expose().parse() {
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

fn refused(field: &str, detail: &str) -> Problem {
    Problem::at(field, Code::InvalidRequest, detail)
}

/// When failures in a row disable an endpoint: by whichever rule applies first.
#[derive(ToSchema)]
#[schema(as = DisableAfter)]
#[expect(
    dead_code,
    reason = "it describes `DisableAfter`, which is read and shown instead"
)]
struct DisableRules {
    /// After this many failed attempts in a row.
    #[schema(minimum = 1)]
    consecutive_failures: Option<u32>,
    /// When an attempt fails and none succeeded for this many seconds, at most 365 days.
    #[schema(minimum = 1)]
    failing_for: Option<u64>,
}

/// A list of seconds, or the members of an exponential schedule.
fn schedule_schema() -> RefOr<Schema> {
    let whole = |description| {
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
            .minimum(Some(0))
            .description(description)
    };
    let factor = ObjectBuilder::new()
        .schema_type(Type::Number)
        .description(Some(
            "By how much each wait is longer than the one before: 1 to 100.",
        ));
    let growing = ObjectBuilder::new()
        .property(
            "base",
            whole(Some("Seconds from the first to the second attempt.")),
        )
        .property("factor", factor)
        .property("cap", whole(Some("The longest wait, in seconds.")))
        .property(
            "attempts",
            whole(Some("How many attempts there are: 1 to 50.")),
        )
        .property(
            "window",
            whole(Some(
                "No attempt is scheduled later than this many seconds after the first failure.",
            )),
        );
    let growing = ["base", "factor", "cap", "attempts"]
        .into_iter()
        .fold(growing, ObjectBuilder::required);
    let listed = ArrayBuilder::new().items(whole(None::<&str>));
    OneOfBuilder::new().item(listed).item(growing).into()
}

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
    /// The names of the headers that are added to every request.
    header_names: Vec<String>,
    /// When it was created.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When it was changed last.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

/// Why and since when an endpoint is disabled.
#[derive(Serialize, ToSchema)]
struct Disabled {
    /// `requested`, `gone` or `failing`.
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
            description: endpoint.description,
            event_types: endpoint.event_types,
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

/// An endpoint that was just created.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedEndpoint {
    /// The endpoint.
    #[serde(flatten)]
    pub(super) endpoint: ShownEndpoint,
    /// The secret that signs. This is the only time that it is shown.
    #[schema(example = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")]
    pub(super) secret: String,
}
