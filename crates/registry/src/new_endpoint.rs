//! What a caller says about an endpoint that is to be created.

use std::time::Duration;

use fanfare_model::{
    DisableAfter, Endpoint, EndpointId, EndpointState, EventTypePattern, HeaderField, Rate,
    Schedule, SigningSecret, StatusSet, TargetUrl, TenantId, Timestamp,
};

/// An endpoint to be created: everything but its id, its state and its times.
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
    /// Headers added to every request.
    pub headers: Vec<HeaderField>,
    /// The secrets that sign, newest first. One is generated when none is given.
    pub secrets: Vec<SigningSecret>,
}

/// Why an endpoint cannot be created.
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
            rate: None,
            max_in_flight: Endpoint::DEFAULT_MAX_IN_FLIGHT,
            timeout: Endpoint::DEFAULT_TIMEOUT,
            schedule: Schedule::default(),
            success: StatusSet::success(),
            permanent: StatusSet::none(),
            disable_after: DisableAfter::default(),
            headers: Vec::new(),
            secrets: Vec::new(),
        }
    }

    /// The endpoint that this becomes: active, and with a generated secret if none was given.
    ///
    /// [`Registry::create_endpoint`](crate::Registry::create_endpoint) also checks and stores it.
    pub fn registered(self, id: EndpointId, now: Timestamp) -> Endpoint {
        let secrets = if self.secrets.is_empty() {
            vec![SigningSecret::generate()]
        } else {
            self.secrets
        };
        Endpoint {
            id,
            tenant: self.tenant,
            url: self.url,
            description: self.description,
            event_types: self.event_types,
            state: EndpointState::Active,
            rate: self.rate,
            max_in_flight: self.max_in_flight,
            timeout: self.timeout,
            schedule: self.schedule,
            success: self.success,
            permanent: self.permanent,
            disable_after: self.disable_after,
            headers: self.headers,
            secrets,
            created_at: now,
            updated_at: now,
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
        require(self.secrets.len() <= Self::MOST_SECRETS, "secrets", || {
            format!("at most {}", Self::MOST_SECRETS)
        })
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
}
