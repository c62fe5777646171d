//! The loop: receive an event, decide who is owed it, hand the deliveries on, acknowledge.

use std::sync::Arc;

use fanfare_broker::{
    Broker, Bundler, JournalWriter, Message, PublishFault, Publisher, Subscription, Topology,
    finish,
};
use fanfare_model::{Clock, Delivery, OwedDelivery, Wait};
use fanfare_registry::{Snapshot, Snapshots};
use fanfare_wire::{
    DecodedEvent, Envelope, EventLimits, EventRejection, decode_event, encode_rejected, is_batch,
    split_batch,
};
use futures_util::{TryStreamExt as _, future::try_join_all, stream};
use opentelemetry::metrics::Meter;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    Diversions, Settings, decide,
    metrics::{EventFate, Metrics},
};

/// A fan-out of thousands goes out in pages of this many, so that it cannot fill the publisher's window
/// before other events get their turn.
const PAGE: usize = 256;

/// How many events of one batch are routed at once, so that it leaves room for the events around it.
const BATCH_AT_ONCE: usize = 64;

/// What the router works with.
pub struct Router {
    snapshots: Snapshots,
    publisher: Publisher,
    bundler: Bundler,
    diversions: Diversions,
    topology: Arc<Topology>,
    limits: EventLimits,
    journal: JournalWriter,
    clock: Clock,
    metrics: Metrics,
}

impl Router {
    /// Puts a router together.
    pub fn new(
        broker: &Broker,
        settings: &Settings,
        snapshots: Snapshots,
        clock: Clock,
        meter: &Meter,
    ) -> Self {
        let (publisher, topology) = (broker.publisher(), Arc::clone(broker.topology()));
        let metrics = Metrics::new(meter, &snapshots);
        Self {
            snapshots,
            bundler: Bundler::new(publisher.clone(), clock.clone(), settings.max_bundle.into()),
            diversions: Diversions::default(),
            publisher,
            topology,
            limits: EventLimits {
                max_event_bytes: settings.max_event_bytes,
            },
            journal: JournalWriter::off(),
            clock,
            metrics,
        }
    }

    /// Where to tell it which endpoints are flooded.
    pub fn diversions(&self) -> Diversions {
        self.diversions.clone()
    }

    /// Has what is routed written to a journal.
    #[must_use]
    pub fn journalling(self, journal: JournalWriter) -> Self {
        Self { journal, ..self }
    }
}

/// Routes events until `shutdown`, then finishes the ones in hand, until `abort`.
///
/// Returns how many were handed back unfinished.
pub async fn run(
    broker: Broker,
    router: Router,
    settings: Settings,
    shutdown: CancellationToken,
    abort: CancellationToken,
) -> usize {
    // No snapshot, no consuming: an event must not meet a registry that nobody has read yet.
    let known = router.snapshots.wait_until_known();
    if shutdown.run_until_cancelled(known).await.is_none() {
        return 0;
    }
    let queue = broker.topology().events_queue();
    let mut inbox = broker.inbox(vec![Subscription::queue(queue, settings.prefetch)]);
    let (router, mut in_hand) = (Arc::new(router), JoinSet::new());
    info!(prefetch = settings.prefetch, "routing events");
    while let Some(message) = inbox.next_until(&shutdown).await {
        in_hand.spawn(Arc::clone(&router).route(message));
        while in_hand.try_join_next().is_some() {}
    }
    let unfinished = finish(in_hand, &abort).await;
    inbox.close().await;
    unfinished
}

impl Router {
    async fn route(self: Arc<Self>, message: Message) {
        let handed_on = if is_batch(&message.envelope) {
            Box::pin(self.route_batch(&message)).await
        } else {
            let judge = |rejection| rejection;
            self.route_one(&message.envelope, &message.routing_key, judge)
                .await
        };
        match handed_on {
            // Acknowledge last. A crash in between repeats these deliveries, and receivers can
            // recognise a repeat by its id. In the other order a crash would lose them.
            Ok(()) => message.receipt.settle(),
            Err(fault) => {
                warn!(%fault, "an event was not routed; it stays in its queue");
                message.receipt.hand_back();
            }
        }
    }

