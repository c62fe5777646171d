//! The loop: receive deliveries, handle each in its endpoint's lane, settle, stop.

use std::{pin::pin, sync::Arc};

use fanfare_broker::{Broker, Inbox, JournalWriter, Message, Subscription, Topology, finish};
use fanfare_egress::{Egress, attempt};
use fanfare_model::{
    AttemptRecord, Clock, DeferReason, Delivery, DiscardReason, Endpoint, Jitter, Outcome,
    Settlement, Timestamp,
};
use fanfare_registry::{Registry, Snapshot, Snapshots};
use fanfare_wire::decode_bundle;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use opentelemetry::metrics::Meter;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit},
    task::{self, JoinSet},
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    DispatcherFault, Settings,
    breaker::Change,
    crashed, decide,
    floods::Floods,
    lane::{Bounds, Deferral, Diversion, Entry, Lane, Load, Place, Turn},
    lanes::Lanes,
    metrics::{Metrics, names},
    operational,
    ownership::Ownership,
    partition::{InHand, UnderWay},
    peers::priority,
    record::record_of,
    reports::Reports,
    seen::{Claim, Seen},
    settle::{Held, Settler},
};

/// How long a copy of a delivery in flight waits before it is looked at again.
const LOOK_AGAIN_WHEN_IN_FLIGHT: Duration = Duration::from_secs(1);

/// So many KiB of messages are taken in before everything else that is ready has a turn: a bundle, or a few single
/// deliveries, for which a turn each would cost as much as they do.
const BETWEEN_TURNS: usize = 8;

/// What the dispatcher works with.
pub struct Dispatcher {
    settings: Settings,
    broker: Broker,
    topology: Arc<Topology>,
    snapshots: Snapshots,
    egress: Egress,
    clock: Clock,
    lanes: Arc<Lanes>,
    seen: Seen,
    /// How many deliveries more may be in hand.
    room: Semaphore,
    ownership: Ownership,
    /// Nothing starts any more.
    stopping: CancellationToken,
    settler: Settler,
    floods: Floods,
    reports: Arc<Reports>,
    metrics: Arc<Metrics>,
}

impl Dispatcher {
    /// Puts a dispatcher together. It writes to `registry` when an endpoint is to be disabled, and never
    /// waits for it.
    pub fn new(
        broker: &Broker,
        settings: Settings,
        registry: Registry,
        snapshots: Snapshots,
        egress: Egress,
        clock: Clock,
        meter: &Meter,
    ) -> Self {
        let (topology, metrics) = (Arc::clone(broker.topology()), Arc::new(Metrics::new(meter)));
        let reports = Arc::new(Reports::new(
            registry,
            snapshots.clone(),
            broker.publisher(),
            Arc::clone(&topology),
            clock.clone(),
            Arc::clone(&metrics),
        ));
        let settler = Settler::new(
            broker.publisher(),
            Arc::clone(&topology),
            clock.clone(),
            Arc::clone(&metrics),
            Arc::clone(&reports),
        );
        let lanes = Arc::new(Lanes::new(bounds(&settings)));
        let stopping = CancellationToken::new();
        let ownership = Ownership::new(
            &settings.id,
            broker,
            Arc::clone(&lanes),
            clock.clone(),
            Arc::clone(&metrics),
            &stopping,
        );
        Self {
            seen: Seen::new(settings.seen_window),
            room: Semaphore::new(settings.max_in_hand.into()),
            ownership,
            floods: Floods::new(broker, clock.clone(), Arc::clone(&metrics)),
            stopping,
            broker: broker.clone(),
            settings,
            topology,
            snapshots,
            egress,
            clock,
            lanes,
            settler,
            reports,
            metrics,
        }
    }

    /// Has what becomes of deliveries written to a journal.
    #[must_use]
    pub fn journalling(mut self, journal: JournalWriter) -> Self {
        self.settler.journal = journal;
        self
    }

    /// One subscription for each partition. With single active consumers, RabbitMQ 4.0 and later gives
    /// a partition to the consumer with the highest priority: a hash of who and what, so that every
    /// partition has one owner and a dispatcher that comes or goes moves no more than it must.
    fn subscriptions(&self) -> Vec<Subscription> {
        let subscribe = |key| {
            let queue = self.topology.delivery_queue(key);
            Subscription::queue(queue, self.settings.prefetch)
                .with_priority(priority(&self.settings.id, key))
                .telling(self.ownership.subscribed(key))
        };
        self.topology.partitions().map(subscribe).collect()
    }
}

