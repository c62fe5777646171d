//! The least that can stand between an event and a webhook: what `fanfare bench` measures Fanfare beside.
//!
//! publish → queue A → republish to queue B → deliver → acknowledge, with Fanfare's safety at the broker
//! (quorum queues, persistent messages, confirms, acknowledgement last) and nothing else: one task for
//! each stage, no reconnecting, no decoding, no routing.

use std::sync::Arc;

use futures_util::{
    FutureExt as _, StreamExt as _,
    stream::{FuturesOrdered, FuturesUnordered},
};
use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, Consumer,
    message::Delivery,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::task::JoinSet;

use crate::{BrokerFault, Settings};

const PREFETCH: u16 = 256;

/// The most messages that one acknowledgement covers.
const LONGEST_RUN: usize = 128;

/// A bare pipeline on two queues of its own. Meant for measuring alone: a lost connection ends it.
pub struct Skeleton {
    /// One each for publishing, routing and delivering, as Fanfare's parts have their own.
    connections: Vec<Connection>,
    publishes: Channel,
    queues: [ShortString; 2],
    stages: JoinSet<lapin::Result<()>>,
}

impl Skeleton {
    /// Declares the queues and starts the stages. `deliver` is given every body that was published;
    /// when it returns, the message is acknowledged.
    pub async fn open<F>(
        settings: &Settings,
        deliver: impl Fn(Vec<u8>) -> F + Send + Sync + 'static,
    ) -> Result<Self, BrokerFault>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let opening = Self::try_open(settings, deliver).await;
        opening.map_err(BrokerFault::operation("opening the skeleton"))
    }

    async fn try_open<F>(
        settings: &Settings,
        deliver: impl Fn(Vec<u8>) -> F + Send + Sync + 'static,
    ) -> lapin::Result<Self>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let name = format!("{}bench.{:016x}", settings.prefix, rand::random::<u64>());
        let queues = ["a", "b"].map(|end| ShortString::from(format!("{name}.{end}")));
        let (mut connections, mut channels) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let properties = ConnectionProperties::default();
            let connection = Connection::connect(settings.url.expose(), properties).await?;
            channels.push(connection.create_channel().await?);
            connections.push(connection);
        }
        let [publishes, routes, delivers] =
            <[Channel; 3]>::try_from(channels).expect("three were opened");
        for queue in &queues {
            declare(&publishes, queue).await?;
        }
        for channel in [&publishes, &routes] {
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
        }

        let mut stages = JoinSet::new();
        let events = consume(&routes, &queues[0]).await?;
        let (channel, to) = (routes.clone(), queues[1].clone());
        stages.spawn(relay(routes, events, move |message: Delivery| {
            let (channel, to) = (channel.clone(), to.clone());
            async move { publish(&channel, to, &message.data).await }
        }));
        let deliveries = consume(&delivers, &queues[1]).await?;
        let deliver = Arc::new(deliver);
        stages.spawn(relay(delivers, deliveries, move |message: Delivery| {
            let deliver = Arc::clone(&deliver);
            async move {
                deliver(message.data).await;
                Ok(())
            }
        }));
        Ok(Self {
            connections,
            publishes,
            queues,
            stages,
        })
    }

    /// Publishes a body; `Ok` means that the broker has it.
    pub async fn publish(&self, body: &[u8]) -> Result<(), BrokerFault> {
        let published = publish(&self.publishes, self.queues[0].clone(), body).await;
        published.map_err(BrokerFault::operation("publishing to the skeleton"))
    }

    /// Deletes the queues and closes the connections.
    pub async fn close(mut self) -> Result<(), BrokerFault> {
        let closing = async {
            for queue in self.queues {
                let options = QueueDeleteOptions::default();
                self.publishes.queue_delete(queue, options).await?;
            }
            // The broker cancels the consumers of a deleted queue, which ends the stages.
            while let Some(ended) = self.stages.join_next().await {
                ended.expect("a stage does not panic")?;
            }
            for connection in self.connections {
                connection.close(200, "measured".into()).await?;
            }
            Ok(())
        };
        closing
            .await
            .map_err(BrokerFault::operation("closing the skeleton"))
    }
}

async fn declare(channel: &Channel, queue: &ShortString) -> lapin::Result<()> {
    let mut arguments = FieldTable::default();
    let kind = AMQPValue::LongString("quorum".into());
    arguments.insert("x-queue-type".into(), kind);
    let options = QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    };
    let declaring = channel.queue_declare(queue.clone(), options, arguments);
    declaring.await.map(drop)
}

async fn consume(channel: &Channel, queue: &ShortString) -> lapin::Result<Consumer> {
    let options = BasicQosOptions::default();
    channel.basic_qos(PREFETCH, options).await?;
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    let tag = "".into();
    channel
        .basic_consume(queue.clone(), tag, options, arguments)
        .await
}

async fn publish(channel: &Channel, queue: ShortString, body: &[u8]) -> lapin::Result<()> {
    let options = BasicPublishOptions::default();
    let properties = BasicProperties::default().with_delivery_mode(2);
    let default_exchange = "".into();
    let confirm = channel
        .basic_publish(default_exchange, queue, options, body, properties)
        .await?;
    confirm.await.map(drop)
}

/// Hands every message to `work` and acknowledges in order what it has finished, many at once.
async fn relay<F: Future<Output = lapin::Result<()>>>(
    channel: Channel,
    mut messages: Consumer,
    work: impl Fn(Delivery) -> F,
) -> lapin::Result<()> {
    // In order, so that what comes out ends a finished prefix.
    let mut working = FuturesOrdered::new();
    let mut acknowledging = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(finished) = working.next() => {
                let mut tag = finished?;
                for _ in 1..LONGEST_RUN {
                    match working.next().now_or_never().flatten() {
                        Some(finished) => tag = finished?,
                        None => break,
                    }
                }
                let options = BasicAckOptions { multiple: true };
                acknowledging.push(channel.basic_ack(tag, options));
            }
            Some(written) = acknowledging.next() => written?,
            message = messages.next() => {
                if message.is_none() {
                    return Ok(());
                }
                // Everything that is here, so that what follows from it is polled together and leaves
                // in one write.
                let mut next = message;
                while let Some(message) = next {
                    let message = message?;
                    let (tag, working_on) = (message.delivery_tag, work(message));
                    working.push_back(async move { working_on.await.map(|()| tag) });
                    next = messages.next().now_or_never().flatten();
                }
            }
        }
    }
}
