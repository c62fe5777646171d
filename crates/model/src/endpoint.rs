//! A URL registered by a tenant, with everything that governs how it is called.

use std::{fmt, str::FromStr, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Auth, BodyFormat, DisableAfter, EndpointId, EventType, EventTypePattern, EventView, Filter,
    HttpVersion, PayloadTemplate, Rate, RequestOrigin, Schedule, SignatureScheme, SigningSecret,
    StatusSet, TargetUrl, TenantId, TlsIdentity,
};

/// A URL registered by a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its id.
    pub id: EndpointId,
    /// Its owner.
    pub tenant: TenantId,
    /// Where requests go.
    pub url: TargetUrl,
    /// What its owner calls it.
    pub description: Box<str>,
    /// The event types it wants; never empty.
    pub event_types: Box<[EventTypePattern]>,
    /// What it wants of their content; anything when absent.
    pub filter: Option<Filter>,
    /// What makes the body of its requests; the event in its format when absent.
    pub template: Option<PayloadTemplate>,
    /// Whether it is called at all.
    pub state: EndpointState,
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
    pub auth: Option<Box<Auth>>,
    /// What a TLS connection shows and trusts.
    pub tls: TlsIdentity,
    /// The version of HTTP it is called with.
    pub http_version: HttpVersion,
    /// As whom it is asked whether it wants to be called, if it is.
    pub request_origin: Option<RequestOrigin>,
    /// How long connecting may take; as the operator set it when absent.
    pub connect_timeout: Option<Duration>,
    /// The secrets that sign, newest first.
    pub secrets: Vec<SigningSecret>,
    /// The secrets that were replaced and still sign for a while, newest first.
    pub retiring: Vec<RetiringSecret>,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When it was changed last.
    pub updated_at: Timestamp,
}

/// There are many endpoints, and 512 bytes with the two counts of an `Arc` is what the allocator has a size for:
/// one byte more takes 128 more.
const _: () = assert!(size_of::<Endpoint>() + 2 * size_of::<usize>() <= 512);

impl Endpoint {
    /// The shortest and the longest time that one attempt may be given.
    pub const TIMEOUTS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
    /// The time that one attempt is given unless the endpoint says otherwise.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);
    /// The shortest and the longest time that connecting may be given.
    pub const CONNECT_TIMEOUTS: (Duration, Duration) =
        (Duration::from_millis(100), Duration::from_secs(30));
    /// How many requests may be in flight at once unless the endpoint says otherwise.
    pub const DEFAULT_MAX_IN_FLIGHT: u16 = 16;
    /// The most requests that an endpoint may ask to have in flight at once.
    pub const MOST_IN_FLIGHT: u16 = 1024;
    /// The most event type patterns of one endpoint.
    pub const MOST_PATTERNS: usize = 100;
    /// The most added headers of one endpoint.
    pub const MOST_HEADERS: usize = 30;
    /// The longest description, in bytes.
    pub const LONGEST_DESCRIPTION: usize = 500;

    /// The secrets that sign at this time, newest first.
    pub fn signing_secrets(&self, now: Timestamp) -> impl Iterator<Item = &SigningSecret> {
        let retiring = self.retiring.iter().filter(move |old| old.until > now);
        self.secrets.iter().chain(retiring.map(|old| &old.secret))
    }

    /// An endpoint with one secret and nothing else out of the ordinary. Panics on an invalid tenant or URL.
    #[doc(hidden)]
    pub fn for_tests(number: u128, tenant: &str, url: &str) -> Self {
        let long_ago = Timestamp::UNIX_EPOCH;
        Self {
            id: EndpointId::from_uuid(uuid::Uuid::from_u128(number)),
            tenant: tenant.parse().expect("a valid tenant"),
            url: url.parse().expect("a valid URL"),
            description: Box::default(),
            event_types: Box::new([EventTypePattern::Any]),
            filter: None,
            template: None,
            state: EndpointState::Active,
            rate: None,
            max_in_flight: Self::DEFAULT_MAX_IN_FLIGHT,
            timeout: Self::DEFAULT_TIMEOUT,
            schedule: Schedule::default(),
            success: StatusSet::success(),
            permanent: StatusSet::none(),
            disable_after: DisableAfter::default(),
            format: BodyFormat::Standard,
            signature: SignatureScheme::Standard,
            headers: Vec::new(),
            auth: None,
            tls: TlsIdentity::default(),
            http_version: HttpVersion::Auto,
            request_origin: None,
            connect_timeout: None,
            secrets: vec![SigningSecret::generate()],
            retiring: Vec::new(),
            created_at: long_ago,
            updated_at: long_ago,
        }
    }

    /// Whether it wants this type of event.
    pub fn wants(&self, event_type: &EventType) -> bool {
        self.event_types
            .iter()
            .any(|pattern| pattern.matches(event_type))
    }

    /// Whether it wants this content. The data of the event is read only when a filter looks at it.
    pub fn wants_content(&self, event: &EventView<'_>) -> bool {
        self.filter
            .as_ref()
            .is_none_or(|filter| filter.matches(event))
    }

    /// Whether it asks for this type by a name or a family of names, and not by `*` alone.
    pub fn names(&self, event_type: &EventType) -> bool {
        self.event_types.iter().any(|pattern| match pattern {
            EventTypePattern::Any => false,
            EventTypePattern::Family(_) | EventTypePattern::Exact(_) => pattern.matches(event_type),
        })
    }
}

/// A secret that was replaced, and signs beside the newer ones for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetiringSecret {
    /// The secret.
    pub secret: SigningSecret,
    /// It signs until then.
    pub until: Timestamp,
}

