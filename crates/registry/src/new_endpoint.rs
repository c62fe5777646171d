//! What a caller says about an endpoint that is to be created or changed.

use std::time::Duration;

use fanfare_model::{
    Auth, BodyFormat, DisableAfter, Endpoint, EndpointId, EndpointState, EventTypePattern, Filter,
    HeaderField, HttpVersion, PayloadTemplate, Preset, Profile, Rate, RequestOrigin,
    RetiringSecret, Schedule, SignatureScheme, SigningSecret, StatusSet, TargetUrl, TenantId,
    Timestamp, TlsIdentity,
};

/// What an endpoint is to be: everything but its id, its state and its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEndpoint {
    /// Its owner.
    pub tenant: TenantId,
    /// Where requests go.
    pub url: TargetUrl,
    /// What its owner calls it.
    pub description: String,
    /// The event types it wants.
    pub event_types: Vec<EventTypePattern>,
    /// What it wants of their content; anything when absent.
    pub filter: Option<Filter>,
    /// What makes the body of its requests; the event in its format when absent.
    pub template: Option<PayloadTemplate>,
    /// How fast it may be called; unlimited when absent.
    pub rate: Option<Rate>,
    /// How many requests may be in flight at once.
    pub max_in_flight: u16,
    /// How long one attempt may take in all.
    pub timeout: Duration,
    /// When failed deliveries are tried again.
    pub schedule: Schedule,
    /// The statuses that mean success.
    pub success: StatusSet,
    /// The statuses that mean that trying again is useless.
    pub permanent: StatusSet,
    /// When failures in a row disable it.
    pub disable_after: DisableAfter,
    /// What the body of a request is.
    pub format: BodyFormat,
    /// How requests are signed.
    pub signature: SignatureScheme,
    /// Headers added to every request.
    pub headers: Vec<HeaderField>,
    /// What proves to the receiver who calls it, beside the signature.
    pub auth: Option<Auth>,
    /// What a TLS connection shows and trusts.
    pub tls: TlsIdentity,
    /// The version of HTTP it is called with.
    pub http_version: HttpVersion,
    /// As whom it is asked whether it wants to be called; it is not asked when absent.
    pub request_origin: Option<RequestOrigin>,
    /// How long connecting may take; as the operator set it when absent.
    pub connect_timeout: Option<Duration>,
    /// The secrets that sign, newest first. One is generated when none is given.
    pub secrets: Vec<SigningSecret>,
    /// The secrets that were replaced and still sign for a while, newest first.
    pub retiring: Vec<RetiringSecret>,
}

/// Why an endpoint cannot be so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` must be {expected}")]
pub struct InvalidEndpoint {
    /// The field of [`NewEndpoint`].
    pub field: &'static str,
    /// What would be accepted.
    pub expected: String,
}

impl NewEndpoint {
    /// The most signing secrets of one endpoint.
    pub const MOST_SECRETS: usize = 5;

    /// An endpoint with the default for everything else.
    pub fn new(tenant: TenantId, url: TargetUrl, event_types: Vec<EventTypePattern>) -> Self {
        Self {
            tenant,
            url,
            description: String::new(),
            event_types,
            filter: None,
            template: None,
            rate: None,
            max_in_flight: Endpoint::DEFAULT_MAX_IN_FLIGHT,
            timeout: Endpoint::DEFAULT_TIMEOUT,
            schedule: Schedule::default(),
            success: StatusSet::success(),
            permanent: StatusSet::none(),
            disable_after: DisableAfter::default(),
            format: BodyFormat::default(),
            signature: SignatureScheme::default(),
            headers: Vec::new(),
            auth: None,
            tls: TlsIdentity::default(),
            http_version: HttpVersion::default(),
            request_origin: None,
            connect_timeout: None,
            secrets: Vec::new(),
            retiring: Vec::new(),
        }
    }

