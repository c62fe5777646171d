//! What only the SQLite store can get wrong: its file, its key, its schema.

#![allow(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::{os::unix::fs::PermissionsExt, path::Path};

use fanfare_model::{Event, HeaderField, Secret, SigningSecret, Timestamp};
use fanfare_registry::{NewEndpoint, NewEventType, Registry, RegistryFault, Settings};
use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};

fn settings(folder: &Path, key_digit: &str) -> Settings {
    Settings {
        database: folder.join("new/fanfare.db").into(),
        encryption_key: Some(Secret::new(key_digit.repeat(64))),
        ..Settings::default()
    }
}

fn new_endpoint() -> NewEndpoint {
    NewEndpoint::new(
        "t".parse().unwrap(),
        "https://example.com/".parse().unwrap(),
        vec!["*".parse().unwrap()],
    )
}

fn path(settings: &Settings) -> &Path {
    settings.database.sqlite_file().unwrap()
}

async fn execute(settings: &Settings, statement: &str) {
    let options = SqliteConnectOptions::new().filename(path(settings));
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query(sqlx::AssertSqlSafe(statement.to_owned()))
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn no_secret_is_in_the_files_and_nobody_else_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), "a");
    let registry = Registry::open(&settings).await.unwrap();
    let secret = SigningSecret::generate();
    let mut new = new_endpoint();
    new.description = "to be found".to_owned();
    new.headers = vec![HeaderField::new("authorization", "Bearer hush-hush").unwrap()];
    new.secrets = vec![secret.clone()];
    let now = Timestamp::UNIX_EPOCH;
    registry.create_endpoint(new, "tester", now).await.unwrap();
    let api_key = registry.create_api_key("ci", "tester", now).await.unwrap();

    // Before the registry is closed, the write-ahead log is still beside the database.
    let mut bytes = Vec::new();
    let files = std::fs::read_dir(path(&settings).parent().unwrap()).unwrap();
    for file in files.map(Result::unwrap) {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        bytes.extend(std::fs::read(file.path()).unwrap());
    }
    let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    assert!(holds(b"to be found"));
    let revealed = secret.reveal();
    for needle in [
        revealed.as_bytes(),
        revealed.trim_start_matches("whsec_").as_bytes(),
        secret.as_bytes(),
        b"hush-hush",
        api_key.key.expose().as_bytes(),
        &[0xaa; 32],
    ] {
        assert!(!holds(needle), "{}", String::from_utf8_lossy(needle));
    }
}

#[tokio::test]
async fn another_key_is_refused_from_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let first = Registry::open(&settings(folder.path(), "a")).await.unwrap();
    first.close().await;
    let fault = Registry::open(&settings(folder.path(), "b"))
        .await
        .err()
        .unwrap();
    assert!(matches!(fault, RegistryFault::OtherKey { .. }), "{fault:?}");
    assert!(!fault.is_transient());
    assert!(fault.to_string().contains("another key (id "), "{fault}");
    Registry::open(&settings(folder.path(), "a")).await.unwrap();
}

