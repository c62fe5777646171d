//! Fanfare as it is measured: a registry full of endpoints, and the roles in this process or in ones of their own.

use std::{
    env,
    net::{SocketAddr, TcpListener},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use fanfare_broker::{Broker, Settings as BrokerSettings};
use fanfare_model::{Clock, Event, Schedule, Secret, TenantId};
use fanfare_producer::{EventBuilder, Mode, Producer};
use fanfare_registry::{NewEndpoint, Registry};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time,
};
use uuid::Uuid;

use super::{load, process::Watched};
use crate::{
    Config, Role,
    wiring::{Fanfare, Stop},
};

/// How many requests may be in flight to an endpoint: enough that its cap is not what is measured.
pub(super) const MAX_IN_FLIGHT: u16 = 64;

const DATABASE: &str = "fanfare.db";
const ENCRYPTION_KEY: &str = "0707070707070707070707070707070707070707070707070707070707070707";

/// How many types of events a tenant has, each with endpoints of its own.
const TYPES_PER_TENANT: u64 = 100;

/// How long a role may take to get ready with many endpoints.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// Who is there to receive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Audience {
    /// How many types of events there are, each wanted by endpoints of its own.
    pub(super) types: u64,
    /// How many endpoints want each type.
    pub(super) fan_out: u64,
    /// Where they receive.
    pub(super) path: &'static str,
    /// How fast each of them may be called.
    pub(super) rate: Option<&'static str>,
}

impl Audience {
    /// Endpoints without a rate.
    pub(super) const fn new(types: u64, fan_out: u64, path: &'static str) -> Self {
        Self {
            types,
            fan_out,
            path,
            rate: None,
        }
    }

    pub(super) const fn limited_to(self, rate: &'static str) -> Self {
        let rate = Some(rate);
        Self { rate, ..self }
    }
}

/// A registry in a directory of its own, and a configuration that uses it.
pub(super) struct Home {
    directory: TempDir,
    config: Config,
    audience: Audience,
    mode: Mode,
    clock: Clock,
}

impl Home {
    /// Registers the audience at `base`, the URL of the sink without a path.
    pub(super) async fn new(
        broker: &BrokerSettings,
        audience: Audience,
        base: &str,
        clock: &Clock,
    ) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir().context("making a temporary directory")?;
        let mut config = Config {
            broker: broker.clone(),
            ..Config::default()
        };
        config.registry.database = directory.path().join(DATABASE).into();
        config.registry.encryption_key = Some(Secret::new(ENCRYPTION_KEY.to_owned()));
        config.api.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.dispatcher.egress.allow_networks = vec!["127.0.0.0/8".parse()?];
        let home = Self {
            directory,
            config,
            audience,
            mode: Mode::default(),
            clock: clock.clone(),
        };
        home.register(base).await?;
        Ok(home)
    }

    async fn register(&self, base: &str) -> anyhow::Result<()> {
        let registry = Registry::open(&self.config.registry).await?;
        let url = format!("{base}{}", self.audience.path);
        for number in 0..self.audience.types {
            for _ in 0..self.audience.fan_out {
                let (tenant, event_type) = kind(number);
                let tenant: TenantId = tenant.parse()?;
                let mut new = NewEndpoint::new(tenant, url.parse()?, vec![event_type.parse()?]);
                new.max_in_flight = MAX_IN_FLIGHT;
                new.rate = self.audience.rate.map(str::parse).transpose()?;
                new.schedule = Schedule::exponential(2, 2.0, 8, 20, None)?;
                let now = self.clock.now();
                registry.create_endpoint(new, "bench", now).await?;
            }
        }
        registry.close().await;
        Ok(())
    }

    /// The same with a change of the settings.
    pub(super) fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// The same with events in this form.
    pub(super) fn publishing(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// Runs roles in this process, and ends them after `measure`.
    pub(super) async fn run<T>(
        &self,
        roles: &[Role],
        measure: impl AsyncFnOnce(&Subject) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let stop = Stop::default();
        let (config, clock) = (self.config.clone(), self.clock.clone());
        let fanfare = Fanfare::start(config, roles.to_vec(), clock, stop.clone()).await?;
        let snapshots = fanfare.snapshots().clone();
        let subject = Subject {
            monitor: fanfare.address(),
            ..self.subject(fanfare.broker())
        };
        let measuring = async {
            snapshots.wait_until_known().await;
            let measured = measure(&subject).await;
            stop.terminate.cancel();
            measured
        };
        let (measured, ended) = tokio::join!(measuring, fanfare.run());
        ended?;
        measured
    }

    /// A producer alone, for roles that run elsewhere. Close its broker.
    pub(super) async fn producer(&self) -> anyhow::Result<Subject> {
        let broker = Broker::connect(&self.config.broker, "bench", READY_WITHIN).await?;
        Ok(self.subject(&broker))
    }

    fn subject(&self, broker: &Broker) -> Subject {
        Subject {
            producer: Producer::on(broker, self.clock.clone()).mode(self.mode),
            broker: broker.clone(),
            audience: self.audience,
            clock: self.clock.clone(),
            source: format!("bench-{}", Uuid::now_v7()),
            monitor: self.config.api.listen,
        }
    }

    /// Starts a role as a process of its own, and waits until it is ready.
    pub(super) async fn spawn(&self, role: Role) -> anyhow::Result<RoleProcess> {
        let address = free_address()?;
        let broker = &self.config.broker;
        let child = Command::new(env::current_exe().context("finding this program")?)
            .args(["serve", "--roles", role.name()])
            .current_dir(self.directory.path())
            .env("FANFARE__BROKER__URL", broker.url.expose())
            .env("FANFARE__BROKER__PREFIX", broker.prefix.to_string())
            .env(
                "FANFARE__REGISTRY__DATABASE",
                self.directory.path().join(DATABASE),
            )
            .env("FANFARE__REGISTRY__ENCRYPTION_KEY", ENCRYPTION_KEY)
            .env("FANFARE__API__LISTEN", address.to_string())
            .env(
                "FANFARE__DISPATCHER__EGRESS__ALLOW_NETWORKS",
                r#"["127.0.0.0/8"]"#,
            )
            .env("FANFARE__TELEMETRY__LOG_FILTER", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("starting a role")?;
        let id = child.id().context("a role ended at once")?;
        let running = RoleProcess {
            child,
            watched: Watched(id),
        };
        let ready = async {
            while get(address, "/readyz").await.is_err() {
                time::sleep(Duration::from_millis(50)).await;
            }
        };
        time::timeout(READY_WITHIN, ready)
            .await
            .with_context(|| format!("the role {} did not get ready", role.name()))?;
        Ok(running)
    }
}

/// A role that runs as a process. It is killed when dropped.
pub(super) struct RoleProcess {
    child: Child,
    pub(super) watched: Watched,
}

impl RoleProcess {
    /// Ends it in an orderly way.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        let id = self.watched.0.to_string();
        let told = Command::new("kill").args(["-s", "TERM", &id]).status();
        ensure!(told.await?.success(), "a role could not be told to stop");
        let ended = self.child.wait().await?;
        ensure!(ended.success(), "a role ended with {ended}");
        Ok(())
    }
}