    /// Fills in what suits a kind of receiver. What is set afterwards replaces it.
    pub fn prefill(&mut self, profile: Profile) {
        let Preset {
            format,
            signature,
            success,
            schedule,
            disable_after,
        } = profile.preset();
        self.format = format;
        self.success = success;
        self.schedule = schedule;
        self.disable_after = disable_after;
        if let Some(signature) = signature {
            self.signature = signature;
        }
    }

    /// The endpoint that this becomes: active, and with a generated secret if none was given.
    ///
    /// [`Registry::create_endpoint`](crate::Registry::create_endpoint) also checks and stores it.
    pub fn registered(mut self, id: EndpointId, now: Timestamp) -> Endpoint {
        if self.secrets.is_empty() {
            self.secrets.push(self.signature.generate_secret());
        }
        self.of(id, EndpointState::Active, now, now)
    }

    /// The same with an identity.
    pub(crate) fn of(
        self,
        id: EndpointId,
        state: EndpointState,
        created_at: Timestamp,
        updated_at: Timestamp,
    ) -> Endpoint {
        Endpoint {
            id,
            tenant: self.tenant,
            url: self.url,
            description: self.description.into(),
            event_types: self.event_types.into(),
            filter: self.filter,
            template: self.template,
            state,
            rate: self.rate,
            max_in_flight: self.max_in_flight,
            timeout: self.timeout,
            schedule: self.schedule,
            success: self.success,
            permanent: self.permanent,
            disable_after: self.disable_after,
            format: self.format,
            signature: self.signature,
            headers: self.headers,
            auth: self.auth.map(Box::new),
            tls: self.tls,
            http_version: self.http_version,
            request_origin: self.request_origin,
            connect_timeout: self.connect_timeout,
            secrets: self.secrets,
            retiring: self.retiring,
            created_at,
            updated_at,
        }
    }

    /// Checks the bounds that no field's own type keeps.
    pub fn validate(&self) -> Result<(), InvalidEndpoint> {
        let (shortest, longest) = Endpoint::TIMEOUTS;
        let whole_milliseconds = self.timeout.subsec_nanos().is_multiple_of(1_000_000);
        require(
            self.description.len() <= Endpoint::LONGEST_DESCRIPTION,
            "description",
            || format!("at most {} bytes", Endpoint::LONGEST_DESCRIPTION),
        )?;
        require(
            (1..=Endpoint::MOST_PATTERNS).contains(&self.event_types.len()),
            "event_types",
            || format!("1 to {} patterns", Endpoint::MOST_PATTERNS),
        )?;
        require(
            (1..=Endpoint::MOST_IN_FLIGHT).contains(&self.max_in_flight),
            "max_in_flight",
            || format!("from 1 to {}", Endpoint::MOST_IN_FLIGHT),
        )?;
        require(
            (shortest..=longest).contains(&self.timeout) && whole_milliseconds,
            "timeout",
            || format!("whole milliseconds from {shortest:?} to {longest:?}"),
        )?;
        require(
            self.headers.len() <= Endpoint::MOST_HEADERS,
            "headers",
            || format!("at most {}", Endpoint::MOST_HEADERS),
        )?;
        self.validate_signing()?;
        self.validate_connecting()
    }

    fn validate_signing(&self) -> Result<(), InvalidEndpoint> {
        require(self.secrets.len() <= Self::MOST_SECRETS, "secrets", || {
            format!("at most {}", Self::MOST_SECRETS)
        })?;
        let retiring = self.retiring.iter().map(|old| &old.secret);
        let mut secrets = self.secrets.iter().chain(retiring);
        require(
            secrets.all(|secret| self.signature.takes(secret)),
            "secret",
            || {
                match self.signature {
                SignatureScheme::Standard => {
                    "`whsec_` or `whsk_` and base64, because `signature` is `standard`: give a new one"
                        .to_owned()
                }
                SignatureScheme::Custom(_) => {
                    "16 to 256 visible characters, because of `signature`: give a new one".to_owned()
                }
            }
            },
        )?;
        let taken = self
            .headers
            .iter()
            .find(|field| self.signature.headers().any(|name| name == field.name()));
        require(taken.is_none(), "headers", || {
            let name = taken.map_or("", HeaderField::name);
            format!("without `{name}`, which `signature` sets")
        })?;
        let binary = self.format == BodyFormat::CloudEventsBinary;
        let attribute = |field: &HeaderField| field.name().starts_with("ce-");
        require(
            !binary || !self.headers.iter().any(attribute),
            "headers",
            || "without `ce-…`, which are the event's attributes".to_owned(),
        )
    }

