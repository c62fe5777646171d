//! Which partitions are this dispatcher's: announces it, hears the others, and lets go of what is theirs.
//!
//! RabbitMQ decides who owns a partition. From 4.0 it goes to the consumer with the highest priority as
//! soon as the present owner holds nothing of it; but the owner is not told. So dispatchers tell each
//! other that they are there, and an owner that is outranked comes to rest, says when it called slow
//! endpoints last, and hands back what it did not start.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use fanfare_broker::{Broker, Inbox, Publisher, Pulse, Subscribed, Topology};
use fanfare_model::{Clock, Endpoint, EndpointId, PartitionKey, Timestamp};
use fanfare_wire::{
    ControlMessage, DispatcherPresence, EndpointStanding, PartitionPresence, PartitionRole,
    StartsHandedOver,
};
use futures_util::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use tokio::time::{self, Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    DispatcherFault,
    lanes::Lanes,
    metrics::Metrics,
    partition::{InHand, Partition, Past},
    peers::{ANNOUNCE_EVERY, Peers},
};

/// Requests start only while the connection was proven alive this lately. Far below the 20 seconds after
/// which RabbitMQ gives a silent connection's messages to others, and above what a busy machine needs.
pub(crate) const PROVEN_WITHIN: Duration = Duration::from_secs(5);

/// How long after this dispatcher came another may still start requests: its proof, and some time to hear.
const OTHERS_FOR: Duration = Duration::from_secs(10);

/// Another owner may start requests for this long before it is heard here: what it announces, and what is still
/// under way to here, may be one announcement late each.
const TO_BE_HEARD: Duration = ANNOUNCE_EVERY.saturating_mul(2);

/// How long what is buffered here may take to be seen when a hand-over begins.
const GATHERING: Duration = Duration::from_millis(50);

/// After a hand-over that RabbitMQ did not follow, the next one is not tried before.
const REST: Duration = Duration::from_secs(10);

/// What is told to others is told within this time, or not at all.
const TELL_WITHIN: Duration = Duration::from_secs(2);

/// A message is settled within the time that deliveries are held, the longest attempt, and this margin.
const MARGIN: Duration = Duration::from_secs(30);

/// Slow endpoints whose last starts fit into one message.
const MOST_STARTS: usize = 2000;

/// What this dispatcher owns, and how it tells others.
pub(crate) struct Ownership {
    id: String,
    /// Tells this process from another one with the same id.
    incarnation: u64,
    partitions: Vec<Arc<Partition>>,
    peers: Mutex<Peers>,
    lanes: Arc<Lanes>,
    broker: Broker,
    topology: Arc<Topology>,
    publisher: Publisher,
    pulse: Pulse,
    /// Which connection the partitions were last received over.
    epoch: Mutex<u64>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// What the loop remembers between two looks.
struct Watch {
    last_look: Instant,
    /// Whether RabbitMQ gives a partition to whom it ranks highest: from 4.0.
    follows_priority: bool,
    is_active: bool,
    has_namesake: bool,
}

impl Ownership {
    pub(crate) fn new(
        id: &str,
        broker: &Broker,
        lanes: Arc<Lanes>,
        clock: Clock,
        metrics: Arc<Metrics>,
        shutdown: &CancellationToken,
    ) -> Self {
        let topology = Arc::clone(broker.topology());
        let others_until = clock.now() + OTHERS_FOR;
        let partitions = topology
            .partitions()
            .map(|key| Arc::new(Partition::new(key, others_until, shutdown)))
            .collect();
        Self {
            id: id.to_owned(),
            incarnation: rand::random(),
            partitions,
            peers: Mutex::new(Peers::new(id)),
            lanes,
            topology,
            publisher: broker.publisher(),
            pulse: broker.pulse(),
            broker: broker.clone(),
            epoch: Mutex::new(0),
            clock,
            metrics,
        }
    }

    /// Where to tell whether a partition is consumed.
    pub(crate) fn subscribed(&self, key: PartitionKey) -> Subscribed {
        let partition = self.partitions.iter().find(|known| known.key == key);
        partition.map_or_else(Subscribed::default, |known| known.subscribed.clone())
    }

