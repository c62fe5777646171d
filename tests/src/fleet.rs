//! Several members in this process, each with some of the roles, on one broker and one registry.

use fanfare_broker::Settings as BrokerSettings;
use fanfare_cli::{Config, Ending, Fanfare, Role, Stop};
use fanfare_journal::History;
use fanfare_model::Endpoint;
use fanfare_registry::{NewEndpoint, Registry, Settings as RegistrySettings};
use fanfare_testkit::wall_clock;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::pipeline::config;

/// What members have in common. They find endpoints that were registered before they joined.
pub struct Fleet {
    config: Config,
    home: TempDir,
}

/// A process's worth of roles, running in this process.
pub struct Member {
    stop: Stop,
    running: JoinHandle<anyhow::Result<Ending>>,
}

impl Fleet {
    /// A fleet without members. Loopback may be called.
    pub fn new(broker: BrokerSettings) -> Self {
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        Self {
            config: config(broker, &home),
            home,
        }
    }

    /// Registers an endpoint of tenant `t` that wants everything, after `adjust` had its way with it.
    pub async fn register(&self, url: &str, adjust: impl FnOnce(&mut NewEndpoint)) -> Endpoint {
        let registry = open_registry(&self.home).await;
        let tenant = "t".parse().expect("a tenant");
        let wants = vec!["*".parse().expect("a pattern")];
        let mut new = NewEndpoint::new(tenant, url.parse().expect("a target"), wants);
        adjust(&mut new);
        let created = registry
            .create_endpoint(new, "test", wall_clock().now())
            .await;
        registry.close().await;
        created.expect("the endpoint is valid")
    }

    /// Starts a member; a dispatcher has this id.
    pub async fn join(&self, id: &str, roles: &[Role]) -> Member {
        let mut config = self.config.clone();
        config.dispatcher.id = id.to_owned();
        let stop = Stop::default();
        let fanfare = Fanfare::start(config, roles.to_vec(), wall_clock(), stop.clone())
            .await
            .expect("the member starts");
        #[expect(clippy::disallowed_methods, reason = "`Member::leave` waits for it")]
        let running = tokio::spawn(fanfare.run());
        Member { stop, running }
    }
}

impl Member {
    /// Stops it as SIGTERM would, and returns how it ended.
    pub async fn leave(self) -> Ending {
        self.stop.terminate.cancel();
        let ended = self.running.await.expect("no role panicked");
        ended.expect("no role failed")
    }
}

/// The registry that whoever has this home uses.
pub async fn open_registry(home: &TempDir) -> Registry {
    let settings = RegistrySettings {
        database: home.path().join("fanfare.db").into(),
        encryption_key: Some("07".repeat(32).into()),
        ..RegistrySettings::default()
    };
    Registry::open(&settings).await.expect("the registry opens")
}

/// The history that whoever has this home uses.
pub async fn open_history(home: &TempDir) -> History {
    let settings = fanfare_journal::Settings {
        database: home.path().join("fanfare-history.db").into(),
        ..fanfare_journal::Settings::default()
    };
    History::open(&settings).await.expect("the history opens")
}
