//! A receiver of webhooks on this machine, for trying things out: verifies, answers, and tells what came.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, State, rejection::BytesRejection},
    http::{HeaderMap, Method, StatusCode, Uri},
};
use bytes::Bytes;
use fanfare_model::{Clock, SignatureFault, SigningSecret, Timestamp, verify_standard};
use tokio::{
    net::TcpListener,
    sync::mpsc::{self, Sender},
};
use tokio_util::sync::CancellationToken;

const LARGEST_BODY: usize = 1024 * 1024;
/// Requests received and not yet taken. When it is full, senders wait for their answers.
const BACKLOG: usize = 64;
/// How far a timestamp may be from now. The libraries of Standard Webhooks use the same.
const TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// How a receiver behaves.
#[derive(Debug, Clone)]
pub(crate) struct ReceiverSettings {
    /// Without it nothing is verified.
    pub(crate) secret: Option<SigningSecret>,
    /// The answer to everything that is not refused.
    pub(crate) status: StatusCode,
    /// How long an answer takes.
    pub(crate) delay: Duration,
    /// Tells when a request came.
    pub(crate) clock: Clock,
}

/// A receiver that has its port and does not answer yet.
pub(crate) struct Receiver {
    listener: TcpListener,
    app: Router,
}

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct ReceivedRequest {
    pub(crate) at: Timestamp,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    /// Its `webhook-id`.
    pub(crate) id: Option<String>,
    /// The member `type` of a JSON body.
    pub(crate) event_type: Option<String>,
    pub(crate) verdict: Verdict,
    /// The status that it is answered with.
    pub(crate) answer: StatusCode,
    /// Empty when it was too large.
    pub(crate) body: Bytes,
}

/// Whether a request is genuine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// There is no secret to verify it with.
    Unverified,
    /// Whoever sent it knows the secret.
    Genuine,
    /// It is refused.
    Refused(Refusal),
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("there is no readable header `{0}`")]
    Header(&'static str),
    #[error(transparent)]
    Signature(#[from] SignatureFault),
    #[error("the body is not complete, or larger than 1 MiB")]
    Body,
}

impl Receiver {
    /// Takes the port. Every request is sent to the channel before it is answered, until the channel is dropped.
    pub(crate) async fn bind(
        address: SocketAddr,
        settings: ReceiverSettings,
    ) -> io::Result<(Self, SocketAddr, mpsc::Receiver<ReceivedRequest>)> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (received, requests) = mpsc::channel(BACKLOG);
        let app = Router::new()
            .fallback(receive)
            .layer(DefaultBodyLimit::max(LARGEST_BODY))
            .with_state((Arc::new(settings), received));
        Ok((Self { listener, app }, address, requests))
    }

    /// Answers until `shutdown`, then finishes the requests in hand.
    pub(crate) async fn run(self, shutdown: CancellationToken) -> io::Result<()> {
        axum::serve(self.listener, self.app)
            .with_graceful_shutdown(shutdown.cancelled_owned())
            .await
    }
}

async fn receive(
    State((settings, received)): State<(Arc<ReceiverSettings>, Sender<ReceivedRequest>)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> StatusCode {
    let at = settings.clock.now();
    let (verdict, answer, body) = match body {
        Ok(body) => {
            let verdict = verify(settings.secret.as_ref(), &headers, &body, at);
            let answer = match verdict {
                Verdict::Unverified | Verdict::Genuine => settings.status,
                Verdict::Refused(_) => StatusCode::UNAUTHORIZED,
            };
            (verdict, answer, body)
        }
        Err(rejection) => {
            let verdict = Verdict::Refused(Refusal::Body);
            (verdict, rejection.status(), Bytes::new())
        }
    };
    let request = ReceivedRequest {
        at,
        method,
        uri,
        id: text(&headers, "webhook-id").ok().map(str::to_owned),
        event_type: event_type(&body),
        verdict,
        answer,
        body,
    };
    // Whoever started the receiver may not care what comes.
    received.send(request).await.ok();
    tokio::time::sleep(settings.delay).await;
    answer
}

fn verify(
    secret: Option<&SigningSecret>,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Verdict {
    let Some(secret) = secret else {
        return Verdict::Unverified;
    };
    let check = || {
        let id = text(headers, "webhook-id")?;
        let timestamp = text(headers, "webhook-timestamp")?;
        let signatures = text(headers, "webhook-signature")?;
        verify_standard(secret, (id, timestamp, signatures), body, now, TOLERANCE)?;
        Ok(())
    };
    check().map_or_else(Verdict::Refused, |()| Verdict::Genuine)
}

fn text<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<&'h str, Refusal> {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .ok_or(Refusal::Header(name))
}

fn event_type(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Typed {
        r#type: String,
    }
    let typed: Typed = serde_json::from_slice(body).ok()?;
    Some(typed.r#type)
}

#[cfg(test)]
mod tests;