    /// Routes each event of a batch as if it had been published alone, some at once.
    async fn route_batch(&self, message: &Message) -> Result<(), PublishFault> {
        let routing_key = &*message.routing_key;
        match split_batch(&message.envelope, &self.limits) {
            Ok(events) => {
                let events = stream::iter(events.into_iter().enumerate().map(Ok));
                let route = |(index, event): (usize, Envelope)| async move {
                    let judge = |rejection: EventRejection| rejection.in_batch(index);
                    self.route_one(&event, routing_key, judge).await
                };
                events.try_for_each_concurrent(BATCH_AT_ONCE, route).await
            }
            Err(rejection) => {
                self.reject(&message.envelope, routing_key, &rejection)
                    .await
            }
        }
    }

    /// Hands on what an event leads to, or keeps the message with the reason, as `judge` puts it.
    async fn route_one(
        &self,
        envelope: &Envelope,
        routing_key: &str,
        judge: impl FnOnce(EventRejection) -> EventRejection,
    ) -> Result<(), PublishFault> {
        match decode_event(envelope, Some(routing_key), &self.limits) {
            Ok(decoded) => self.hand_on(decoded).await,
            Err(rejection) => Box::pin(self.reject(envelope, routing_key, &judge(rejection))).await,
        }
    }

    async fn hand_on(&self, decoded: DecodedEvent) -> Result<(), PublishFault> {
        let snapshot = self.snapshots.wait_until_known().await;
        let DecodedEvent { event, trace } = decoded;
        let event = Arc::new(event);
        let mut deliveries = decide::deliveries(&event, &trace, &snapshot, self.clock.now());
        self.divert(&mut deliveries, &snapshot);
        let count = deliveries.len();
        let is_told = self.journal.tells_of_success();
        let owed = deliveries
            .iter()
            .map(|delivery| owed(delivery, is_told))
            .collect();
        while !deliveries.is_empty() {
            let page = deliveries.split_off(deliveries.len().saturating_sub(PAGE));
            try_join_all(page.into_iter().map(|delivery| self.publish(delivery))).await?;
        }
        self.journal.routed(&event, &trace, owed).await;
        let fate = if count == 0 {
            EventFate::Unmatched
        } else {
            EventFate::Routed
        };
        self.metrics.event(fate);
        self.metrics.deliveries(count);
        debug!(
            event.id = event.id,
            event.source = event.source,
            event.r#type = %event.event_type,
            tenant = %event.tenant,
            trace.id = trace.trace_id(),
            deliveries = count,
            "event routed"
        );
        Ok(())
    }

    /// Lets deliveries of flooded endpoints wait from the beginning.
    fn divert(&self, deliveries: &mut [Delivery], snapshot: &Snapshot) {
        if self.diversions.are_none() {
            return;
        }
        let now = self.clock.now();
        for delivery in deliveries {
            let Some(endpoint) = snapshot.endpoint(delivery.endpoint) else {
                continue;
            };
            let chance = rand::random();
            if let Some(until) = self.diversions.wait_of(delivery, endpoint, chance, now) {
                let since = delivery.first_seen;
                delivery.wait = Some(Wait { since, until });
                self.metrics.diverted();
            }
        }
    }

    /// Publishes a delivery to its partition, or to the delay line when it has to wait.
    async fn publish(&self, delivery: Delivery) -> Result<(), PublishFault> {
        let key = self.topology.partition_of(delivery.endpoint);
        let now = self.clock.now();
        let address = self.topology.next_address(delivery.wait, key, now);
        self.bundler.publish(address, delivery).await
    }

    async fn reject(
        &self,
        envelope: &Envelope,
        routing_key: &str,
        rejection: &EventRejection,
    ) -> Result<(), PublishFault> {
        let rejected = encode_rejected(envelope, routing_key, rejection, self.clock.now());
        let address = self.topology.rejected_address();
        self.publisher.publish_patiently(&address, rejected).await?;
        self.metrics.event(EventFate::Rejected);
        info!(
            code = rejection.code.name(),
            field = rejection.field,
            routing_key,
            "event rejected"
        );
        Ok(())
    }
}

fn owed(delivery: &Delivery, is_told: bool) -> OwedDelivery {
    OwedDelivery {
        id: delivery.id,
        endpoint: delivery.endpoint,
        not_before: delivery.wait.map(|wait| wait.until),
        is_told,
    }
}