    fn validate_connecting(&self) -> Result<(), InvalidEndpoint> {
        let authorizes = |field: &HeaderField| field.name() == "authorization";
        require(
            self.auth.is_none() || !self.headers.iter().any(authorizes),
            "headers",
            || "without `authorization`, which `auth` sets".to_owned(),
        )?;
        let client = self.tls.client.as_ref();
        let texts = [
            self.tls.ca.as_deref(),
            client.map(|client| client.chain.as_str()),
            client.map(|client| client.key.expose()),
        ];
        let mut texts = texts.into_iter().flatten();
        require(
            texts.all(|text| text.len() <= TlsIdentity::LONGEST_PEM),
            "tls",
            || format!("texts of at most {} bytes", TlsIdentity::LONGEST_PEM),
        )?;
        let is_cloudevent = matches!(
            self.format,
            BodyFormat::CloudEventsStructured | BodyFormat::CloudEventsBinary
        );
        require(
            is_cloudevent || self.request_origin.is_none(),
            "request_origin",
            || {
                format!(
                    "absent, because `format` is `{}`: only receivers of CloudEvents are asked",
                    self.format
                )
            },
        )?;
        let encrypted = self.url.url().scheme() == "https";
        require(encrypted || self.tls.is_default(), "tls", || {
            "absent, because `url` is not https".to_owned()
        })?;
        let (shortest, longest) = Endpoint::CONNECT_TIMEOUTS;
        require(
            self.connect_timeout.is_none_or(|timeout| {
                (shortest..=longest.min(self.timeout)).contains(&timeout)
                    && timeout.subsec_nanos().is_multiple_of(1_000_000)
            }),
            "connect_timeout",
            || {
                format!(
                    "whole milliseconds from {shortest:?} to {longest:?}, and at most `timeout`"
                )
            },
        )
    }
}

impl From<Endpoint> for NewEndpoint {
    fn from(endpoint: Endpoint) -> Self {
        Self {
            tenant: endpoint.tenant,
            url: endpoint.url,
            description: endpoint.description.into(),
            event_types: endpoint.event_types.into(),
            filter: endpoint.filter,
            template: endpoint.template,
            rate: endpoint.rate,
            max_in_flight: endpoint.max_in_flight,
            timeout: endpoint.timeout,
            schedule: endpoint.schedule,
            success: endpoint.success,
            permanent: endpoint.permanent,
            disable_after: endpoint.disable_after,
            format: endpoint.format,
            signature: endpoint.signature,
            headers: endpoint.headers,
            auth: endpoint.auth.map(|auth| *auth),
            tls: endpoint.tls,
            http_version: endpoint.http_version,
            request_origin: endpoint.request_origin,
            connect_timeout: endpoint.connect_timeout,
            secrets: endpoint.secrets,
            retiring: endpoint.retiring,
        }
    }
}

