//! A receiver of notifications that records every request and behaves as it is told.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, Version},
    response::{IntoResponse as _, Response},
};
use fanfare_model::{SigningSecret, Timestamp, verify_standard};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::{AbortHandle, JoinSet},
    time::Instant,
};
use tokio_rustls::TlsAcceptor;

use crate::{eventually, wall_clock};

/// How the receiver answers requests to one path.
#[derive(Debug, Clone)]
pub struct Behaviour {
    /// The status it answers.
    pub status: u16,
    /// How long it takes to answer.
    pub delay: Duration,
    /// Headers of the answer.
    pub headers: Vec<(&'static str, String)>,
    /// The body of the answer.
    pub body: String,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self::status(200)
    }
}

impl Behaviour {
    /// Answers this status at once.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            delay: Duration::ZERO,
            headers: Vec::new(),
            body: String::new(),
        }
    }

    /// Answers 200 after this time.
    pub fn slow(delay: Duration) -> Self {
        Self {
            delay,
            ..Self::status(200)
        }
    }
}

/// One request as it was received.
#[derive(Debug, Clone)]
pub struct ReceivedRequest {
    /// The path, by which tests tell endpoints apart.
    pub path: String,
    /// The version of HTTP.
    pub version: Version,
    /// All headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// When it arrived, by the wall clock.
    pub at: Timestamp,
    /// When it arrived, by a clock that never jumps.
    pub instant: Instant,
}

impl ReceivedRequest {
    /// A header as text; empty when it is absent.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The `webhook-id`.
    pub fn id(&self) -> &str {
        self.header("webhook-id")
    }

    /// Panics unless the Standard Webhooks signature fits.
    pub fn assert_signed_by(&self, secret: &SigningSecret) {
        let headers = (
            self.id(),
            self.header("webhook-timestamp"),
            self.header("webhook-signature"),
        );
        let tolerance = Duration::from_secs(300);
        let verdict = verify_standard(secret, headers, &self.body, self.at, tolerance);
        assert_eq!(verdict, Ok(()), "the signature of {}", self.id());
    }
}

/// A receiver on a port of its own.
pub struct Receiver {
    scheme: &'static str,
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: AbortHandle,
}

type Deciding = Arc<dyn Fn(&ReceivedRequest) -> Behaviour + Send + Sync>;

#[derive(Default)]
struct Shared {
    requests: Mutex<Vec<ReceivedRequest>>,
    behaviours: Mutex<HashMap<String, Deciding>>,
    connections: AtomicUsize,
}

impl Receiver {
    /// Starts listening on loopback.
    pub async fn start() -> Self {
        Self::listen(None).await
    }

    /// Starts listening for TLS on loopback.
    pub async fn start_tls(config: ServerConfig) -> Self {
        Self::listen(Some(Arc::new(config).into())).await
    }

    async fn listen(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let address = listener
            .local_addr()
            .expect("a bound listener has an address");
        let shared = Arc::new(Shared::default());
        let app = Router::new()
            .fallback(receive)
            .with_state(Arc::clone(&shared));
        #[expect(
            clippy::disallowed_methods,
            reason = "the receiver ends with its handle"
        )]
        let serving = tokio::spawn(serve(listener, tls.clone(), app, Arc::clone(&shared)));
        Self {
            scheme: if tls.is_some() { "https" } else { "http" },
            address,
            shared,
            serving: serving.abort_handle(),
        }
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// From now on, requests to this path are answered so.
    pub fn behave(&self, path: &str, behaviour: Behaviour) {
        self.decide(path, move |_| behaviour.clone());
    }

    /// From now on, requests to this path are answered as each of them deserves.
    pub fn decide(
        &self,
        path: &str,
        deciding: impl Fn(&ReceivedRequest) -> Behaviour + Send + Sync + 'static,
    ) {
        let mut behaviours = self.shared.behaviours.lock().expect("no holder panics");
        behaviours.insert(path.to_owned(), Arc::new(deciding));
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<ReceivedRequest> {
        self.shared
            .requests
            .lock()
            .expect("no holder panics")
            .clone()
    }

    /// How many requests there were so far.
    pub fn count(&self) -> usize {
        self.shared.requests.lock().expect("no holder panics").len()
    }

    /// How many connections there were so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Waits until there were at least this many requests, and returns them.
    pub async fn expect_requests(&self, at_least: usize, within: Duration) -> Vec<ReceivedRequest> {
        let what = format!("{at_least} requests at the receiver");
        eventually(within, &what, async || {
            (self.count() >= at_least).then(|| self.requests())
        })
        .await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Serves whoever connects, in the version of HTTP that they begin to speak.
async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, app: Router, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("a listener accepts");
        shared.connections.fetch_add(1, Ordering::Relaxed);
        // Else those that ended would be kept to the end.
        while connections.try_join_next().is_some() {}
        let (tls, app) = (tls.clone(), app.clone());
        connections.spawn(async move {
            let Some(tls) = tls else {
                return serve_connection(stream, app).await;
            };
            match tls.accept(stream).into_fallible().await {
                Ok(stream) => serve_connection(stream, app).await,
                // Why they are turned away is lost to a reset when something they sent is left unread.
                Err((_, mut stream)) => {
                    drop(tokio::io::copy(&mut stream, &mut tokio::io::sink()).await)
                }
            }
        });
    }
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    app: Router,
) {
    let builder = auto::Builder::new(TokioExecutor::new());
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app));
    // Who breaks a connection off has their reasons.
    drop(served.await);
}

async fn receive(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let request = ReceivedRequest {
        path: uri.path().to_owned(),
        version,
        headers,
        body,
        at: wall_clock().now(),
        instant: Instant::now(),
    };
    let deciding = {
        let behaviours = shared.behaviours.lock().expect("no holder panics");
        behaviours.get(&request.path).cloned()
    };
    let behaviour = deciding.map_or_else(Behaviour::default, |deciding| deciding(&request));
    shared
        .requests
        .lock()
        .expect("no holder panics")
        .push(request);
    tokio::time::sleep(behaviour.delay).await;
    let status = StatusCode::from_u16(behaviour.status).expect("tests name real statuses");
    let mut response = (status, behaviour.body).into_response();
    for (name, value) in behaviour.headers {
        let value = value.parse().expect("tests name valid header values");
        response.headers_mut().insert(name, value);
    }
    response
}
