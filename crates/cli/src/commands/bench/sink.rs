//! The receiver of a measurement: a process of its own with one thread, which answers 200 and counts.
//!
//! It tells its parent on stdout, a line each: `port N` once, `count N` when requests have arrived, and
//! `took N` (microseconds since the body's `sent`) for every request to [`TIMED`]. It ends with its stdin.

use std::{
    collections::HashSet,
    convert::Infallible,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use fanfare_model::Clock;
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    HeaderMap, Request, Response, StatusCode, body::Incoming, server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
    runtime,
    sync::watch,
    task::JoinSet,
    time,
};

use crate::{clock, output::print};

/// Where requests go whose bodies say when they were sent.
pub(super) const TIMED: &str = "/timed";

/// Where the first request of each delivery is refused.
pub(super) const FAILS_ONCE: &str = "/fails-once";

/// The longest that an arrival is kept back, so that thousands a second take few lines.
const TELL_EVERY: Duration = Duration::from_millis(1);

/// Receives until stdin closes.
pub(crate) async fn run() -> anyhow::Result<()> {
    let thread = tokio::task::spawn_blocking(|| {
        let single = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        single.block_on(async {
            tokio::select! {
                served = serve() => served,
                closed = until_stdin_closes() => closed.context("watching stdin"),
            }
        })
    });
    thread.await.context("the thread of the sink")?
}

async fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    print(&format!("port {}", listener.local_addr()?.port()))?;
    let (count, counted) = watch::channel(0);
    let sink = Arc::new(Sink {
        count,
        refused: Mutex::default(),
        clock: clock::system_clock(),
    });
    let mut connections = JoinSet::new();
    tokio::select! {
        told = tell(counted) => told,
        failed = async {
            loop {
                let stream = match listener.accept().await {
                    Ok((stream, _)) => stream,
                    Err(error) => break error,
                };
                connections.spawn(answer_all(stream, Arc::clone(&sink)));
                while connections.try_join_next().is_some() {}
            }
        } => Err(failed).context("accepting connections"),
    }
}

/// What all connections share.
struct Sink {
    /// How many requests have arrived.
    count: watch::Sender<u64>,
    /// The ids of deliveries that were refused.
    refused: Mutex<HashSet<Vec<u8>>>,
    clock: Clock,
}

async fn answer_all(stream: TcpStream, sink: Arc<Sink>) {
    let answering = service_fn(|request| sink.answer(request));
    // Small answers must not wait for more to send.
    stream.set_nodelay(true).ok();
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), answering);
    // A client that goes away in the middle shows in the count.
    connection.await.ok();
}

impl Sink {
    async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Empty<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let mut response = Response::new(Empty::new());
        if head.uri.path() == FAILS_ONCE && self.refuses(&head.headers) {
            // Refused by somebody who is up. A 503 would open circuits, whose probes are refused in turn when they are
            // first attempts, and how many those are depends on the machine.
            *response.status_mut() = StatusCode::CONFLICT;
        }
        if let Ok(body) = body.collect().await {
            if head.uri.path() == TIMED
                && let Some(sent) = sent(&body.to_bytes())
            {
                let took = self.clock.now().as_microsecond() - sent;
                // A parent that has gone has closed stdin as well.
                print(&format!("took {took}")).ok();
            }
            self.count.send_modify(|count| *count += 1);
        }
        Ok(response)
    }

    /// Whether a delivery is here for the first time.
    fn refuses(&self, headers: &HeaderMap) -> bool {
        let id = headers.get("webhook-id").map(|id| id.as_bytes().to_vec());
        let mut refused = self
            .refused
            .lock()
            .expect("nobody panics while holding the ids");
        id.is_some_and(|id| refused.insert(id))
    }
}

/// The number after `"sent":`.
fn sent(body: &[u8]) -> Option<i64> {
    let (_, rest) = std::str::from_utf8(body).ok()?.split_once("\"sent\":")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

async fn tell(mut counted: watch::Receiver<u64>) -> anyhow::Result<()> {
    while counted.changed().await.is_ok() {
        time::sleep(TELL_EVERY).await;
        let count = *counted.borrow_and_update();
        print(&format!("count {count}"))?;
    }
    Ok(())
}

async fn until_stdin_closes() -> io::Result<()> {
    let mut stdin = tokio::io::stdin();
    while stdin.read(&mut [0; 64]).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_sending_is_found_in_a_body() {
        for (body, expected) in [
            (r#"{"data":{"sent":12,"pad":"x"}}"#, Some(12)),
            (r#"{"sent":7}"#, Some(7)),
            (r#"{"sent":"7"}"#, None),
            ("{}", None),
        ] {
            assert_eq!(sent(body.as_bytes()), expected, "{body}");
        }
    }
}
