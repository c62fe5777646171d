//! A run of the skeleton: bare AMQP from the broker crate, and a bare signed POST.

use std::time::Duration;

use bytes::Bytes;
use fanfare_broker::{Settings, Skeleton};
use fanfare_model::{Clock, SigningSecret, sign_standard};
use http::{Request, Uri};
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tracing::warn;
use uuid::Uuid;

use super::{
    WARM_UP,
    arrivals::Arrivals,
    load::{self, Run},
    scenarios::PLAIN,
    sink::TIMED,
};

/// Measures `events` deliveries of the skeleton.
pub(super) async fn run(
    settings: &Settings,
    events: u64,
    arrivals: &mut Arrivals,
    clock: &Clock,
) -> anyhow::Result<Run> {
    let skeleton = open(settings, &arrivals.url(PLAIN), clock).await?;
    let publish = async |_| publish(&skeleton, clock).await;
    load::run(WARM_UP, 1, arrivals, publish).await?;
    let run = load::run(events, 1, arrivals, publish).await?;
    skeleton.close().await?;
    Ok(run)
}

/// How long `rate` events per second take from publish to arrival, in microseconds.
pub(super) async fn latency(
    settings: &Settings,
    rate: u32,
    lasting: Duration,
    arrivals: &mut Arrivals,
    clock: &Clock,
) -> anyhow::Result<Vec<u64>> {
    let skeleton = open(settings, &arrivals.url(TIMED), clock).await?;
    let publish = async |_| publish(&skeleton, clock).await;
    load::run(u64::from(rate), 1, arrivals, publish).await?;
    arrivals.take_latencies();
    load::paced(rate, lasting, arrivals, publish).await?;
    skeleton.close().await?;
    Ok(arrivals.take_latencies())
}

async fn open(settings: &Settings, target: &str, clock: &Clock) -> anyhow::Result<Skeleton> {
    let post = Post::new(target.parse()?, clock.clone());
    let deliver = move |body| {
        let post = post.clone();
        async move {
            // An event that did not arrive shows in the count.
            if let Err(error) = post.send(body).await {
                warn!(
                    error = format!("{error:#}"),
                    "a request of the skeleton failed"
                );
            }
        }
    };
    Ok(Skeleton::open(settings, deliver).await?)
}

async fn publish(skeleton: &Skeleton, clock: &Clock) -> anyhow::Result<()> {
    let body = load::data(clock.now().as_microsecond());
    Ok(skeleton.publish(&body).await?)
}

/// Signs and posts through a pooled client.
#[derive(Clone)]
struct Post {
    client: Client<HttpConnector, Full<Bytes>>,
    target: Uri,
    secret: SigningSecret,
    clock: Clock,
}

impl Post {
    fn new(target: Uri, clock: Clock) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            target,
            secret: SigningSecret::generate(),
            clock,
        }
    }

    async fn send(&self, body: Vec<u8>) -> anyhow::Result<()> {
        let (id, now) = (Uuid::now_v7().to_string(), self.clock.now());
        let signature = sign_standard([&self.secret], &id, now, &body);
        let request = Request::post(self.target.clone())
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", now.as_second())
            .header("webhook-signature", signature)
            .body(Full::from(body))?;
        let response = self.client.request(request).await?;
        anyhow::ensure!(response.status() == 200, "answered {}", response.status());
        Ok(())
    }
}
