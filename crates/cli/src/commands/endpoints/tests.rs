//! Tests of the commands, over a registry in a temporary directory.

use clap::Parser;
use fanfare_broker::Broker;
use fanfare_model::Secret;
use fanfare_registry::AuditPage;
use fanfare_testkit::{TestBroker, Version};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::{Args, Command, output::Row};

fn now() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

struct Fixture {
    _directory: TempDir,
    registry: Registry,
    settings: Config,
}

async fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = Config::default();
    settings.registry.database = directory.path().join("fanfare.db").into();
    settings.history.database = directory.path().join("history.db").into();
    settings.registry.encryption_key = Some(Secret::new("a".repeat(64)));
    Fixture {
        registry: Registry::open(&settings.registry).await.unwrap(),
        _directory: directory,
        settings,
    }
}

impl Fixture {
    async fn add(&self, arguments: &[&str]) -> anyhow::Result<Endpoint> {
        let line = ["fanfare", "endpoints", "add", "--tenant", "t"];
        let args = Args::try_parse_from(line.iter().chain(arguments)).unwrap();
        let Command::Endpoints(EndpointsCommand::Add(args)) = args.command else {
            panic!("endpoints add");
        };
        add(
            &self.registry,
            &self.settings.dispatcher.egress,
            &args,
            now(),
        )
        .await
    }

    async fn update(&self, endpoint: &Endpoint, arguments: &[&str]) -> anyhow::Result<Endpoint> {
        let id = endpoint.id.to_string();
        let line = ["fanfare", "endpoints", "update", "--tenant", "t", &id];
        let args = Args::try_parse_from(line.iter().chain(arguments)).unwrap();
        let Command::Endpoints(EndpointsCommand::Update(args)) = args.command else {
            panic!("endpoints update");
        };
        let egress = &self.settings.dispatcher.egress;
        update(&self.registry, egress, &args, now()).await
    }

    async fn listed(&self, tenant: Option<&str>, limit: u32) -> (Vec<String>, bool) {
        let limit = limit.to_string();
        let line = ["fanfare", "endpoints", "list", "--limit", &limit];
        let tenant = tenant.map(|tenant| ["--tenant", tenant]);
        let line = line.iter().chain(tenant.iter().flatten());
        let Command::Endpoints(EndpointsCommand::List(args)) =
            Args::try_parse_from(line).unwrap().command
        else {
            panic!("endpoints list");
        };
        let (endpoints, more) = list(&self.registry, &args).await.unwrap();
        let urls = endpoints
            .iter()
            .map(|Listed(endpoint)| endpoint.url.to_string());
        (urls.collect(), more)
    }
}

fn value<R: Row>(row: &R, name: &str) -> Value {
    let column = R::COLUMNS.iter().find(|column| column.name == name);
    (column.unwrap().value)(row)
}

#[tokio::test]
async fn an_endpoint_is_added_as_asked_and_shown_without_its_secrets() {
    let fixture = fixture().await;
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let added = fixture
        .add(&[
            "--url=https://example.com/hooks",
            "--types=a,b.*",
            "--rate=50/s",
            "--schedule=0,5s,2h30m",
            "--timeout=5s",
            "--success=200",
            "--permanent=400,422",
            "--header=Authorization: Bearer hunter2",
            "--disable-after=10 failures or 1h",
            "--max-in-flight=3",
            "--description=the shop",
            &format!("--secret={secret}"),
        ])
        .await
        .unwrap();
    let created = Created(added.clone());
    assert_eq!(value(&created, "secret"), secret);

    let stored = fixture.registry.endpoint(&added.tenant, added.id).await;
    let stored = stored.unwrap().unwrap();
    let history = History::connect(&fixture.settings.history);
    let known = endpoint_status(&fixture.registry, &history, None, &stored).await;
    let shown = Shown(stored, json(&known.unwrap()));
    for (name, expected) in [
        ("url", json!("https://example.com/hooks")),
        ("event_types", json!(["a", "b.*"])),
        ("description", json!("the shop")),
        ("state", json!("active")),
        ("since", json!("2026-11-23T12:00:00Z")),
        ("by", json!("cli")),
        ("reason", json!(null)),
        ("circuit", json!("unknown")),
        ("dispatcher", json!("unknown (no dispatcher answered)")),
        ("last_failures", json!([])),
        ("rate", json!("50/s")),
        ("max_in_flight", json!(3)),
        ("timeout", json!("5s")),
        ("schedule", json!("0s,5s,2h30m")),
        ("success", json!("200")),
        ("permanent", json!("400,422")),
        ("disable_after", json!("10 failures or 1h")),
        ("header_names", json!(["authorization"])),
        ("created_at", json!("2026-11-23T12:00:00Z")),
    ] {
        assert_eq!(value(&shown, name), expected, "{name}");
    }
    let everything = Shown::COLUMNS
        .iter()
        .map(|column| (column.value)(&shown).to_string());
    let everything = everything.collect::<Vec<_>>().join(" ");
    assert!(
        !everything.contains("hunter2") && !everything.contains("whsec"),
        "{everything}"
    );
}

