//! The examples in other languages, run as their readers would run them.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use crate::fanfare_binary;

/// A language in which there is an example of a producer and of a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Python, with pika.
    Python,
    /// JavaScript, with amqplib.
    Node,
    /// Go, with amqp091-go.
    Go,
    /// Rust, with the SDK.
    Rust,
}

impl Language {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Python, Self::Node, Self::Go, Self::Rust];

    /// The name that its example puts into ids and sources.
    pub fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Node => "node",
            Self::Go => "go",
            Self::Rust => "rust",
        }
    }

    /// The example that publishes. Its arguments: AMQP URL, tenant, how many events.
    pub fn producer(self) -> Command {
        match self {
            Self::Python => interpreted("PYTHON", example("producers/python/publish.py")),
            Self::Node => interpreted("NODE", place("NODE_PRODUCER")),
            Self::Go => Command::new(place("GO_PRODUCER")),
            Self::Rust => Command::new(built("fanfare-example-producer")),
        }
    }

    /// The example that receives. Its argument: a port. The secret is in its environment.
    pub fn receiver(self) -> Command {
        match self {
            Self::Python => interpreted("PYTHON", example("receivers/python/receive.py")),
            Self::Node => interpreted("NODE", place("NODE_RECEIVER")),
            Self::Go => Command::new(place("GO_RECEIVER")),
            Self::Rust => Command::new(built("fanfare-example-receiver")),
        }
    }
}

fn interpreted(interpreter: &str, script: impl AsRef<Path>) -> Command {
    let mut command = Command::new(place(interpreter));
    command.arg(script.as_ref());
    command
}

fn example(path: &str) -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.join("../examples").join(path)
}

/// A program of the workspace, beside the one that all tests run.
fn built(name: &str) -> PathBuf {
    let binary = fanfare_binary().with_file_name(name);
    let hint = "build it first: `cargo build --workspace --bins`, as `make test` does";
    assert!(
        binary.exists(),
        "{} does not exist; {hint}",
        binary.display()
    );
    binary
}

/// What `tests/languages.sh` prints about a name. The first call installs what is missing.
pub(crate) fn place(name: &str) -> &'static str {
    static PLACES: OnceLock<HashMap<String, String>> = OnceLock::new();
    let places = PLACES.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("languages.sh");
        let output = Command::new(script)
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .expect("the script can be run");
        assert!(output.status.success(), "languages.sh: {}", output.status);
        let printed = String::from_utf8(output.stdout).expect("paths are UTF-8");
        let lines = printed.lines().filter_map(|line| line.split_once('='));
        lines
            .map(|(n, path)| (n.to_owned(), path.to_owned()))
            .collect()
    });
    &places[name]
}