/// Whether an endpoint is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum EndpointState {
    /// It is called.
    Active,
    /// Its deliveries wait until it is resumed.
    Paused,
    /// Its deliveries become dead letters.
    Disabled {
        /// Who or what disabled it.
        reason: DisabledReason,
        /// Since when.
        since: Timestamp,
    },
}

/// The name of a state alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateName {
    /// It is called.
    Active,
    /// Its deliveries wait.
    Paused,
    /// Its deliveries become dead letters.
    Disabled,
}

const STATES: [(&str, StateName); 3] = [
    ("active", StateName::Active),
    ("paused", StateName::Paused),
    ("disabled", StateName::Disabled),
];

/// Why a text names no state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("accepted is `active`, `paused` or `disabled`")]
pub struct InvalidStateName;

impl FromStr for StateName {
    type Err = InvalidStateName;

    fn from_str(text: &str) -> Result<Self, InvalidStateName> {
        let known = STATES.iter().find(|(name, _)| *name == text);
        known.map(|(_, state)| *state).ok_or(InvalidStateName)
    }
}

impl DisabledReason {
    /// The name in events, metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Gone => "gone",
            Self::Failing => "failing",
            Self::Damaged => "damaged",
        }
    }
}

impl EndpointState {
    /// Which one it is, without what belongs to it.
    pub fn kind(&self) -> StateName {
        match self {
            Self::Active => StateName::Active,
            Self::Paused => StateName::Paused,
            Self::Disabled { .. } => StateName::Disabled,
        }
    }

    /// The name of the state alone.
    pub fn name(&self) -> &'static str {
        let known = STATES.iter().find(|(_, state)| *state == self.kind());
        known.expect("every state has a name").0
    }

    /// Whether it is disabled because what is stored of it cannot be read.
    pub fn is_damaged(&self) -> bool {
        let reason = DisabledReason::Damaged;
        matches!(self, Self::Disabled { reason: found, .. } if *found == reason)
    }
}

/// Who or what disabled an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisabledReason {
    /// A person or a program by the API.
    Requested,
    /// The receiver answered 410.
    Gone,
    /// It failed for too long.
    Failing,
    /// What is stored of it cannot be read.
    Damaged,
}

/// A header that is added to every request of an endpoint.
///
/// Invariant: a token as name, visible ASCII as value, and no name that Fanfare or HTTP itself sets.
#[derive(Clone, PartialEq, Eq)]
pub struct HeaderField {
    name: String,
    value: String,
}

/// Why a header cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFieldError {
    /// The name is no token of HTTP (RFC 9110, section 5.6.2) or too long.
    #[error("a header name must be 1 to 100 letters, digits and `-`, `_`, `.`")]
    Name,
    /// The name belongs to the signature or to the protocol.
    #[error("header `{0}` is set by Fanfare or by HTTP itself and cannot be added")]
    Reserved(String),
    /// The value could smuggle another header, or is too long.
    #[error("the value of header `{0}` must be at most 2,000 visible ASCII characters and spaces")]
    Value(String),
}

const RESERVED_PREFIXES: [&str; 4] = ["webhook-", "x-fanfare-", "proxy-", "sec-"];
const RESERVED_NAMES: [&str; 16] = [
    "accept-encoding",
    "connection",
    "content-length",
    "content-encoding",
    "content-type",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

impl HeaderField {
    /// Checks a name and a value.
    pub fn new(name: &str, value: &str) -> Result<Self, HeaderFieldError> {
        let name = name.to_ascii_lowercase();
        let token = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > 100 || !name.bytes().all(token) {
            return Err(HeaderFieldError::Name);
        }
        let reserved = RESERVED_PREFIXES.iter().any(|p| name.starts_with(p))
            || RESERVED_NAMES.contains(&name.as_str());
        if reserved {
            return Err(HeaderFieldError::Reserved(name));
        }
        let visible = |b: u8| (0x20..0x7f).contains(&b);
        let trimmed = value.trim();
        if trimmed.len() > 2000 || !trimmed.bytes().all(visible) {
            return Err(HeaderFieldError::Value(name));
        }
        Ok(Self {
            name,
            value: trimmed.to_owned(),
        })
    }

    /// The name, in lower case.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value. It may be a credential: never log it.
    pub fn value(&self) -> &str {
        &self.value
    }
}

impl fmt::Debug for HeaderField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: [redacted]", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retiring_secret_signs_until_its_time() {
        let mut endpoint = Endpoint::for_tests(1, "t", "https://example.com/");
        let until = Timestamp::from_second(100).unwrap();
        let secret = SigningSecret::generate();
        endpoint.retiring = vec![RetiringSecret { secret, until }];
        for (second, signing) in [(0, 2), (99, 2), (100, 1), (101, 1)] {
            let now = Timestamp::from_second(second).unwrap();
            assert_eq!(endpoint.signing_secrets(now).count(), signing);
        }
    }

    #[test]
    fn headers_cannot_smuggle_or_forge() {
        let ok = HeaderField::new("Authorization", " Bearer x ").unwrap();
        assert_eq!((ok.name(), ok.value()), ("authorization", "Bearer x"));
        assert_eq!(format!("{ok:?}"), "authorization: [redacted]");
        for (name, value) in [
            ("", "x"),
            ("a b", "x"),
            ("x:y", "x"),
            ("a\r\nb", "x"),
            ("Host", "x"),
            ("content-length", "1"),
            ("Webhook-Signature", "x"),
            ("traceparent", "x"),
            ("x", "a\r\nb: c"),
            ("x", "ä"),
        ] {
            assert!(
                HeaderField::new(name, value).is_err(),
                "{name:?}: {value:?}"
            );
        }
    }
}