    /// Takes a message of a partition in hand.
    pub(crate) fn take_in(&self, key: Option<PartitionKey>) -> InHand {
        self.keep_up();
        let known = self.partitions.iter().find(|known| Some(known.key) == key);
        // A message of another generation counts with the first partition: it is in hand all the same.
        let partition = known.or_else(|| self.partitions.first());
        partition
            .expect("there is at least one partition")
            .take_in()
    }

    /// Waits until requests may start: at once, unless the connection did not prove itself lately.
    pub(crate) async fn proof(&self) {
        self.pulse.wait_until_within(PROVEN_WITHIN).await;
        self.keep_up();
    }

    /// Over a new connection everything may have been another's meanwhile, and no pace of before is good any more.
    fn keep_up(&self) {
        let mut known = self.epoch.lock().expect("nobody panics while comparing");
        let epoch = self.pulse.epoch();
        if *known == epoch {
            return;
        }
        *known = epoch;
        // A dispatcher that has just come takes every partition for another's already.
        if epoch > 1 {
            let until = self.clock.now() + OTHERS_FOR;
            for partition in &self.partitions {
                partition.belongs_to_others(until);
            }
        }
    }

    /// Whether requests may start at this moment.
    pub(crate) fn is_proven(&self) -> bool {
        self.pulse.is_within(PROVEN_WITHIN)
    }

