//! What only the SQLite store can get wrong: its file, its key, its schema.

#![allow(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::{error::Error, os::unix::fs::PermissionsExt, path::Path};

use fanfare_model::{HeaderField, Secret, SigningSecret, Timestamp};
use fanfare_registry::{NewEndpoint, Registry, RegistryFault, Settings};
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

async fn execute(settings: &Settings, statement: &'static str) {
    let options = SqliteConnectOptions::new().filename(path(settings));
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query(statement)
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
async fn a_row_that_was_moved_or_changed_is_named_as_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), "a");
    let registry = Registry::open(&settings).await.unwrap();
    let now = Timestamp::UNIX_EPOCH;
    let endpoint = registry.create_endpoint(new_endpoint(), "tester", now);
    let id = endpoint.await.unwrap().id.to_string();
    for change in [
        "UPDATE endpoints SET state = '{\"state\":\"sleeping\"}'",
        "UPDATE endpoints SET id = randomblob(16)",
    ] {
        execute(&settings, change).await;
        let fault = registry.load().await.err().unwrap();
        assert!(matches!(fault, RegistryFault::Damaged { .. }), "{fault:?}");
        assert!(fault.to_string().contains("ep_") && fault.source().is_some());
        if change.contains("state") {
            assert!(fault.to_string().contains(&id), "{fault}");
        }
    }
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
