//! Tells the other processes that the registry changed, so that they need not wait for their period; and asks
//! them what only they know.

use std::time::Duration;

use fanfare_broker::{Broker, Inbox, Publisher};
use fanfare_model::{Clock, EndpointId};
use fanfare_wire::{ControlMessage, EndpointStanding};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

/// An announcement that comes later than the others' own period tells them nothing.
const WORTH_WAITING: Duration = Duration::from_secs(5);

/// A dispatcher answers at once; a busy one has time.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The first question may come before this process hears anything.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// Without RabbitMQ, an inbox does not close.
const CLOSE_WITHIN: Duration = Duration::from_millis(500);

/// Speaks to every other process. Cheap to clone.
#[derive(Clone)]
pub struct Announcer {
    broker: Broker,
    publisher: Publisher,
    clock: Clock,
}

impl Announcer {
    /// An announcer on a connection that the caller has and closes.
    pub fn on(broker: &Broker, clock: Clock) -> Self {
        Self {
            broker: broker.clone(),
            publisher: broker.publisher(),
            clock,
        }
    }

    /// Says that the registry has this version. A lost announcement costs time, nothing else.
    pub(crate) async fn registry_changed(&self, version: u64) {
        let envelope = ControlMessage::RegistryChanged { version }.encode(self.clock.now());
        let address = self.broker.topology().control_address();
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

    /// How an endpoint stands with the dispatcher that calls it; `None` when none answers.
    pub(crate) async fn standing_of(&self, endpoint: EndpointId) -> Option<EndpointStanding> {
        let mut inbox = self.broker.control_inbox();
        let asking = self.ask_about(&mut inbox, endpoint);
        let answer = time::timeout(ANSWER_WITHIN, asking).await.ok();
        drop(time::timeout(CLOSE_WITHIN, inbox.close()).await);
        answer
    }

    async fn ask_about(&self, inbox: &mut Inbox, endpoint: EndpointId) -> EndpointStanding {
        let address = self.broker.topology().control_address();
        loop {
            let again = Instant::now() + ASK_EVERY;
            let question = ControlMessage::EndpointAsked { endpoint }.encode(self.clock.now());
            let asked = time::timeout_at(again, self.publisher.publish(&address, question)).await;
            if matches!(asked, Ok(Ok(()))) {
                let answer = time::timeout_at(again, answer_about(inbox, endpoint));
                if let Ok(standing) = answer.await {
                    return standing;
                }
            } else {
                time::sleep_until(again).await;
            }
        }
    }
}

async fn answer_about(inbox: &mut Inbox, endpoint: EndpointId) -> EndpointStanding {
    let never = CancellationToken::new();
    while let Some(message) = inbox.next_until(&never).await {
        let told = ControlMessage::decode(&message.envelope);
        message.receipt.settle();
        if let Some(ControlMessage::EndpointStands(standing)) = told
            && standing.endpoint == endpoint
        {
            return standing;
        }
    }
    // The broker handle is closed; nothing is heard any more.
    std::future::pending().await
}
