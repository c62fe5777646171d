//! The handle that publishes.

use std::{sync::Arc, time::Duration};

use fanfare_broker::{Broker, Publisher, PublisherStatus, Settings, Topology};
use fanfare_model::{Clock, Event, TraceContext};
use fanfare_wire::{
    EventLimits, EventRejection, RejectionCode, check_event, event_envelope_binary,
};
use tokio::time;

use crate::ProducerFault;

/// How long [`Producer::connect`] waits for RabbitMQ.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);
/// How long a publish waits for its confirm unless the producer was told otherwise.
const CONFIRM_WITHIN: Duration = Duration::from_secs(60);

/// Publishes events. Cheap to clone; all clones share one connection and one bound on what is unconfirmed.
#[derive(Clone)]
pub struct Producer {
    publisher: Publisher,
    topology: Arc<Topology>,
    clock: Clock,
    confirm_within: Duration,
    limits: EventLimits,
    /// Present when the connection is the producer's own.
    broker: Option<Broker>,
}

impl Producer {
    /// Connects to RabbitMQ and declares what Fanfare needs there.
    ///
    /// From then on the connection is kept up: publishes wait while it is away. `service` is the name
    /// that RabbitMQ's management pages show.
    pub async fn connect(settings: &Settings, service: &str) -> Result<Self, ProducerFault> {
        let broker = Broker::connect(settings, service, CONNECT_WITHIN)
            .await
            .map_err(ProducerFault::Broker)?;
        Ok(Self {
            broker: Some(broker.clone()),
            ..Self::on(&broker, system_clock())
        })
    }

    /// A producer on a connection that the caller has and closes.
    pub fn on(broker: &Broker, clock: Clock) -> Self {
        Self {
            publisher: broker.publisher(),
            topology: Arc::clone(broker.topology()),
            clock,
            confirm_within: CONFIRM_WITHIN,
            limits: EventLimits::default(),
            broker: None,
        }
    }

    /// The same producer with another patience for confirms.
    #[must_use]
    pub fn confirm_within(self, confirm_within: Duration) -> Self {
        Self {
            confirm_within,
            ..self
        }
    }

    /// Publishes an event; `Ok` means that RabbitMQ has stored it.
    ///
    /// Call it from many tasks at once to pipeline: at most `broker.max_unconfirmed` publishes are
    /// under way, and further calls wait. After a lost connection what was unconfirmed is published
    /// again, so an event may be stored twice; Fanfare recognises the repeat by tenant, source and id.
    pub async fn publish(&self, event: &Event) -> Result<(), ProducerFault> {
        self.publish_in_trace(event, &TraceContext::default()).await
    }

    /// Publishes an event as part of the caller's trace.
    pub async fn publish_in_trace(
        &self,
        event: &Event,
        trace: &TraceContext,
    ) -> Result<(), ProducerFault> {
        check_event(event).map_err(ProducerFault::Invalid)?;
        let address = self
            .topology
            .event_address(&event.tenant, &event.event_type);
        // Binary mode: the data goes byte for byte, and the router parses no document around it.
        let envelope = event_envelope_binary(event, trace, self.clock.now());
        self.check_size(envelope.size())?;
        let published = self.publisher.publish(&address, envelope);
        match time::timeout(self.confirm_within, published).await {
            Ok(result) => result.map_err(ProducerFault::from),
            Err(_) => Err(ProducerFault::Unconfirmed(self.confirm_within)),
        }
    }

    fn check_size(&self, bytes: usize) -> Result<(), ProducerFault> {
        let most = self.limits.max_event_bytes;
        if bytes <= most {
            return Ok(());
        }
        Err(ProducerFault::Invalid(EventRejection {
            code: RejectionCode::TooLarge,
            field: None,
            detail: format!("the event has {bytes} bytes, and at most {most} are accepted"),
        }))
    }

    /// What metrics want to know: unconfirmed publishes, whether RabbitMQ blocks.
    pub fn status(&self) -> &PublisherStatus {
        self.publisher.status()
    }

    /// Waits for what is unconfirmed and closes the connection, if it is the producer's own.
    pub async fn close(self) {
        if let Some(broker) = self.broker {
            broker.close().await;
        }
    }
}

/// The one clock that a library reads by itself: a service that embeds the SDK has no wiring of ours.
fn system_clock() -> Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the SDK runs in programs that do not hand it a clock"
    )]
    Clock::new(fanfare_model::Timestamp::now)
}