/// Dispatches deliveries until `shutdown`; then attempts in flight finish, until `abort`, and everything
/// else is given back.
///
/// Returns how many messages were handed back unfinished by `abort`; a fault when what is in hand is stuck.
pub async fn run(
    dispatcher: Dispatcher,
    shutdown: CancellationToken,
    abort: CancellationToken,
) -> Result<usize, DispatcherFault> {
    let ready = async {
        dispatcher.snapshots.wait_until_known().await;
        dispatcher.settler.journal.begun().await;
    };
    if shutdown.run_until_cancelled(ready).await.is_none() {
        return Ok(0);
    }
    let dispatcher = Arc::new(dispatcher);
    let deliveries = dispatcher.broker.inbox(dispatcher.subscriptions());
    let queue = dispatcher.topology.crashed_queue();
    let crashes = dispatcher.broker.inbox(vec![Subscription::queue(queue, 1)]);
    info!(
        dispatcher.id = dispatcher.settings.id,
        "dispatching deliveries"
    );
    let done = CancellationToken::new();
    let working = async {
        let (unfinished, ()) = tokio::join!(
            dispatch(&dispatcher, deliveries, &shutdown, &abort),
            crashed::run(&dispatcher.settler, &dispatcher.clock, crashes, &shutdown),
        );
        done.cancel();
        unfinished
    };
    let reporting = abort.run_until_cancelled(dispatcher.reports.run(&done));
    let working = async { tokio::join!(working, reporting).0 };
    tokio::select! {
        unfinished = working => Ok(unfinished),
        fault = dispatcher.ownership.run() => Err(fault),
    }
}

async fn dispatch(
    dispatcher: &Arc<Dispatcher>,
    mut inbox: Inbox,
    shutdown: &CancellationToken,
    abort: &CancellationToken,
) -> usize {
    let whole_budget = kibibytes(dispatcher.settings.memory_budget as usize);
    let budget = Arc::new(Semaphore::new(whole_budget));
    let (mut in_hand, mut taken_in) = (JoinSet::new(), 0);
    while let Some(message) = inbox.next_until(shutdown).await {
        // One that is larger than the budget goes alone.
        let size = kibibytes(message.envelope.body.len()).min(whole_budget);
        let permits = u32::try_from(size).expect("the budget has 32 bits");
        let reserving = Arc::clone(&budget).acquire_many_owned(permits);
        let Some(reserved) = shutdown.run_until_cancelled(reserving).await else {
            break;
        };
        let reserved = reserved.expect("the budget is never closed");
        in_hand.spawn(Arc::clone(dispatcher).handle(message, reserved));
        while in_hand.try_join_next().is_some() {}
        // What is under way goes first. A crowd of messages would otherwise start all its requests before the
        // first answer is looked at, each on a new connection.
        taken_in += size;
        if taken_in >= BETWEEN_TURNS {
            taken_in = 0;
            task::yield_now().await;
        }
    }
    dispatcher.stopping.cancel();
    let leaving = dispatcher.ownership.leave();
    let (unfinished, ()) = tokio::join!(finish(in_hand, abort), leaving);
    inbox.close().await;
    dispatcher.ownership.say_goodbye().await;
    unfinished
}

impl Dispatcher {
    /// Handles every delivery of a message, which takes its part of the memory budget until then.
    async fn handle(self: Arc<Self>, message: Message, _reserved: OwnedSemaphorePermit) {
        let Message {
            envelope,
            routing_key,
            redelivered,
            receipt,
        } = message;
        let key = routing_key.parse().ok();
        let hand = self.ownership.take_in(key);
        let deliveries = match decode_bundle(&envelope) {
            Ok(deliveries) => deliveries,
            Err(fault) => {
                error!(%fault, routing_key, "a message on a delivery queue is no bundle");
                let _held_up = hand.held_up();
                let set_aside = self
                    .settler
                    .set_aside(&envelope, &routing_key, &fault, receipt);
                return Box::pin(set_aside).await;
            }
        };
        // One of a bundle may be what ended a process: singly, it takes no others with it.
        if redelivered && deliveries.len() > 1 {
            let _held_up = hand.held_up();
            return Box::pin(self.settler.split(deliveries, receipt)).await;
        }
        let _room = self.room(deliveries.len(), &hand).await;
        let parts = u32::try_from(deliveries.len()).unwrap_or(u32::MAX);
        let receipts = receipt.split(deliveries.len());
        let held = deliveries
            .into_iter()
            .zip(receipts)
            .map(|(delivery, receipt)| Held {
                // Its own key, also when it came by another way.
                key: key.unwrap_or_else(|| self.topology.partition_of(delivery.endpoint)),
                load: Load {
                    bytes: delivery.event.size(),
                    share: (Load::MESSAGE / parts).max(1),
                },
                delivery,
                receipt,
                attempt: None,
            });
        // Each is polled when there is news for it, not whenever there is news for any of them.
        let handling = held.map(|held| self.handle_one(held, &hand));
        let mut handling = handling.collect::<FuturesUnordered<_>>();
        while handling.next().await.is_some() {}
    }

