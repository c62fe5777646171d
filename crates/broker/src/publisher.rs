//! Publishes with confirms: a publish returns when the broker has the message, or says why not.
//!
//! One task owns the channel. Publishes are pipelined and polled together, so that the frames of many
//! leave in one write. When the connection is lost, everything unconfirmed is published again on the
//! next one: the broker may then hold a message twice, never not at all.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fanfare_wire::Envelope;
use futures_util::{
    StreamExt as _,
    future::{self, Either},
    stream::FuturesUnordered,
};
use lapin::{
    BasicProperties, Channel,
    message::BasicReturnMessage,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    protocol::AMQPSoftError,
    types::ShortString,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::{
    Address, PublishFault,
    broker::is_soft_error,
    confirmed::{Confirmed, Fate, Identity},
    connection::{Link, Session, close_channel},
    convert::{short, to_properties},
};

/// The default `max_message_size` from RabbitMQ 4.0. A larger body would end the channel, and with it every
/// other publish under way, each time it is published again.
const LARGEST_BODY: usize = 16 << 20;

/// With publishes outstanding and no confirm for this long, the channel is taken for dead.
const LONGEST_SILENCE: Duration = Duration::from_secs(30);

/// How long a channel that failed is left alone before the next one is opened.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// A handle for publishing. Cheap to clone; all clones share one channel and one bound.
#[derive(Clone, Debug)]
pub struct Publisher {
    jobs: mpsc::Sender<Job>,
    status: Arc<PublisherStatus>,
}

/// What metrics and readiness want to know of a publisher.
#[derive(Debug, Default)]
pub struct PublisherStatus {
    unconfirmed: AtomicUsize,
    published_again: AtomicU64,
    blocked: std::sync::atomic::AtomicBool,
}

impl PublisherStatus {
    /// Publishes that the broker has not confirmed yet.
    pub fn unconfirmed(&self) -> usize {
        self.unconfirmed.load(Ordering::Relaxed)
    }

    /// Publishes that were made again after a lost connection.
    pub fn published_again(&self) -> u64 {
        self.published_again.load(Ordering::Relaxed)
    }

    /// Whether RabbitMQ refuses to read publishes because it runs out of memory or disk.
    pub fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    fn tell(&self, is_blocked: bool, unconfirmed: usize) {
        self.blocked.store(is_blocked, Ordering::Relaxed);
        self.unconfirmed.store(unconfirmed, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Job {
    outgoing: Arc<Outgoing>,
    answer: oneshot::Sender<Result<(), PublishFault>>,
}

/// A message in AMQP's terms, with where it goes.
#[derive(Debug)]
pub(crate) struct Outgoing {
    exchange: ShortString,
    routing_key: ShortString,
    must_route: bool,
    properties: BasicProperties,
    body: Bytes,
}

impl Outgoing {
    pub(crate) fn new(address: &Address, envelope: Envelope) -> Result<Arc<Self>, PublishFault> {
        if envelope.body.len() > LARGEST_BODY {
            return Err(PublishFault::TooLarge(envelope.body.len()));
        }
        Ok(Arc::new(Self {
            exchange: short(&*address.exchange, "the exchange name")?,
            routing_key: short(&*address.routing_key, "the routing key")?,
            must_route: address.must_route,
            properties: to_properties(envelope.properties, envelope.headers)?,
            body: envelope.body,
        }))
    }
}

impl Publisher {
    /// Publishes a message; `Ok` means that the broker has stored it where it belongs.
    ///
    /// Waits while the broker is away or blocked, for as long as it takes: a caller with less patience
    /// sets a timeout, after which the message may be published all the same. Dropping the future
    /// does not take the message back.
    pub async fn publish(&self, address: &Address, envelope: Envelope) -> Result<(), PublishFault> {
        self.send(Outgoing::new(address, envelope)?).await
    }

    pub(crate) async fn send(&self, outgoing: Arc<Outgoing>) -> Result<(), PublishFault> {
        let (answer, confirmed) = oneshot::channel();
        let job = Job { outgoing, answer };
        self.jobs
            .send(job)
            .await
            .map_err(|_| PublishFault::Closed)?;
        confirmed.await.unwrap_or(Err(PublishFault::Closed))
    }

    /// What metrics and readiness want to know.
    pub fn status(&self) -> &PublisherStatus {
        &self.status
    }
}

/// Makes a publisher and the future that runs it until `closing`; it then waits for what is unconfirmed.
pub(crate) fn publisher(
    link: Link,
    max_unconfirmed: usize,
    closing: CancellationToken,
) -> (Publisher, impl Future<Output = ()> + Send) {
    // As small a queue as the window: a job that waits here waits with its caller.
    let (jobs, accepted) = mpsc::channel(max_unconfirmed);
    let status = Arc::new(PublisherStatus::default());
    let publisher = Publisher {
        jobs,
        status: Arc::clone(&status),
    };
    let pump = Pump {
        accepted,
        unconfirmed: BTreeMap::new(),
        next_number: 0,
        max_unconfirmed,
        status,
        closing,
    };
    (publisher, pump.run(link))
}

struct Pump {
    accepted: mpsc::Receiver<Job>,
    /// By the order in which they were accepted, which is the order of publishing them again.
    unconfirmed: BTreeMap<u64, Job>,
    next_number: u64,
    max_unconfirmed: usize,
    status: Arc<PublisherStatus>,
    closing: CancellationToken,
}

enum Progress {
    /// The confirm of a publish; whether it is positive, and the return of some message that came with it.
    Confirmed(u64, lapin::Result<(bool, Option<Identity>)>),
    /// Everything that was complete when the fence was set came before it.
    Fence,
}

enum Ended {
    Finished,
    ConnectionLost,
}

impl Pump {
    async fn run(mut self, link: Link) {
        let mut epoch = 0;
        while let Some(session) = link.session_after(epoch).await {
            match self.pump(&session).await {
                Ok(Ended::Finished) => return,
                Ok(Ended::ConnectionLost) => {}
                Err(error) => warn!(%error, "the publishing channel could not be opened"),
            }
            // The same connection may serve again, because a channel can die alone. The pause keeps
            // a connection that is just dying from being tried in a tight loop.
            time::sleep(PAUSE_AFTER_FAILURE).await;
            let serves = session.connection.status().connected();
            epoch = if serves {
                session.epoch - 1
            } else {
                session.epoch
            };
        }
    }

    /// Publishes on one channel until it is lost or everything is done.
    async fn pump(&mut self, session: &Session) -> lapin::Result<Ended> {
        let channel = open_channel(session).await?;
        let mut blocked = session.blocked.clone();
        let mut confirmed = Confirmed::default();
        let mut confirms = FuturesUnordered::new();
        let publish =
            |number, outgoing| Either::Left(publish_one(channel.clone(), number, outgoing));
        for (number, job) in &self.unconfirmed {
            confirms.push(publish(*number, Arc::clone(&job.outgoing)));
        }
        let again = u64::try_from(confirms.len()).unwrap_or(u64::MAX);
        self.status
            .published_again
            .fetch_add(again, Ordering::Relaxed);

        let mut last_sign = Instant::now();
        loop {
            let is_blocked = *blocked.borrow_and_update();
            self.status.tell(is_blocked, self.unconfirmed.len());
            if confirms.is_empty() && self.accepted.is_closed() && self.accepted.is_empty() {
                close_channel(&channel).await;
                return Ok(Ended::Finished);
            }
            let has_room = self.unconfirmed.len() < self.max_unconfirmed
                && !is_blocked
                && !confirmed.is_in_doubt();
            // Biased, so that confirms, which make room, come before new work.
            tokio::select! { biased;
                Some(progress) = confirms.next() => {
                    last_sign = Instant::now();
                    if let Err(error) = self.note(progress, &mut confirmed) {
                        warn!(%error, "publishes were interrupted; they are made again");
                        if is_soft_error(&error, &AMQPSoftError::NOTFOUND) {
                            // An exchange is gone. A new connection declares everything anew.
                            drop(session.connection.close(200, "an exchange is gone".into()).await);
                        }
                        return Ok(Ended::ConnectionLost);
                    }
                    if confirmed.wants_fence() {
                        // Futures that are ready come out in the order in which they became ready.
                        confirms.push(Either::Right(future::ready(Progress::Fence)));
                    }
                }
                Some(job) = self.accepted.recv(), if has_room => {
                    if confirms.is_empty() {
                        last_sign = Instant::now();
                    }
                    for (number, outgoing) in self.take_in(job) {
                        confirms.push(publish(number, outgoing));
                    }
                }
                _ = blocked.changed() => last_sign = Instant::now(),
                () = self.closing.cancelled(), if !self.accepted.is_closed() => self.accepted.close(),
                () = time::sleep_until(last_sign + LONGEST_SILENCE),
                    if !confirms.is_empty() && !is_blocked => {
                    warn!(unconfirmed = confirms.len(), "RabbitMQ confirms nothing; starting anew");
                    return Ok(Ended::ConnectionLost);
                }
            }
        }
    }

    /// Registers a job and whatever else is waiting, so that they are published together.
    fn take_in(&mut self, first: Job) -> Vec<(u64, Arc<Outgoing>)> {
        let mut taken = Vec::new();
        let mut next = Some(first);
        while let Some(job) = next {
            let number = self.next_number;
            self.next_number += 1;
            taken.push((number, Arc::clone(&job.outgoing)));
            self.unconfirmed.insert(number, job);
            let has_room = self.unconfirmed.len() < self.max_unconfirmed;
            next = has_room.then(|| self.accepted.try_recv().ok()).flatten();
        }
        taken
    }

    fn note(&mut self, progress: Progress, confirmed: &mut Confirmed) -> lapin::Result<()> {
        match progress {
            Progress::Confirmed(number, confirmation) => {
                let (acked, carried) = confirmation?;
                confirmed.note(number, acked, carried);
            }
            Progress::Fence => confirmed.fence_passed(),
        }
        self.answer(confirmed);
        Ok(())
    }

    /// Answers the callers of all publishes that can be decided about.
    fn answer(&mut self, confirmed: &mut Confirmed) {
        let outstanding = self.unconfirmed.len() - confirmed.len();
        let identity = |number| self.unconfirmed.get(&number).map(Job::identity);
        for (number, fate) in confirmed.decide(outstanding, identity) {
            let Some(job) = self.unconfirmed.remove(&number) else {
                continue;
            };
            let (exchange, routing_key) = (&job.outgoing.exchange, &job.outgoing.routing_key);
            let result = match fate {
                Fate::Stored => Ok(()),
                Fate::Refused => Err(PublishFault::Refused),
                Fate::Returned => {
                    error!(%exchange, %routing_key, "no queue takes the message: the topology has a hole");
                    Err(PublishFault::Unroutable {
                        exchange: exchange.to_string(),
                        routing_key: routing_key.to_string(),
                    })
                }
            };
            // A caller that gave up waiting does not want the answer.
            drop(job.answer.send(result));
        }
    }
}

impl Job {
    fn identity(&self) -> Identity {
        let Outgoing {
            exchange,
            routing_key,
            properties,
            ..
        } = &*self.outgoing;
        identity(exchange, routing_key, properties)
    }
}

fn returned_identity(message: &BasicReturnMessage) -> Identity {
    let delivery = &message.delivery;
    identity(
        &delivery.exchange,
        &delivery.routing_key,
        &delivery.properties,
    )
}

fn identity(
    exchange: &ShortString,
    routing_key: &ShortString,
    properties: &BasicProperties,
) -> Identity {
    let id = properties.message_id().as_ref();
    let id = id.map(ToString::to_string);
    (exchange.to_string(), routing_key.to_string(), id)
}

/// Publishes and waits for the confirm. The confirm is always awaited to its end, because lapin keeps
/// dropped ones forever.
async fn publish_one(channel: Channel, number: u64, outgoing: Arc<Outgoing>) -> Progress {
    let options = BasicPublishOptions {
        mandatory: outgoing.must_route,
        ..BasicPublishOptions::default()
    };
    let published = channel
        .basic_publish(
            outgoing.exchange.clone(),
            outgoing.routing_key.clone(),
            options,
            &outgoing.body,
            outgoing.properties.clone(),
        )
        .await;
    let confirmation = match published {
        Ok(confirm) => confirm.await,
        Err(error) => Err(error),
    };
    let noted = confirmation.map(|confirmation| {
        let acked = confirmation.is_ack();
        let carried = confirmation.take_message();
        (acked, carried.as_ref().map(returned_identity))
    });
    Progress::Confirmed(number, noted)
}

async fn open_channel(session: &Session) -> lapin::Result<Channel> {
    let channel = session.connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    Ok(channel)
}
