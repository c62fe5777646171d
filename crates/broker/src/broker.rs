//! The handle to RabbitMQ: connects, declares, and gives out publishers and inboxes.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use fanfare_wire::Envelope;
use lapin::{
    Channel, Connection,
    options::{
        BasicGetOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::{AMQPValue, FieldTable, LongString},
    uri::AMQPUri,
};
use tokio::{sync::mpsc, time};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::warn;

use crate::{
    BrokerFault, Holder, Inbox, Place, Publisher, Pulse, QueueCounts, Settings, Subscription,
    Topology,
    connection::{Link, Purpose, Session, supervised},
    convert::from_parts,
    holder,
    publisher::publisher,
    pulse::pulse,
    topology::{Argument, BindingSpec, ExchangeKind, ExchangeSpec, QueueKind, QueueSpec},
};

/// Messages about changes are small and rare.
const CONTROL_PREFETCH: u16 = 100;

/// The handle to RabbitMQ. Cheap to clone.
#[derive(Clone)]
pub struct Broker {
    topology: Arc<Topology>,
    /// For connections of their own.
    uri: Arc<AMQPUri>,
    name: Arc<str>,
    publish_link: Link,
    consume_link: Link,
    max_unconfirmed: usize,
    /// What connections and publishers run in.
    tasks: TaskTracker,
    /// Ends the publishers, which first wait for what is unconfirmed.
    closing_publishers: CancellationToken,
    /// Ends the connections.
    closing: CancellationToken,
}

impl Broker {
    /// Connects, declares the topology and keeps both connections up from then on.
    ///
    /// Fails when nothing answers `within` that time, and at once when waiting cannot help: a queue has
    /// other arguments, the password is wrong, the virtual host does not exist. Once it has succeeded,
    /// a lost broker is waited for. `name` is what RabbitMQ's management pages show.
    pub async fn connect(
        settings: &Settings,
        name: &str,
        within: Duration,
    ) -> Result<Self, BrokerFault> {
        let (broker, mut faults) = Self::begin(settings, name)?;
        let hopeless = async {
            while let Some(fault) = faults.recv().await {
                if !fault.is_transient() {
                    return fault;
                }
            }
            BrokerFault::Closed
        };
        let fault = tokio::select! {
            () = broker.wait_until_connected() => return Ok(broker),
            fault = hopeless => fault,
            () = time::sleep(within) => BrokerFault::NotConnected(within),
        };
        broker.close().await;
        Err(fault)
    }

    /// Starts connecting and returns at once: publishes and inboxes wait until RabbitMQ is there.
    pub fn start(settings: &Settings, name: &str) -> Result<Self, BrokerFault> {
        Ok(Self::begin(settings, name)?.0)
    }

    fn begin(
        settings: &Settings,
        name: &str,
    ) -> Result<(Self, mpsc::Receiver<BrokerFault>), BrokerFault> {
        let uri: AMQPUri = settings.url.expose().parse().map_err(BrokerFault::Url)?;
        let topology = Arc::new(Topology::new(settings));
        let (tasks, closing) = (TaskTracker::new(), CancellationToken::new());
        let (faults, failed) = mpsc::channel(1);
        let link = |what: &str, topology| {
            let purpose = Purpose {
                name: format!("{name} ({what})"),
                uri: uri.clone(),
                topology,
            };
            let (link, supervisor) = supervised(purpose, faults.clone(), closing.clone());
            tasks.spawn(supervisor);
            link
        };
        let broker = Self {
            publish_link: link("publishes", Some(Arc::clone(&topology))),
            consume_link: link("consumes", None),
            topology,
            name: name.into(),
            uri: Arc::new(uri),
            max_unconfirmed: settings.max_unconfirmed.max(1).into(),
            closing_publishers: CancellationToken::new(),
            tasks,
            closing,
        };
        Ok((broker, failed))
    }

    /// Connects once, without declaring anything, and says at once when it cannot.
    pub(crate) async fn probe(settings: &Settings) -> Result<Connection, BrokerFault> {
        let uri: AMQPUri = settings.url.expose().parse().map_err(BrokerFault::Url)?;
        Connection::connect_uri(uri, lapin::ConnectionProperties::default())
            .await
            .map_err(BrokerFault::operation("connecting to RabbitMQ"))
    }

    /// Waits until both connections are up and the topology is declared.
    pub async fn wait_until_connected(&self) {
        // `None` means closed; then there is nothing to wait for.
        self.publish_link.session_after(0).await;
        self.consume_link.session_after(0).await;
    }

    /// Whether both connections are up and publishing is not blocked.
    pub fn is_ready(&self) -> bool {
        let publishing = self.publish_link.current();
        publishing.is_some_and(|session| !*session.blocked.borrow())
            && self.consume_link.current().is_some()
    }

    /// What exists in the broker.
    pub fn topology(&self) -> &Arc<Topology> {
        &self.topology
    }

    /// A publisher with a channel of its own.
    pub fn publisher(&self) -> Publisher {
        let closing = self.closing_publishers.clone();
        let link = self.publish_link.clone();
        let (publisher, pump) = publisher(link, self.max_unconfirmed, closing);
        self.tasks.spawn(pump);
        publisher
    }

    /// Proof, from now on, that messages which were received are still this process's to handle.
    pub fn pulse(&self) -> Pulse {
        let closing = self.closing_publishers.clone();
        let (pulse, keeping) = pulse(self.consume_link.clone(), closing);
        self.tasks.spawn(keeping);
        pulse
    }

    /// Whether RabbitMQ hands a queue with a single active consumer over to a consumer of higher priority:
    /// from 4.0 (RabbitMQ, `docs/consumers`, section "Single Active Consumer").
    ///
    /// The AMQP library does not show the version. A kind of exchange that came with 4.0 tells it; a kind that
    /// is not known ends the connection that asked, so this has one of its own.
    pub async fn follows_priority(&self) -> Result<bool, BrokerFault> {
        let asking = || BrokerFault::operation("asking RabbitMQ what it can do");
        let properties = lapin::ConnectionProperties::default();
        let connection = Connection::connect_uri((*self.uri).clone(), properties);
        let connection = connection.await.map_err(asking())?;
        let channel = open_channel(&connection).await?;
        let name = self.topology.question(rand::random());
        let kind = lapin::ExchangeKind::Custom("x-local-random".to_owned());
        let options = ExchangeDeclareOptions {
            auto_delete: true,
            ..ExchangeDeclareOptions::default()
        };
        let declared = channel
            .exchange_declare(name.as_str().into(), kind, options, FieldTable::default())
            .await;
        if let Err(error) = declared {
            let fault = asking()(error);
            return if fault.is_unknown() {
                Ok(false)
            } else {
                Err(fault)
            };
        }
        let options = ExchangeDeleteOptions::default();
        let deleted = channel.exchange_delete(name.as_str().into(), options);
        deleted.await.map_err(asking())?;
        let closed = connection.close(200, "asked".into());
        closed.await.map_err(asking())?;
        Ok(true)
    }

    /// Messages of the queues subscribed to.
    pub fn inbox(&self, subscriptions: Vec<Subscription>) -> Inbox {
        Inbox::open(&self.consume_link, subscriptions)
    }

    /// What other processes announce from now on.
    pub fn control_inbox(&self) -> Inbox {
        let exchange = self.topology.control_exchange();
        self.inbox(vec![Subscription::exclusive(
            exchange,
            "",
            CONTROL_PREFETCH,
        )])
    }

    /// The events from now on that say of an endpoint that its receiver answers again.
    pub fn recoveries(&self) -> Inbox {
        let (exchange, key) = (self.topology.events_exchange(), "*.endpoint.recovered");
        self.inbox(vec![Subscription::exclusive(
            exchange,
            key,
            CONTROL_PREFETCH,
        )])
    }

    /// Looks at the first messages of a queue; they stay in it.
    ///
    /// Messages that were looked at come before all others, the longest untouched first: a later look
    /// with the same limit sees the same messages in the same order.
    pub async fn peek(&self, queue: &str, limit: usize) -> Result<Vec<Envelope>, BrokerFault> {
        let channel = self.consuming_channel().await?;
        let looking = || BrokerFault::operation(format!("looking into queue `{queue}`"));
        let mut seen = Vec::new();
        while seen.len() < limit {
            let got = channel.basic_get(queue.into(), BasicGetOptions::default());
            let Some(message) = got.await.map_err(looking())? else {
                break;
            };
            let delivery = message.delivery;
            seen.push(from_parts(&delivery.properties, delivery.data));
        }
        // Closing the channel gives everything back.
        channel
            .close(200, "looked".into())
            .await
            .map_err(looking())?;
        Ok(seen)
    }

    /// How many messages of a queue are ready to be given out.
    pub async fn depth(&self, queue: &str) -> Result<u32, BrokerFault> {
        Ok(self.counts(queue).await?.ready)
    }

    /// How many messages of a queue are ready to be given out, and to how many consumers.
    pub async fn counts(&self, queue: &str) -> Result<QueueCounts, BrokerFault> {
        let channel = self.consuming_channel().await?;
        let counts = holder::counts(&channel, queue).await?;
        channel
            .close(200, "counted".into())
            .await
            .map_err(BrokerFault::operation("closing a channel"))?;
        Ok(counts)
    }

    /// The counts of those of the queues that exist.
    pub async fn counts_of(
        &self,
        queues: &[String],
    ) -> Result<HashMap<String, QueueCounts>, BrokerFault> {
        let mut channel = self.consuming_channel().await?;
        let mut found = HashMap::new();
        for queue in queues {
            match holder::counts(&channel, queue).await {
                Ok(counts) => _ = found.insert(queue.clone(), counts),
                // RabbitMQ closes the channel that asked for it.
                Err(fault) if fault.is_soft(&AMQPSoftError::NOTFOUND) => {
                    channel = self.consuming_channel().await?;
                }
                Err(fault) => return Err(fault),
            }
        }
        channel
            .close(200, "counted".into())
            .await
            .map_err(BrokerFault::operation("closing a channel"))?;
        Ok(found)
    }

    /// A holder that takes messages in hand to look at them. Others may do the same, and see the rest.
    pub async fn look_into(&self, place: Place) -> Result<Holder, BrokerFault> {
        let name = format!("{} (looks)", self.name);
        let holder = Holder::open(&self.uri, &name, &self.topology, place, false).await?;
        Ok(holder.expect("without a lock there is always a holder"))
    }

    /// A holder to pass over a queue with; `None` while another process passes over it.
    pub async fn pass_over(&self, place: Place) -> Result<Option<Holder>, BrokerFault> {
        let name = format!("{} (passes over {place})", self.name);
        Holder::open(&self.uri, &name, &self.topology, place, true).await
    }

    /// Waits for what publishers have unconfirmed, then closes the connections.
    ///
    /// Close the inboxes first: what they settled goes over these connections.
    pub async fn close(&self) {
        self.closing_publishers.cancel();
        self.tasks.close();
        // A publisher ends by itself when the broker has confirmed; without a broker it never would.
        if self.publish_link.current().is_some() {
            let drained = async {
                while self.tasks.len() > 2 {
                    time::sleep(Duration::from_millis(5)).await;
                }
            };
            // An elapsed bound is no fault of the caller: what is unconfirmed was not acknowledged either.
            drop(time::timeout(Duration::from_secs(10), drained).await);
        }
        self.closing.cancel();
        self.tasks.wait().await;
    }

    /// Runs something that publishes, until it ends or publishers are to end.
    pub(crate) fn spawn_until_closing(&self, work: impl Future<Output = ()> + Send + 'static) {
        let closing = self.closing_publishers.clone();
        self.tasks
            .spawn(async move { closing.run_until_cancelled(work).await });
    }

    pub(crate) async fn consuming_connection(&self) -> Result<Arc<Connection>, BrokerFault> {
        let session: Option<Session> = self.consume_link.session_after(0).await;
        Ok(session.ok_or(BrokerFault::Closed)?.connection)
    }

    async fn consuming_channel(&self) -> Result<Channel, BrokerFault> {
        open_channel(&*self.consuming_connection().await?).await
    }
}

/// Makes the broker hold everything the topology lists. Changes nothing that exists as listed.
///
/// A queue that exists and is not available is passed over, so that it does not stop the others.
pub(crate) async fn declare(
    connection: &Connection,
    topology: &Topology,
) -> Result<(), BrokerFault> {
    let mut channel = open_channel(connection).await?;
    for exchange in topology.exchanges() {
        declare_exchange(&channel, exchange).await?;
    }
    let mut unavailable = HashSet::new();
    for queue in topology.queues() {
        match declare_queue(&channel, queue).await {
            Err(fault) if fault.is_soft(&AMQPSoftError::NOTFOUND) => {
                let cause = std::error::Error::source(&fault).map(ToString::to_string);
                warn!(
                    queue = queue.name,
                    cause, "a queue exists and is not available"
                );
                unavailable.insert(&queue.name);
                channel = open_channel(connection).await?;
            }
            declared => declared?,
        }
    }
    let bindings = topology.bindings().iter();
    for binding in bindings.filter(|binding| !unavailable.contains(&binding.queue)) {
        declare_binding(&channel, binding).await?;
    }
    channel
        .close(200, "declared".into())
        .await
        .map_err(BrokerFault::operation("closing a channel"))
}

pub(crate) async fn open_channel(connection: &Connection) -> Result<Channel, BrokerFault> {
    let opened = connection.create_channel().await;
    opened.map_err(BrokerFault::operation("opening a channel"))
}

pub(crate) async fn declare_exchange(
    channel: &Channel,
    spec: &ExchangeSpec,
) -> Result<(), BrokerFault> {
    let kind = match spec.kind {
        ExchangeKind::Direct => lapin::ExchangeKind::Direct,
        ExchangeKind::Fanout => lapin::ExchangeKind::Fanout,
        ExchangeKind::Topic => lapin::ExchangeKind::Topic,
    };
    let options = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    let mut arguments = FieldTable::default();
    if let Some(alternate) = &spec.alternate {
        let name = LongString::from(alternate.as_str());
        arguments.insert("alternate-exchange".into(), AMQPValue::LongString(name));
    }
    channel
        .exchange_declare(spec.name.as_str().into(), kind, options, arguments)
        .await
        .map_err(|source| declaring(format!("exchange `{}`", spec.name), source))
}

pub(crate) async fn declare_queue(channel: &Channel, spec: &QueueSpec) -> Result<(), BrokerFault> {
    let text = |value: &str| AMQPValue::LongString(LongString::from(value));
    let mut arguments = FieldTable::default();
    let kind = match spec.kind {
        QueueKind::Quorum => "quorum",
        QueueKind::Stream => "stream",
    };
    arguments.insert("x-queue-type".into(), text(kind));
    for (name, value) in &spec.arguments {
        let value = match value {
            Argument::Text(value) => text(value),
            Argument::Integer(value) => AMQPValue::LongLongInt(*value),
            Argument::Boolean(value) => AMQPValue::Boolean(*value),
        };
        arguments.insert((*name).into(), value);
    }
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    channel
        .queue_declare(spec.name.as_str().into(), options, arguments)
        .await
        .map(|_| ())
        .map_err(|source| declaring(format!("queue `{}`", spec.name), source))
}

async fn declare_binding(channel: &Channel, spec: &BindingSpec) -> Result<(), BrokerFault> {
    let (queue, exchange) = (spec.queue.as_str().into(), spec.exchange.as_str().into());
    let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
    channel
        .queue_bind(
            queue,
            exchange,
            spec.key.as_str().into(),
            options,
            arguments,
        )
        .await
        .map_err(|source| declaring(format!("the binding of queue `{}`", spec.queue), source))
}

fn declaring(what: String, source: lapin::Error) -> BrokerFault {
    if is_soft_error(&source, &AMQPSoftError::PRECONDITIONFAILED) {
        BrokerFault::Differs { what, source }
    } else {
        let what = format!("declaring {what}");
        BrokerFault::Operation { what, source }
    }
}

/// Whether the broker closed the channel for this reason.
pub(crate) fn is_soft_error(error: &lapin::Error, expected: &AMQPSoftError) -> bool {
    let lapin::ErrorKind::ProtocolError(error) = error.kind() else {
        return false;
    };
    matches!(error.kind(), AMQPErrorKind::Soft(kind) if kind == expected)
}