    /// Waits until so many deliveries more may be in hand. `None` when the term is over, because then none
    /// of them is begun.
    async fn room(&self, deliveries: usize, hand: &InHand) -> Option<SemaphorePermit<'_>> {
        let wanted = deliveries.min(self.settings.max_in_hand.into());
        let wanted = u32::try_from(wanted).expect("the most in hand has 16 bits");
        let _held_up = hand.held_up();
        let acquiring = self.room.acquire_many(wanted);
        let acquired = hand.term.over.run_until_cancelled(acquiring).await?;
        Some(acquired.expect("the room is never closed"))
    }

    async fn handle_one(&self, mut held: Held, hand: &InHand) {
        let (settlement, claimed) = match self.seen.claim((&held.delivery).into()) {
            Claim::Fresh(claimed) => match self.settlement_of(&mut held, hand).await {
                Some(settlement) => (settlement, Some(claimed)),
                None => {
                    let _held_up = held.receipt.is_shared().then(|| hand.held_up());
                    return Box::pin(self.settler.give_back(held, &hand.term)).await;
                }
            },
            Claim::InHand => {
                let until = self.clock.now() + LOOK_AGAIN_WHEN_IN_FLIGHT;
                let why = DeferReason::InFlight;
                (Settlement::Defer { until, why }, None)
            }
            Claim::Settled => {
                let reason = DiscardReason::SeenBefore;
                (Settlement::Discard { reason }, None)
            }
        };
        let _held_up = hand.held_up();
        self.settler.settle(held, settlement, claimed).await;
    }

    /// What becomes of a delivery; `None` when it is not to be attempted here after all.
    async fn settlement_of(&self, held: &mut Held, hand: &InHand) -> Option<Settlement> {
        let delivery = &mut held.delivery;
        let now = self.clock.now();
        if let Some(wait) = delivery.wait
            && self.topology.delay_line().next_hop(wait, now).is_some()
        {
            let (until, why) = (wait.until, DeferReason::NotDue);
            return Some(Settlement::Defer { until, why });
        }
        let snapshot: Arc<Snapshot> = self.snapshots.current()?;
        let endpoint = match decide::endpoint_of(delivery, &snapshot, now) {
            Ok(endpoint) => endpoint,
            Err(settlement) => {
                self.snapshots.nudge();
                return Some(settlement);
            }
        };
        let lane = self
            .lanes
            .of(endpoint.id, now, |id| snapshot.endpoint(id).is_some());
        let view = lane.view(endpoint, now);
        if let Some(settlement) = decide::before_attempt(delivery, endpoint, view, now) {
            let (settlement, diversion) = lane.spread(settlement, delivery, endpoint, now);
            self.divert(endpoint, diversion);
            return Some(settlement);
        }
        match self.enter(&lane, endpoint, held, hand).await? {
            (Entry::Go(place), Some(_under_way)) => {
                let attempting = self.attempt(&held.delivery, endpoint, &lane, place);
                let (settlement, record) = attempting.await;
                held.attempt = Some(record);
                Some(settlement)
            }
            (Entry::Go(_), None) => None,
            (Entry::Defer(deferral), _) => {
                let Deferral {
                    until,
                    why,
                    diversion,
                } = deferral;
                self.divert(endpoint, diversion);
                // Whoever owns the endpoint when it comes back goes on at the rate from here.
                let delivery = &mut held.delivery;
                delivery.last_start = delivery.last_start.max(lane.last_start());
                Some(Settlement::Defer { until, why })
            }
        }
    }

    /// Waits for the lane, and starts only with a young proof that the delivery is still this process's: one
    /// that was frozen or cut off meanwhile may not be the owner any more.
    async fn enter<'h>(
        &self,
        lane: &Arc<Lane>,
        endpoint: &Endpoint,
        held: &Held,
        hand: &'h InHand,
    ) -> Option<(Entry, Option<UnderWay<'h>>)> {
        let over = &hand.term.over;
        loop {
            {
                let _held_up = hand.held_up();
                over.run_until_cancelled(self.ownership.proof()).await?;
            }
            hand.partition.refresh(lane, endpoint.id, self.clock.now());
            let (delivery, load) = (&held.delivery, held.load);
            let entering = pin!(lane.enter(delivery, load, endpoint, || self.clock.now()));
            let entry = over.run_until_cancelled(entering).await?;
            if held.receipt.is_void() {
                return None;
            }
            match entry {
                Entry::Go(_) if !self.ownership.is_proven() => {}
                Entry::Go(place) => return Some((Entry::Go(place), hand.start())),
                Entry::Defer(_) => return Some((entry, None)),
            }
        }
    }

    fn divert(&self, endpoint: &Endpoint, diversion: Option<Diversion>) {
        if let Some(diversion) = diversion {
            self.floods.tell(endpoint, diversion);
        }
    }

    async fn attempt(
        &self,
        delivery: &Delivery,
        endpoint: &Endpoint,
        lane: &Arc<Lane>,
        place: Place,
    ) -> (Settlement, AttemptRecord) {
        self.metrics.attempt_starts();
        let (instant, now) = (Instant::now(), self.clock.now());
        let started = place.started.unwrap_or(now);
        let outcome = attempt(&self.egress, endpoint, delivery, now, endpoint.timeout).await;
        let (took, now) = (instant.elapsed(), self.clock.now());
        let turn = lane.conclude(place, endpoint, &outcome, now);
        self.report(turn, delivery, endpoint, now);
        let failure = outcome.failure(&endpoint.success);
        self.metrics
            .attempt_ends(failure.as_ref().map(|failure| failure.class), took);
        let record = record_of(delivery, &outcome, failure, started, took);
        let jitter = Jitter::new(rand::random());
        let past = decide::Past::from(delivery);
        let settlement = decide::after_attempt(&outcome, past, endpoint.into(), jitter, now);
        if settlement == Settlement::Delivered {
            let seconds = now.duration_since(delivery.first_seen).as_secs_f64();
            self.metrics.delivered_after(seconds);
        }
        log_attempt(delivery, &outcome, &settlement, (started, took));
        (settlement, record)
    }

    /// Tells what an attempt changed for its whole endpoint.
    fn report(&self, turn: Turn, delivery: &Delivery, endpoint: &Endpoint, now: Timestamp) {
        let Turn { circuit, disable } = turn;
        let (id, tenant) = (endpoint.id, &endpoint.tenant);
        match circuit {
            Some(Change::Opened { until }) => {
                self.metrics.circuit("opened");
                warn!(endpoint.id = %id, %tenant, %until, "a receiver looks down; its circuit is open");
            }
            Some(Change::Closed { since }) => {
                self.metrics.circuit("closed");
                info!(endpoint.id = %id, %tenant, %since, "a receiver is back; its circuit is closed");
                // News that brings news of itself would never end.
                if !delivery.event.is_operational() {
                    self.reports
                        .tell(operational::recovered(endpoint, since, now));
                }
            }
            None => {}
        }
        if let Some(reason) = disable {
            self.reports.disable(endpoint, reason);
        }
    }
}

