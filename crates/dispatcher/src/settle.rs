//! Carries settlements out: publishes what must follow, and only then acknowledges.

use std::sync::Arc;

use fanfare_broker::{Bundler, JournalWriter, PublishFault, Publisher, Receipt, Topology};
use fanfare_model::{
    AttemptRecord, Clock, DeadLetter, DeadLetterReason, Delivery, Failure, PartitionKey,
    Settlement, Timestamp,
};
use fanfare_wire::{
    DecodeFault, Envelope, EventRejection, RejectionCode, encode_bundle, encode_dead_letter,
    encode_rejected,
};
use futures_util::future::{BoxFuture, FutureExt as _};
use tracing::warn;

use crate::{
    lane::Load,
    metrics::{Metrics, WaitKind},
    operational,
    partition::Term,
    reports::Reports,
    seen::InHand,
};

/// How many deliveries that wait together share a message. Without that, a flood of one endpoint would be
/// deferred at the pace of single messages, and its neighbours would wait for that.
const MOST_WAITING_TOGETHER: usize = 16;

/// Where copies and dead letters go.
pub(crate) struct Settler {
    publisher: Publisher,
    bundler: Bundler,
    topology: Arc<Topology>,
    clock: Clock,
    metrics: Arc<Metrics>,
    reports: Arc<Reports>,
    pub(crate) journal: JournalWriter,
}

/// A delivery in hand, with everything that its settlement needs.
pub(crate) struct Held {
    pub(crate) delivery: Delivery,
    /// The partition it came from and goes back to.
    pub(crate) key: PartitionKey,
    /// What it takes while it is here.
    pub(crate) load: Load,
    pub(crate) receipt: Receipt,
    /// The request that was made, if one was.
    pub(crate) attempt: Option<AttemptRecord>,
}

impl Settler {
    pub(crate) fn new(
        publisher: Publisher,
        topology: Arc<Topology>,
        clock: Clock,
        metrics: Arc<Metrics>,
        reports: Arc<Reports>,
    ) -> Self {
        Self {
            bundler: Bundler::new(publisher.clone(), clock.clone(), MOST_WAITING_TOGETHER),
            publisher,
            topology,
            clock,
            metrics,
            reports,
            journal: JournalWriter::off(),
        }
    }

    /// Carries a settlement out and acknowledges the delivery's part of its message.
    ///
    /// Publish the copy, wait for its confirm, acknowledge the original: a crash in between leaves two
    /// copies, which receivers recognise; the other order could leave none.
    pub(crate) async fn settle(&self, held: Held, settlement: Settlement, in_hand: Option<InHand>) {
        let Held {
            delivery,
            key,
            receipt,
            attempt,
            ..
        } = held;
        // The broker gives the message out again, so what follows from it would be there twice.
        if receipt.is_void() && settlement != Settlement::Delivered {
            return;
        }
        let id = delivery.id;
        self.metrics.settled(&settlement);
        // A deferred delivery comes back as the same attempt, so it must not be remembered as settled.
        let is_done = !matches!(settlement, Settlement::Defer { .. });
        let told = self.journal.told(&delivery, &settlement, attempt);
        let published = match self.what_follows(delivery, key, settlement) {
            Some(publishing) => publishing.await,
            None => Ok(()),
        };
        match published {
            Ok(()) => {
                self.journal.tell(told);
                if let Some(in_hand) = in_hand.filter(|_| is_done) {
                    in_hand.remember();
                }
                receipt.settle();
            }
            Err(fault) => {
                warn!(delivery.id = %id, %fault, "a delivery was not settled; it stays in its queue");
                receipt.hand_back();
            }
        }
    }

