//! A RabbitMQ node of a test's own, to stop and to crash.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use fanfare_broker::Settings;
use tempfile::TempDir;

use crate::{Version, broker::settings_for};

/// A node that lives as long as this value. Everything it writes goes with it.
pub struct Node {
    directory: TempDir,
    version: Version,
    url: String,
}

impl Node {
    /// Starts a node, which takes some seconds.
    pub async fn start(version: Version) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("fanfare-node-")
            .tempdir()
            .expect("a temporary directory can be made");
        let mut node = Self {
            directory,
            version,
            url: String::new(),
        };
        node.url = node.script("start").await;
        node
    }

    /// The AMQP URL; the same after every restart.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Settings for it.
    pub fn settings(&self) -> Settings {
        settings_for(&self.url)
    }

    /// Stops it in an orderly way.
    pub async fn stop(&self) {
        self.script("stop").await;
    }

    /// Kills it, as a crash would.
    pub async fn kill(&self) {
        self.script("kill").await;
    }

    /// Starts it again, with the same data on the same port.
    pub async fn start_again(&self) {
        self.script("start").await;
    }

    async fn script(&self, subcommand: &'static str) -> String {
        let mut command = self.command(subcommand);
        tokio::task::spawn_blocking(move || run(&mut command))
            .await
            .expect("running a script does not panic")
            .unwrap_or_else(|fault| panic!("node.sh {subcommand}: {fault}"))
    }

    fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(script_path());
        command.arg(subcommand).arg(self.directory.path());
        if subcommand == "start" {
            command.args(["--version", self.version.name()]);
        }
        command.stdin(Stdio::null()).stderr(Stdio::inherit());
        command
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(fault) = run(&mut self.command("stop")) {
            // Panicking in a drop would hide why the test failed.
            drop(fault);
        }
    }
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|fault| fault.to_string())?;
    if !output.status.success() {
        return Err(output.status.to_string());
    }
    let printed = String::from_utf8_lossy(&output.stdout);
    Ok(printed.trim().to_owned())
}

fn script_path() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    workspace.join("deploy/rabbitmq/node.sh")
}
