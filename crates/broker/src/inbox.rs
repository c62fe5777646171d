//! Receives messages and settles them.
//!
//! Each subscription is a task with a channel of its own, so that a channel error costs one queue.
//! The broker stops sending when `prefetch` messages are out, which bounds every buffer here.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fanfare_wire::{Envelope, HeaderValue};
use futures_util::{StreamExt as _, future::join_all};
use lapin::{
    Channel, Consumer,
    message::Delivery,
    options::{
        BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions,
        BasicQosOptions, BasicRejectOptions, QueueBindOptions, QueueDeclareOptions,
    },
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    task::JoinSet,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::{
    connection::{Link, Session},
    convert::from_parts,
    settlement::{AckWindow, Receipt, Verb, Verdict},
};

/// How long a subscription that failed waits before it tries again.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(500);

/// How long a verdict waits for others, so that one acknowledgement covers many. Far shorter than what
/// a message takes, and short beside any wait for the room that it makes.
const GATHERING: Duration = Duration::from_millis(2);

/// What to receive.
#[derive(Debug, Clone)]
pub struct Subscription {
    source: Source,
    prefetch: u16,
    priority: Option<i32>,
    subscribed: Subscribed,
}

/// Whether RabbitMQ counts a subscription among the consumers of its queue. Cheap to clone; the clones are one.
#[derive(Debug, Clone, Default)]
pub struct Subscribed {
    /// The connection it is served over, counted from 1; 0 while there is none.
    epoch: Arc<AtomicU64>,
}

impl Subscribed {
    /// Whether it does so over the connection that [`crate::Pulse::epoch`] counts.
    pub fn is_over(&self, epoch: u64) -> bool {
        epoch > 0 && self.epoch.load(Ordering::Acquire) == epoch
    }

    fn tell(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Release);
    }
}

#[derive(Debug, Clone)]
enum Source {
    Queue(String),
    /// A queue of this process alone, bound to an exchange; it goes with the connection.
    Exclusive {
        exchange: String,
        key: &'static str,
    },
}

impl Subscription {
    /// Competes with others for the messages of a queue, at most `prefetch` at once.
    pub fn queue(name: String, prefetch: u16) -> Self {
        Self {
            source: Source::Queue(name),
            prefetch,
            priority: None,
            subscribed: Subscribed::default(),
        }
    }

    /// Among competing consumers the one with the highest priority is served first.
    #[must_use]
    pub fn with_priority(self, priority: i32) -> Self {
        Self {
            priority: Some(priority),
            ..self
        }
    }

    /// Tells `subscribed` when it is.
    #[must_use]
    pub fn telling(self, subscribed: Subscribed) -> Self {
        Self { subscribed, ..self }
    }

    pub(crate) fn exclusive(exchange: String, key: &'static str, prefetch: u16) -> Self {
        Self {
            source: Source::Exclusive { exchange, key },
            prefetch,
            priority: None,
            subscribed: Subscribed::default(),
        }
    }

    fn name(&self) -> &str {
        match &self.source {
            Source::Queue(name) => name,
            Source::Exclusive { exchange, .. } => exchange,
        }
    }
}

/// A received message and the duty to settle it.
#[derive(Debug)]
pub struct Message {
    /// What was received.
    pub envelope: Envelope,
    /// The routing key it was published with.
    pub routing_key: String,
    /// Whether the broker gave it out before.
    pub redelivered: bool,
    /// Dropped unsettled, it hands the message back.
    pub receipt: Receipt,
}

/// Messages of one or several queues.
pub struct Inbox {
    messages: mpsc::Receiver<Message>,
    closing: CancellationToken,
    tasks: JoinSet<()>,
}

impl Inbox {
    pub(crate) fn open(link: &Link, subscriptions: Vec<Subscription>) -> Self {
        let room: usize = subscriptions.iter().map(|s| usize::from(s.prefetch)).sum();
        let (deliver, messages) = mpsc::channel(room.max(1));
        let closing = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for subscription in subscriptions {
            let (link, deliver, closing) = (link.clone(), deliver.clone(), closing.clone());
            tasks.spawn(subscribe(link, subscription, deliver, closing));
        }
        Self {
            messages,
            closing,
            tasks,
        }
    }

