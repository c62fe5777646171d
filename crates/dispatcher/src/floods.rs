//! Tells routers which endpoints are flooded, so that the flood is absorbed at the door.

use std::{sync::Arc, time::Duration};

use fanfare_broker::{Broker, Publisher, Topology};
use fanfare_model::{Clock, Endpoint};
use fanfare_wire::ControlMessage;
use tokio::{sync::Semaphore, time};
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::{lane::Diversion, metrics::Metrics};

/// So many are told at once. A lane tells again after seconds, so what is over that may be lost.
const AT_ONCE: usize = 64;

/// News that takes longer than this is old.
const TELL_WITHIN: Duration = Duration::from_secs(2);

/// Tells routers about floods.
pub(crate) struct Floods {
    publisher: Publisher,
    topology: Arc<Topology>,
    clock: Clock,
    metrics: Arc<Metrics>,
    room: Arc<Semaphore>,
    telling: TaskTracker,
}

impl Floods {
    pub(crate) fn new(broker: &Broker, clock: Clock, metrics: Arc<Metrics>) -> Self {
        Self {
            publisher: broker.publisher(),
            topology: Arc::clone(broker.topology()),
            clock,
            metrics,
            room: Arc::new(Semaphore::new(AT_ONCE)),
            telling: TaskTracker::new(),
        }
    }

    /// Tells it, and does not wait for that.
    pub(crate) fn tell(&self, endpoint: &Endpoint, diversion: Diversion) {
        let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else {
            return;
        };
        self.metrics.flood();
        let Diversion {
            from,
            spacing,
            until,
            latest,
            expires,
        } = diversion;
        let message = ControlMessage::EndpointFlooded {
            endpoint: endpoint.id,
            as_of: endpoint.updated_at,
            from,
            spacing_us: u64::try_from(spacing.as_micros()).unwrap_or(u64::MAX),
            until,
            latest,
            expires,
        };
        let (message, address) = (
            message.encode(self.clock.now()),
            self.topology.control_address(),
        );
        let (publisher, id) = (self.publisher.clone(), endpoint.id);
        self.telling.spawn(async move {
            let published = time::timeout(TELL_WITHIN, publisher.publish(&address, message));
            if !matches!(published.await, Ok(Ok(()))) {
                warn!(endpoint.id = %id, "routers could not be told of a flood; it comes in by the usual way");
            }
            drop(room);
        });
    }
}
