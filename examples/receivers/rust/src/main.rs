//! Receives webhooks: verifies, answers, and only then works. A repeat is worked on once.
//!
//! Usage: `WEBHOOK_SECRET=whsec_… fanfare-example-receiver PORT`
//!
//! What was seen is remembered in memory here. A service keeps it in its database, with the `webhook-id` as a unique
//! key, in the transaction that does the work; then it also holds when the service is restarted.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example speaks to people"
)]

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex},
};

use anyhow::Context as _;
use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode},
    routing::post,
};
use serde::Deserialize;
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use tokio::{net::TcpListener, sync::mpsc};

const LARGEST_BODY: usize = 1024 * 1024;
const MOST_REMEMBERED: usize = 100_000;
const MOST_WAITING: usize = 1000;

/// What requests share.
struct Receiver {
    webhook: Webhook,
    waiting: mpsc::Sender<Value>,
    seen: Mutex<Seen>,
}

/// The ids of the latest notifications, and the order in which they came.
#[derive(Default)]
struct Seen {
    ids: HashSet<String>,
    order: VecDeque<String>,
}

/// What the body of a notification holds.
#[derive(Deserialize)]
struct Notification {
    r#type: String,
    data: Value,
}

async fn receive(
    State(receiver): State<Arc<Receiver>>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    // On the bytes as they came, before anything parses them.
    if let Err(fault) = receiver.webhook.verify(&body, &headers) {
        eprintln!("refused: {fault}");
        return StatusCode::UNAUTHORIZED;
    }
    let Ok(notification) = serde_json::from_slice::<Notification>(&body) else {
        return StatusCode::BAD_REQUEST;
    };
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let id = header("webhook-id").unwrap_or_default();
    let mut seen = receiver
        .seen
        .lock()
        .expect("nobody panics while holding it");
    if seen.ids.contains(id) {
        return StatusCode::NO_CONTENT;
    }
    let work = json!({
        "id": id,
        "type": notification.r#type,
        "traceparent": header("traceparent"),
        "data": notification.data,
    });
    // Better to be called again than to promise what a full memory cannot keep.
    if receiver.waiting.try_send(work).is_err() {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    seen.ids.insert(id.to_owned());
    seen.order.push_back(id.to_owned());
    if seen.order.len() > MOST_REMEMBERED
        && let Some(oldest) = seen.order.pop_front()
    {
        seen.ids.remove(&oldest);
    }
    StatusCode::NO_CONTENT
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let port = std::env::args().nth(1).context("usage: PORT")?;
    #[expect(clippy::disallowed_methods, reason = "a secret is no argument")]
    let secret = std::env::var("WEBHOOK_SECRET").context("WEBHOOK_SECRET is not set")?;
    let (waiting, mut work) = mpsc::channel(MOST_WAITING);
    let receiver = Receiver {
        webhook: Webhook::new(&secret).context("WEBHOOK_SECRET is not a secret")?,
        waiting,
        seen: Mutex::default(),
    };
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    println!("listening at http://{}/", listener.local_addr()?);
    let app = Router::new()
        .route("/", post(receive))
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .with_state(Arc::new(receiver));
    let working = async {
        while let Some(next) = work.recv().await {
            println!("{next}");
        }
    };
    let serving = axum::serve(listener, app);
    tokio::select! {
        ended = serving.into_future() => ended.context("serving"),
        () = working => Ok(()),
    }
}
