//! The handle that publishes.

use std::{num::NonZeroU16, sync::Arc, time::Duration};

use fanfare_broker::{Broker, Publisher, PublisherStatus, Settings, Topology};
use fanfare_model::{Clock, Event, TraceContext};
use fanfare_wire::{EventLimits, EventRejection, RejectionCode, check_event};
use futures_util::{Stream, StreamExt as _};
use opentelemetry::metrics::Meter;
use tokio::{
    sync::Semaphore,
    time::{self, Instant},
};

use crate::{Mode, ProducerFault, metrics::Metrics, trace};

/// How long [`Producer::connect`] waits for RabbitMQ.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);
/// How long a publish waits for its confirm unless the producer was told otherwise.
const CONFIRM_WITHIN: Duration = Duration::from_secs(60);
/// How many publishes are under way at once unless the producer was told otherwise: as many as a connection has
/// unconfirmed by default.
const MAX_IN_FLIGHT: u16 = 1000;
/// The pauses before an event that was refused is published again.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Publishes events. Cheap to clone; all clones share one connection and one bound on what is under way.
#[derive(Clone)]
pub struct Producer {
    publisher: Publisher,
    topology: Arc<Topology>,
    clock: Clock,
    confirm_within: Duration,
    limits: EventLimits,
    mode: Mode,
    max_in_flight: u16,
    slots: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    /// Present when the connection is the producer's own.
    broker: Option<Broker>,
}

/// An event that was handed in, and what became of it.
#[derive(Debug)]
pub struct Published {
    /// The event.
    pub event: Event,
    /// `Ok` means that RabbitMQ has stored it.
    pub result: Result<(), ProducerFault>,
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
            mode: Mode::default(),
            max_in_flight: MAX_IN_FLIGHT,
            slots: Arc::new(Semaphore::new(MAX_IN_FLIGHT.into())),
            metrics: Arc::new(Metrics::new(&opentelemetry::global::meter("fanfare"))),
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

    /// The same producer with another form of events.
    #[must_use]
    pub fn mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// The same producer with another bound on publishes under way, for it and its clones from now on.
    ///
    /// Further calls wait for their turn; `broker.max_unconfirmed` bounds all producers on one connection.
    #[must_use]
    pub fn max_in_flight(self, publishes: NonZeroU16) -> Self {
        Self {
            max_in_flight: publishes.get(),
            slots: Arc::new(Semaphore::new(publishes.get().into())),
            ..self
        }
    }

    /// The same producer with its numbers on this meter instead of OpenTelemetry's global one.
    #[must_use]
    pub fn measured_by(self, meter: &Meter) -> Self {
        Self {
            metrics: Arc::new(Metrics::new(meter)),
            ..self
        }
    }

    /// Publishes an event; `Ok` means that RabbitMQ has stored it.
    ///
    /// Call it from many tasks at once to pipeline: so many publishes as may be in flight are under
    /// way, and further calls wait. After a lost connection what was unconfirmed is published
    /// again, so an event may be stored twice; Fanfare recognises the repeat by tenant, source and id.
    ///
    /// The event continues the caller's OpenTelemetry span, if there is one.
    pub async fn publish(&self, event: &Event) -> Result<(), ProducerFault> {
        self.publish_in_trace(event, &trace::current()).await
    }

    /// Publishes an event as part of this trace.
    pub async fn publish_in_trace(
        &self,
        event: &Event,
        trace: &TraceContext,
    ) -> Result<(), ProducerFault> {
        let started = Instant::now();
        let under_way = self.metrics.started();
        let result = self.publish_once(event, trace).await;
        drop(under_way);
        self.metrics.ended(&result, started.elapsed());
        result
    }

    /// Publishes an event, and again with growing pauses while RabbitMQ has no room for it.
    ///
    /// Gives up with the last refusal once it took longer than the patience for confirms.
    pub async fn publish_patiently(
        &self,
        event: &Event,
        trace: &TraceContext,
    ) -> Result<(), ProducerFault> {
        let give_up = Instant::now() + self.confirm_within;
        let mut pause = FIRST_PAUSE;
        loop {
            let result = self.publish_in_trace(event, trace).await;
            let waits = matches!(
                result,
                Err(ProducerFault::Overloaded | ProducerFault::NotDeclared)
            );
            if !waits || Instant::now() + pause > give_up {
                return result;
            }
            time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Publishes a batch: events as they come, as many at once as may be in flight, each patiently.
    ///
    /// Tells what became of each event as soon as that is known, so not in their order. Takes no event from the
    /// stream before there is room for it: an unbounded stream needs bounded memory. Nothing is published unless
    /// the returned stream is polled.
    ///
    /// ```no_run
    /// # use fanfare_producer::{Event, Producer};
    /// # use futures_util::{StreamExt as _, stream};
    /// # async fn example(producer: Producer, events: Vec<Event>) {
    /// let mut published = std::pin::pin!(producer.publish_all(stream::iter(events)));
    /// while let Some(published) = published.next().await {
    ///     if let Err(fault) = published.result {
    ///         tracing::warn!(event.id = published.event.id, %fault, "not stored");
    ///     }
    /// }
    /// # }
    /// ```
    pub fn publish_all<'p, S>(&'p self, events: S) -> impl Stream<Item = Published> + 'p
    where
        S: Stream<Item = Event> + 'p,
    {
        let trace = trace::current();
        let publish = move |event: Event| {
            let trace = trace.clone();
            async move {
                let result = self.publish_patiently(&event, &trace).await;
                Published { event, result }
            }
        };
        events
            .map(publish)
            .buffer_unordered(self.max_in_flight.into())
    }

    async fn publish_once(&self, event: &Event, trace: &TraceContext) -> Result<(), ProducerFault> {
        check_event(event).map_err(ProducerFault::Invalid)?;
        let address = self
            .topology
            .event_address(&event.tenant, &event.event_type);
        let envelope = self.mode.message(event, trace, self.clock.now());
        self.check_size(envelope.size())?;
        let published = async {
            // Never closed, so the turn always comes.
            let _turn = self.slots.acquire().await;
            self.publisher.publish(&address, envelope).await
        };
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
