//! The sink as its parent sees it: where it listens, and what has arrived.

use std::{
    env,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time,
};

use super::process::Watched;

/// With something under way and no arrival for this long, the measurement has failed.
const LONGEST_SILENCE: Duration = Duration::from_secs(60);

/// A sink that runs.
pub(super) struct Arrivals {
    sink: Child,
    lines: Lines<BufReader<ChildStdout>>,
    port: u16,
    /// How many requests have arrived since it was started.
    pub(super) count: u64,
    /// How long timed events took, in microseconds, since [`Self::take_latencies`].
    latencies: Vec<u64>,
}

impl Arrivals {
    /// Starts a sink: this program, as a process of its own.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let program = env::current_exe().context("finding this program")?;
        let mut sink = Command::new(program)
            .arg("bench-sink")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("starting the sink")?;
        let stdout = sink.stdout.take().expect("it was asked for");
        let mut lines = BufReader::new(stdout).lines();
        let first = lines.next_line().await?;
        let port = first.as_deref().and_then(|line| line.strip_prefix("port "));
        let port = port.context("the sink did not say its port")?.parse()?;
        Ok(Self {
            sink,
            lines,
            port,
            count: 0,
            latencies: Vec::new(),
        })
    }

    /// The URL of a path.
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The sink's process.
    pub(super) fn watched(&self) -> Option<Watched> {
        self.sink.id().map(Watched)
    }

    /// Waits for the next news. Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> anyhow::Result<()> {
        let news = time::timeout(LONGEST_SILENCE, self.lines.next_line()).await;
        let line = news.with_context(|| format!("nothing arrived for {LONGEST_SILENCE:?}"))??;
        let line = line.context("the sink ended")?;
        match line.split_once(' ') {
            Some(("count", number)) => self.count = number.parse()?,
            Some(("took", number)) => self.latencies.push(number.parse()?),
            Some(_) | None => bail!("the sink said `{line}`"),
        }
        Ok(())
    }

    /// How long the timed events took that arrived since the last call, in microseconds.
    pub(super) fn take_latencies(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.latencies)
    }

    /// Ends the sink.
    pub(super) async fn stop(mut self) -> anyhow::Result<ExitStatus> {
        drop(self.sink.stdin.take());
        self.sink.wait().await.context("ending the sink")
    }
}
