//! Rules about documents: what they name exists.

use crate::{
    checkout::{self, File, rust_files},
    code::code_of,
};

/// What a row of `docs/guarantees.md` says when no test proves it.
const NOT_PROVEN: &str = "not proven yet";

fn check(rule: &str, breaches_of: impl Fn(&File) -> Vec<String>) {
    let breaches = checkout::documents().iter().flat_map(breaches_of).collect();
    checkout::none(rule, breaches);
}

/// A piece of code in a document, with its line.
struct Code<'a> {
    line: usize,
    text: &'a str,
    /// A line of a block, rather than a few words in a sentence.
    in_block: bool,
}

fn code_in(document: &File) -> Vec<Code<'_>> {
    let mut in_block = false;
    let mut found = Vec::new();
    for (index, text) in document.text.lines().enumerate() {
        let line = index + 1;
        if text.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            found.push(Code {
                line,
                text,
                in_block,
            });
        } else {
            let spans = text.split('`').skip(1).step_by(2);
            found.extend(spans.map(|text| Code {
                line,
                text,
                in_block,
            }));
        }
    }
    found
}

#[test]
fn every_path_that_a_document_names_exists() {
    check("paths in documents exist", missing_paths);
    let text = "`crates/model` `no/such` `/metrics` `a/*` `text/plain` `crates/model/src/lib.rs::x` \
                [here](Cargo.toml) [there](nowhere.md#x)\n```\nno/such/either\n```\n";
    let expected = [
        "a.md:1: `no/such` does not exist",
        "a.md:1: `nowhere.md` does not exist",
    ];
    assert_eq!(missing_paths(&File::sample("a.md", text)), expected);
}

fn missing_paths(document: &File) -> Vec<String> {
    let root = checkout::root();
    let spans = code_in(document).into_iter().filter(|code| !code.in_block);
    let named = spans.filter(|code| is_path(code.text)).map(|code| {
        let path = code.text.split("::").next().unwrap_or_default();
        (code.line, path, root.join(path))
    });
    let directory = root.join(&document.path);
    let directory = directory.parent().expect("a file is in a directory");
    let linked = links_in(document).map(|(line, path)| (line, path, directory.join(path)));
    named
        .chain(linked)
        .filter(|(_, _, path)| !path.exists())
        .map(|(line, path, _)| document.breach(line, &format!("`{path}` does not exist")))
        .collect()
}

/// Whether a piece of code is a path in this repository, rather than a route, a network, a media type, a
/// pattern or something that a build makes.
fn is_path(code: &str) -> bool {
    let path = code.split("::").next().unwrap_or_default();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let foreign = ["/", "application/", "text/", "target/"];
    path.contains('/')
        && path.chars().all(plain)
        && path.contains(|c: char| c.is_ascii_alphabetic())
        && !foreign.iter().any(|start| path.starts_with(start))
}

fn links_in(document: &File) -> impl Iterator<Item = (usize, &str)> {
    let lines = document.text.lines().enumerate();
    let links = lines.flat_map(|(index, line)| {
        let targets = line.split("](").skip(1);
        let targets = targets.filter_map(|rest| rest.split(')').next());
        targets.map(move |target| (index + 1, target))
    });
    let in_repository = links.filter(|(_, target)| !target.contains("://"));
    let files =
        in_repository.map(|(line, target)| (line, target.split('#').next().unwrap_or_default()));
    files.filter(|(_, path)| !path.is_empty())
}

#[test]
fn every_make_target_that_a_document_names_exists() {
    let makefile = checkout::read("Makefile");
    check("targets in documents are in the Makefile", |document| {
        missing_targets(document, &makefile)
    });
    let makefile = File::sample("Makefile", "run: ## Run.\n\t@echo\n");
    let text = "`make run` `make tea` make sure\n```sh\nmake run EXIT=1\nmake coffee\n```\n";
    let expected = [
        "a.md:1: `make tea` is no target",
        "a.md:4: `make coffee` is no target",
    ];
    assert_eq!(
        missing_targets(&File::sample("a.md", text), &makefile),
        expected
    );
}

fn missing_targets(document: &File, makefile: &File) -> Vec<String> {
    let mut breaches = Vec::new();
    for code in code_in(document) {
        let Some(rest) = code.text.strip_prefix("make ") else {
            continue;
        };
        let target = rest.split_whitespace().next().unwrap_or_default();
        let rule = format!("{target}:");
        if !makefile.text.lines().any(|line| line.starts_with(&rule)) {
            let what = format!("`make {target}` is no target");
            breaches.push(document.breach(code.line, &what));
        }
    }
    breaches
}

#[test]
fn documents_stay_short_enough_to_be_read() {
    let mut breaches = Vec::new();
    for (path, most) in [
        ("ARCHITECTURE.md", 300),
        ("CONTRIBUTING.md", 150),
        ("docs/logging.md", 80),
    ] {
        let lines = checkout::read(path).text.lines().count();
        if lines > most {
            breaches.push(format!("{path}:{most}: has {lines} lines"));
        }
    }
    checkout::none("documents have limits", breaches);
}

