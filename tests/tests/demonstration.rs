//! `fanfare dev --exit`, as `make run EXIT=1` runs it: it shows everything and leaves nothing behind.
//!
//! Alone in its binary, so that no other test's broker comes or goes meanwhile.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Stdio},
};

use fanfare_tests::fanfare_binary;

#[test]
fn the_demonstration_ends_by_itself_and_leaves_no_process_behind() {
    let before = processes();
    let output = Command::new(fanfare_binary())
        .args(["dev", "--exit"])
        .env_remove("FANFARE_AMQP_URL")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("the program starts");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}\n{shown}", output.status);

    let lines = |part: &str| shown.lines().filter(|line| line.contains(part)).count();
    // Nine notifications at `crm`, three at `rewards`, three attempts at `broken`.
    assert_eq!(lines("signature verified"), 15, "{shown}");
    assert_eq!(lines("verified, answered 500"), 3, "{shown}");
    for part in [
        "x-fanfare-reason",
        "exhausted",
        "x-fanfare-attempts",
        "202 Accepted",
    ] {
        assert!(shown.contains(part), "{part} is not shown:\n{shown}");
    }
    let left: Vec<_> = processes().difference(&before).cloned().collect();
    assert!(left.is_empty(), "still running: {left:?}");
}

/// The processes that a RabbitMQ node or the program consists of, by id and name.
fn processes() -> BTreeSet<(u32, String)> {
    let ours = [
        "beam.smp",
        "epmd",
        "erl_child_setup",
        "inet_gethost",
        "fanfare",
        "rabbitmq-server",
    ];
    let entries = Path::new("/proc").read_dir().expect("there is /proc");
    let process = |entry: std::io::Result<std::fs::DirEntry>| {
        let id: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let status = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let name = status.split_once('(')?.1.rsplit_once(')')?;
        // A zombie has ended; only its parent has not noticed yet.
        let ended = name.1.trim_start().starts_with('Z');
        (!ended && ours.contains(&name.0)).then(|| (id, name.0.to_owned()))
    };
    entries.filter_map(process).collect()
}
