//! Rules about what an installation is made of.

use std::collections::BTreeSet;

use crate::checkout::{self, File};

/// The roles that `fanfare serve` knows.
const ROLES: [&str; 4] = ["api", "router", "dispatcher", "recorder"];

fn packaging() -> Vec<File> {
    let paths = ["docker-compose.yml", "deploy/Dockerfile"];
    paths.map(checkout::read).into()
}

#[test]
fn compose_names_files_and_roles_that_exist() {
    let breaches = packaging().iter().flat_map(strangers).collect();
    checkout::none("paths and roles exist", breaches);
    let text = "  file: ./deploy/no-such\n  dockerfile: deploy/Dockerfile\n  [\"serve\", \"--roles\", \"api,cook\"]\n";
    let expected = [
        "a.yml:1: `deploy/no-such` does not exist",
        "a.yml:3: there is no role `cook`",
    ];
    assert_eq!(strangers(&File::sample("a.yml", text)), expected);
}

fn strangers(file: &File) -> Vec<String> {
    let mut breaches = Vec::new();
    let quotes = ['"', '\'', ',', '[', ']'];
    for (index, line) in file.text.lines().enumerate() {
        let code = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = code
            .split_whitespace()
            .map(|word| word.trim_matches(quotes))
            .collect();
        for (at, word) in words.iter().enumerate() {
            // `./host:/container:ro` in a short form of a volume.
            let path = word.strip_prefix("./").unwrap_or_default();
            let path = path.split(':').next().unwrap_or_default();
            if !path.is_empty() && !checkout::root().join(path).exists() {
                breaches.push(file.breach(index + 1, &format!("`{path}` does not exist")));
            }
            let roles = words.get(at + 1).filter(|_| *word == "--roles");
            for role in roles.iter().flat_map(|roles| roles.split(',')) {
                if !ROLES.contains(&role) {
                    breaches.push(file.breach(index + 1, &format!("there is no role `{role}`")));
                }
            }
        }
    }
    breaches
}

#[test]
fn compose_sets_settings_that_exist() {
    let known = settings_in(&checkout::read("docs/configuration.md"));
    let files = packaging();
    let breaches = files.iter().flat_map(|file| unknown_settings(file, &known));
    checkout::none("settings are in docs/configuration.md", breaches.collect());

    let text = "| `grace` | 1 | |\n## `[broker]`\n| key | default |\n| `url` | x |\n## `[api]`\n| `listen` | x |\n";
    let known = settings_in(&File::sample("a.md", text));
    assert_eq!(
        Vec::from_iter(&known),
        ["api.listen", "broker.url", "grace"]
    );
    let text = "FANFARE__BROKER__URL_FILE: x\nFANFARE__API__LISTEN: y\nFANFARE__API__LISTN: z\n";
    let expected = ["a.yml:3: there is no setting `api.listn`"];
    let sample = File::sample("a.yml", text);
    assert_eq!(unknown_settings(&sample, &known), expected);
}

/// The keys in the first cells of the tables, each with the section whose heading it is under.
fn settings_in(document: &File) -> BTreeSet<String> {
    let mut section = String::new();
    let mut keys = BTreeSet::new();
    for line in document.text.lines() {
        if let Some(heading) = line.strip_prefix("## `[") {
            section = heading.trim_end_matches("]`").to_owned() + ".";
        } else if let Some(row) = line.strip_prefix("| `") {
            let key = row.split('`').next().unwrap_or_default();
            keys.insert(format!("{section}{key}"));
        }
    }
    keys
}

fn unknown_settings(file: &File, known: &BTreeSet<String>) -> Vec<String> {
    let mut breaches = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        for rest in line.split("FANFARE__").skip(1) {
            let in_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
            let end = rest.find(|c| !in_name(c)).unwrap_or(rest.len());
            let key = rest[..end].replace("__", ".").to_lowercase();
            // What is text can also be given as the path of a file.
            let held = key.strip_suffix("_file").unwrap_or(&key);
            if !known.contains(&key) && !known.contains(held) {
                breaches.push(file.breach(index + 1, &format!("there is no setting `{key}`")));
            }
        }
    }
    breaches
}
