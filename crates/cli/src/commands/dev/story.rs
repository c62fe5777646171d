//! The demonstration itself: register, publish, receive, fail, find the dead letter.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, bail, ensure};
use axum::http::StatusCode;
use fanfare_broker::{Broker, Settings, publish_plainly};
use fanfare_model::{Clock, EndpointId, Event, Secret, SignatureScheme, TraceContext};
use fanfare_registry::{NewEndpoint, Registry, Snapshots};
use fanfare_wire::{event_envelope, event_envelope_binary};
use tokio::{sync::mpsc, task::JoinSet, time};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::campaign::{self, CAMPAIGN, ENDPOINTS, OVER_HTTP, SampleEndpoint};
use crate::{
    output::print,
    receiver::{Behaviour, ReceivedRequest, Receiver, ReceiverSettings, Verdict},
};

/// How long each part of the demonstration may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the demonstration is told with.
pub(super) struct Story {
    pub(super) api: SocketAddr,
    pub(super) broker: Broker,
    pub(super) broker_settings: Settings,
    pub(super) registry: Registry,
    pub(super) snapshots: Snapshots,
    pub(super) clock: Clock,
}

/// What arrived, and at which receiver.
type Arrival = (&'static SampleEndpoint, ReceivedRequest);

impl Story {
    /// Tells the story. The receivers go on listening until `stop`.
    pub(super) async fn tell(&self, stop: &CancellationToken) -> anyhow::Result<()> {
        let mut receivers = JoinSet::new();
        let (arrive, mut arrivals) = mpsc::channel(64);
        say("\n1. Endpoints of a referral campaign")?;
        let mut broken = None;
        for sample in &ENDPOINTS {
            let id = self.register(sample, &arrive, &mut receivers, stop).await?;
            if sample.schedule.is_some() {
                broken = Some(id);
            }
        }
        drop(arrive);
        let version = self.registry.version().await?;
        self.snapshots.nudge();
        within(
            "the registry to take effect",
            self.snapshots.wait_for_version(version),
        )
        .await?;

        let run = Uuid::now_v7().simple().to_string();
        let events = campaign::events(&run);
        let key = self
            .registry
            .create_api_key("fanfare dev", "fanfare dev", self.clock.now());
        let key = key.await.context("making an API key")?.key;
        self.publish_over_amqp(&events).await?;
        let over_http = self.publish_over_http(&run, &key).await?;

        let all: Vec<&Event> = events
            .iter()
            .map(|(_, event)| event)
            .chain([&over_http])
            .collect();
        self.watch(&all, &mut arrivals).await?;
        self.show_dead_letter(broken).await?;
        self.say_what_next(&key)?;
        receivers.spawn(print_later_arrivals(arrivals));
        // The receivers outlive the story, until the process is told to stop.
        let stop = stop.clone();
        let serve_on = async move {
            stop.cancelled().await;
            while receivers.join_next().await.is_some() {}
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "it ends with the process's stop token"
        )]
        drop(tokio::spawn(serve_on));
        Ok(())
    }

    async fn register(
        &self,
        sample: &'static SampleEndpoint,
        arrive: &mpsc::Sender<Arrival>,
        receivers: &mut JoinSet<()>,
        stop: &CancellationToken,
    ) -> anyhow::Result<EndpointId> {
        let secret = fanfare_model::SigningSecret::generate();
        let settings = ReceiverSettings {
            secret: Some(secret.clone()),
            signature: SignatureScheme::Standard,
            behaviour: Behaviour {
                status: StatusCode::from_u16(sample.answers)?,
                ..Behaviour::default()
            },
            forward: None,
            clock: self.clock.clone(),
        };
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let (receiver, address, mut requests) = Receiver::bind(loopback, settings)
            .await
            .context("starting a sample receiver")?;
        let stop = stop.clone();
        receivers.spawn(async move {
            if let Err(error) = receiver.run(stop).await {
                tracing::error!(%error, "a sample receiver failed");
            }
        });
        let arrive = arrive.clone();
        receivers.spawn(async move {
            while let Some(request) = requests.recv().await {
                if arrive.send((sample, request)).await.is_err() {
                    return;
                }
            }
        });

        let url = format!("http://{address}/{}", sample.name);
        let mut endpoint = NewEndpoint::new(campaign::tenant(), url.parse()?, sample.patterns());
        endpoint.description = format!("sample receiver `{}`", sample.name);
        endpoint.schedule = sample.schedule();
        endpoint.secrets = vec![secret];
        let endpoint = self
            .registry
            .create_endpoint(endpoint, "fanfare dev", self.clock.now())
            .await
            .context("registering a sample endpoint")?;
        let wants = sample.wants.join(", ");
        let answers = sample.answers;
        say(&format!(
            "   {:<8} wants {wants:<20} answers {answers}   {url}",
            sample.name
        ))?;
        Ok(endpoint.id)
    }

    async fn publish_over_amqp(&self, events: &[(&str, Event)]) -> anyhow::Result<()> {
        say("\n2. What happens in the campaign, published as CloudEvents by a plain AMQP client")?;
        let (topology, now) = (self.broker.topology(), self.clock.now());
        let message = |(number, (_, event)): (usize, &(&str, Event))| {
            let trace = new_trace();
            // Producers choose the mode; both are shown.
            let envelope = if number.is_multiple_of(2) {
                event_envelope(event, &trace, now)
            } else {
                event_envelope_binary(event, &trace, now)
            };
            (
                topology.event_address(&event.tenant, &event.event_type),
                envelope,
            )
        };
        let messages = events.iter().enumerate().map(message).collect();
        publish_plainly(&self.broker_settings, messages).await?;
        for (what, event) in events {
            say(&format!("   {:<20} {what}", event.event_type.as_str()))?;
        }
        Ok(())
    }

    /// Publishes one more over HTTP and returns it.
    async fn publish_over_http(&self, run: &str, key: &Secret) -> anyhow::Result<Event> {
        say("\n3. And one over HTTP")?;
        let (event_type, data) = OVER_HTTP;
        let id = format!("{run}-http");
        let body = format!(
            r#"{{"specversion":"1.0","type":"{event_type}","source":"/referral/campaigns","id":"{id}","data":{data}}}"#
        );
        let url = format!("http://{}/v1/tenants/{CAMPAIGN}/events", self.api);
        let client = reqwest::Client::builder().no_proxy().build()?;
        let answer = client
            .post(&url)
            .bearer_auth(key.expose())
            .header("content-type", "application/cloudevents+json")
            .body(body)
            .send()
            .await
            .context("publishing over HTTP")?;
        let status = answer.status();
        let text = answer.text().await.unwrap_or_default();
        ensure!(
            status == reqwest::StatusCode::ACCEPTED,
            "the API answered {status}: {text}"
        );
        say(&format!("   POST {url} answered {status}"))?;
        let (_, mut event) = campaign::events(run).swap_remove(6);
        event.id = id;
        Ok(event)
    }

    /// Shows every notification as it arrives, until all are there.
    async fn watch(
        &self,
        events: &[&Event],
        arrivals: &mut mpsc::Receiver<Arrival>,
    ) -> anyhow::Result<()> {
        say("\n4. Notifications as they arrive")?;
        let expected = |sample: &SampleEndpoint| {
            let attempts = sample.schedule.map_or(1, <[u64]>::len);
            sample.wanted(events.iter().copied()) * attempts
        };
        let mut missing: usize = ENDPOINTS.iter().map(expected).sum();
        while missing > 0 {
            let next = within("the next notification", arrivals.recv()).await?;
            let (sample, request) = next.context("the receivers have ended")?;
            say(&line(sample, &request))?;
            if request.verdict != Verdict::Genuine {
                bail!("a notification at `{}` is not genuine", sample.name);
            }
            missing -= 1;
        }
        Ok(())
    }

    async fn show_dead_letter(&self, broken: Option<EndpointId>) -> anyhow::Result<()> {
        say("\n5. The delivery that was given up on, as read from the dead-letter queue")?;
        let queue = self.broker.topology().dead_letters_queue();
        let endpoint = broken.context("one sample endpoint is broken")?.to_string();
        let looking = async {
            loop {
                for letter in self.broker.peek(&queue, 1000).await? {
                    if letter.headers.text("x-fanfare-endpoint") == Some(endpoint.as_str()) {
                        return anyhow::Ok(letter);
                    }
                }
                time::sleep(Duration::from_millis(100)).await;
            }
        };
        let letter = within("the dead letter", looking).await??;
        for (name, value) in letter.headers.iter() {
            if let Some(value) = readable(value) {
                say(&format!("   {name:<28} {value}"))?;
            }
        }
        let body = String::from_utf8_lossy(&letter.body);
        let body: String = body.split_whitespace().collect::<Vec<_>>().join(" ");
        say(&format!("   {:<28} {body}", "body"))
    }

    fn say_what_next(&self, key: &Secret) -> anyhow::Result<()> {
        let (api, amqp) = (
            self.api,
            without_password(self.broker_settings.url.expose()),
        );
        let key = key.expose();
        say(&format!(
            "\nWhere to look\n   API      http://{api}/v1/openapi.json   health http://{api}/readyz   \
             metrics http://{api}/metrics\n   RabbitMQ {amqp}   exchange fanfare.events, queue \
             fanfare.dead-letters\n\nWhat to try next (the key is shown this once)\n   curl -H \
             'authorization: Bearer {key}' http://{api}/v1/tenants/{CAMPAIGN}/endpoints\n   curl -H \
             'authorization: Bearer {key}' -H 'content-type: application/json' \\\n        -d \
             '{{\"specversion\":\"1.0\",\"type\":\"reward.sent\",\"source\":\"/try\",\"data\":{{\"hello\":\"world\"}}}}' \
             \\\n        http://{api}/v1/tenants/{CAMPAIGN}/events\n   fanfare listen --status 500    a \
             receiver of your own that fails on demand\n"
        ))
    }
}

