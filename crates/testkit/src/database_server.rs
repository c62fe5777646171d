//! A PostgreSQL server of a test's own, to stop and to crash.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use tempfile::TempDir;

use crate::TestDatabase;

/// A server that lives as long as this value. Everything it writes goes with it.
pub struct DatabaseServer {
    directory: TempDir,
    url: String,
}

impl DatabaseServer {
    /// Starts a server, which takes a second or two.
    pub async fn start() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("fanfare-postgres-")
            .tempdir()
            .expect("a temporary directory can be made");
        let mut server = Self {
            directory,
            url: String::new(),
        };
        server.url = server.script("start").await;
        server
    }

    /// A database on this server.
    pub fn database(&self) -> TestDatabase {
        TestDatabase::on(&self.url)
    }

    /// Stops it in an orderly way; clients lose their connections.
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

    async fn script(&self, what: &'static str) -> String {
        let mut command = self.command(what);
        let output = tokio::task::spawn_blocking(move || command.output())
            .await
            .expect("running a script does not panic")
            .expect("the script can be run");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "server.sh {what}: {errors}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn command(&self, what: &str) -> Command {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let script = workspace.join("deploy/postgres/server.sh");
        let mut command = Command::new(script);
        command
            .arg(what)
            .arg(self.directory.path())
            .stdin(Stdio::null());
        command
    }
}

impl Drop for DatabaseServer {
    fn drop(&mut self) {
        // What is left behind when this fails is a process without its data, which ends by itself.
        self.command("stop").output().ok();
    }
}
