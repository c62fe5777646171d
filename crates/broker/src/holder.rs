//! Takes the messages of a queue in hand, as many as the caller asks for, and gives back what is not acknowledged.
//!
//! A consumer of a quorum queue is sent at most 2,000 unacknowledged messages, whatever its prefetch
//! (RabbitMQ, `docs/quorum-queues`). Whoever wants to see all of a queue without taking anything out of
//! it needs as many consumers as it takes: each has a channel of its own here, and the next one is
//! opened while the last still has room.
//!
//! A holder has a connection of its own. With an exclusive queue declared on it, nobody else passes
//! over the same queue at the same time: the lock and everything in hand go together when it is lost.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use fanfare_wire::Envelope;
use futures_util::{Stream, StreamExt as _, future::join_all, stream::SelectAll};
use lapin::{
    Channel, Connection, ConnectionProperties, Consumer,
    message::Delivery,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions,
        QueueDeclareOptions,
    },
    types::{FieldTable, ShortString},
    uri::AMQPUri,
};
use tokio::time;
use tracing::warn;

use crate::{BrokerFault, Place, Topology, broker::open_channel, convert::from_parts, lock};

/// How many unacknowledged messages each channel takes. RabbitMQ sends no more than 2,000; with bodies
/// of 256 KiB half of that is enough memory for what is on its way.
const PER_CHANNEL: u16 = 1000;

/// A message in hand. Dropping it does nothing: it is given back when its holder closes.
#[derive(Debug)]
pub struct Held {
    /// What it holds.
    pub envelope: Envelope,
    /// The routing key it was published with.
    pub routing_key: String,
    /// By what it is acknowledged.
    pub tag: HeldTag,
}

/// Names a message in hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldTag {
    channel: usize,
    tag: u64,
}

/// How many messages and consumers a queue has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueCounts {
    /// Messages that are ready to be given out.
    pub ready: u32,
    /// Who consumes it.
    pub consumers: u32,
}

impl HeldTag {
    /// The tag of no message, for tests of decisions.
    #[doc(hidden)]
    pub fn for_tests(tag: u64) -> Self {
        Self { channel: 0, tag }
    }
}

/// A consumer, and the number of its channel.
struct Numbered {
    channel: usize,
    consumer: Consumer,
}

impl Stream for Numbered {
    type Item = (usize, lapin::Result<Delivery>);

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let channel = self.channel;
        let polled = self.consumer.poll_next_unpin(context);
        polled.map(|received| received.map(|delivery| (channel, delivery)))
    }
}

/// Messages of one queue in hand.
pub struct Holder {
    connection: Connection,
    queue: String,
    channels: Vec<Channel>,
    /// The tag of the consumer on each channel.
    consumers: Vec<ShortString>,
    received: SelectAll<Numbered>,
    /// How many are in hand.
    held: usize,
}

impl Holder {
    pub(crate) async fn open(
        uri: &AMQPUri,
        name: &str,
        topology: &Topology,
        place: Place,
        exclusively: bool,
    ) -> Result<Option<Self>, BrokerFault> {
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let connection = Connection::connect_uri(uri.clone(), properties)
            .await
            .map_err(BrokerFault::operation("connecting"))?;
        if exclusively
            && lock::declare(&connection, &topology.lock_named(place.name()))
                .await?
                .is_none()
        {
            close(&connection).await;
            return Ok(None);
        }
        Ok(Some(Self {
            connection,
            queue: topology.queue_of(place),
            channels: Vec::new(),
            consumers: Vec::new(),
            received: SelectAll::new(),
            held: 0,
        }))
    }

    /// How many messages are ready to be taken in hand.
    pub async fn ready(&self) -> Result<u32, BrokerFault> {
        let channel = open_channel(&self.connection).await?;
        let ready = counts(&channel, &self.queue).await?.ready;
        channel
            .close(200, "counted".into())
            .await
            .map_err(self.fault())?;
        Ok(ready)
    }