    /// Announces, listens and lets go until it is dropped; `Err` when messages in hand are stuck.
    pub(crate) async fn run(&self) -> DispatcherFault {
        let mut inbox = self.broker.control_inbox();
        let mut watch = Watch {
            last_look: Instant::now(),
            follows_priority: self.learn_how_partitions_move().await,
            is_active: false,
            has_namesake: false,
        };
        let mut ticks = time::interval(ANNOUNCE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (never, mut moves) = (CancellationToken::new(), FuturesUnordered::new());
        loop {
            let outranked = tokio::select! {
                _ = ticks.tick() => {
                    if let Err(fault) = self.look(&mut watch) {
                        return fault;
                    }
                    self.announce(&watch).await;
                    self.outranked(&watch)
                }
                Some(()) = moves.next() => Vec::new(),
                heard = self.hear(&mut inbox, &never, &mut watch) => {
                    if heard {
                        self.announce(&watch).await;
                    }
                    self.outranked(&watch)
                }
            };
            moves.extend(outranked.into_iter().map(|partition| async move {
                info!(partition = %partition.key, "another dispatcher comes first for a partition; handing it over");
                self.hand_over(&partition).await;
            }));
        }
    }

    /// Hands every partition over, for a dispatcher that stops: nothing starts any more.
    pub(crate) async fn leave(&self) {
        join_all(
            self.partitions
                .iter()
                .map(|partition| self.hand_over(partition)),
        )
        .await;
    }

    /// Says that this dispatcher is gone, once it has cancelled its subscriptions.
    pub(crate) async fn say_goodbye(&self) {
        let presence = DispatcherPresence {
            leaving: true,
            ..self.presence(true)
        };
        self.tell(ControlMessage::DispatcherPresent(presence)).await;
    }

    async fn hand_over(&self, partition: &Arc<Partition>) {
        let owned = partition.glance().owned;
        partition.come_to_rest().await;
        time::sleep(GATHERING).await;
        if owned {
            self.tell(ControlMessage::StartsHandedOver(self.starts_of(partition)))
                .await;
        }
        partition.release(self.clock.now() + TO_BE_HEARD, REST);
    }

    fn starts_of(&self, partition: &Partition) -> StartsHandedOver {
        let (now, key) = (self.clock.now(), partition.key);
        let is_here = |id: EndpointId| self.topology.partition_of(id) == key;
        let mut starts = self.lanes.unsettled_starts(is_here, now);
        // Whoever is not listed is taken for one that may have started just now.
        let others_until = if starts.len() > MOST_STARTS {
            starts.truncate(MOST_STARTS);
            Some(now)
        } else {
            partition.others_until().map(|until| until.min(now))
        };
        StartsHandedOver {
            from: self.id.clone(),
            incarnation: self.incarnation,
            partition: key,
            starts,
            others_until,
        }
    }

    /// Takes in what another process tells. Returns whether somebody wants to know who is here.
    async fn hear(&self, inbox: &mut Inbox, never: &CancellationToken, watch: &mut Watch) -> bool {
        let Some(message) = inbox.next_until(never).await else {
            // The broker handle is closed; nothing is heard any more.
            return std::future::pending().await;
        };
        let told = ControlMessage::decode(&message.envelope);
        message.receipt.settle();
        match told {
            Some(ControlMessage::DispatcherPresent(presence)) => self.meet(&presence, watch),
            Some(ControlMessage::StartsHandedOver(starts))
                if starts.incarnation != self.incarnation =>
            {
                self.learn(starts);
                false
            }
            Some(ControlMessage::DispatchersAsked) => true,
            Some(ControlMessage::EndpointAsked { endpoint }) => {
                self.tell_of(endpoint).await;
                false
            }
            Some(
                ControlMessage::StartsHandedOver(_)
                | ControlMessage::RegistryChanged { .. }
                | ControlMessage::EndpointFlooded { .. }
                | ControlMessage::EndpointStands(_),
            )
            | None => false,
        }
    }

    /// Says how an endpoint stands, if its partition is owned here.
    async fn tell_of(&self, endpoint: EndpointId) {
        let key = self.topology.partition_of(endpoint);
        let mut partitions = self.partitions.iter();
        if !partitions.any(|known| known.key == key && known.glance().owned) {
            return;
        }
        let mut standing = EndpointStanding {
            endpoint,
            dispatcher: self.id.clone(),
            receiver: None,
            in_flight: 0,
            at_most: None,
            queued_until: None,
        };
        if let Some(lane) = self.lanes.get(endpoint) {
            lane.told(self.clock.now(), &mut standing);
        }
        self.tell(ControlMessage::EndpointStands(standing)).await;
    }

    /// Returns whether the other one is new, and should hear of this one soon.
    fn meet(&self, presence: &DispatcherPresence, watch: &mut Watch) -> bool {
        if presence.incarnation == self.incarnation {
            return false;
        }
        if presence.id == self.id && !presence.leaving && !watch.has_namesake {
            watch.has_namesake = true;
            warn!(
                dispatcher.id = self.id,
                "another dispatcher has the same id: partitions will not spread; set `dispatcher.id`"
            );
        }
        let mut peers = self.peers();
        if presence.leaving {
            peers.forget(&presence.id);
            return false;
        }
        let consumes = presence.partitions.iter().map(|told| {
            let owns = told.role != PartitionRole::Standby;
            (told.partition, owns)
        });
        self.doubt(&presence.id, consumes.clone());
        peers.hear(&presence.id, consumes, Instant::now())
    }

    /// Whoever let go of a partition and owns it all the same was given it once more, and went on starting
    /// requests: what it told of them does not hold any more.
    fn doubt(&self, id: &str, consumes: impl Iterator<Item = (PartitionKey, bool)>) {
        for (key, _) in consumes.filter(|(_, owns)| *owns) {
            let partition = self.partitions.iter().find(|known| known.key == key);
            if let Some(partition) = partition
                && partition.told_by().as_deref() == Some(id)
            {
                partition.doubt(self.clock.now() + TO_BE_HEARD);
            }
        }
    }

    fn learn(&self, told: StartsHandedOver) {
        let partition = self
            .partitions
            .iter()
            .find(|known| known.key == told.partition);
        if let Some(partition) = partition {
            partition.learn(Past {
                starts: told.starts.into_iter().collect(),
                others_until: told.others_until,
                told_by: Some(told.from),
            });
        }
    }

    /// Partitions that this dispatcher had and is to hand over.
    fn outranked(&self, watch: &Watch) -> Vec<Arc<Partition>> {
        if !watch.follows_priority {
            return Vec::new();
        }
        let peers = self.peers();
        let outranked = self.partitions.iter().filter(|p| peers.outrank_me(p.key));
        outranked.filter(|p| p.may_hand_over()).cloned().collect()
    }

    /// Looks after the partitions: whose they are, and whether they are stuck.
    fn look(&self, watch: &mut Watch) -> Result<(), DispatcherFault> {
        let (now, instant) = (self.clock.now(), Instant::now());
        // A process that was frozen, or had no processor, is not stuck.
        let was_away = instant.duration_since(watch.last_look) > ANNOUNCE_EVERY * 3;
        let excused = was_away || !self.is_proven();
        watch.last_look = instant;
        self.keep_up();
        let mut peers = self.peers();
        if !excused {
            // Silence says nothing about them when it may be this one that heard nothing.
            peers.forget_the_silent(instant);
        }
        for partition in &self.partitions {
            let glance = partition.glance();
            if excused {
                partition.excuse();
            }
            if glance.in_hand == 0 && !glance.handing_over {
                self.settle_ownership(partition, &peers, watch.follows_priority, now);
            }
            if partition.is_stuck(longest_in_hand()) {
                let partition = partition.key;
                error!(%partition, "nothing of a partition is settled any more; ending, so that another owner takes it");
                return Err(DispatcherFault::Stuck { partition });
            }
        }
        drop(peers);
        let owned = self.partitions.iter().filter(|p| p.glance().owned).count();
        self.metrics.owns(owned);
        if owned > 0 && !watch.follows_priority && !watch.is_active {
            watch.is_active = true;
            info!(dispatcher.id = self.id, "this dispatcher is the active one");
        }
        Ok(())
    }

    /// Decides by who is there whose a partition is that nothing was received of.
    fn settle_ownership(
        &self,
        partition: &Partition,
        peers: &Peers,
        follows_priority: bool,
        now: Timestamp,
    ) {
        let told_by = partition.told_by();
        let told_by = told_by.as_deref();
        let others_may_own = if follows_priority {
            peers.others_outrank_me(partition.key, told_by)
        } else {
            peers.are_there(told_by)
        };
        let consumes = partition.subscribed.is_over(self.pulse.epoch());
        if !consumes || peers.own(partition.key, told_by) {
            partition.belongs_to_others(now + TO_BE_HEARD);
        } else if follows_priority && !peers.outrank_me(partition.key) {
            partition.claim();
        } else if others_may_own && !partition.glance().owned {
            partition.belongs_to_others(now + TO_BE_HEARD);
        }
    }

    async fn announce(&self, watch: &Watch) {
        if self.is_proven() {
            let presence = self.presence(watch.follows_priority);
            self.tell(ControlMessage::DispatcherPresent(presence)).await;
        }
    }

    /// What this dispatcher announces. Others let go of a partition for it only when RabbitMQ can give it to it.
    fn presence(&self, follows_priority: bool) -> DispatcherPresence {
        let epoch = self.pulse.epoch();
        let consumed = self.partitions.iter();
        let consumed = consumed.filter(|partition| partition.subscribed.is_over(epoch));
        let partitions = consumed.map(|partition| {
            let glance = partition.glance();
            let role = if glance.handing_over {
                PartitionRole::HandingOver
            } else if glance.owned {
                PartitionRole::Owner
            } else {
                PartitionRole::Standby
            };
            PartitionPresence {
                partition: partition.key,
                role,
                in_hand: glance.in_hand,
                in_flight: glance.in_flight,
            }
        });
        DispatcherPresence {
            id: self.id.clone(),
            incarnation: self.incarnation,
            leaving: false,
            follows_priority,
            partitions: partitions.collect(),
        }
    }

    /// Tells others, as well as can be: what is late is of no use.
    async fn tell(&self, message: ControlMessage) {
        let envelope = message.encode(self.clock.now());
        let address = self.topology.control_address();
        let published = self.publisher.publish(&address, envelope);
        match time::timeout(TELL_WITHIN, published).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => warn!(%fault, "other dispatchers were not told"),
            Err(_) => warn!("other dispatchers were not told in time"),
        }
    }

    /// Says once how partitions move on this broker.
    async fn learn_how_partitions_move(&self) -> bool {
        let follows = match self.broker.follows_priority().await {
            Ok(follows) => follows,
            Err(fault) => {
                warn!(%fault, "whether RabbitMQ hands partitions over is unknown; taking it for 4.0 or later");
                true
            }
        };
        if follows {
            info!(
                dispatcher.id = self.id,
                "partitions spread over all dispatchers"
            );
        } else {
            info!(
                dispatcher.id = self.id,
                "RabbitMQ is older than 4.0: one dispatcher is active, the others stand by"
            );
        }
        follows
    }

    fn peers(&self) -> MutexGuard<'_, Peers> {
        self.peers
            .lock()
            .expect("nobody panics while holding the peers")
    }
}

/// No message is in hand for longer, unless the broker holds it up.
fn longest_in_hand() -> Duration {
    let (_, longest_attempt) = Endpoint::TIMEOUTS;
    longest_attempt + MARGIN
}
