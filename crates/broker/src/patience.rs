//! Publishing that does not give up: for copies that must exist before their original is acknowledged.

use std::{sync::Arc, time::Duration};

use fanfare_wire::Envelope;
use tokio::time;
use tracing::warn;

use crate::{Address, PublishFault, Publisher, publisher::Outgoing};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

impl Publisher {
    /// Publishes until the broker has the message, with growing jittered pauses while it refuses.
    ///
    /// A refusal here is a queue without a majority or a hole in the topology, which people mend; the
    /// caller keeps the original unacknowledged meanwhile. `Err` is a fault that no waiting mends.
    pub async fn publish_patiently(
        &self,
        address: &Address,
        envelope: Envelope,
    ) -> Result<(), PublishFault> {
        let outgoing = Outgoing::new(address, envelope)?;
        let mut pause = FIRST_PAUSE;
        loop {
            match self.send(Arc::clone(&outgoing)).await {
                Err(fault) if fault.is_transient() => {
                    let exchange = &address.exchange;
                    warn!(exchange, %fault, "the broker does not take a message; trying again");
                    time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                result => return result,
            }
        }
    }
}
