//! Asks a receiver of CloudEvents whether it wants to be called.
//!
//! Source: CloudEvents, "HTTP 1.1 Web Hooks for Event Delivery", section 4. Its callback is not offered: the
//! answer itself has to agree.

use std::time::Duration;

use fanfare_model::{Endpoint, Outcome, RequestOrigin};
use reqwest::header::{HeaderMap, HeaderValue};

use crate::egress::Egress;

/// Why an endpoint is not to be called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    /// It could not be asked.
    #[error("`request_origin`: the receiver could not be asked whether it wants to be called: {0}")]
    NotAsked(String),
    /// It did not agree.
    #[error(
        "`request_origin`: the receiver does not agree to be called by `{origin}`: its answer to OPTIONS must \
         have `WebHook-Allowed-Origin: {origin}` or `*`"
    )]
    Origin {
        /// Who asked.
        origin: RequestOrigin,
    },
    /// It agreed to something else.
    #[error("`rate` must be at most {allowed}/min, which is what the receiver allows")]
    Rate {
        /// How many requests it takes in a minute.
        allowed: u64,
    },
}

impl NotAllowed {
    /// The field of the endpoint that it is about.
    pub fn field(&self) -> &'static str {
        match self {
            Self::NotAsked(_) | Self::Origin { .. } => "request_origin",
            Self::Rate { .. } => "rate",
        }
    }
}

/// Asks, if the endpoint says as whom, and waits at most `longest`; `Ok` where there is nothing to ask, or the receiver agrees.
pub async fn ask_for_permission(
    egress: &Egress,
    endpoint: &Endpoint,
    longest: Duration,
) -> Result<(), NotAllowed> {
    let Some(origin) = &endpoint.request_origin else {
        return Ok(());
    };
    let mut headers = HeaderMap::new();
    let value = |text: &str| HeaderValue::from_str(text).expect("names and numbers are visible");
    headers.insert("webhook-request-origin", value(origin.as_str()));
    if let Some(rate) = endpoint.rate {
        let rate = rate.per_minute().to_string();
        headers.insert("webhook-request-rate", value(&rate));
    }
    let answer = egress
        .options(endpoint, headers, endpoint.timeout.min(longest))
        .await;
    let answer = answer.map_err(|outcome| NotAllowed::NotAsked(reason(&outcome, endpoint)))?;
    judge(&answer, origin, endpoint)
}

/// The status says nothing: a receiver that knows nothing of this may answer OPTIONS with anything.
fn judge(
    answer: &HeaderMap,
    origin: &RequestOrigin,
    endpoint: &Endpoint,
) -> Result<(), NotAllowed> {
    let header = |name| {
        let value: Option<&HeaderValue> = answer.get(name);
        value.and_then(|value| value.to_str().ok()).map(str::trim)
    };
    let agrees = header("webhook-allowed-origin")
        .is_some_and(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin.as_str()));
    if !agrees {
        let origin = origin.clone();
        return Err(NotAllowed::Origin { origin });
    }
    // Without a rate there is no limit, and a number allows less than that.
    let asked = endpoint.rate.map_or(u64::MAX, |rate| rate.per_minute());
    match header("webhook-allowed-rate").and_then(|allowed| allowed.parse().ok()) {
        Some(allowed) if allowed < asked => Err(NotAllowed::Rate { allowed }),
        Some(_) | None => Ok(()),
    }
}

fn reason(outcome: &Outcome, endpoint: &Endpoint) -> String {
    let failure = outcome.failure(&endpoint.success);
    failure.map_or_else(String::new, |failure| failure.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_receiver_that_agrees_is_called() {
        let origin: RequestOrigin = "events.example.com".parse().unwrap();
        for (allowed, rate, limit, verdict) in [
            (Some("events.example.com"), None, None, None),
            (Some("Events.Example.com"), None, Some("*"), None),
            (Some("*"), Some("2/s"), Some("120"), None),
            (Some("*"), Some("2/s"), None, None),
            (Some("*"), Some("2/s"), Some("119"), Some("rate")),
            (Some("*"), None, Some("119"), Some("rate")),
            (
                Some("other.example.com"),
                None,
                None,
                Some("request_origin"),
            ),
            (None, None, Some("120"), Some("request_origin")),
        ] {
            let mut endpoint = Endpoint::for_tests(1, "t", "https://example.com/");
            endpoint.rate = rate.map(|text| text.parse().unwrap());
            let mut answer = HeaderMap::new();
            for (name, value) in [
                ("webhook-allowed-origin", allowed),
                ("webhook-allowed-rate", limit),
            ] {
                if let Some(value) = value {
                    answer.insert(name, HeaderValue::from_static(value));
                }
            }
            let judged = judge(&answer, &origin, &endpoint).err();
            let field = judged.as_ref().map(NotAllowed::field);
            assert_eq!(field, verdict, "{allowed:?} {rate:?} {limit:?}");
        }
    }
}