/// Goes on showing what arrives while the demonstration serves.
async fn print_later_arrivals(mut arrivals: mpsc::Receiver<Arrival>) {
    while let Some((sample, request)) = arrivals.recv().await {
        if say(&line(sample, &request)).is_err() {
            return;
        }
    }
}

fn line(sample: &SampleEndpoint, request: &ReceivedRequest) -> String {
    let verdict = match &request.verdict {
        Verdict::Genuine => "signature verified".to_owned(),
        Verdict::Unverified => "not verified".to_owned(),
        Verdict::Refused(refusal) => format!("refused: {refusal}"),
    };
    format!(
        "   {:<8} {:<20} {}  {verdict}, answered {}",
        sample.name,
        request.event_type.as_deref().unwrap_or("?"),
        request.id.as_deref().unwrap_or("no webhook-id"),
        request.answer.map_or(0, |status| status.as_u16()),
    )
}

fn readable(value: &fanfare_wire::HeaderValue) -> Option<String> {
    use fanfare_wire::HeaderValue;
    match value {
        HeaderValue::Text(text) => Some(text.clone()),
        HeaderValue::Integer(number) => Some(number.to_string()),
        HeaderValue::Boolean(truth) => Some(truth.to_string()),
        HeaderValue::Bytes(_) | HeaderValue::Timestamp(_) | HeaderValue::Other => None,
    }
}

/// A trace as a producer would begin it.
fn new_trace() -> TraceContext {
    let (trace, span) = (
        Uuid::now_v7().simple().to_string(),
        Uuid::now_v7().simple().to_string(),
    );
    let traceparent = format!("00-{trace}-{}-01", &span[16..]);
    TraceContext::from_headers(Some(&traceparent), None)
}

fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    }
}

async fn within<T>(what: &str, wait: impl Future<Output = T>) -> anyhow::Result<T> {
    let waited = time::timeout(PATIENCE, wait).await;
    waited.with_context(|| format!("waited {} s for {what}", PATIENCE.as_secs()))
}

fn say(text: &str) -> anyhow::Result<()> {
    Ok(print(text)?)
}
