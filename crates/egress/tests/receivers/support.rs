//! One attempt, and what it came to.

use std::{sync::Arc, time::Duration};

use fanfare_egress::{Egress, EgressSettings, attempt};
use fanfare_model::{Delivery, Endpoint, Event, Outcome, TraceContext};
use fanfare_testkit::wall_clock;

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// An egress that may call loopback.
pub(crate) fn egress() -> Egress {
    let settings = EgressSettings {
        allow_networks: ["127.0.0.0/8", "::1/128"]
            .map(|net| net.parse().unwrap())
            .to_vec(),
        ..EgressSettings::default()
    };
    Egress::new(&settings).unwrap()
}

pub(crate) fn endpoint(url: &str) -> Endpoint {
    Endpoint::for_tests(1, "t", url)
}

pub(crate) async fn call(egress: &Egress, endpoint: &Endpoint) -> Outcome {
    call_within(egress, endpoint, PATIENCE).await
}

pub(crate) async fn call_within(
    egress: &Egress,
    endpoint: &Endpoint,
    timeout: Duration,
) -> Outcome {
    let now = wall_clock().now();
    let event = Arc::new(Event::for_tests("t", "s", "1", "a.b", b"{}"));
    let delivery = Delivery::new(event, endpoint.id, 1, TraceContext::default(), now);
    attempt(egress, endpoint, &delivery, now, timeout).await
}

pub(crate) fn answered(status: u16) -> Outcome {
    Outcome::Answered {
        status,
        retry_after: None,
    }
}