#[tokio::test]
async fn an_endpoint_that_is_damaged_is_set_aside_and_the_others_serve() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), "a");
    let registry = Registry::open(&settings).await.unwrap();
    let now = Timestamp::UNIX_EPOCH;
    let create = async |event_type: &str| {
        let mut new = new_endpoint();
        new.event_types = vec![event_type.parse().unwrap()];
        new.filter = Some(r#"{"subject": ["x"]}"#.parse().unwrap());
        registry.create_endpoint(new, "tester", now).await.unwrap()
    };
    let (good, bad) = (create("a").await, create("b").await);
    let filter = r#"{"filter":{"type":[{"like":"x"}]}}"#;
    for (change, wants_more) in [
        ("state = '{\"state\":\"sleeping\"}'".to_owned(), false),
        (
            "state = '{\"state\":\"active\"}', sealed = randomblob(100)".to_owned(),
            false,
        ),
        (
            format!("settings = json_patch(settings, '{filter}')"),
            false,
        ),
        ("settings = '{'".to_owned(), true),
    ] {
        let id = bad.id.to_string().replace("ep_", "");
        let change = format!("UPDATE endpoints SET {change} WHERE hex(id) = upper('{id}')");
        execute(&settings, &change).await;
        let snapshot = registry.load(None).await.unwrap();
        assert_eq!((snapshot.len(), snapshot.damaged()), (2, 1), "{change}");
        assert_eq!(**snapshot.endpoint(good.id).unwrap(), good);
        let damaged = snapshot.endpoint(bad.id).unwrap();
        assert!(damaged.state.is_damaged());
        assert_eq!(damaged.secrets, []);
        // It wants what it wanted, or more, but never less.
        let tenant = "t".parse().unwrap();
        for (event_type, expected) in [("a", 1 + usize::from(wants_more)), ("b", 1)] {
            let event_type = event_type.parse().unwrap();
            let matching = snapshot.matching(&tenant, &event_type).count();
            assert_eq!(matching, expected, "{change} {event_type}");
        }
        // Alone it is not shown, and so cannot be changed into what is left of it.
        let fault = registry.endpoint(&tenant, bad.id).await.unwrap_err();
        assert!(!fault.is_transient(), "{fault:?}");
    }
    // Whom it belongs to cannot be told: better no snapshot than one that says that nobody wants its events.
    execute(
        &settings,
        "UPDATE endpoints SET tenant = '' WHERE settings = '{'",
    )
    .await;
    let fault = registry.load(None).await.unwrap_err();
    assert!(!fault.is_transient(), "{fault:?}");
}

#[tokio::test]
async fn an_event_type_that_is_damaged_is_set_aside_and_the_others_are_enforced() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), "a");
    let registry = Registry::open(&settings).await.unwrap();
    for name in ["a", "b"] {
        let new = NewEventType {
            name: name.parse().unwrap(),
            description: "d".to_owned(),
            schema: Some(serde_json::json!({"type": "object"})),
            sample: None,
            enforced: true,
        };
        let put = registry.put_event_type(new, "tester", Timestamp::UNIX_EPOCH);
        put.await.unwrap();
    }
    let change = "UPDATE event_types SET definition = '{\"type\":\"b\",\"schema\":{\"type\":5}}' WHERE name = 'b'";
    execute(&settings, change).await;
    let (_, catalogue) = registry.catalogue().await.unwrap();
    for (name, accepted) in [("a", false), ("b", true)] {
        let event = Event::for_tests("t", "s", "1", name, b"5");
        assert_eq!(catalogue.check(&event, false).is_ok(), accepted, "{name}");
    }
    let listed = registry.event_types().await.unwrap();
    let described: Vec<_> = listed
        .iter()
        .map(|one| &*one.definition.description)
        .collect();
    assert_eq!(described, ["d", ""]);
}

#[tokio::test]
async fn a_registry_can_be_prepared_before_its_database_can_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), "a");
    let obstacle = path(&settings).parent().unwrap();
    std::fs::write(obstacle, "in the way").unwrap();
    let registry = Registry::connect(&settings).unwrap();
    let fault = registry.version().await.unwrap_err();
    assert!(
        matches!(fault, RegistryFault::Unavailable { .. }),
        "{fault:?}"
    );
    assert!(fault.is_transient());
    std::fs::remove_file(obstacle).unwrap();
    assert_eq!(registry.version().await.unwrap(), 0);
}

#[tokio::test]
async fn several_processes_may_make_the_registry_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), "a");
    let mut opening = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let settings = settings.clone();
        opening.spawn(async move { Registry::open(&settings).await.unwrap() });
    }
    assert_eq!(opening.join_all().await.len(), 4);
}

#[tokio::test]
async fn no_usable_key_is_told_before_anything_is_opened() {
    let fault = Registry::connect(&Settings::default()).err().unwrap();
    assert!(
        matches!(fault, RegistryFault::EncryptionKey(_)),
        "{fault:?}"
    );
}
