//! Rules about source files.

use crate::{
    checkout::{self, File, rust_files},
    code::{code_of, lines_with_word},
};

/// The most lines of a file, its tests not counted. From 400 on, look for what could live apart.
const MOST_LINES: usize = 600;

/// The parts that may name an AMQP library. The bench measures a bare client beside Fanfare.
const MAY_SPEAK_AMQP: [&str; 3] = ["crates/broker/", "crates/testkit/", "crates/cli/src/bench"];

/// The parts that make or serve HTTP.
const MAY_SPEAK_HTTP: [&str; 4] = [
    "crates/api/",
    "crates/cli/",
    "crates/egress/",
    "crates/testkit/",
];

fn check(rule: &str, breaches_of: impl Fn(&File) -> Vec<String>) {
    let breaches = rust_files().iter().flat_map(breaches_of).collect();
    checkout::none(rule, breaches);
}

fn may(file: &File, parts: &[&str]) -> bool {
    parts.iter().any(|part| file.path.starts_with(part))
}

/// A breach for each line of code that has one of these words.
fn breaches_by_word(file: &File, words: &[&str], what: &str) -> Vec<String> {
    let code = code_of(&file.text);
    let lines_of = |word: &&str| lines_with_word(&code, word);
    let lines = words.iter().flat_map(lines_of);
    lines.map(|line| file.breach(line, what)).collect()
}

#[test]
fn every_file_opens_by_saying_what_it_is_for() {
    check(
        "a file opens with `//!` and a sentence",
        without_opening_line,
    );
    let sample = File::sample("crates/a/src/b.rs", "use c;\n//! Late.\n");
    assert_eq!(without_opening_line(&sample).len(), 1);
}

fn without_opening_line(file: &File) -> Vec<String> {
    let opens = file.text.starts_with("//! ");
    let breach = || file.breach(1, "does not open with `//!`");
    (!opens).then(breach).into_iter().collect()
}

#[test]
fn no_file_is_longer_than_people_read() {
    check("a file has at most 600 lines beside its tests", too_long);
    let tests = "#[cfg(test)]\nmod tests {\n    x\n}\n";
    let (most, one) = ("x\n".repeat(MOST_LINES - 1), "x\n");
    for (text, breaches) in [
        (format!("{most}{tests}"), 0),
        (format!("#[cfg(test)]\nmod tests;\n{most}"), 1),
        (format!("{tests}{most}{one}"), 1),
    ] {
        let sample = File::sample("crates/a/src/b.rs", &text);
        assert_eq!(too_long(&sample).len(), breaches);
    }
}

fn too_long(file: &File) -> Vec<String> {
    let lines = lines_without_tests(&file.text);
    if file.is_for_tests() || lines <= MOST_LINES {
        return Vec::new();
    }
    vec![file.breach(MOST_LINES, &format!("has {lines} lines"))]
}

fn lines_without_tests(text: &str) -> usize {
    let (mut count, mut in_tests, mut previous) = (0, false, "");
    for line in text.lines() {
        in_tests |= previous == "#[cfg(test)]" && line.contains("mod ") && line.ends_with('{');
        count += usize::from(!in_tests);
        in_tests &= line != "}";
        previous = line;
    }
    count
}

#[test]
fn only_the_broker_crate_names_amqp() {
    check("AMQP is `broker`'s affair", naming_amqp);
    let text = "// lapin\nuse lapin::Channel;\n";
    for (path, breaches) in [
        ("crates/router/src/run.rs", 1),
        ("crates/broker/src/inbox.rs", 0),
        ("crates/cli/src/bench/skeleton.rs", 0),
    ] {
        assert_eq!(naming_amqp(&File::sample(path, text)).len(), breaches);
    }
}

fn naming_amqp(file: &File) -> Vec<String> {
    if may(file, &MAY_SPEAK_AMQP) {
        return Vec::new();
    }
    let words = ["lapin", "amq_protocol"];
    breaches_by_word(file, &words, "names an AMQP library")
}

#[test]
fn only_api_cli_and_egress_name_http_libraries() {
    check("HTTP is for `api`, `cli` and `egress`", naming_http);
    let text = "use axum::Router;\n";
    for (path, breaches) in [
        ("crates/router/src/run.rs", 1),
        ("crates/api/src/run.rs", 0),
        ("tests/tests/system.rs", 0),
    ] {
        assert_eq!(naming_http(&File::sample(path, text)).len(), breaches);
    }
}

