//! What the fault tests share: events with a number, and a ledger filled from a receiver.

use fanfare_model::{Event, TenantId};
use fanfare_producer::EventBuilder;
use fanfare_registry::{NewEndpoint, Registry};
use fanfare_testkit::{Ledger, Receiver, wall_clock};

/// The event with this number.
pub(crate) fn event(number: usize) -> Event {
    EventBuilder::new("t", "counted", "/faults")
        .id(&number.to_string())
        .json(format!(r#"{{"number":{number}}}"#).as_bytes())
        .build()
        .expect("the event is valid")
}

/// Registers an endpoint that wants everything.
pub(crate) async fn register(registry: &Registry, url: &str, max_in_flight: u16) {
    let tenant: TenantId = "t".parse().expect("a tenant");
    let wants = vec!["*".parse().expect("a pattern")];
    let mut endpoint = NewEndpoint::new(tenant, url.parse().expect("a target"), wants);
    endpoint.max_in_flight = max_in_flight;
    let created = registry
        .create_endpoint(endpoint, "test", wall_clock().now())
        .await;
    created.expect("the endpoint is valid");
}

/// Enters every request that a receiver had.
pub(crate) fn enter_arrivals(ledger: &mut Ledger, receiver: &Receiver) {
    for request in receiver.requests() {
        let payload: serde_json::Value =
            serde_json::from_slice(&request.body).expect("the body is JSON");
        let number = payload["data"]["number"]
            .as_u64()
            .expect("events are numbered");
        ledger.arrived(&number.to_string(), &request.path);
    }
}
