//! A receiver of webhooks on this machine, for trying things out: verifies, answers, and tells what came.

mod behaviour;
mod forward;
mod record;
mod signature;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, State, rejection::BytesRejection},
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use fanfare_model::{Clock, SignatureFault, SignatureScheme, SigningSecret, Timestamp};
use tokio::{
    net::TcpListener,
    sync::mpsc::{self, Sender},
};
use tokio_util::sync::CancellationToken;

pub(crate) use behaviour::Behaviour;
pub(crate) use forward::Forward;
pub(crate) use record::Record;

use behaviour::{Attempts, Play};

const LARGEST_BODY: usize = 1024 * 1024;
/// Requests received and not yet taken. When it is full, senders wait for their answers.
const BACKLOG: usize = 64;
/// How long a request without an answer is held open. Every sender gives up earlier.
const LONGEST_HANG: Duration = Duration::from_secs(10 * 60);

/// How a receiver behaves.
#[derive(Debug, Clone)]
pub(crate) struct ReceiverSettings {
    /// Without it nothing is verified.
    pub(crate) secret: Option<SigningSecret>,
    /// How senders sign.
    pub(crate) signature: SignatureScheme,
    /// What it does with everything that is not refused.
    pub(crate) behaviour: Behaviour,
    /// Who answers instead of it.
    pub(crate) forward: Option<Forward>,
    /// Tells when a request came.
    pub(crate) clock: Clock,
}

/// A receiver that has its port and does not answer yet.
pub(crate) struct Receiver {
    listener: TcpListener,
    app: Router,
    stopping: CancellationToken,
}

/// What requests share.
struct Shared {
    settings: ReceiverSettings,
    attempts: Attempts,
    received: Sender<ReceivedRequest>,
    /// Lets go of the requests that hang.
    stopping: CancellationToken,
}

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct ReceivedRequest {
    pub(crate) at: Timestamp,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    /// Its `webhook-id`.
    pub(crate) id: Option<String>,
    /// The member `type` of a JSON body.
    pub(crate) event_type: Option<String>,
    pub(crate) verdict: Verdict,
    /// The status that it is answered with; absent when it is not answered.
    pub(crate) answer: Option<StatusCode>,
    /// Who or what made the answer this one.
    pub(crate) because: Option<String>,
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
    Header(String),
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
        let stopping = CancellationToken::new();
        let app = Router::new()
            .fallback(receive)
            .layer(DefaultBodyLimit::max(LARGEST_BODY))
            .with_state(Arc::new(Shared {
                settings,
                attempts: Attempts::default(),
                received,
                stopping: stopping.clone(),
            }));
        let receiver = Self {
            listener,
            app,
            stopping,
        };
        Ok((receiver, address, requests))
    }

    /// Answers until `shutdown`, then finishes the requests in hand.
    pub(crate) async fn run(self, shutdown: CancellationToken) -> io::Result<()> {
        let stopping = self.stopping;
        let told = async move {
            shutdown.cancelled().await;
            stopping.cancel();
        };
        axum::serve(self.listener, self.app)
            .with_graceful_shutdown(told)
            .await
    }
}

async fn receive(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let at = shared.settings.clock.now();
    let id = text(&headers, "webhook-id").ok().map(str::to_owned);
    let mut request = ReceivedRequest {
        at,
        method,
        uri,
        event_type: None,
        id,
        verdict: Verdict::Refused(Refusal::Body),
        answer: None,
        because: None,
        headers,
        body: Bytes::new(),
    };
    let response = match body {
        Ok(body) => {
            request.verdict = shared.settings.verdict(&request.headers, &body, at);
            request.event_type = event_type(&body);
            request.body = body;
            match request.verdict {
                Verdict::Unverified | Verdict::Genuine => shared.answer(&mut request).await,
                Verdict::Refused(_) => Some(StatusCode::UNAUTHORIZED.into_response()),
            }
        }
        Err(rejection) => Some(rejection.status().into_response()),
    };
    request.answer = response.as_ref().map(Response::status);
    // Whoever started the receiver may not care what comes.
    shared.received.send(request).await.ok();
    match response {
        Some(response) => {
            tokio::time::sleep(shared.settings.behaviour.delay).await;
            response
        }
        None => {
            let hanging = tokio::time::sleep(LONGEST_HANG);
            shared.stopping.run_until_cancelled(hanging).await;
            StatusCode::SERVICE_UNAVAILABLE.into_response()
        }
    }
}

impl ReceiverSettings {
    fn verdict(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Verdict {
        let Some(secret) = &self.secret else {
            return Verdict::Unverified;
        };
        let verified = signature::verify(&self.signature, secret, headers, body, now);
        verified.map_or_else(Verdict::Refused, |()| Verdict::Genuine)
    }
}

impl Shared {
    /// The answer to a request that is not refused, unless there is to be none.
    async fn answer(&self, request: &mut ReceivedRequest) -> Option<Response> {
        let behaviour = &self.settings.behaviour;
        let earlier = request.id.as_ref().map_or(0, |id| self.attempts.count(id));
        match behaviour.play(earlier, rand::random()) {
            Play::Hang => {
                request.because = Some("as `--hang-rate` asks".to_owned());
                return None;
            }
            Play::Fail => {
                request.because = Some("a failure on demand".to_owned());
                return Some(behaviour.fail_status.into_response());
            }
            Play::Answer => {}
        }
        let Some(forward) = &self.settings.forward else {
            return Some(behaviour.status.into_response());
        };
        let (method, body) = (request.method.clone(), request.body.clone());
        let answered = forward.send(method, &request.uri, &request.headers, body);
        let target = forward.target();
        Some(match answered.await {
            Ok(answer) => {
                request.because = Some(format!("by {target}"));
                (answer.status, answer.headers, answer.body).into_response()
            }
            Err(fault) => {
                request.because = Some(format!("because of {target}: {fault}"));
                StatusCode::BAD_GATEWAY.into_response()
            }
        })
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Result<&'h str, Refusal> {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .ok_or_else(|| Refusal::Header(name.to_owned()))
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
