//! Programs in Python and JavaScript, as services and receivers in other languages would be.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use crate::languages::place;

/// Runs a script of `tests/python` with input on stdin and returns what it printed. Panics when it fails.
pub fn python(script: &str, arguments: &[&str], input: &[u8]) -> String {
    let path = format!("python/{script}");
    run(Command::new(interpreter()), &path, arguments, input)
}

/// The same with one of `tests/node`, which finds the packages that the example of a receiver has.
pub fn node(script: &str, arguments: &[&str], input: &[u8]) -> String {
    let example = Path::new(place("NODE_RECEIVER"));
    let mut command = Command::new(place("NODE"));
    command.env("NODE_PATH", example.with_file_name("node_modules"));
    run(command, &format!("node/{script}"), arguments, input)
}

fn run(mut command: Command, script: &str, arguments: &[&str], input: &[u8]) -> String {
    let mut child = command
        .arg(format!("{}/{script}", env!("CARGO_MANIFEST_DIR")))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the interpreter runs");
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    stdin.write_all(input).expect("the script reads its input");
    drop(stdin);
    let output = child.wait_with_output().expect("the script ends");
    assert!(output.status.success(), "{script}: {}", output.status);
    String::from_utf8(output.stdout).expect("the script prints text")
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test run says by environment where its Python is"
)]
fn interpreter() -> String {
    std::env::var("FANFARE_TEST_PYTHON").unwrap_or_else(|_| {
        panic!("FANFARE_TEST_PYTHON is not set: run the tests with `make test`, which prepares it")
    })
}
