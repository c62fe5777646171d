//! One supervised connection: connects, watches, and connects again for as long as it takes.
//!
//! A process has few of them, because lapin gives each a thread and buffers of some megabytes.
//! lapin can recover a connection by itself; we do not use that. Every new connection is a new epoch
//! here, so that whoever holds something of an old one (a delivery tag, an unconfirmed publish) knows.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use lapin::{Channel, Connection, ConnectionProperties, Event, uri::AMQPUri};
use tokio::{
    sync::{mpsc, watch},
    time,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{BrokerFault, Topology, broker::declare};

/// Two missed beats end a connection, so a dead peer is noticed within this time (RabbitMQ, `docs/heartbeats`).
const HEARTBEAT_SECONDS: u16 = 10;
/// RabbitMQ's default. lapin makes buffers of 32 frames, and fills them with zeros when the size changes in the
/// handshake: saying it before leaves what is not used yet out of memory, some 16 MiB of a process. A broker that allows
/// more needs it said in the URL, because a header is one frame, whatever size this connection asked for.
const FRAME_MAX: u32 = 131_072;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A broker that hangs must not keep this process alive.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// A connection that is up.
#[derive(Clone)]
pub(crate) struct Session {
    /// Counts connections from 1. What belongs to another epoch is void.
    pub(crate) epoch: u64,
    pub(crate) connection: Arc<Connection>,
    /// Whether RabbitMQ has blocked the connection because it runs out of memory or disk.
    pub(crate) blocked: watch::Receiver<bool>,
}

/// A handle to a supervised connection.
#[derive(Clone)]
pub(crate) struct Link {
    sessions: watch::Receiver<Option<Session>>,
}

impl Link {
    /// Waits for a connection newer than `epoch`; `None` when the supervisor has ended.
    pub(crate) async fn session_after(&self, epoch: u64) -> Option<Session> {
        let mut sessions = self.sessions.clone();
        let newer = |session: &Option<Session>| session.as_ref().is_some_and(|s| s.epoch > epoch);
        sessions.wait_for(newer).await.ok()?.clone()
    }

    /// The connection, if it is up.
    pub(crate) fn current(&self) -> Option<Session> {
        self.sessions.borrow().clone()
    }
}

/// What a connection is for, as RabbitMQ's management pages show it.
pub(crate) struct Purpose {
    pub(crate) name: String,
    pub(crate) uri: AMQPUri,
    /// Declared on every new connection, because a broker may have come back empty.
    pub(crate) topology: Option<Arc<Topology>>,
}

/// Makes a handle and the future that supervises its connection until `closing`.
///
/// Tells `faults` why a try failed, as far as there is room: the log has them all.
pub(crate) fn supervised(
    purpose: Purpose,
    faults: mpsc::Sender<BrokerFault>,
    closing: CancellationToken,
) -> (Link, impl Future<Output = ()> + Send) {
    let (announce, sessions) = watch::channel(None);
    let supervisor = supervise(purpose, announce, faults, closing);
    (Link { sessions }, supervisor)
}

async fn supervise(
    purpose: Purpose,
    announce: watch::Sender<Option<Session>>,
    faults: mpsc::Sender<BrokerFault>,
    closing: CancellationToken,
) {
    let mut epoch = 0;
    while let Some(connection) = closing
        .run_until_cancelled(connect(&purpose, &faults))
        .await
    {
        epoch += 1;
        let (set_blocked, blocked) = watch::channel(false);
        let session = Session {
            epoch,
            connection: Arc::new(connection),
            blocked,
        };
        info!(connection = %purpose.name, epoch, "connected to RabbitMQ");
        announce.send_replace(Some(session.clone()));
        let ended = closing
            .run_until_cancelled(watch_until_lost(&session, &set_blocked))
            .await;
        announce.send_replace(None);
        match ended {
            Some(reason) => warn!(connection = %purpose.name, epoch, reason, "lost RabbitMQ"),
            None => close(&session).await,
        }
    }
}

async fn close(session: &Session) {
    let closed = session.connection.close(200, "closing".into());
    if time::timeout(CLOSE_WITHIN, closed).await.is_err() {
        warn!("RabbitMQ did not answer the close of a connection");
    }
}

/// Closes a channel whose connection is about to be closed.
///
/// One that is only dropped is closed behind our back, and when its connection is closed meanwhile, lapin takes the
/// answer for an error of the connection.
pub(crate) async fn close_channel(channel: &Channel) {
    let closed = channel.close(200, "closing".into());
    match time::timeout(CLOSE_WITHIN, closed).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(%error, "a channel was not closed in order"),
        Err(_) => warn!("RabbitMQ did not answer the close of a channel"),
    }
}

/// Connects and declares, with jittered growing pauses, until both succeed.
async fn connect(purpose: &Purpose, faults: &mpsc::Sender<BrokerFault>) -> Connection {
    let mut backoff = FIRST_BACKOFF;
    loop {
        match time::timeout(CONNECT_TIMEOUT, try_connect(purpose)).await {
            Ok(Ok(connection)) => return connection,
            Ok(Err(fault)) => {
                let cause = std::error::Error::source(&fault).map(ToString::to_string);
                warn!(connection = %purpose.name, %fault, cause, "cannot connect to RabbitMQ");
                // Nobody listens any more once the first connection stands.
                drop(faults.try_send(fault));
            }
            Err(_) => warn!(connection = %purpose.name, "RabbitMQ does not answer"),
        }
        time::sleep(backoff.mul_f64(rand::random_range(0.5..1.0))).await;
        backoff = (backoff * 2).min(LONGEST_BACKOFF);
    }
}

async fn try_connect(purpose: &Purpose) -> Result<Connection, BrokerFault> {
    let mut uri = purpose.uri.clone();
    uri.query.heartbeat.get_or_insert(HEARTBEAT_SECONDS);
    uri.query.frame_max.get_or_insert(FRAME_MAX);
    let properties =
        ConnectionProperties::default().with_connection_name(purpose.name.as_str().into());
    let connection = Connection::connect_uri(uri, properties)
        .await
        .map_err(BrokerFault::operation("connecting"))?;
    if let Some(topology) = &purpose.topology {
        declare(&connection, topology).await?;
    }
    Ok(connection)
}

/// Returns why, when the connection is lost. Drains its events, because lapin buffers them without bound.
async fn watch_until_lost(session: &Session, blocked: &watch::Sender<bool>) -> String {
    let mut events = session.connection.events_listener();
    loop {
        // The timer is a second opinion: a state that changed without an event is seen as well.
        let event = time::timeout(Duration::from_secs(1), events.next()).await;
        let lost = !session.connection.status().connected();
        match event {
            Ok(Some(Event::ConnectionBlocked(reason))) => {
                warn!(reason, "RabbitMQ blocks publishing");
                blocked.send_replace(true);
            }
            Ok(Some(Event::ConnectionUnblocked)) => {
                info!("RabbitMQ accepts publishing again");
                blocked.send_replace(false);
            }
            // A channel's error is its user's affair; it is reported here as well.
            Ok(Some(Event::Error(error))) if lost => return error.to_string(),
            Ok(None) => return "no more events".to_owned(),
            Ok(Some(_)) | Err(_) if lost => return "the connection is not connected".to_owned(),
            Ok(Some(_)) | Err(_) => {}
        }
    }
}
