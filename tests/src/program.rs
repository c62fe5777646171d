//! The program as a process of its own, to be killed.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// The binary that the test run built.
pub fn fanfare_binary() -> PathBuf {
    let here = std::env::current_exe().expect("a test knows its own binary");
    // A test binary lies in `deps`, beside which the programs are.
    let directory = here
        .parent()
        .and_then(|deps| deps.parent())
        .expect("target/…/deps");
    let binary = directory.join("fanfare");
    let hint = "build it first: `cargo build --workspace --bins`, as `make test` does";
    assert!(
        binary.exists(),
        "{} does not exist; {hint}",
        binary.display()
    );
    binary
}

/// `fanfare` on a broker with four partitions, with registry and history in `home`.
pub fn command(amqp_url: &str, home: &Path) -> Command {
    let mut command = Command::new(fanfare_binary());
    command
        .current_dir(home)
        .env("FANFARE__BROKER__URL", amqp_url)
        .env("FANFARE__BROKER__PARTITIONS", "4")
        .env("FANFARE__REGISTRY__DATABASE", home.join("fanfare.db"))
        .env("FANFARE__REGISTRY__ENCRYPTION_KEY", "07".repeat(32))
        .env(
            "FANFARE__HISTORY__DATABASE",
            home.join("fanfare-history.db"),
        );
    command
}

/// Runs a command of the program to its end, which must be a good one, and returns the JSON that it printed.
pub async fn answer_of(amqp_url: &str, home: &TempDir, arguments: &[&str]) -> Value {
    let mut running = command(amqp_url, home.path());
    running.args(arguments).args(["--output", "json"]);
    let output = tokio::task::spawn_blocking(move || running.output())
        .await
        .expect("waiting for a process does not panic")
        .expect("the program runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "fanfare {arguments:?}: {told}");
    serde_json::from_slice(&output.stdout).expect("it prints JSON")
}

/// `fanfare serve` as a process. It is killed when dropped.
pub struct Program {
    child: Child,
}

impl Program {
    /// Starts the roles on a broker, with the registry in `home`.
    pub fn serve(roles: &str, amqp_url: &str, home: &TempDir, extra: &[(&str, &str)]) -> Self {
        Self::serve_logging(roles, amqp_url, home, extra, Stdio::inherit())
    }

    /// The same, with its log going to `log`.
    pub fn serve_logging(
        roles: &str,
        amqp_url: &str,
        home: &TempDir,
        extra: &[(&str, &str)],
        log: Stdio,
    ) -> Self {
        let child = command(amqp_url, home.path())
            .args(["serve", "--roles", roles])
            .env("FANFARE__API__LISTEN", "127.0.0.1:0")
            .env("FANFARE__DISPATCHER__ID", "test")
            .env(
                "FANFARE__DISPATCHER__EGRESS__ALLOW_NETWORKS",
                r#"["127.0.0.0/8"]"#,
            )
            .env("FANFARE__TELEMETRY__LOG_FILTER", "warn")
            .envs(extra.iter().copied())
            .stderr(log)
            .spawn()
            .expect("the program starts");
        Self { child }
    }

    /// Starts another command of the program.
    pub fn start(amqp_url: &str, home: &TempDir, arguments: &[&str]) -> Self {
        let child = command(amqp_url, home.path())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("the program starts");
        Self { child }
    }

    /// The id of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Starts a command for operators, with registry and history in `home`.
    pub fn operator(arguments: &[&str], amqp_url: &str, home: &TempDir) -> Self {
        let child = command(amqp_url, home.path())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("the program starts");
        Self { child }
    }

    /// Waits for its end, and returns its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let ended = self.child.wait();
        ended.expect("the process can be waited for").code()
    }

    /// Starts a relay of the outbox in a database.
    pub fn outbox_relay(amqp_url: &str, database_url: &str, rows: usize) -> Self {
        let child = Command::new(fanfare_binary())
            .args(["outbox", "relay", "--database", database_url])
            .args(["--rows", &rows.to_string()])
            .current_dir(std::env::temp_dir())
            .env("FANFARE__BROKER__URL", amqp_url)
            .env("FANFARE__BROKER__PARTITIONS", "4")
            .env("FANFARE__TELEMETRY__LOG_FILTER", "error")
            .stdin(Stdio::null())
            .spawn()
            .expect("the program starts");
        Self { child }
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub fn kill(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        drop(self.child.kill());
        self.child.wait().expect("the process can be waited for");
    }

    /// Asks it to stop with SIGTERM and returns its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        let told = Command::new("kill").args(["-s", "TERM", &id]).status();
        assert!(told.expect("kill runs").success());
        self.child
            .wait()
            .expect("the process can be waited for")
            .code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}
