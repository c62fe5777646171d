//! Tells the other processes that the registry changed, so that they need not wait for their period.

use std::{sync::Arc, time::Duration};

use fanfare_broker::{Broker, Publisher, Topology};
use fanfare_model::Clock;
use fanfare_wire::ControlMessage;
use tokio::time;

/// An announcement that comes later than the others' own period tells them nothing.
const WORTH_WAITING: Duration = Duration::from_secs(5);

/// Announces changes of the registry to every process. Cheap to clone.
#[derive(Clone)]
pub struct Announcer {
    publisher: Publisher,
    topology: Arc<Topology>,
    clock: Clock,
}

impl Announcer {
    /// An announcer on a connection that the caller has and closes.
    pub fn on(broker: &Broker, clock: Clock) -> Self {
        Self {
            publisher: broker.publisher(),
            topology: Arc::clone(broker.topology()),
            clock,
        }
    }

    /// Says that the registry has this version. A lost announcement costs time, nothing else.
    pub(crate) async fn registry_changed(&self, version: u64) {
        let envelope = ControlMessage::RegistryChanged { version }.encode(self.clock.now());
        let address = self.topology.control_address();
        let published = self.publisher.publish(&address, envelope);
        match time::timeout(WORTH_WAITING, published).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => {
                let error = &fault as &dyn std::error::Error;
                tracing::warn!(error, "a change of the registry could not be announced");
            }
            Err(_) => tracing::warn!("a change of the registry could not be announced in time"),
        }
    }
}
