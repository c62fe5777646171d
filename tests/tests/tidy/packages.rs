//! Rules about the crates of the workspace, and about who uses whom.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde::Deserialize;

use crate::checkout::{self, File};

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// Absent for what is shipped, else `dev` or `build`.
    kind: Option<String>,
}

impl Package {
    /// The name without what all our packages begin with.
    fn short_name(&self) -> &str {
        ours(&self.name).expect("packages of the workspace are named after it")
    }

    fn is_shipped(&self) -> bool {
        let name = self.short_name();
        !["testkit", "tests"].contains(&name) && !name.starts_with("example-")
    }
}

fn ours(name: &str) -> Option<&str> {
    name.strip_prefix("fanfare-")
}

fn packages() -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .arg("--offline")
        .current_dir(checkout::root())
        .output()
        .expect("cargo can be run");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let metadata: Metadata = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    metadata.packages
}

/// Which of our crates a crate may use.
#[derive(Debug, PartialEq, Eq)]
enum MayUse {
    All,
    Only(BTreeSet<String>),
}

#[test]
fn crates_use_each_other_as_the_architecture_says() {
    let table = table_of(&checkout::read("ARCHITECTURE.md"));
    let rule = "the dependency table of ARCHITECTURE.md";
    checkout::none(rule, arrows_out_of(&table, &packages()));

    let text =
        "| crate | may use |\n| --- | --- |\n| `a`, `b` | `c` |\n| `c` | none |\n| `d` | all |\n\n";
    let table = table_of(&File::sample("x", text));
    let on = |name: &str, kind: Option<&str>| Dependency {
        name: name.to_owned(),
        kind: kind.map(str::to_owned),
    };
    let package = |name: &str, dependencies| Package {
        name: name.to_owned(),
        manifest_path: String::new(),
        dependencies,
    };
    let packages = [
        package("fanfare-a", vec![on("fanfare-c", None), on("serde", None)]),
        package("fanfare-b", vec![on("fanfare-testkit", Some("dev"))]),
        package("fanfare-c", vec![on("fanfare-a", None)]),
        package("fanfare-e", vec![on("fanfare-testkit", None)]),
    ];
    let expected = [
        "`c` uses `a`, which the table does not allow",
        "`e` is not in the table",
        "`d` is in the table and not in the workspace",
    ];
    assert_eq!(arrows_out_of(&table, &packages), expected);
}

/// What is or uses something that the table does not have.
fn arrows_out_of(table: &BTreeMap<String, MayUse>, packages: &[Package]) -> Vec<String> {
    let mut breaches = Vec::new();
    for package in packages {
        let name = package.short_name();
        let Some(may_use) = table.get(name) else {
            breaches.push(format!("`{name}` is not in the table"));
            continue;
        };
        let MayUse::Only(may_use) = may_use else {
            continue;
        };
        for dependency in &package.dependencies {
            let Some(used) = ours(&dependency.name) else {
                continue;
            };
            let in_tests = dependency.kind.as_deref() == Some("dev") && used == "testkit";
            if !in_tests && !may_use.contains(used) {
                let breach = format!("`{name}` uses `{used}`, which the table does not allow");
                breaches.push(breach);
            }
        }
    }
    for name in table.keys() {
        if !packages.iter().any(|package| package.short_name() == name) {
            breaches.push(format!("`{name}` is in the table and not in the workspace"));
        }
    }
    breaches
}

fn table_of(document: &File) -> BTreeMap<String, MayUse> {
    let rows = document
        .text
        .lines()
        .skip_while(|line| !line.starts_with("| crate | may use |"));
    let rows = rows.skip(2).take_while(|line| line.starts_with('|'));
    let mut table = BTreeMap::new();
    for row in rows {
        let mut cells = row.trim_matches('|').split('|');
        let (crates, used) = (
            cells.next().unwrap_or_default(),
            cells.next().unwrap_or_default(),
        );
        for name in names_in(crates) {
            let may_use = if used.trim() == "all" {
                MayUse::All
            } else {
                MayUse::Only(names_in(used).collect())
            };
            table.insert(name, may_use);
        }
    }
    assert!(!table.is_empty(), "{} has no table", document.path);
    table
}

fn names_in(cell: &str) -> impl Iterator<Item = String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned)
}

#[test]
fn only_some_crates_depend_on_amqp_and_http_libraries() {
    let rules: [(&[&str], &[&str]); 2] = [
        (
            &["lapin", "amq-protocol"],
            // The bench of `cli` measures a bare client beside Fanfare.
            &["broker", "cli", "testkit"],
        ),
        (&["reqwest", "axum", "hyper"], &["api", "cli", "egress"]),
    ];
    let mut breaches = Vec::new();
    for package in packages().iter().filter(|package| package.is_shipped()) {
        for (libraries, may_use) in rules {
            let shipped = package.dependencies.iter().filter(|d| d.kind.is_none());
            let used = shipped.filter(|d| libraries.contains(&d.name.as_str()));
            let breach = |used: &Dependency| format!("{}: {}", package.manifest_path, used.name);
            if !may_use.contains(&package.short_name()) {
                breaches.extend(used.map(breach));
            }
        }
    }
    let rule = "AMQP is for `broker`, HTTP for `api`, `cli` and `egress`";
    checkout::none(rule, breaches);
}

#[test]
fn every_package_takes_the_lints_of_the_workspace() {
    let manifests = checkout::files(&["crates", "tests"], |path| path.ends_with("/Cargo.toml"));
    let own_lints = |file: &&File| !file.text.contains("[lints]\nworkspace = true\n");
    let breaches = manifests.iter().filter(own_lints);
    let breaches = breaches.map(|file| file.breach(1, "has no `[lints] workspace = true`"));
    checkout::none("lints are the workspace's affair", breaches.collect());
}

#[test]
fn every_version_is_in_the_workspaces_manifest() {
    let manifests = checkout::files(&["crates", "tests"], |path| path.ends_with("/Cargo.toml"));
    let breaches = manifests.iter().flat_map(own_versions).collect();
    checkout::none("versions are in the root Cargo.toml", breaches);
    let text = "[package]\nversion.workspace = true\n[dependencies]\na = { workspace = true }\nb = \"1\"\n";
    assert_eq!(own_versions(&File::sample("x", text)), ["x:5: b = \"1\""]);
}

fn own_versions(file: &File) -> Vec<String> {
    let mut in_dependencies = false;
    let mut breaches = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        if line.starts_with('[') {
            in_dependencies = line.ends_with("dependencies]");
        } else if in_dependencies && line.contains('=') && !line.contains("workspace = true") {
            breaches.push(file.breach(index + 1, line));
        }
    }
    breaches
}
