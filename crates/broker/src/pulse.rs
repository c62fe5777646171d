//! Proof that the consuming connection is alive: RabbitMQ answered a question on it a moment ago.
//!
//! A process that was frozen, or whose network is cut, does not notice, and RabbitMQ may have given its
//! messages to another meanwhile. Whoever acts for a message asks for a young proof first.

use std::time::Duration;

use lapin::{Channel, options::BasicQosOptions};
use tokio::{
    sync::watch,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::connection::{Link, Session, close_channel};

/// How often RabbitMQ is asked.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// An answer that takes longer proves nothing any more.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How long a question that failed waits before the next one.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(250);

/// The newest proof. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pulse {
    proofs: watch::Receiver<Proof>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Proof {
    /// Which connection answered last, counted from 1.
    epoch: u64,
    /// When it was asked, unless it failed to answer since.
    asked: Option<Instant>,
}

impl Proof {
    fn is_within(&self, age: Duration) -> bool {
        self.asked.is_some_and(|asked| asked.elapsed() <= age)
    }
}

impl Pulse {
    /// Whether the connection was alive at some moment of the time that is this long ago at most.
    pub fn is_within(&self, age: Duration) -> bool {
        self.proofs.borrow().is_within(age)
    }

    /// Waits for such a proof; for ever once the broker handle is closed.
    pub async fn wait_until_within(&self, age: Duration) {
        let mut proofs = self.proofs.clone();
        if proofs.wait_for(|proof| proof.is_within(age)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Counts the connections that answered. What was received over an earlier one may be with others.
    pub fn epoch(&self) -> u64 {
        self.proofs.borrow().epoch
    }
}

/// Makes a pulse and the future that keeps it until `closing`.
pub(crate) fn pulse(
    link: Link,
    closing: CancellationToken,
) -> (Pulse, impl Future<Output = ()> + Send) {
    let (tell, proofs) = watch::channel(Proof::default());
    (Pulse { proofs }, keep(link, tell, closing))
}

async fn keep(link: Link, tell: watch::Sender<Proof>, closing: CancellationToken) {
    while let Some(Some(session)) = closing.run_until_cancelled(link.session_after(0)).await {
        let Some(error) = ask_until_it_fails(&session, &tell, &closing).await else {
            return;
        };
        tell.send_modify(|proof| proof.asked = None);
        warn!(
            error,
            "RabbitMQ does not prove that the connection is alive"
        );
        time::sleep(PAUSE_AFTER_FAILURE).await;
    }
}

/// Asks again and again; returns why there was no answer, or nothing at `closing`.
async fn ask_until_it_fails(
    session: &Session,
    tell: &watch::Sender<Proof>,
    closing: &CancellationToken,
) -> Option<String> {
    let opening = time::timeout(ANSWER_WITHIN, session.connection.create_channel());
    let channel = match opening.await {
        Ok(Ok(channel)) => channel,
        Ok(Err(error)) => return Some(error.to_string()),
        Err(late) => return Some(late.to_string()),
    };
    loop {
        let asked = Instant::now();
        match time::timeout(ANSWER_WITHIN, ask(&channel)).await {
            Ok(Ok(())) => {
                let (epoch, asked) = (session.epoch, Some(asked));
                tell.send_replace(Proof { epoch, asked });
            }
            Ok(Err(error)) => return Some(error.to_string()),
            Err(late) => return Some(late.to_string()),
        }
        let pause = closing.run_until_cancelled(time::sleep(ASK_EVERY));
        if pause.await.is_none() {
            close_channel(&channel).await;
            return None;
        }
    }
}

/// A question that concerns no queue, so that no queue's trouble keeps its answer back.
async fn ask(channel: &Channel) -> lapin::Result<()> {
    channel.basic_qos(1, BasicQosOptions::default()).await
}