fn require(
    holds: bool,
    field: &'static str,
    expected: impl FnOnce() -> String,
) -> Result<(), InvalidEndpoint> {
    if holds {
        Ok(())
    } else {
        Err(InvalidEndpoint {
            field,
            expected: expected(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minimal() -> NewEndpoint {
        NewEndpoint::new(
            "t".parse().unwrap(),
            "https://example.com/hooks".parse().unwrap(),
            vec![EventTypePattern::Any],
        )
    }

    fn check(change: impl FnOnce(&mut NewEndpoint), verdict: Option<&str>) {
        let mut new = minimal();
        change(&mut new);
        let field = new.validate().err().map(|invalid| invalid.field);
        assert_eq!(field, verdict, "{new:?}");
    }

    #[test]
    fn an_endpoint_keeps_its_bounds() {
        let header = HeaderField::new("x", "y").unwrap();
        check(|_| {}, None);
        check(|new| new.description = "x".repeat(500), None);
        check(|new| new.description = "x".repeat(501), Some("description"));
        check(|new| new.event_types.clear(), Some("event_types"));
        check(
            |new| new.event_types = vec![EventTypePattern::Any; 101],
            Some("event_types"),
        );
        check(|new| new.max_in_flight = 0, Some("max_in_flight"));
        check(|new| new.max_in_flight = 1024, None);
        check(|new| new.max_in_flight = 1025, Some("max_in_flight"));
        check(
            |new| new.timeout = Duration::from_millis(999),
            Some("timeout"),
        );
        check(|new| new.timeout = Duration::from_millis(30_000), None);
        check(
            |new| new.timeout = Duration::from_millis(30_001),
            Some("timeout"),
        );
        check(
            |new| new.timeout = Duration::from_micros(1_000_001),
            Some("timeout"),
        );
        check(
            |new| new.headers = vec![header.clone(); 31],
            Some("headers"),
        );
        check(
            |new| new.secrets = vec![SigningSecret::generate(); 6],
            Some("secrets"),
        );
    }

    #[test]
    fn what_belongs_together_fits_together() {
        let header = |name| vec![HeaderField::new(name, "y").unwrap()];
        let bearer = || {
            let token = fanfare_model::Secret::new("x".to_owned());
            Some(Auth::Bearer { token })
        };
        check(|new| new.prefill(Profile::ReferralHero), None);
        check(
            |new| {
                new.prefill(Profile::GitHub);
                new.secrets = vec![SigningSecret::generate()];
            },
            Some("secret"),
        );
        check(
            |new| new.secrets = vec![SigningSecret::generate_text()],
            Some("secret"),
        );
        check(
            |new| {
                new.prefill(Profile::Stripe);
                new.headers = header("stripe-signature");
            },
            Some("headers"),
        );
        check(
            |new| (new.auth, new.headers) = (bearer(), header("authorization")),
            Some("headers"),
        );
        check(|new| new.auth = bearer(), None);
    }

    #[test]
    fn how_a_receiver_is_called_fits_what_is_sent() {
        let header = |name| vec![HeaderField::new(name, "y").unwrap()];
        let ca = |size| TlsIdentity {
            ca: Some("x".repeat(size).into()),
            ..TlsIdentity::default()
        };
        let origin = || Some("events.example.com".parse().unwrap());
        check(|new| new.request_origin = origin(), Some("request_origin"));
        check(
            |new| (new.request_origin, new.format) = (origin(), BodyFormat::CloudEventsBinary),
            None,
        );
        check(|new| new.tls = ca(32 * 1024), None);
        check(|new| new.tls = ca(32 * 1024 + 1), Some("tls"));
        check(
            |new| {
                new.url = "http://example.com/".parse().unwrap();
                new.tls = ca(1);
            },
            Some("tls"),
        );
        check(
            |new| new.connect_timeout = Some(Duration::from_millis(99)),
            Some("connect_timeout"),
        );
        check(
            |new| new.connect_timeout = Some(Duration::from_secs(16)),
            Some("connect_timeout"),
        );
        check(
            |new| {
                new.prefill(Profile::CloudEvents);
            },
            None,
        );
        check(
            |new| {
                new.format = BodyFormat::CloudEventsBinary;
                new.headers = header("ce-id");
            },
            Some("headers"),
        );
    }
}
