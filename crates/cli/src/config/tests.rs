//! Tests of how settings are read, with a sample of settings and with the real defaults.

use std::{collections::BTreeMap, fs, num::NonZeroU16};

use fanfare_model::Secret;
use tempfile::TempDir;

use super::*;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Sample {
    name: String,
    worker: Worker,
    broker: Broker,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "WorkerValues")]
struct Worker {
    prefetch: NonZeroU16,
    least: u8,
    most: u8,
    #[serde(with = "compact::required")]
    pause: Duration,
    allow: Vec<String>,
    file: Option<PathBuf>,
    verbose: bool,
}

/// What `Worker` is parsed from: one rule spans two settings.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WorkerValues {
    prefetch: NonZeroU16,
    least: u8,
    most: u8,
    #[serde(with = "compact::required")]
    pause: Duration,
    allow: Vec<String>,
    file: Option<PathBuf>,
    verbose: bool,
}

impl Default for WorkerValues {
    fn default() -> Self {
        Self {
            prefetch: NonZeroU16::new(100).unwrap(),
            least: 1,
            most: 5,
            pause: Duration::from_secs(2),
            allow: Vec::new(),
            file: None,
            verbose: false,
        }
    }
}

impl Default for Worker {
    fn default() -> Self {
        WorkerValues::default().try_into().unwrap()
    }
}

impl TryFrom<WorkerValues> for Worker {
    type Error = &'static str;