#[test]
fn every_test_that_a_document_names_exists() {
    check("tests in documents exist", missing_tests);
    let sample = |name: &str| {
        let text = format!("`tests/tests/tidy/documents.rs::{name}`\n");
        missing_tests(&File::sample("a.md", &text)).len()
    };
    assert_eq!(sample("missing_tests"), 0);
    assert_eq!(sample("no_such_test"), 1);
}

fn missing_tests(document: &File) -> Vec<String> {
    let mut breaches = Vec::new();
    for code in code_in(document) {
        let Some((path, name)) = code.text.split_once("::") else {
            continue;
        };
        let file = checkout::root().join(path);
        if !is_path(code.text) || !file.is_file() {
            continue;
        }
        let head = format!("fn {name}(");
        if !checkout::read(path).text.contains(&head) {
            let what = format!("there is no `{name}` in `{path}`");
            breaches.push(document.breach(code.line, &what));
        }
    }
    breaches
}

#[test]
fn every_guarantee_names_its_proof_or_says_that_there_is_none() {
    let guarantees = checkout::read("docs/guarantees.md");
    checkout::none("guarantees have proofs", rows_without_proof(&guarantees));
    let text =
        "| a | b |\n| --- | --- |\n| x | `c.rs::d` |\n| y | surely |\n| z | not proven yet |\n";
    let sample = File::sample("a.md", text);
    assert_eq!(rows_without_proof(&sample), ["a.md:4: names no proof"]);
}

fn rows_without_proof(document: &File) -> Vec<String> {
    let lines: Vec<&str> = document.text.lines().collect();
    let mut breaches = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let is_rule = |line: &&str| line.starts_with("| ---");
        let is_head = lines.get(index + 1).is_some_and(is_rule);
        let is_row = line.starts_with('|') && !is_rule(line) && !is_head;
        if is_row && !line.contains(".rs::") && !line.contains(NOT_PROVEN) {
            breaches.push(document.breach(index + 1, "names no proof"));
        }
    }
    breaches
}

#[test]
fn telemetry_is_named_in_documents_as_in_the_code() {
    let shipped = rust_files().into_iter().filter(|file| !file.is_for_tests());
    let texts: Vec<String> = shipped.map(|file| file.text).collect();
    let text = texts.concat();
    let code = code_of(&text).replace("r#", "");
    let mut breaches = Vec::new();
    for (path, heading, is_in) in [
        ("docs/logging.md", "| field |", code.as_str()),
        ("docs/logging.md", "| message |", text.as_str()),
        ("docs/operations.md", "| metric |", text.as_str()),
    ] {
        let document = checkout::read(path);
        for (line, name) in names_in_table(&document, heading) {
            // The exporter adds what Prometheus wants to see at the end.
            let bare = name.trim_end_matches("_total").trim_end_matches("_seconds");
            if !is_in.contains(bare) {
                breaches.push(document.breach(line, &format!("`{name}` is not in the code")));
            }
        }
    }
    checkout::none("names of telemetry are those of the code", breaches);
}

#[test]
fn every_alert_names_the_section_that_says_what_to_do() {
    let (rules, operations) = ("deploy/prometheus/fanfare.rules.yml", "docs/operations.md");
    let rules = checkout::read(rules);
    let operations = checkout::read(operations);
    let headings = operations
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("## "));
    let anchors: Vec<String> = headings.map(anchor).collect();
    let of = |key: &'static str| {
        let lines = rules.text.lines();
        let values =
            lines.filter_map(move |line| line.trim().trim_start_matches("- ").strip_prefix(key));
        values.map(str::trim).collect::<Vec<_>>()
    };
    let (alerts, runbooks) = (of("alert:"), of("runbook:"));
    assert_eq!(alerts.len(), runbooks.len(), "an alert has a runbook");
    for (alert, runbook) in alerts.into_iter().zip(runbooks) {
        let anchor = runbook
            .strip_prefix("docs/operations.md#")
            .unwrap_or_default();
        assert!(
            anchors.iter().any(|known| known == anchor),
            "{alert}: no section `{anchor}`"
        );
        let row = format!("`{alert}`");
        assert!(operations.text.contains(&row), "{alert} is in no table");
    }
}

/// What a link to a heading ends with.
fn anchor(heading: &str) -> String {
    let kept = heading
        .chars()
        .filter(|c| c.is_alphanumeric() || " -".contains(*c));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

/// The pieces of code in the first cells of the table that `heading` begins, with their lines.
fn names_in_table<'a>(document: &'a File, heading: &str) -> Vec<(usize, &'a str)> {
    let lines = document.text.lines().enumerate();
    let table = lines.skip_while(|(_, line)| !line.starts_with(heading));
    let rows = table.skip(2).take_while(|(_, line)| line.starts_with('|'));
    let names = rows.flat_map(|(index, row)| {
        let cell = row.split('|').nth(1).unwrap_or_default();
        let spans = cell.split('`').skip(1).step_by(2);
        spans.map(move |name| (index + 1, name))
    });
    let names: Vec<_> = names.collect();
    assert!(!names.is_empty(), "{}: no table {heading}", document.path);
    names
}