    /// The next message, or `None` when there was none for this long.
    pub async fn next(&mut self, within: Duration) -> Result<Option<Held>, BrokerFault> {
        let room = self.channels.len() * usize::from(PER_CHANNEL);
        if self.held + usize::from(PER_CHANNEL) / 2 >= room {
            self.take_more().await?;
        }
        let Ok(received) = time::timeout(within, self.received.next()).await else {
            return Ok(None);
        };
        let (channel, delivery) = received.ok_or(BrokerFault::Closed)?;
        let delivery = delivery.map_err(self.fault())?;
        self.held += 1;
        Ok(Some(Held {
            envelope: from_parts(&delivery.properties, delivery.data),
            routing_key: delivery.routing_key.as_str().to_owned(),
            tag: HeldTag {
                channel,
                tag: delivery.delivery_tag,
            },
        }))
    }

    /// Takes messages out of the queue for good: what had to follow from them is confirmed.
    ///
    /// `Ok` means that it is written; when the connection is lost before RabbitMQ read it, they come again.
    pub async fn acknowledge(&mut self, tags: &[HeldTag]) -> Result<(), BrokerFault> {
        // Polled together, so that they leave in one write.
        let acks = tags.iter().map(|HeldTag { channel, tag }| {
            self.channels[*channel].basic_ack(*tag, BasicAckOptions::default())
        });
        for ack in join_all(acks).await {
            ack.map_err(self.fault())?;
        }
        self.held = self.held.saturating_sub(tags.len());
        Ok(())
    }

    /// Waits until RabbitMQ has read every acknowledgement, and gives back what is still in hand.
    pub async fn close(self) -> Result<(), BrokerFault> {
        let fault = self.fault();
        // A channel keeps settlements to itself while many are under way to the queue, and forgets them when it
        // closes (`docs/decisions/0007-acknowledge-before-cancelling.md`). A cancel is answered when the queue has
        // what was sent before it; the next answer, when the channel has passed on what it kept.
        for (channel, consumer) in self.channels.iter().zip(&self.consumers) {
            let cancelled = channel.basic_cancel(consumer.clone(), BasicCancelOptions::default());
            cancelled.await.map_err(self.fault())?;
            let answered = channel.basic_qos(PER_CHANNEL, BasicQosOptions::default());
            answered.await.map_err(self.fault())?;
        }
        let closes = self
            .channels
            .iter()
            .map(|channel| channel.close(200, "done".into()));
        let closed: lapin::Result<Vec<()>> = join_all(closes).await.into_iter().collect();
        close(&self.connection).await;
        closed.map(drop).map_err(fault)
    }

    async fn take_more(&mut self) -> Result<(), BrokerFault> {
        let channel = open_channel(&self.connection).await?;
        channel
            .basic_qos(PER_CHANNEL, BasicQosOptions::default())
            .await
            .map_err(self.fault())?;
        let consumer = channel
            .basic_consume(
                self.queue.as_str().into(),
                "".into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await
            .map_err(self.fault())?;
        let number = self.channels.len();
        self.channels.push(channel);
        self.consumers.push(consumer.tag());
        self.received.push(Numbered {
            channel: number,
            consumer,
        });
        Ok(())
    }

    fn fault(&self) -> impl FnOnce(lapin::Error) -> BrokerFault + use<> {
        BrokerFault::operation(format!("passing over queue `{}`", self.queue))
    }
}

pub(crate) async fn counts(channel: &Channel, queue: &str) -> Result<QueueCounts, BrokerFault> {
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let what = format!("reading the depth of queue `{queue}`");
    let queue = channel
        .queue_declare(queue.into(), options, FieldTable::default())
        .await
        .map_err(BrokerFault::operation(what))?;
    Ok(QueueCounts {
        ready: queue.message_count(),
        consumers: queue.consumer_count(),
    })
}

async fn close(connection: &Connection) {
    // Bounded, because a broker that hangs must not keep this process alive.
    let closed = connection.close(200, "done".into());
    if !matches!(
        time::timeout(Duration::from_secs(5), closed).await,
        Ok(Ok(()))
    ) {
        warn!("a connection to RabbitMQ was not closed in order");
    }
}
