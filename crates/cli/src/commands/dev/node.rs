//! Finds a RabbitMQ for the demonstration, and ends the one that it started.
//!
//! In this order: the one that `FANFARE_AMQP_URL` names; a `rabbitmq-server` on the machine, run as a
//! private node; docker; the distribution's package, installed without starting its service.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};
use fanfare_model::Secret;

use crate::output::note;

/// The same script that tests start their nodes by.
const NODE_SCRIPT: &str = include_str!("../../../../../deploy/rabbitmq/node.sh");
/// Which it reads from beside it.
const ADVANCED_CONFIG: &str = include_str!("../../../../../deploy/rabbitmq/advanced.config");
const IMAGE: &str = "rabbitmq:4.3";

/// A broker for the demonstration.
pub(crate) enum Node {
    /// Somebody else's; it is left as it is, but for Fanfare's own exchanges and queues.
    Given(Secret),
    /// A private node of ours.
    Script {
        url: Secret,
        directory: PathBuf,
        script: PathBuf,
    },
    /// A container of ours.
    Container { url: Secret, id: String },
}

impl Node {
    /// Finds or starts one. What a private node writes goes to `directory`.
    pub(crate) fn find(given: Option<Secret>, directory: &Path) -> anyhow::Result<Self> {
        if let Some(url) = given {
            note("using the RabbitMQ that FANFARE_AMQP_URL names")?;
            return Ok(Self::Given(url));
        }
        if !is_installed() && docker_answers() {
            return Self::start_container();
        }
        // Without an installed one, the script says what it installs before it does.
        Self::start_script(directory)
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> &Secret {
        match self {
            Self::Given(url) | Self::Script { url, .. } | Self::Container { url, .. } => url,
        }
    }

    /// Ends it, if it was started here.
    pub(crate) fn stop(&self) -> anyhow::Result<()> {
        match self {
            Self::Given(_) => Ok(()),
            Self::Script {
                directory, script, ..
            } => {
                note("stopping the private RabbitMQ node")?;
                run(Command::new("bash").arg(script).arg("stop").arg(directory)).map(drop)
            }
            Self::Container { id, .. } => {
                note("removing the RabbitMQ container")?;
                run(Command::new("docker").args(["rm", "--force", id])).map(drop)
            }
        }
    }

    fn start_script(directory: &Path) -> anyhow::Result<Self> {
        note("starting a private RabbitMQ node: own name, ports, epmd and data, loopback only")?;
        std::fs::create_dir_all(directory)
            .with_context(|| format!("making {}", directory.display()))?;
        let script = directory.join("node.sh");
        for (file, text) in [
            (&script, NODE_SCRIPT),
            (&directory.join("advanced.config"), ADVANCED_CONFIG),
        ] {
            std::fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
        }
        let directory = directory.join("node");
        let url = run(Command::new("bash")
            .arg(&script)
            .arg("start")
            .arg(&directory))
        .context("starting RabbitMQ; its messages are above")?;
        Ok(Self::Script {
            url: Secret::new(url),
            directory,
            script,
        })
    }

    fn start_container() -> anyhow::Result<Self> {
        note(&format!("starting a container of {IMAGE}"))?;
        let published = ["--publish", "127.0.0.1::5672"];
        let id = run(Command::new("docker")
            .args(["run", "--detach"])
            .args(published)
            .arg(IMAGE))?;
        let address = run(Command::new("docker").args(["port", &id, "5672/tcp"]))?;
        let address = address.lines().next().unwrap_or_default();
        ensure!(
            !address.is_empty(),
            "docker does not say where the container listens"
        );
        Ok(Self::Container {
            // The image's own user, reachable over loopback alone.
            url: Secret::new(format!("amqp://guest:guest@{address}/%2f")),
            id,
        })
    }
}

fn is_installed() -> bool {
    [
        "/usr/lib/rabbitmq",
        "/usr/local/lib/rabbitmq",
        "/opt/rabbitmq",
    ]
    .iter()
    .any(|path| Path::new(path).exists())
}

fn docker_answers() -> bool {
    let asked = Command::new("docker")
        .args(["version", "--format", "{{.Server.Version}}"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    asked.is_ok_and(|answer| answer.status.success() && !answer.stdout.is_empty())
}

/// Runs a command to its end and returns what it printed; its progress goes to our stderr.
fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("running {:?}", command.get_program()))?;
    if !output.status.success() {
        bail!("{:?} ended with {}", command.get_program(), output.status);
    }
    let printed = String::from_utf8(output.stdout).context("reading what it printed")?;
    Ok(printed.trim().to_owned())
}
