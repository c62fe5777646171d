//! Every exchange, queue and binding: the architecture of Fanfare in one file.
//!
//! Data only. `broker.rs` declares it, `check.rs` compares it with a live broker. Names are given
//! without the prefix that an installation may choose.

use fanfare_model::{
    EndpointId, EventType, Partition, PartitionCount, PartitionKey, TenantId, Timestamp, Wait,
};

use crate::{DelayLine, Place, Settings, Tier};

/// Redeliveries after which RabbitMQ takes a message from a queue that is worked on.
///
/// Only lost connections and handler panics count, so a message that reaches it ends processes.
const POISON_AFTER: i64 = 20;

/// As good as no limit, for queues that people look into. From 4.0 the default of 20 would delete a
/// message that was looked at 21 times, and -1 deletes it at once on 3.10.
const NEVER_POISON: i64 = 2_147_483_647;

/// The kind of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeKind {
    /// By exact routing key.
    Direct,
    /// To every bound queue.
    Fanout,
    /// By a pattern of dotted words.
    Topic,
}

impl ExchangeKind {
    /// AMQP's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
        }
    }
}

/// The kind of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueKind {
    /// Replicated; every queue of ours that holds work.
    Quorum,
    /// A log that many can read.
    Stream,
}

/// The value of an argument of an exchange or queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Argument {
    /// A text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A truth value.
    Boolean(bool),
}

/// An exchange to declare. All are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExchangeSpec {
    /// The full name.
    pub name: String,
    /// How it routes.
    pub kind: ExchangeKind,
    /// Where messages go that it cannot route.
    pub alternate: Option<String>,
    /// What it is for.
    pub purpose: &'static str,
}

/// A queue to declare. All are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSpec {
    /// The full name.
    pub name: String,
    /// How it stores.
    pub kind: QueueKind,
    /// Its arguments, but for `x-queue-type`.
    pub arguments: Vec<(&'static str, Argument)>,
    /// What it is for.
    pub purpose: &'static str,
}

/// A binding to declare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindingSpec {
    /// From this exchange.
    pub exchange: String,
    /// To this queue.
    pub queue: String,
    /// For this routing key.
    pub key: String,
}

/// Where a message is published to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// The exchange.
    pub exchange: String,
    /// The routing key.
    pub routing_key: String,
    /// Whether it is a fault when no queue takes the message.
    pub must_route: bool,
    /// Whether messages wait there for a second or more, so that a moment before it costs nothing.
    pub is_wait: bool,
}

/// Everything that Fanfare has in the broker.
#[derive(Debug, Clone)]
pub struct Topology {
    prefix: String,
    generation: u16,
    partitions: PartitionCount,
    delay_line: DelayLine,
    exchanges: Vec<ExchangeSpec>,
    queues: Vec<QueueSpec>,
    bindings: Vec<BindingSpec>,
}

impl Topology {
    /// Lists everything for these settings.
    pub fn new(settings: &Settings) -> Self {
        let mut topology = Self {
            prefix: settings.prefix.to_string(),
            generation: settings.generation,
            partitions: settings.partitions,
            delay_line: DelayLine::default(),
            exchanges: Vec::new(),
            queues: Vec::new(),
            bindings: Vec::new(),
        };
        topology.add_events(settings.events_max_bytes);
        topology.add_deliveries();
        topology.add_delay_line();
        topology.add_places_of_rest();
        topology.add_journal();
        topology
    }

    /// Every exchange, alternates before the exchanges that name them.
    pub fn exchanges(&self) -> &[ExchangeSpec] {
        &self.exchanges
    }

    /// Every queue.
    pub fn queues(&self) -> &[QueueSpec] {
        &self.queues
    }

    /// Every binding.
    pub fn bindings(&self) -> &[BindingSpec] {
        &self.bindings
    }

    /// The delay line, by which waits are split into hops.
    pub fn delay_line(&self) -> &DelayLine {
        &self.delay_line
    }