/// Fanfare, as a producer sees it.
pub(super) struct Subject {
    pub(super) broker: Broker,
    producer: Producer,
    audience: Audience,
    clock: Clock,
    source: String,
    monitor: SocketAddr,
}

impl Subject {
    /// Publishes an event of the next type.
    pub(super) async fn publish(&self, number: u64) -> anyhow::Result<()> {
        Ok(self.producer.publish(&self.event(number)?).await?)
    }

    fn event(&self, number: u64) -> anyhow::Result<Event> {
        let now = self.clock.now();
        let (tenant, event_type) = kind(number % self.audience.types);
        // Warm-up and measurement count from zero each, so the number alone would make repeats.
        let id = format!("{}-{number}", Uuid::now_v7());
        let event = EventBuilder::new(&tenant, &event_type, &self.source)
            .id(&id)
            .json(&load::data(now.as_microsecond()))
            .build();
        Ok(event?)
    }

    /// Waits until no event waits to be routed.
    pub(super) async fn wait_until_routed(&self) -> anyhow::Result<()> {
        let queue = self.broker.topology().events_queue();
        while self.broker.depth(&queue).await? > 0 {
            time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// The metrics that the roles show.
    pub(super) async fn metrics(&self) -> anyhow::Result<Metrics> {
        Ok(Metrics(get(self.monitor, "/metrics").await?))
    }
}

/// Tenant and type of the events of this number.
fn kind(number: u64) -> (String, String) {
    let (tenant, event_type) = (number / TYPES_PER_TENANT, number % TYPES_PER_TENANT);
    (format!("bench-{tenant}"), format!("bench.{event_type}"))
}

/// An address that nobody listens at. Somebody else could take it before it is used; then the role says so.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

async fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<bytes::Bytes>>();
    let url = format!("http://{address}{path}").parse()?;
    let response = client.get(url).await?;
    ensure!(
        response.status().is_success(),
        "answered {}",
        response.status()
    );
    let body = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(body.to_vec())?)
}

/// A page of metrics, in lines `name{labels} value`.
pub(super) struct Metrics(String);

impl Metrics {
    /// The sum of a counter over all its labels that contain `label`.
    pub(super) fn sum(&self, name: &str, label: &str) -> f64 {
        let value = |line: &str| {
            let rest = line.strip_prefix(name)?;
            let is_this = rest.starts_with('{') || rest.starts_with(' ');
            let (labels, value) = rest.rsplit_once(' ')?;
            let value = value.parse::<f64>().ok()?;
            (is_this && labels.contains(label)).then_some(value)
        };
        // From zero: the sum of nothing would be -0.
        self.0
            .lines()
            .filter_map(value)
            .fold(0.0, |sum, value| sum + value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_summed_over_its_labels_alone() {
        let page = "# TYPE hops counter\nhops{why=\"a\",x=\"y z\"} 3\nhops{why=\"b\"} 4\nhops_made 100\nbare 2\n";
        let page = Metrics(page.to_owned());
        for (name, label, expected) in [
            ("hops", "", 7.0),
            ("hops", "why=\"b\"", 4.0),
            ("bare", "", 2.0),
            ("hop", "", 0.0),
        ] {
            let sum = page.sum(name, label);
            assert!((sum - expected).abs() < 1e-9, "{name} {label}: {sum}");
        }
    }

    #[test]
    fn types_are_spread_over_tenants() {
        for (number, tenant, event_type) in [
            (0, "bench-0", "bench.0"),
            (99, "bench-0", "bench.99"),
            (100, "bench-1", "bench.0"),
        ] {
            assert_eq!(kind(number), (tenant.to_owned(), event_type.to_owned()));
        }
    }
}