/// The one line per attempt. No body, no URL, no secret.
fn log_attempt(
    delivery: &Delivery,
    outcome: &Outcome,
    settlement: &Settlement,
    (started, took): (Timestamp, Duration),
) {
    let (settled, reason) = names(settlement);
    let (status, detail) = match outcome {
        Outcome::Answered { status, .. } => (Some(*status), None),
        Outcome::TimedOut => (None, Some("timed out")),
        Outcome::NameNotResolved { detail }
        | Outcome::NotConnected { detail }
        | Outcome::TlsFailed { detail }
        | Outcome::NoToken { detail }
        | Outcome::Blocked { detail }
        | Outcome::Unbuildable { detail } => (None, Some(detail.as_str())),
    };
    info!(
        delivery.id = %delivery.id,
        event.id = delivery.event.id,
        event.r#type = %delivery.event.event_type,
        tenant = %delivery.event.tenant,
        endpoint.id = %delivery.endpoint,
        attempt.number = delivery.next_attempt(),
        trace.id = delivery.trace.trace_id(),
        status,
        detail,
        started = %started,
        took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        settlement = settled,
        reason,
        "delivery attempted"
    );
}

/// What one lane may take of what all share: so little that it takes several to fill it.
fn bounds(settings: &Settings) -> Bounds {
    let messages = (settings.prefetch / 4).max(1);
    Bounds {
        bytes: settings.memory_budget as usize / 16,
        messages,
        in_flight: messages,
    }
}

fn kibibytes(bytes: usize) -> usize {
    bytes.div_ceil(1024).max(1)
}