    /// The partitions of the current generation.
    pub fn partitions(&self) -> impl Iterator<Item = PartitionKey> + '_ {
        self.partitions.all().map(|partition| self.key(partition))
    }

    /// The partition of an endpoint, in the current generation.
    pub fn partition_of(&self, endpoint: EndpointId) -> PartitionKey {
        self.key(self.partitions.partition_of(endpoint))
    }

    /// Where a producer publishes an event.
    pub fn event_address(&self, tenant: &TenantId, event_type: &EventType) -> Address {
        self.address("events", format!("{tenant}.{event_type}"), true)
    }

    /// Where a delivery for a partition is published.
    pub fn delivery_address(&self, key: PartitionKey) -> Address {
        self.address("deliveries", key.to_string(), true)
    }

    /// Where a delivery waits; it comes back to the partition that `key` names.
    pub fn delay_address(&self, tier: Tier, key: PartitionKey) -> Address {
        Address {
            is_wait: true,
            ..self.address(&format!("delay.{tier}"), key.to_string(), true)
        }
    }

    /// Where a delivery goes next: into the delay line while it waits, else to its partition.
    pub fn next_address(&self, wait: Option<Wait>, key: PartitionKey, now: Timestamp) -> Address {
        let hop = wait.and_then(|wait| self.delay_line.next_hop(wait, now));
        match hop {
            Some(tier) => self.delay_address(tier, key),
            None => self.delivery_address(key),
        }
    }

    /// Where a dead letter is published.
    pub fn dead_address(&self) -> Address {
        self.address("dead", String::new(), true)
    }

    /// Where an event that cannot be accepted is published.
    pub fn rejected_address(&self) -> Address {
        self.address("rejected", String::new(), true)
    }

    /// Where what happened is written.
    pub fn journal_address(&self) -> Address {
        // Through the default exchange, because a stream of that name is all that there is to reach.
        Address {
            exchange: String::new(),
            routing_key: self.journal_queue(),
            must_route: true,
            is_wait: false,
        }
    }

    /// The stream of what was routed and attempted.
    pub fn journal_queue(&self) -> String {
        self.name("journal")
    }

    /// Where an event is published again, with the routing key that it had.
    pub fn event_address_again(&self, routing_key: String) -> Address {
        self.address("events", routing_key, true)
    }

    /// Where a message is put to rest, with the routing key that it had.
    pub fn address_of(&self, place: Place, routing_key: String) -> Address {
        self.address(place.exchange(), routing_key, true)
    }

    /// The queue in which messages rest.
    pub fn queue_of(&self, place: Place) -> String {
        self.name(place.name())
    }

    /// The name of the exclusive queue that keeps two processes apart that would do the same work.
    pub(crate) fn lock_named(&self, work: &str) -> String {
        self.name(&format!("{work}.pass"))
    }

    /// Where processes tell each other what changed. Nobody need be listening.
    pub fn control_address(&self) -> Address {
        self.address("control", String::new(), false)
    }

    /// The queue that routers compete for.
    pub fn events_queue(&self) -> String {
        self.name("events")
    }

    /// The queue of a partition.
    pub fn delivery_queue(&self, key: PartitionKey) -> String {
        self.name(&format!("deliveries.g{}.{}", key.generation, key.partition))
    }

    /// The queue of failed notifications.
    pub fn dead_letters_queue(&self) -> String {
        self.name("dead-letters")
    }

    /// The queue of deliveries whose handling ended processes.
    pub fn crashed_queue(&self) -> String {
        self.name("crashed")
    }

    /// The queue of events that could not be accepted.
    pub fn rejected_queue(&self) -> String {
        self.name("rejected")
    }

    /// The queue of messages that found a hole in the topology.
    pub fn unroutable_queue(&self) -> String {
        self.name("unroutable")
    }

    /// The queues of the delay line.
    pub fn delay_queues(&self) -> Vec<String> {
        let tiers = self.delay_line.tiers().iter();
        tiers
            .map(|tier| self.name(&format!("delay.{tier}")))
            .collect()
    }

    /// The exchange that producers publish to.
    pub(crate) fn events_exchange(&self) -> String {
        self.name("events")
    }

    /// The exchange over which processes tell each other what changed.
    pub(crate) fn control_exchange(&self) -> String {
        self.name("control")
    }

    /// An exchange that is declared and deleted at once, to see whether RabbitMQ can.
    pub(crate) fn question(&self, number: u64) -> String {
        self.name(&format!("question.{number:016x}"))
    }

    fn add_events(&mut self, max_bytes: u64) {
        self.exchange(
            "unroutable",
            ExchangeKind::Fanout,
            None,
            "holes in the topology",
        );
        self.exchange(
            "events",
            ExchangeKind::Topic,
            Some("unroutable"),
            "producers publish here, routing key `<tenant>.<type>`",
        );
        let max_bytes = i64::try_from(max_bytes).unwrap_or(i64::MAX);
        let mut arguments = self.worked_on("rejected");
        // The admission point: a full queue refuses the publish, which tells the producer to slow down.
        arguments.push(("x-max-length-bytes", Argument::Integer(max_bytes)));
        self.queue("events", arguments, "routers compete for it");
        self.bind("events", "events", "#".to_owned());
    }

    fn add_deliveries(&mut self) {
        // No alternate exchange here, so that a publish with `mandatory` really comes back.
        self.exchange(
            "deliveries",
            ExchangeKind::Direct,
            None,
            "routers publish here",
        );
        self.exchange(
            "returning",
            ExchangeKind::Direct,
            Some("unroutable"),
            "what waited comes back through here; nothing that expires is ever unroutable",
        );
        let keys: Vec<PartitionKey> = self.partitions().collect();
        for key in keys {
            let name = format!("deliveries.g{}.{}", key.generation, key.partition);
            let mut arguments = self.worked_on("crashed");
            arguments.push(("x-single-active-consumer", Argument::Boolean(true)));
            self.queue(&name, arguments, "one partition; one owner at a time");
            self.bind("deliveries", &name, key.to_string());
            self.bind("returning", &name, key.to_string());
        }
    }

    fn add_delay_line(&mut self) {
        let tiers: Vec<Tier> = self.delay_line.tiers().to_vec();
        for tier in tiers {
            let name = format!("delay.{tier}");
            let ttl = i64::try_from(tier.wait().as_millis()).expect("tiers are hours at most");
            let mut arguments = self.dead_letters_to("returning");
            // One time to live for the whole queue: only the head of a queue expires, so messages
            // with other waits behind it would be held up (RabbitMQ, `docs/ttl`). No dead-letter
            // routing key: each returns by its own.
            arguments.push(("x-message-ttl", Argument::Integer(ttl)));
            self.exchange(
                &name,
                ExchangeKind::Fanout,
                None,
                "one tier of the delay line",
            );
            self.queue(
                &name,
                arguments,
                "waits for its tier's time; nobody consumes it",
            );
            self.bind(&name, &name, String::new());
        }
    }

    fn add_places_of_rest(&mut self) {
        for (exchange, queue, purpose) in [
            ("dead", "dead-letters", "failed notifications"),
            (
                "crashed",
                "crashed",
                "deliveries whose handling ended processes",
            ),
            (
                "rejected",
                "rejected",
                "events that could not be accepted, with the reason",
            ),
            (
                "unroutable",
                "unroutable",
                "holes in the topology: a depth above 0 needs a person",
            ),
        ] {
            if exchange != "unroutable" {
                self.exchange(exchange, ExchangeKind::Fanout, None, purpose);
            }
            let arguments = vec![
                ("x-delivery-limit", Argument::Integer(NEVER_POISON)),
                (
                    "x-queue-leader-locator",
                    Argument::Text("balanced".to_owned()),
                ),
            ];
            self.queue(queue, arguments, purpose);
            self.bind(exchange, queue, String::new());
        }
    }

    fn add_journal(&mut self) {
        self.exchange(
            "control",
            ExchangeKind::Fanout,
            None,
            "what changed, for every process",
        );
        let name = self.name("journal");
        self.queues.push(QueueSpec {
            name,
            kind: QueueKind::Stream,
            arguments: vec![
                ("x-max-age", Argument::Text("7D".to_owned())),
                ("x-max-length-bytes", Argument::Integer(10_000_000_000)),
                // Small segments, because retention removes whole ones only.
                (
                    "x-stream-max-segment-size-bytes",
                    Argument::Integer(50_000_000),
                ),
                (
                    "x-queue-leader-locator",
                    Argument::Text("balanced".to_owned()),
                ),
            ],
            purpose: "what was routed and attempted, for history and reconciliation",
        });
    }

    /// Arguments of a queue whose expired or poisonous messages must reach `exchange`.
    ///
    /// At-least-once dead-lettering needs all three; without `reject-publish` RabbitMQ falls back to
    /// at-most-once with no more than a line in its log (`docs/quorum-queues`).
    fn dead_letters_to(&self, exchange: &str) -> Vec<(&'static str, Argument)> {
        let text = |value: &str| Argument::Text(value.to_owned());
        vec![
            (
                "x-dead-letter-exchange",
                Argument::Text(self.name(exchange)),
            ),
            ("x-dead-letter-strategy", text("at-least-once")),
            ("x-overflow", text("reject-publish")),
            // Else all leaders gather on the node that we happened to declare on.
            ("x-queue-leader-locator", text("balanced")),
        ]
    }

    fn worked_on(&self, dead_letters_to: &str) -> Vec<(&'static str, Argument)> {
        let mut arguments = self.dead_letters_to(dead_letters_to);
        arguments.push(("x-delivery-limit", Argument::Integer(POISON_AFTER)));
        arguments
    }

    fn exchange(
        &mut self,
        name: &str,
        kind: ExchangeKind,
        alternate: Option<&str>,
        purpose: &'static str,
    ) {
        self.exchanges.push(ExchangeSpec {
            name: self.name(name),
            kind,
            alternate: alternate.map(|name| self.name(name)),
            purpose,
        });
    }

    fn queue(
        &mut self,
        name: &str,
        arguments: Vec<(&'static str, Argument)>,
        purpose: &'static str,
    ) {
        self.queues.push(QueueSpec {
            name: self.name(name),
            kind: QueueKind::Quorum,
            arguments,
            purpose,
        });
    }

    fn bind(&mut self, exchange: &str, queue: &str, key: String) {
        self.bindings.push(BindingSpec {
            exchange: self.name(exchange),
            queue: self.name(queue),
            key,
        });
    }

    fn address(&self, exchange: &str, routing_key: String, must_route: bool) -> Address {
        Address {
            exchange: self.name(exchange),
            routing_key,
            must_route,
            is_wait: false,
        }
    }

    fn key(&self, partition: Partition) -> PartitionKey {
        PartitionKey {
            generation: self.generation,
            partition,
        }
    }

    fn name(&self, bare: &str) -> String {
        format!("{}{bare}", self.prefix)
    }
}

#[cfg(test)]
mod tests;