    fn try_from(values: WorkerValues) -> Result<Self, Self::Error> {
        if values.least > values.most {
            return Err("`least` must not exceed `most`");
        }
        Ok(Self {
            prefetch: values.prefetch,
            least: values.least,
            most: values.most,
            pause: values.pause,
            allow: values.allow,
            file: values.file,
            verbose: values.verbose,
        })
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Broker {
    #[serde(serialize_with = "redacted")]
    url: Secret,
}

impl Default for Broker {
    fn default() -> Self {
        Self {
            url: Secret::new("amqp://guest".to_owned()),
        }
    }
}

fn redacted<S: serde::Serializer>(_: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str("[redacted]")
}

/// A directory with a configuration file.
struct File {
    _directory: TempDir,
    path: PathBuf,
}

fn file(text: &str) -> File {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fanfare.toml");
    fs::write(&path, text).unwrap();
    File {
        _directory: directory,
        path,
    }
}

fn load(text: &str, environment: &[(&str, &str)]) -> Result<Loaded<Sample>, String> {
    let file = file(text);
    Loaded::load(&Sources::for_tests(Some(&file.path), environment)).map_err(|fault| {
        fault
            .to_string()
            .replace(file.path.to_str().unwrap(), "FILE")
    })
}

#[test]
fn a_stronger_source_replaces_the_value_of_a_weaker_one() {
    let text = "name = 'file'\n\n[worker]\nprefetch = 7\nleast = 2\npause = '1m 30s'\n";
    let file = file(text);
    let environment = [
        ("FANFARE__WORKER__LEAST", "3"),
        ("FANFARE__WORKER__ALLOW", r#"["a", "b"]"#),
        ("FANFARE__WORKER__VERBOSE", "true"),
        ("FANFARE__NAME", "123"),
        ("FANFARE__BROKER__URL", "amqp://full"),
        ("FANFARE_AMQP_URL", "amqp://short"),
        ("PATH", "/bin"),
    ];
    let sources = Sources::for_tests(Some(&file.path), &environment).with_argument(
        "--name",
        "name",
        "argument".to_owned(),
    );
    let loaded = Loaded::<Sample>::load(&sources).unwrap();

    let Sample {
        name,
        worker,
        broker,
    } = &loaded.settings;
    assert_eq!(name, "argument");
    assert_eq!(worker.prefetch.get(), 7);
    assert_eq!((worker.least, worker.most), (3, 5));
    assert_eq!(worker.pause, Duration::from_secs(90));
    assert_eq!(worker.allow, ["a", "b"]);
    assert!(worker.verbose);
    assert_eq!(broker.url.expose(), "amqp://full");

    let origins: BTreeMap<String, String> = loaded
        .effective()
        .into_iter()
        .map(|setting| (setting.key, setting.origin.to_string()))
        .collect();
    let line_4 = format!("{}:4", file.path.display());
    for (key, origin) in [
        ("name", "--name"),
        ("worker.prefetch", line_4.as_str()),
        ("worker.least", "FANFARE__WORKER__LEAST"),
        ("worker.most", "default"),
        ("worker.file", "default"),
        ("broker.url", "FANFARE__BROKER__URL"),
    ] {
        assert_eq!(origins[key], origin, "{key}");
    }
}

type Row<'r> = (&'r str, Option<(&'r str, &'r str)>, &'r str);

fn check_faults(rows: &[Row<'_>]) {
    for (text, environment, message) in rows {
        let fault = load(text, environment.as_slice()).unwrap_err();
        assert_eq!(fault, *message, "{text} {environment:?}");
    }
}

#[test]
fn unknown_settings_are_named_with_their_origin_and_the_nearest_known_one() {
    check_faults(&[
        (
            "[worker]\n\nprefech = 1",
            None,
            "there is no setting `worker.prefech` (FILE:3); did you mean `worker.prefetch`?",
        ),
        (
            "[workr]\nprefetch = 1",
            None,
            "there is no setting `workr` (FILE:1); did you mean `worker`?",
        ),
        (
            "colour = 'red'",
            None,
            "there is no setting `colour` (FILE:1)",
        ),
        (
            "",
            Some(("FANFARE__PREFETCH", "1")),
            "there is no setting `prefetch` (FANFARE__PREFETCH); did you mean `worker.prefetch`?",
        ),
        (
            "worker = 5",
            None,
            "`worker` (FILE:1): this is a section; its settings are given one by one",
        ),
    ]);
}

#[test]
fn values_at_fault_are_named_with_their_origin_and_what_is_accepted() {
    check_faults(&[
        (
            "[worker]\nprefetch = 'many'",
            None,
            "`worker.prefetch` (FILE:2): accepted is a whole number",
        ),
        (
            "[worker]\nprefetch = 0",
            None,
            "`worker.prefetch` (FILE:2): accepted is a whole number from 1 to 65535",
        ),
        (
            "",
            Some(("FANFARE__WORKER__VERBOSE", "yes")),
            "`worker.verbose` (FANFARE__WORKER__VERBOSE): accepted is true or false",
        ),
        (
            "worker.pause = 5",
            None,
            "`worker.pause` (FILE:1): accepted is text in quotes",
        ),
        (
            "worker.least = 6",
            None,
            "`worker.least` (FILE:1): `least` must not exceed `most`",
        ),
        (
            "worker.least = 4\nworker.most = 3",
            None,
            "the settings contradict each other: `least` must not exceed `most`",
        ),
        (
            "broker.url_file = 5",
            None,
            "`broker.url_file` (FILE:1): accepted is the path of a file, in quotes",
        ),
        (
            "broker.url_file = '/nowhere/at/all'",
            None,
            "reading /nowhere/at/all",
        ),
        (
            "a = 1\nbroker.url = 'amqp://user:hunter2@host",
            None,
            "FILE:2 is not TOML: invalid literal string, expected `'`",
        ),
    ]);
}

#[test]
fn a_duration_that_is_none_is_refused_with_its_key() {
    let fault = load("worker.pause = 'soon'", &[]).unwrap_err();
    assert!(fault.starts_with("`worker.pause` (FILE:1): "), "{fault}");
}

#[test]
fn a_secret_is_read_from_a_file_and_never_printed() {
    let secret = file("amqp://user:hunter2@host\n");
    let text = format!("[broker]\nurl_file = '{}'", secret.path.display());
    let loaded = load(&text, &[]).unwrap();
    assert_eq!(
        loaded.settings.broker.url.expose(),
        "amqp://user:hunter2@host"
    );
    let printed = format!("{:?} {:?}", loaded.effective(), loaded.settings);
    assert!(!printed.contains("hunter2"), "{printed}");
}

#[test]
fn a_file_that_was_named_must_exist() {
    let missing = file("").path.with_extension("missing");
    let loaded = Config::load(&Sources::for_tests(Some(&missing), &[]));
    assert!(matches!(loaded, Err(ConfigFault::Unreadable { .. })));
}

#[test]
fn a_shutdown_outlasts_the_longest_attempt() {
    let file = file("shutdown_grace = '30s'");
    let fault = Config::load(&Sources::for_tests(Some(&file.path), &[])).unwrap_err();
    assert!(
        fault.to_string().ends_with("longest attempt, 30s"),
        "{fault}"
    );
}

#[test]
fn the_settings_are_judged_as_a_whole() {
    for (text, message) in [
        (
            "router.prefetch = 0",
            "`router.prefetch` (FILE:1): accepted is a whole number from 1 to 2000",
        ),
        (
            "dispatcher.prefetch = 2001",
            "`dispatcher.prefetch` (FILE:1): accepted is a whole number from 1 to 2000",
        ),
        (
            "dispatcher.memory_budget = 1048575",
            "`dispatcher.memory_budget` (FILE:1): accepted is a whole number from 1048576 (1 MiB)",
        ),
        (
            "api.request_timeout = '45s'",
            "the settings contradict each other: `api.request_timeout` (45s) must be shorter than \
             `shutdown_grace` (45s)",
        ),
    ] {
        let file = file(text);
        let fault = Config::load(&Sources::for_tests(Some(&file.path), &[])).unwrap_err();
        let fault = fault
            .to_string()
            .replace(file.path.to_str().unwrap(), "FILE");
        assert_eq!(fault, message);
    }
    let file = file("router.prefetch = 2000\ndispatcher.memory_budget = 1048576");
    assert!(Config::load(&Sources::for_tests(Some(&file.path), &[])).is_ok());
}

#[test]
fn a_changed_default_is_a_visible_change() {
    let defaults: Vec<String> = Config::load(&Sources::default())
        .unwrap()
        .effective()
        .into_iter()
        .map(|setting| format!("{} = {}", setting.key, setting.value))
        .collect();
    insta::assert_snapshot!(defaults.join("\n"));
}