    /// The next message; `None` once `shutdown` is cancelled or the broker handle is closed.
    ///
    /// Reconnects by itself: a message that a lost connection left behind is skipped, because the
    /// broker gives it out again.
    pub async fn next_until(&mut self, shutdown: &CancellationToken) -> Option<Message> {
        loop {
            // Biased, so that a stop is seen even when messages keep coming.
            let message = tokio::select! { biased;
                () = shutdown.cancelled() => return None,
                message = self.messages.recv() => message?,
            };
            if !message.receipt.is_void() {
                return Some(message);
            }
        }
    }

    /// A message that is here already, if there is one.
    pub fn try_next(&mut self) -> Option<Message> {
        while let Ok(message) = self.messages.try_recv() {
            if !message.receipt.is_void() {
                return Some(message);
            }
        }
        None
    }

    /// Cancels the consumers, hands back what was not received, and tells the broker all that was settled.
    ///
    /// Call it when every message received before is settled: with single active consumers, the next
    /// owner starts as soon as this one cancels.
    pub async fn close(mut self) {
        self.closing.cancel();
        // Dropping what is buffered hands it back, while the tasks still listen for verdicts.
        while self.messages.recv().await.is_some() {}
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Lets those who have messages in hand finish, until `abort`; then they are dropped, and their messages go back.
///
/// Returns how many that were.
pub async fn finish(mut in_hand: JoinSet<()>, abort: &CancellationToken) -> usize {
    let finishing = async { while in_hand.join_next().await.is_some() {} };
    if abort.run_until_cancelled(finishing).await.is_some() {
        return 0;
    }
    in_hand.abort_all();
    let mut unfinished = 0;
    while let Some(ended) = in_hand.join_next().await {
        // Some may have finished in the same moment.
        unfinished += usize::from(ended.is_err_and(|error| error.is_cancelled()));
    }
    unfinished
}

/// Keeps one subscription alive until `closing`.
async fn subscribe(
    link: Link,
    subscription: Subscription,
    deliver: mpsc::Sender<Message>,
    closing: CancellationToken,
) {
    // Twice the messages that can be out: verdicts about an older epoch may still be on their way.
    let (verdicts, mut given) = mpsc::channel(usize::from(subscription.prefetch) * 2 + 1);
    let current_epoch = Arc::new(AtomicU64::new(0));
    let mut epoch = 0;
    while let Some(Some(session)) = closing.run_until_cancelled(link.session_after(0)).await {
        epoch += 1;
        current_epoch.store(epoch, Ordering::Release);
        let mut feed = match Feed::open(&session, &subscription).await {
            Ok(consumer_and_channel) => consumer_and_channel,
            Err(error) => {
                warn!(queue = subscription.name(), %error, "cannot subscribe; trying again");
                time::sleep(PAUSE_AFTER_FAILURE).await;
                continue;
            }
        };
        subscription.subscribed.tell(session.epoch);
        let make_receipt = |tag| {
            let current = Arc::clone(&current_epoch);
            Receipt::new((epoch, tag), current, verdicts.clone())
        };
        let ended = feed
            .run(epoch, make_receipt, &deliver, &mut given, &closing)
            .await;
        subscription.subscribed.tell(0);
        match ended {
            Ended::Closing => {
                drop(deliver);
                feed.finish(epoch, verdicts, given).await;
                return;
            }
            Ended::Lost => {
                // From here on the broker gives the unsettled messages out again.
                current_epoch.store(epoch + 1, Ordering::Release);
                warn!(
                    queue = subscription.name(),
                    "a subscription was lost; starting it anew"
                );
                time::sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
    }
}

enum Ended {
    Closing,
    Lost,
}

/// One consumer on one channel.
struct Feed {
    channel: Channel,
    consumer: Consumer,
    window: AckWindow,
    /// What is settled and not told to the broker yet.
    untold: Vec<Verdict>,
}

impl Feed {
    async fn open(session: &Session, subscription: &Subscription) -> lapin::Result<Self> {
        let channel = session.connection.create_channel().await?;
        let queue = match &subscription.source {
            Source::Queue(name) => ShortString::from(name.as_str()),
            Source::Exclusive { exchange, key } => {
                declare_exclusive(&channel, exchange.as_str().into(), key).await?
            }
        };
        channel
            .basic_qos(subscription.prefetch, BasicQosOptions::default())
            .await?;
        let mut arguments = FieldTable::default();
        if let Some(priority) = subscription.priority {
            arguments.insert("x-priority".into(), AMQPValue::LongInt(priority));
        }
        let options = BasicConsumeOptions::default();
        let consumer = channel
            .basic_consume(queue, "".into(), options, arguments)
            .await?;
        Ok(Self {
            channel,
            consumer,
            window: AckWindow::new(),
            untold: Vec::new(),
        })
    }

    async fn run(
        &mut self,
        epoch: u64,
        make_receipt: impl Fn(u64) -> Receipt,
        deliver: &mpsc::Sender<Message>,
        given: &mut mpsc::Receiver<Verdict>,
        closing: &CancellationToken,
    ) -> Ended {
        let mut waiting: Option<Message> = None;
        let mut gathered = pin!(time::sleep(GATHERING));
        loop {
            // Biased, so that settled messages, which make room at the broker, go first.
            tokio::select! { biased;
                () = closing.cancelled() => {
                    drop(waiting);
                    return Ended::Closing;
                }
                () = &mut gathered, if !self.untold.is_empty() => {
                    while let Ok(verdict) = given.try_recv() {
                        self.untold.push(verdict);
                    }
                    if let Err(error) = self.tell(epoch).await {
                        warn!(%error, "settled messages could not be acknowledged");
                        return Ended::Lost;
                    }
                }
                _ = given.recv_many(&mut self.untold, 1024), if self.untold.is_empty() => {
                    gathered.as_mut().reset(Instant::now() + GATHERING);
                }
                permit = deliver.reserve(), if waiting.is_some() => {
                    if let (Ok(permit), Some(message)) = (permit, waiting.take()) {
                        permit.send(message);
                    }
                }
                received = self.consumer.next(), if waiting.is_none() => match received {
                    Some(Ok(delivery)) => {
                        let receipt = make_receipt(delivery.delivery_tag);
                        let message = to_message(delivery, receipt);
                        // There is room, unless messages of a lost connection are still there.
                        waiting = deliver.try_send(message).err().map(TrySendError::into_inner);
                    }
                    Some(Err(error)) => {
                        warn!(%error, "the consumer failed");
                        return Ended::Lost;
                    }
                    // The end of the stream without an error is a cancel by the broker: a deleted
                    // queue, or from 4.3 a consumer timeout (RabbitMQ, `docs/consumers`).
                    None => return Ended::Lost,
                },
            }
        }
    }

    /// Tells the broker what is settled; returns when it is written, not when it is handled.
    ///
    /// By channel and tag: `Delivery::ack` answers `false`, not an error, for a channel that is gone.
    /// Here the epoch has sorted those out, and a channel that fails meanwhile is an error.
    async fn tell(&mut self, epoch: u64) -> lapin::Result<()> {
        let current = self
            .untold
            .drain(..)
            .filter(|verdict| verdict.epoch == epoch);
        let (acks, back): (Vec<_>, Vec<_>) = current.partition(|v| v.verb == Verb::Acknowledge);
        let tags = |verdicts: &[Verdict]| verdicts.iter().map(|v| v.tag).collect::<Vec<_>>();
        let back_tags = tags(&back);
        let acks = self.window.settle(&tags(&acks), &back_tags);

        // First what goes back, because an acknowledgement of a run covers every tag in it that the
        // broker still counts as out.
        for verdict in back {
            self.hand_back(&verdict).await?;
        }
        if let Some(tag) = acks.up_to {
            let options = BasicAckOptions { multiple: true };
            self.channel.basic_ack(tag, options).await?;
        }
        // Polled together, so that they leave in one write.
        let single = acks.single.iter();
        let single = single.map(|tag| self.channel.basic_ack(*tag, BasicAckOptions::default()));
        join_all(single).await.into_iter().collect()
    }

    async fn hand_back(&self, verdict: &Verdict) -> lapin::Result<()> {
        match verdict.verb {
            Verb::HandBackAsSuspect => {
                let options = BasicRejectOptions { requeue: true };
                self.channel.basic_reject(verdict.tag, options).await
            }
            Verb::HandBack | Verb::Acknowledge => {
                let options = BasicNackOptions {
                    requeue: true,
                    multiple: false,
                };
                self.channel.basic_nack(verdict.tag, options).await
            }
        }
    }

    /// Tells what is settled, cancels, hands back what the broker had sent already, and closes the channel.
    ///
    /// The acknowledgements go before the cancel. While 32 commands to a queue are under way, a channel of
    /// RabbitMQ keeps further settlements to itself, and forgets them when it closes (`SOFT_LIMIT` in
    /// `rabbit_fifo_client.erl`); the next owner would repeat what they were about. A cancel is answered when the queue
    /// has handled everything before it. What is only handed back may be forgotten: it goes back anyway.
    async fn finish(
        &mut self,
        epoch: u64,
        verdicts: mpsc::Sender<Verdict>,
        mut given: mpsc::Receiver<Verdict>,
    ) {
        while let Ok(verdict) = given.try_recv() {
            self.untold.push(verdict);
        }
        let all = std::mem::take(&mut self.untold).into_iter();
        let (settled, back) = all.partition(|v| v.verb == Verb::Acknowledge);
        self.untold = settled;
        if let Err(error) = self.tell(epoch).await {
            error!(%error, "the last acknowledgements were not sent; these messages repeat");
            return;
        }
        self.untold = back;
        let tag = self.consumer.tag();
        if let Err(error) = self
            .channel
            .basic_cancel(tag, BasicCancelOptions::default())
            .await
        {
            warn!(%error, "the consumer could not be cancelled; the broker hands its messages back");
            return;
        }
        while let Some(Ok(delivery)) = self.consumer.next().await {
            let (tag, verb) = (delivery.delivery_tag, Verb::HandBack);
            self.untold.push(Verdict { epoch, tag, verb });
        }
        // Every receipt holds a sender, so this ends when the last message is settled or dropped.
        drop(verdicts);
        loop {
            if let Err(error) = self.tell(epoch).await {
                error!(%error, "the last messages were not handed back in order");
                return;
            }
            if given.recv_many(&mut self.untold, 1024).await == 0 {
                break;
            }
        }
        self.close().await;
    }

    async fn close(&self) {
        // Up to 3.13 a cancel does not pass on what the channel kept to itself; the channel does so when it
        // hears of the commands before it, which it has by the time of another answer.
        let again = self.channel.basic_qos(1, BasicQosOptions::default());
        let closed = async {
            again.await?;
            self.channel.close(200, "closing".into()).await
        };
        if let Err(error) = closed.await {
            warn!(%error, "a channel was not closed in order");
        }
    }
}

async fn declare_exclusive(
    channel: &Channel,
    exchange: ShortString,
    key: &str,
) -> lapin::Result<ShortString> {
    let options = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let queue = channel
        .queue_declare("".into(), options, FieldTable::default())
        .await?;
    let name = queue.name().clone();
    let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
    channel
        .queue_bind(name.clone(), exchange, key.into(), options, arguments)
        .await?;
    Ok(name)
}

fn to_message(delivery: Delivery, receipt: Receipt) -> Message {
    Message {
        envelope: from_parts(&delivery.properties, delivery.data),
        routing_key: delivery.routing_key.as_str().to_owned(),
        redelivered: delivery.redelivered,
        receipt,
    }
}

impl Message {
    /// How often the broker gave the message out before, as far as it says (`x-delivery-count`).
    pub fn earlier_deliveries(&self) -> i64 {
        match self.envelope.headers.get("x-delivery-count") {
            Some(HeaderValue::Integer(count)) => *count,
            Some(_) | None => i64::from(self.redelivered),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_has_not_finished_when_it_is_to_end_is_dropped_and_counted() {
        for (is_aborted, unfinished) in [(false, 0), (true, 2)] {
            let (abort, mut in_hand) = (CancellationToken::new(), JoinSet::new());
            in_hand.spawn(std::future::ready(()));
            if is_aborted {
                abort.cancel();
                in_hand.spawn(std::future::pending());
                in_hand.spawn(std::future::pending());
                // The one that is ready has finished by then.
                tokio::task::yield_now().await;
            }
            assert_eq!(finish(in_hand, &abort).await, unfinished);
        }
    }
}