#[tokio::test]
async fn the_schedule_is_shown_in_the_form_that_is_asked_for() {
    let fixture = fixture().await;
    let first = fixture.add(&["--url=https://example.com"]).await.unwrap();
    let shown = first.schedule.to_string();
    assert_eq!(shown, "0s,5s,5m,30m,2h,5h,10h,14h,20h,24h");
    let again = format!("--schedule={shown}");
    let second = fixture
        .add(&["--url=https://example.com", &again])
        .await
        .unwrap();
    assert_eq!(second.schedule, first.schedule);
    assert_ne!(second.secrets, first.secrets);
}

#[tokio::test]
async fn what_could_never_be_called_is_not_stored() {
    let mut fixture = fixture().await;
    for (arguments, expected) in [
        (&["--url=http://127.0.0.1:8787"][..], "loopback"),
        (&["--url=http://localhost/"], "`localhost` is local"),
        (&["--url=https://example.com:22"], "port 22"),
        (
            &["--url=https://example.com", "--timeout=31s"],
            "`timeout` must be",
        ),
        (
            &["--url=https://example.com", "--max-in-flight=0"],
            "`max_in_flight` must be",
        ),
        (
            &[
                "--url=https://example.com",
                "--header=x-a: 1",
                "--header=X-A: 2",
            ],
            "`x-a` is given twice",
        ),
    ] {
        let fault = format!("{:#}", fixture.add(arguments).await.unwrap_err());
        assert!(fault.contains(expected), "{fault}");
    }
    assert_eq!(fixture.listed(None, 10).await, (Vec::new(), false));

    let opened = &mut fixture.settings.dispatcher.egress.allow_networks;
    opened.push("127.0.0.0/8".parse().unwrap());
    fixture.add(&["--url=http://127.0.0.1:8787"]).await.unwrap();
}

#[tokio::test]
async fn a_list_says_when_there_is_more() {
    let fixture = fixture().await;
    let urls = ["https://example.com/1", "https://example.com/2"];
    for url in urls {
        fixture.add(&["--url", url]).await.unwrap();
    }
    let (mut all, more) = fixture.listed(Some("t"), 2).await;
    all.sort();
    assert_eq!((all, more), (urls.map(str::to_owned).to_vec(), false));
    let (some, more) = fixture.listed(None, 1).await;
    assert_eq!((some.len(), more), (1, true));
    assert_eq!(fixture.listed(Some("u"), 10).await, (Vec::new(), false));
}

#[tokio::test]
async fn a_state_is_changed_as_asked() {
    let fixture = fixture().await;
    let Endpoint { tenant, id, .. } = fixture.add(&["--url=https://example.com"]).await.unwrap();
    let mut args = OneEndpointArgs { tenant, id };
    for (change, expected) in [
        (StateChange::Pause, "paused"),
        (StateChange::Resume, "active"),
        (StateChange::Disable, "disabled"),
        (StateChange::Enable, "active"),
    ] {
        let changed = change_state(&fixture.registry, &args, change, now()).await;
        assert_eq!(changed.unwrap().state.name(), expected, "{change:?}");
    }
    args.tenant = "u".parse().unwrap();
    let fault = change_state(&fixture.registry, &args, StateChange::Pause, now()).await;
    let expected = format!("tenant `u` has no endpoint {id}");
    assert_eq!(fault.unwrap_err().to_string(), expected);
}

