//! A running API with a key, and the calls that tests make.

use std::{sync::Arc, time::Duration};

use fanfare_api::{Announcer, Api, ApiFault, Health, Settings, run};
use fanfare_broker::{Broker, JournalWriter};
use fanfare_deadletters::Desk;
use fanfare_egress::{Egress, EgressSettings};
use fanfare_journal::History;
use fanfare_model::Secret;
use fanfare_producer::Producer;
use fanfare_registry::{Registry, Snapshots};
use fanfare_testkit::wall_clock;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// How long anything in a test may take on a slow, busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running API.
pub(crate) struct Server {
    pub(crate) registry: Registry,
    pub(crate) history: History,
    pub(crate) broker: Broker,
    pub(crate) key: String,
    base: String,
    client: Client,
    shutdown: CancellationToken,
    running: JoinSet<Result<(), ApiFault>>,
    _folder: TempDir,
}

impl Server {
    /// One without RabbitMQ.
    pub(crate) async fn without_broker() -> Self {
        Self::start(&unreachable(), |_| {}).await
    }

    pub(crate) async fn start(
        broker: &fanfare_broker::Settings,
        change: impl FnOnce(&mut Api),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = fanfare_registry::Settings {
            database: folder.path().join("fanfare.db").into(),
            encryption_key: Some(Secret::new("a".repeat(64))),
            ..fanfare_registry::Settings::default()
        };
        let registry = Registry::open(&store).await.unwrap();
        let history = History::connect(&fanfare_journal::Settings {
            database: folder.path().join("history.db").into(),
            ..fanfare_journal::Settings::default()
        });
        let now = wall_clock().now();
        let key = registry.create_api_key("tests", "tester", now).await;
        let broker = Broker::start(broker, "api tests").unwrap();
        let mut api = Api {
            settings: Settings {
                // A publish without RabbitMQ is given up after a third of it.
                request_timeout: Duration::from_secs(3),
                ..Settings::default()
            },
            registry: registry.clone(),
            history: history.clone(),
            desk: Desk::new(
                &broker,
                registry.clone(),
                wall_clock(),
                fanfare_deadletters::Settings::default(),
            )
            .indexed_by(history.clone()),
            replays: replays(&broker, &registry, &history),
            snapshots: Snapshots::new(),
            announcer: Announcer::on(&broker, wall_clock()),
            producer: Producer::on(&broker, wall_clock()),
            egress: Egress::new(&EgressSettings::default()).unwrap(),
            clock: wall_clock(),
            health: Health::new(),
            metrics: Arc::new(|| "fanfare_sample 1\n".to_owned()),
        };
        change(&mut api);

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let mut running = JoinSet::new();
        running.spawn(run(listener, api, shutdown.clone()));
        Self {
            registry,
            history,
            broker,
            key: key.unwrap().key.expose().to_owned(),
            base,
            client: Client::builder().no_proxy().build().unwrap(),
            shutdown,
            running,
            _folder: folder,
        }
    }

    /// A request with the key.
    pub(crate) fn call(&self, method: Method, path: &str) -> RequestBuilder {
        self.call_without_key(method, path).bearer_auth(&self.key)
    }

    pub(crate) fn call_without_key(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.call(Method::GET, path).send().await.unwrap()
    }

    /// Publishes an event for tenant `t`.
    pub(crate) fn publish(&self, event: &Value) -> RequestBuilder {
        self.call(Method::POST, "/v1/tenants/t/events")
            .header("content-type", "application/cloudevents+json")
            .body(event.to_string())
    }

    /// Asks for an endpoint of tenant `t`.
    pub(crate) async fn create(&self, endpoint: &Value) -> Response {
        let request = self.call(Method::POST, "/v1/tenants/t/endpoints");
        request.json(endpoint).send().await.unwrap()
    }

    /// Tells the API to stop.
    pub(crate) fn shut_down(&self) {
        self.shutdown.cancel();
    }

    /// Waits for its end.
    pub(crate) async fn ended(mut self) -> Result<(), ApiFault> {
        self.running.join_next().await.unwrap().unwrap()
    }
}

/// A desk whose operations nobody runs.
fn replays(broker: &Broker, registry: &Registry, history: &History) -> fanfare_replay::Desk {
    let (clock, settings) = (wall_clock(), fanfare_deadletters::Settings::default());
    let pace = settings.replay_pace;
    let dead_letters =
        fanfare_deadletters::Desk::new(broker, registry.clone(), clock.clone(), settings);
    let journal = JournalWriter::off();
    fanfare_replay::Desk::new(broker, history.clone(), journal, dead_letters, clock, pace)
}

/// Settings for a RabbitMQ that is not there: nothing listens on the first port.
pub(crate) fn unreachable() -> fanfare_broker::Settings {
    fanfare_broker::Settings {
        url: Secret::new("amqp://127.0.0.1:1/%2f".to_owned()),
        ..fanfare_broker::Settings::default()
    }
}

/// The status, the code and the names of the fields at fault of a problem.
pub(crate) async fn problem(response: Response) -> (u16, String, Vec<String>) {
    let status = response.status().as_u16();
    let media_type = response.headers().get("content-type").cloned();
    let text = response.text().await.unwrap();
    assert_eq!(media_type.unwrap(), "application/problem+json", "{text}");
    let body: Value = serde_json::from_str(&text).unwrap();
    let code = body["code"].as_str().unwrap();
    assert_eq!(body["status"], status);
    assert_eq!(body["type"], format!("urn:fanfare:problem:{code}"));
    for text in ["title", "detail"] {
        assert!(!body[text].as_str().unwrap().is_empty(), "{body}");
    }
    let errors = body["errors"].as_array().unwrap();
    let field = |error: &Value| error["field"].as_str().unwrap().to_owned();
    (status, code.to_owned(), errors.iter().map(field).collect())
}
