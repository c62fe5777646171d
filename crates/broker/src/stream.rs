//! Reads the journal from an offset on. Reading takes nothing out of it.

use std::time::Duration;

use fanfare_wire::Envelope;
use futures_util::StreamExt as _;
use lapin::{
    Channel, Consumer,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable, LongString, ShortString},
};
use tokio::time;

use crate::{Broker, BrokerFault, broker::open_channel, convert::from_parts};

/// Batches that are on their way at once: enough to keep a reader busy, and some megabytes at most.
const PREFETCH: u16 = 64;

/// How many messages one acknowledgement covers. In a stream it is no more than leave to send others.
const ACKNOWLEDGED_AT_ONCE: u16 = 16;

/// A message of the journal.
#[derive(Debug, Clone)]
pub struct StreamMessage {
    /// Its place in the stream.
    pub offset: u64,
    /// What was received.
    pub envelope: Envelope,
}

/// Reads the journal on one channel. It ends when the connection or the stream is lost; then its user
/// looks where it stands, and opens another.
pub struct StreamReader {
    channel: Channel,
    consumer: Consumer,
    unacknowledged: u16,
    last_tag: u64,
}

impl Broker {
    /// Reads the journal from an offset on, or from its first message if that offset is no more there.
    pub async fn read_journal(&self, from: u64) -> Result<StreamReader, BrokerFault> {
        let offset = i64::try_from(from).unwrap_or(i64::MAX);
        self.open_reader(AMQPValue::LongLongInt(offset)).await
    }

    /// The offset of the newest message in the journal; `None` when nothing comes within that time.
    pub async fn newest_in_journal(&self, within: Duration) -> Result<Option<u64>, BrokerFault> {
        let last = AMQPValue::LongString(LongString::from("last"));
        let mut reader = self.open_reader(last).await?;
        let mut newest = None;
        // The last chunk begins to arrive at once, and then without pauses.
        let mut patience = within;
        while let Ok(Some(message)) = time::timeout(patience, reader.next()).await {
            newest = Some(message.offset);
            patience = within.min(Duration::from_millis(200));
        }
        reader.close().await;
        Ok(newest)
    }

    async fn open_reader(&self, offset: AMQPValue) -> Result<StreamReader, BrokerFault> {
        let queue = self.topology().journal_queue();
        let reading = || BrokerFault::operation(format!("reading the stream `{queue}`"));
        let connection = self.consuming_connection().await?;
        let channel = open_channel(&connection).await?;
        channel
            .basic_qos(PREFETCH, BasicQosOptions::default())
            .await
            .map_err(reading())?;
        let mut arguments = FieldTable::default();
        arguments.insert("x-stream-offset".into(), offset);
        let (name, options) = (
            ShortString::from(queue.as_str()),
            BasicConsumeOptions::default(),
        );
        let consumer = channel
            .basic_consume(name, "".into(), options, arguments)
            .await
            .map_err(reading())?;
        Ok(StreamReader {
            channel,
            consumer,
            unacknowledged: 0,
            last_tag: 0,
        })
    }
}

impl StreamReader {
    /// The next message; `None` when the stream is lost. Dropped while it waits, it loses none.
    pub async fn next(&mut self) -> Option<StreamMessage> {
        loop {
            // Before the next one is taken: what has been taken must be returned without waiting.
            if self.unacknowledged >= ACKNOWLEDGED_AT_ONCE {
                let options = BasicAckOptions { multiple: true };
                let acknowledged = self.channel.basic_ack(self.last_tag, options);
                // First: dropped while it is written, it must not be sent again, which would end the channel.
                self.unacknowledged = 0;
                acknowledged.await.ok()?;
            }
            let delivery = self.consumer.next().await?.ok()?;
            self.unacknowledged += 1;
            self.last_tag = delivery.delivery_tag;
            if let Some(offset) = offset_of(&delivery) {
                let envelope = from_parts(&delivery.properties, delivery.data);
                return Some(StreamMessage { offset, envelope });
            }
        }
    }

    /// Gives the channel back.
    pub async fn close(self) {
        // A channel that is gone needs no closing, and nothing was taken that could be lost.
        drop(self.channel.close(200, "read".into()).await);
    }
}

fn offset_of(delivery: &Delivery) -> Option<u64> {
    let headers = delivery.properties.headers().as_ref()?;
    let offset = headers.inner().get("x-stream-offset")?;
    // RabbitMQ writes a signed 64-bit number (`docs/streams`, "Consuming").
    u64::try_from(offset.as_long_long_int()?).ok()
}