#[tokio::test]
async fn an_update_changes_only_what_is_named() {
    let fixture = fixture().await;
    let added = fixture
        .add(&[
            "--url=https://example.com/a",
            "--types=a",
            "--rate=50/s",
            "--header=x-a: 1",
            "--header=x-b: 1",
        ])
        .await
        .unwrap();
    let check = async |arguments: &[&str], change: &dyn Fn(&mut Endpoint)| {
        let before = fixture.registry.endpoint(&added.tenant, added.id).await;
        let mut expected = before.unwrap().unwrap();
        let updated = fixture.update(&added, arguments).await.unwrap();
        change(&mut expected);
        expected.updated_at = updated.updated_at;
        assert_eq!(updated, expected, "{arguments:?}");
    };
    check(&[], &|_| ()).await;
    check(&["--url=https://example.com/b"], &|endpoint| {
        endpoint.url = "https://example.com/b".parse().unwrap();
    })
    .await;
    check(&["--types=b.*,c", "--timeout=3s"], &|endpoint| {
        endpoint.event_types = ["b.*", "c"].map(|text| text.parse().unwrap()).into();
        endpoint.timeout = Duration::from_secs(3);
    })
    .await;
    check(&["--header=X-A: 2", "--reset=rate,timeout"], &|endpoint| {
        let header = |name, value| fanfare_model::HeaderField::new(name, value).unwrap();
        endpoint.headers = vec![header("x-b", "1"), header("x-a", "2")];
        (endpoint.rate, endpoint.timeout) = (None, Endpoint::DEFAULT_TIMEOUT);
    })
    .await;
    for (arguments, expected) in [
        (&["--url=http://127.0.0.1/"][..], "loopback"),
        (&["--timeout=31s"], "`timeout` must be"),
        (&["--signature=github"], "`secret` must be"),
    ] {
        let fault = fixture.update(&added, arguments).await.unwrap_err();
        assert!(format!("{fault:#}").contains(expected), "{fault:#}");
    }
    check(
        &["--signature=github", "--secret=sixteen-letters!"],
        &|endpoint| {
            endpoint.signature = "github".parse().unwrap();
            let secret = fanfare_model::SigningSecret::from_text("sixteen-letters!");
            endpoint.secrets = vec![secret.unwrap()];
        },
    )
    .await;
}

#[tokio::test]
async fn a_rotated_secret_is_printed_and_the_old_one_signs_on() {
    let fixture = fixture().await;
    let added = fixture.add(&["--url=https://example.com"]).await.unwrap();
    let id = added.id.to_string();
    let line = ["fanfare", "endpoints", "rotate-secret", "--tenant=t", &id];
    let args = Args::try_parse_from(line.iter().chain(&["--overlap=2h"])).unwrap();
    let Command::Endpoints(EndpointsCommand::RotateSecret(args)) = args.command else {
        panic!("endpoints rotate-secret");
    };
    let rotated = rotate_secret(&fixture.registry, &args, now()).await;
    let rotated = rotated.unwrap();
    assert_ne!(
        value(&Created(rotated.clone()), "secret"),
        added.secrets[0].reveal()
    );
    let shown = Shown(rotated.clone(), Value::Null);
    assert_eq!(
        value(&shown, "retiring_until"),
        json!(["2026-11-23T14:00:00Z"])
    );
    let signing: Vec<_> = rotated.signing_secrets(now()).cloned().collect();
    assert_eq!(signing, [&rotated.secrets[..], &added.secrets].concat());
}

#[tokio::test]
async fn only_what_exists_is_removed() {
    let fixture = fixture().await;
    let Endpoint { tenant, id, .. } = fixture.add(&["--url=https://example.com"]).await.unwrap();
    let other = "u".parse().unwrap();
    let fault = remove(&fixture.registry, &other, id, now())
        .await
        .unwrap_err();
    assert_eq!(
        fault.to_string(),
        format!("tenant `u` has no endpoint {id}")
    );
    remove(&fixture.registry, &tenant, id, now()).await.unwrap();
    assert!(remove(&fixture.registry, &tenant, id, now()).await.is_err());
    assert_eq!(fixture.listed(None, 10).await, (Vec::new(), false));
    let audit = fixture
        .registry
        .audit(&AuditPage::latest(10))
        .await
        .unwrap();
    assert!(audit.iter().all(|entry| entry.actor == ACTOR));
}

#[tokio::test(flavor = "multi_thread")]
async fn running_processes_are_told_of_a_change() {
    let host = TestBroker::new(Version::V4_3);
    let patience = Duration::from_secs(30);
    let listener = Broker::connect(&host.settings(), "test", patience)
        .await
        .unwrap();
    let mut inbox = listener.control_inbox();
    let never = tokio_util::sync::CancellationToken::new();
    let heard = fanfare_testkit::eventually(patience, "an announcement", async || {
        // What is announced before the inbox listens is lost, as it may be.
        tell(&host.settings(), 7, now()).await.unwrap();
        let next = time::timeout(Duration::from_secs(1), inbox.next_until(&never)).await;
        next.ok().flatten()
    });
    let message = heard.await;
    let told = ControlMessage::decode(&message.envelope);
    assert_eq!(told, Some(ControlMessage::RegistryChanged { version: 7 }));
    message.receipt.settle();
    inbox.close().await;
    listener.close().await;
}
