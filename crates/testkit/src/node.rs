//! A RabbitMQ node of a test's own, to stop and to crash.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use fanfare_broker::Settings;
use tempfile::TempDir;

use crate::{Version, broker::settings_for, eventually};

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

    /// Stops it, leaves it stopped for this long, and starts it again: the length is the fault.
    pub async fn stop_for(&self, outage: std::time::Duration) {
        self.stop().await;
        tokio::time::sleep(outage).await;
        self.start_again().await;
    }

    /// Kills it, as a crash would.
    pub async fn kill(&self) {
        self.script("kill").await;
    }

    /// Starts it again, with the same data on the same port.
    pub async fn start_again(&self) {
        self.script("start").await;
    }

    /// Runs a command of `rabbitmqctl`, which takes a second or two.
    pub async fn control(&self, arguments: &[&str]) -> String {
        let mut command = self.command("ctl");
        command.args(arguments);
        self.run(command, "ctl").await
    }

    /// Waits until a queue would outlive a crash.
    ///
    /// RabbitMQ writes the list of its quorum queues with a delay; a queue declared just before a crash
    /// is lost with all that was confirmed in it.
    pub async fn keeps_queue(&self, name: &str) {
        let what = format!("queue `{name}` in the list on disk");
        eventually(Duration::from_secs(30), &what, async || {
            is_listed(self.directory.path(), name).then_some(())
        })
        .await;
    }

    async fn script(&self, subcommand: &'static str) -> String {
        self.run(self.command(subcommand), subcommand).await
    }

    async fn run(&self, mut command: Command, subcommand: &'static str) -> String {
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

/// Whether a list of quorum queues (`names.dets`) below `directory` has the name.
fn is_listed(directory: &Path, name: &str) -> bool {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return is_listed(&path, name);
        }
        let list = (entry.file_name() == "names.dets").then(|| fs::read(&path).ok());
        let list = list.flatten().unwrap_or_default();
        list.windows(name.len()).any(|part| part == name.as_bytes())
    })
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
