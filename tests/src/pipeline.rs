//! All roles in this process, on one broker and a registry of their own.

use std::{net::SocketAddr, process::Command, time::Duration};

use fanfare_broker::Settings as BrokerSettings;
use fanfare_cli::{Config, Ending, Fanfare, Role, Stop};
use fanfare_journal::History;
use fanfare_model::{Endpoint, EndpointId, EndpointState, Secret, TenantId};
use fanfare_registry::{NewEndpoint, Registry, Rotation, Snapshots};
use fanfare_testkit::{PlainAmqp, eventually, wall_clock};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};

use crate::command;

/// How long anything in a test may take on a slow, busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The whole program, running in this process.
pub struct Pipeline {
    url: String,
    registry: Registry,
    history: History,
    snapshots: Snapshots,
    address: SocketAddr,
    stop: Stop,
    running: JoinHandle<anyhow::Result<Ending>>,
    home: TempDir,
}

impl Pipeline {
    /// Starts all roles. Loopback may be called, because that is where the receivers of tests are.
    pub async fn start(broker: BrokerSettings) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        let config = config(broker, &home);
        let url = config.broker.url.expose().to_owned();
        let roles = vec![Role::Api, Role::Router, Role::Dispatcher, Role::Recorder];
        let stop = Stop::default();
        let fanfare = Fanfare::start(config, roles, wall_clock(), stop.clone())
            .await
            .expect("the program starts");
        let (registry, snapshots) = (fanfare.registry().clone(), fanfare.snapshots().clone());
        let history = fanfare.history().clone();
        let address = fanfare.address();
        #[expect(clippy::disallowed_methods, reason = "`Pipeline::stop` waits for it")]
        let running = tokio::spawn(fanfare.run());
        Self {
            url,
            registry,
            history,
            snapshots,
            address,
            stop,
            running,
            home,
        }
    }

    /// Registers an endpoint for some event types, after `adjust` had its way with it, and waits until
    /// it takes effect.
    pub async fn register(
        &self,
        tenant: &str,
        url: &str,
        wants: &[&str],
        adjust: impl FnOnce(&mut NewEndpoint),
    ) -> Endpoint {
        let patterns = wants.iter().map(|text| text.parse().expect("a pattern"));
        let tenant: TenantId = tenant.parse().expect("a tenant");
        let url = url.parse().expect("a target");
        let mut new = NewEndpoint::new(tenant, url, patterns.collect());
        adjust(&mut new);
        let endpoint = self
            .registry
            .create_endpoint(new, "test", wall_clock().now())
            .await
            .expect("the endpoint is valid");
        self.wait_until_current().await;
        endpoint
    }

    /// Changes the state of an endpoint and waits until it takes effect.
    pub async fn set_state(&self, endpoint: &Endpoint, state: EndpointState) {
        let (tenant, id, now) = (&endpoint.tenant, endpoint.id, wall_clock().now());
        let changed = self
            .registry
            .set_state(tenant, id, state, "test", now)
            .await;
        changed
            .expect("the store answers")
            .expect("the endpoint exists");
        self.wait_until_current().await;
    }

    /// Gives an endpoint another secret and waits until it takes effect.
    pub async fn rotate_secret(&self, endpoint: &Endpoint, rotation: &Rotation) -> Endpoint {
        let (tenant, id, now) = (&endpoint.tenant, endpoint.id, wall_clock().now());
        let rotated = self
            .registry
            .rotate_secret(tenant, id, rotation, "test", now)
            .await;
        let rotated = rotated.expect("the secret is of the right kind");
        self.wait_until_current().await;
        rotated.expect("the endpoint exists")
    }

    /// The state of an endpoint, as the registry has it.
    pub async fn state_of(&self, endpoint: &Endpoint) -> EndpointState {
        let stored = self.registry.endpoint(&endpoint.tenant, endpoint.id).await;
        stored
            .expect("the store answers")
            .expect("the endpoint exists")
            .state
    }

    /// Deletes an endpoint and waits until it takes effect.
    pub async fn delete(&self, tenant: &TenantId, id: EndpointId) {
        let deleted = self
            .registry
            .delete_endpoint(tenant, id, "test", wall_clock().now())
            .await;
        assert!(deleted.expect("the store answers"), "the endpoint exists");
        self.wait_until_current().await;
    }

    /// An API key.
    pub async fn key(&self) -> Secret {
        let made = self
            .registry
            .create_api_key("test", "test", wall_clock().now())
            .await;
        made.expect("the store answers").key
    }

    /// What happened.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Where the API listens.
    pub fn api(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The sum of a counter over its labels, as `/metrics` shows it.
    pub async fn counter(&self, name: &str) -> f64 {
        let text = self.metrics().await;
        let lines = text.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        let value = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
        lines.filter_map(value).sum()
    }

    /// What `/metrics` shows.
    pub async fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(self.address)
            .await
            .expect("the program listens");
        let request = "GET /metrics HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
        let asked = stream.write_all(request.as_bytes()).await;
        asked.expect("the program reads");
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer).await;
        read.expect("the program answers with text");
        answer
    }

    /// `fanfare` on the same broker, registry and history, as a process of its own.
    pub fn command(&self) -> Command {
        command(&self.url, self.home.path())
    }

    /// The AMQP URL of its broker.
    pub fn amqp_url(&self) -> &str {
        &self.url
    }

    /// A client that has nothing of ours.
    pub async fn plain_amqp(&self) -> PlainAmqp {
        PlainAmqp::connect(&self.url).await
    }

    /// Waits until a queue holds this many messages.
    pub async fn expect_depth(&self, queue: &str, depth: u32) {
        let amqp = self.plain_amqp().await;
        let what = format!("{depth} messages in {queue}");
        eventually(PATIENCE, &what, async || {
            (amqp.depth(queue).await == Some(depth)).then_some(())
        })
        .await;
    }

    /// Stops it as SIGTERM would, and returns how it ended.
    pub async fn stop(self) -> Ending {
        self.stop.terminate.cancel();
        let ended = self.running.await.expect("no role panicked");
        ended.expect("no role failed")
    }

    async fn wait_until_current(&self) {
        let version = self.registry.version().await.expect("the store answers");
        self.snapshots.nudge();
        self.snapshots.wait_for_version(version).await;
    }
}

/// Settings for everything in a temporary directory.
pub(crate) fn config(broker: BrokerSettings, home: &TempDir) -> Config {
    let mut config = Config {
        broker,
        ..Config::default()
    };
    config.registry.database = home.path().join("fanfare.db").into();
    config.history.database = home.path().join("fanfare-history.db").into();
    config.registry.encryption_key = Some(Secret::new("07".repeat(32)));
    config.api.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.dispatcher.id = "test".to_owned();
    let loopback = "127.0.0.0/8".parse().expect("a network");
    config.dispatcher.egress.allow_networks = vec![loopback];
    config
}
