//! `fanfare dev`: everything on this machine, shown working.

mod campaign;
mod node;
mod story;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use fanfare_model::Secret;
use fanfare_registry::EncryptionKey;
use tempfile::TempDir;
use tokio::time::Instant;

use self::{node::Node, story::Story};
use crate::{
    Config, DevArgs, Role, Sources, clock,
    output::note,
    signals::Signals,
    wiring::{Fanfare, Stop},
};

/// Runs the demonstration, then keeps serving until a signal, unless it is told to end by itself.
pub(crate) async fn run(args: &DevArgs, sources: &Sources) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let signals = Signals::watch().context("watching for signals")?;
    let home = Home::new(args)?;
    let loaded = Config::load(sources)?;
    let given = loaded
        .was_given("broker.url")
        .then(|| loaded.settings.broker.url.clone());
    let node_directory = home.path().join("rabbitmq");
    let node = tokio::task::spawn_blocking(move || Node::find(given, &node_directory))
        .await
        .context("finding a RabbitMQ")??;
    let config = config(loaded.settings, node.url().clone(), &home)?;

    let shown = demonstrate(args, config, &signals).await;
    // Whatever happened, nothing that was started here is left.
    let stopped = tokio::task::spawn_blocking(move || node.stop()).await;
    stopped.context("stopping RabbitMQ")??;
    home.leave()?;
    shown?;
    note(&format!(
        "done after {:.1} s",
        begun.elapsed().as_secs_f64()
    ))?;
    Ok(ExitCode::SUCCESS)
}

async fn demonstrate(args: &DevArgs, config: Config, signals: &Signals) -> anyhow::Result<()> {
    fanfare_telemetry::init_logs(&config.telemetry).context("setting up logs")?;
    let stop = Stop {
        terminate: signals.terminate.clone(),
        abort: signals.abort.clone(),
    };
    let roles = vec![Role::Api, Role::Router, Role::Dispatcher, Role::Recorder];
    let clock = clock::system_clock();
    let broker_settings = config.broker.clone();
    let fanfare = Fanfare::start(config, roles, clock.clone(), stop.clone()).await?;
    let story = Story {
        api: fanfare.address(),
        broker: fanfare.broker().clone(),
        broker_settings,
        registry: fanfare.registry().clone(),
        snapshots: fanfare.snapshots().clone(),
        clock,
    };
    let telling = async {
        let told = story.tell(&stop.terminate).await;
        if told.is_ok() && !args.exit {
            note("serving until Ctrl-C")?;
            stop.terminate.cancelled().await;
        }
        stop.terminate.cancel();
        told
    };
    let (told, ended) = tokio::join!(telling, fanfare.run());
    ended?;
    told
}

/// The settings of the demonstration: everything in one place, loopback may be called, quiet logs.
fn config(mut config: Config, url: Secret, home: &Home) -> anyhow::Result<Config> {
    let key_file = home.path().join("registry.key");
    EncryptionKey::from_file_or_create(&key_file).context("making a key for the registry")?;
    config.broker.url = url;
    config.registry.database = home.path().join("fanfare.db").into();
    config.history.database = home.path().join("fanfare-history.db").into();
    config.registry.snapshot_file = Some(home.path().join("registry.snapshot"));
    config.registry.encryption_key = None;
    config.registry.encryption_key_file = Some(key_file);
    config
        .dispatcher
        .egress
        .allow_networks
        .push("127.0.0.0/8".parse()?);
    // A free port: another Fanfare, or anything else, may have the default one.
    config.api.listen.set_port(0);
    config.shutdown_grace = config.shutdown_grace.min(Duration::from_secs(45));
    config.telemetry.log_filter = "warn".to_owned().try_into()?;
    Ok(config)
}

/// The directory that everything is kept in.
enum Home {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl Home {
    fn new(args: &DevArgs) -> anyhow::Result<Self> {
        if let Some(path) = &args.data_dir {
            std::fs::create_dir_all(path).with_context(|| format!("making {}", path.display()))?;
            return Ok(Self::Kept(std::path::absolute(path)?));
        }
        let made = tempfile::Builder::new().prefix("fanfare-dev-").tempdir();
        let directory = made.context("making a temporary directory")?;
        Ok(if args.keep {
            Self::Kept(directory.keep())
        } else {
            Self::Temporary(directory)
        })
    }

    fn path(&self) -> &std::path::Path {
        match self {
            Self::Temporary(directory) => directory.path(),
            Self::Kept(path) => path,
        }
    }

    fn leave(self) -> anyhow::Result<()> {
        match self {
            Self::Temporary(directory) => directory.close().context("removing what was made"),
            Self::Kept(path) => Ok(note(&format!("everything is kept in {}", path.display()))?),
        }
    }
}