fn naming_http(file: &File) -> Vec<String> {
    if file.is_for_tests() || may(file, &MAY_SPEAK_HTTP) {
        return Vec::new();
    }
    let words = ["reqwest", "axum", "hyper"];
    breaches_by_word(file, &words, "names an HTTP library")
}

#[test]
fn only_cli_reads_the_environment_and_the_command_line() {
    check(
        "the environment and the command line are `cli`'s affair",
        reading_env,
    );
    let text = "use std::{env, fs};\nlet home = env::var_os(\"HOME\");\nlet v = env!(\"V\");\n";
    let in_router = File::sample("crates/router/src/run.rs", text);
    assert_eq!(
        reading_env(&in_router),
        ["crates/router/src/run.rs:2: reads the environment"]
    );
    let in_cli = File::sample("crates/cli/src/config.rs", text);
    assert_eq!(reading_env(&in_cli), [""; 0]);
}

fn reading_env(file: &File) -> Vec<String> {
    let exempt = file.is_for_tests()
        || file.path.ends_with("/build.rs")
        || may(file, &["crates/cli/", "crates/testkit/"]);
    if exempt {
        return Vec::new();
    }
    let code = code_of(&file.text);
    let reads = |line: &str| line.contains("env::") || line.contains("std::env");
    let lines = code.lines().enumerate().filter(|(_, line)| reads(line));
    let breach = |(index, _)| file.breach(index + 1, "reads the environment");
    lines.map(breach).collect()
}

#[test]
fn nothing_is_left_unfinished_and_no_test_is_ignored() {
    check("no `todo!`, `unimplemented!` or `#[ignore]`", unfinished);
    let sample = File::sample("a.rs", "#[ignore]\nfn a() {\n    todo!()\n}\n// todo!\n");
    assert_eq!(unfinished(&sample).len(), 2);
}

fn unfinished(file: &File) -> Vec<String> {
    let code = code_of(&file.text);
    let bad = |line: &str| {
        ["todo!", "unimplemented!", "#[ignore"]
            .iter()
            .any(|mark| line.contains(mark))
    };
    let lines = code.lines().enumerate().filter(|(_, line)| bad(line));
    let breach = |(index, _)| file.breach(index + 1, "is unfinished or ignored");
    lines.map(breach).collect()
}

#[test]
fn what_is_to_do_has_an_issue() {
    let directories = [
        "crates", "tests", "docs", "deploy", "proto", "examples", ".ci",
    ];
    let existing = directories.map(|name| (name, checkout::root().join(name).is_dir()));
    let existing: Vec<_> = existing.iter().filter(|(_, is)| *is).collect();
    let existing: Vec<_> = existing.iter().map(|(name, _)| *name).collect();
    let is_text = |path: &str| !path.ends_with(".bin");
    let mut files = checkout::files(&existing, is_text);
    let at_root = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"];
    files.extend(at_root.map(checkout::read));
    files.extend(["Makefile", "Cargo.toml"].map(checkout::read));
    let breaches = files.iter().flat_map(notes_without_issue).collect();
    checkout::none("a note of something to do names its issue", breaches);

    let (to_do, fix_me) = (TO_DO.concat(), FIX_ME.concat());
    let text = format!("// {to_do}: one.\n// {to_do}(#12): two.\n// {fix_me} three\n");
    assert_eq!(notes_without_issue(&File::sample("a.rs", &text)).len(), 2);
}

/// In parts, so that this file does not break its own rule.
const TO_DO: [&str; 2] = ["TO", "DO"];
const FIX_ME: [&str; 2] = ["FIX", "ME"];

fn notes_without_issue(file: &File) -> Vec<String> {
    let marks = [TO_DO.concat(), FIX_ME.concat()];
    let bad = |line: &str| {
        marks.iter().any(|mark| {
            line.match_indices(mark.as_str()).any(|(start, _)| {
                let issue = line[start + mark.len()..].strip_prefix("(#");
                !issue.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
            })
        })
    };
    let lines = file.text.lines().enumerate().filter(|(_, line)| bad(line));
    let breach = |(index, _)| file.breach(index + 1, "names no issue");
    lines.map(breach).collect()
}