    /// Gives a delivery back unsettled, as when the partition is handed over: as a whole message when the
    /// term lets it go. One that shares its message with others is published singly at once, so that they are not
    /// repeated because of it.
    pub(crate) async fn give_back(&self, held: Held, term: &Term) {
        if held.receipt.is_void() {
            return;
        }
        if !held.receipt.is_shared() {
            term.released.cancelled().await;
            return held.receipt.hand_back();
        }
        match self.publish_copy(&held.delivery, held.key).await {
            Ok(()) => held.receipt.settle(),
            Err(_) => held.receipt.hand_back(),
        }
    }

    /// Publishes every delivery of a bundle singly, in place of the bundle.
    pub(crate) async fn split(&self, deliveries: Vec<Delivery>, receipt: Receipt) {
        for delivery in deliveries {
            let key = self.topology.partition_of(delivery.endpoint);
            if let Err(fault) = self.publish_copy(&delivery, key).await {
                warn!(delivery.id = %delivery.id, %fault, "a bundle was not split; it stays in its queue");
                return receipt.hand_back();
            }
        }
        receipt.settle();
    }

    /// Publishes what has to be stored before the delivery may be forgotten, if anything has to. Boxed,
    /// because most leave nothing, and everything in hand would carry the room for it.
    fn what_follows(
        &self,
        delivery: Delivery,
        key: PartitionKey,
        settlement: Settlement,
    ) -> Option<BoxFuture<'_, Result<(), PublishFault>>> {
        let now = self.clock.now();
        let before = delivery.wait;
        let waits = match settlement {
            Settlement::Delivered | Settlement::Discard { .. } => return None,
            Settlement::DeadLetter { reason, failure } => {
                return Some(self.bury(delivery, reason, failure, now).boxed());
            }
            Settlement::Retry { at, failure } => delivery.after_failure(failure, now, Some(at)),
            Settlement::Defer { until, .. } => delivery.waiting(until, now),
        };
        self.metrics.hop(WaitKind::of(&waits), waits.wait != before);
        let address = self.topology.next_address(waits.wait, key, now);
        Some(self.bundler.publish(address, waits).boxed())
    }

    async fn publish_copy(
        &self,
        delivery: &Delivery,
        key: PartitionKey,
    ) -> Result<(), PublishFault> {
        let now = self.clock.now();
        let address = self.topology.next_address(delivery.wait, key, now);
        let bundle = encode_bundle(std::slice::from_ref(delivery), now);
        self.publisher.publish_patiently(&address, bundle).await
    }

    /// Keeps a message that nobody here can read where people can look at it.
    pub(crate) async fn set_aside(
        &self,
        envelope: &Envelope,
        routing_key: &str,
        fault: &DecodeFault,
        receipt: Receipt,
    ) {
        let rejection = EventRejection {
            code: RejectionCode::UnreadableDelivery,
            field: None,
            detail: format!("a message on a delivery queue could not be read: {fault}"),
        };
        let rejected = encode_rejected(envelope, routing_key, &rejection, self.clock.now());
        let address = self.topology.rejected_address();
        match self.publisher.publish_patiently(&address, rejected).await {
            Ok(()) => receipt.settle(),
            Err(_) => receipt.hand_back(),
        }
    }

    /// Makes a dead letter of a delivery, and an event of that: told once the letter is stored, as well as
    /// can be, and never waited for.
    pub(crate) async fn bury(
        &self,
        delivery: Delivery,
        reason: DeadLetterReason,
        failure: Option<Failure>,
        now: Timestamp,
    ) -> Result<(), PublishFault> {
        let delivery = match failure {
            Some(failure) => delivery.after_failure(failure, now, None),
            None => delivery,
        };
        let told = operational::dead_lettered(&delivery, reason, now);
        let tenant = delivery.event.tenant.clone();
        let letter = encode_dead_letter(&DeadLetter {
            delivery,
            reason,
            since: now,
        });
        let address = self.topology.dead_address();
        self.publisher.publish_patiently(&address, letter).await?;
        self.metrics.buried(reason, &tenant);
        if let Some(event) = told {
            self.reports.tell(event);
        }
        Ok(())
    }
}
