//! Reads the files of the repository, and reports what breaks a rule.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A file of the repository.
pub(crate) struct File {
    /// From the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    pub(crate) fn sample(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    /// What breaks a rule, at a line that is counted from 1.
    pub(crate) fn breach(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path)
    }

    /// Whether it is compiled for tests alone, or shows how to use a crate.
    pub(crate) fn is_for_tests(&self) -> bool {
        self.path.starts_with("tests/")
            || self.path.ends_with("/tests.rs")
            || self.path.contains("/tests/")
            || self.path.contains("/examples/")
    }
}

pub(crate) fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package
        .parent()
        .expect("the package is in the workspace")
        .to_owned()
}

pub(crate) fn read(path: &str) -> File {
    let text = fs::read_to_string(root().join(path));
    let text = text.unwrap_or_else(|error| panic!("{path}: {error}"));
    File::sample(path, &text)
}

pub(crate) fn rust_files() -> Vec<File> {
    files(&["crates", "tests"], |name| name.ends_with(".rs"))
}

pub(crate) fn documents() -> Vec<File> {
    let mut documents = files(&["docs"], |name| name.ends_with(".md"));
    let at_root = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"];
    documents.extend(at_root.map(read));
    documents
}

/// The text files of these directories, and of those below them.
pub(crate) fn files(directories: &[&str], wanted: impl Fn(&str) -> bool) -> Vec<File> {
    let mut paths = Vec::new();
    for directory in directories {
        walk(&root().join(directory), &mut paths);
    }
    paths.sort();
    let relative = paths.into_iter().map(|path| {
        let path = path
            .strip_prefix(root())
            .expect("it was found below")
            .to_owned();
        path.to_str().expect("names are UTF-8").to_owned()
    });
    relative
        .filter(|path| wanted(path))
        .map(|path| read(&path))
        .collect()
}

fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(directory);
    let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    for entry in entries {
        let entry = entry.expect("the directory can be read");
        let name = entry.file_name();
        let is_hidden = name.to_str().expect("names are UTF-8").starts_with('.');
        let is_directory = entry.file_type().expect("it has a type").is_dir();
        match (is_directory, is_hidden || name == "target") {
            (true, false) => walk(&entry.path(), found),
            (true, true) => {}
            (false, _) => found.push(entry.path()),
        }
    }
}

/// Fails with every breach, each on a line that an editor can jump to.
pub(crate) fn none(rule: &str, breaches: Vec<String>) {
    assert!(breaches.is_empty(), "{rule}\n{}", breaches.join("\n"));
}
