//! The life of an endpoint: what is changed while events flow, and what is told about it.

use std::{cell::Cell, process::Command};

use fanfare_model::{Endpoint, Secret, SigningSecret, verify_standard};
use fanfare_testkit::{
    Behaviour, PlainAmqp, ReceivedRequest, Receiver, TestBroker, Version, eventually,
};
use fanfare_tests::{PATIENCE, Pipeline, fanfare_binary};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::delivery::event;

/// An endpoint under change, and events that never stop coming.
struct Life {
    pipeline: Pipeline,
    receiver: Receiver,
    amqp: PlainAmqp,
    key: Secret,
    path: String,
    published: Cell<u32>,
    _broker: TestBroker,
}

impl Life {
    async fn begin() -> (Self, Endpoint) {
        let (broker, receiver) = (TestBroker::new(Version::V4_3), Receiver::start().await);
        let pipeline = Pipeline::start(broker.settings()).await;
        let endpoint = pipeline
            .register("t", &receiver.url("/a"), &["a"], |_| {})
            .await;
        let life = Self {
            amqp: pipeline.plain_amqp().await,
            key: pipeline.key().await,
            path: format!("/v1/tenants/t/endpoints/{}", endpoint.id),
            pipeline,
            receiver,
            published: Cell::new(0),
            _broker: broker,
        };
        (life, endpoint)
    }

    /// One call of the API: its answer, which is a success.
    async fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let (url, body) = (self.pipeline.api(path), body.to_string());
        let address = url.trim_start_matches("http://").split('/').next().unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "{method} {path} HTTP/1.0\r\nhost: test\r\nauthorization: Bearer {}\r\ncontent-type: \
             application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.key.expose(),
            body.len(),
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.0 200"), "{answer}");
        serde_json::from_str(body).unwrap()
    }

    async fn patch(&self, body: &Value) {
        self.call("PATCH", &self.path, body).await;
    }

    /// Publishes an event of a type, and returns the requests that came so far.
    async fn publish(&self, event_type: &str) -> Vec<ReceivedRequest> {
        self.published.set(self.published.get() + 1);
        let id = self.published.get().to_string();
        let body = event(&id, event_type);
        self.amqp
            .publish_event(&format!("t.{event_type}"), &body)
            .await;
        self.receiver.requests()
    }
}

/// Whoever changes an endpoint over HTTP waits for nothing else: no test nudges anything here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_take_effect_by_themselves_while_events_flow() {
    let (life, endpoint) = Life::begin().await;
    life.publish("a").await;
    life.receiver.expect_requests(1, PATIENCE).await;

    life.patch(&json!({"url": life.receiver.url("/b")})).await;
    eventually(PATIENCE, "a request to the new URL", async || {
        let requests = life.publish("a").await;
        requests
            .iter()
            .any(|request| request.path == "/b")
            .then_some(())
    })
    .await;

    life.patch(&json!({"event_types": ["b.*"]})).await;
    let is_of = |request: &ReceivedRequest, name: &str| {
        serde_json::from_slice::<Value>(&request.body).unwrap()["type"] == name
    };
    eventually(PATIENCE, "an event of a type that is new", async || {
        let requests = life.publish("b.c").await;
        requests
            .iter()
            .any(|request| is_of(request, "b.c"))
            .then_some(())
    })
    .await;

    let (new, old) = (rotated(&life).await, &endpoint.secrets[0]);
    let signed = eventually(
        PATIENCE,
        "a request that the new secret signs",
        async || {
            let mut requests = life.publish("b.c").await.into_iter();
            requests.find(|request| is_signed_by(request, &new))
        },
    )
    .await;
    assert!(is_signed_by(&signed, old), "the old one signs beside it");

    life.patch(&json!({"rate": "1/min"})).await;
    eventually(PATIENCE, "deliveries that wait for the rate", async || {
        life.publish("b.c").await;
        let status = life
            .call("GET", &format!("{}/status", life.path), &json!({}))
            .await;
        assert_eq!(status["rate"], "1/min");
        status["queued_until"].is_string().then_some(())
    })
    .await;
    life.pipeline.stop().await;
}

/// The new secret of the endpoint, beside which the old one signs for an hour.
async fn rotated(life: &Life) -> SigningSecret {
    let path = format!("{}/rotate-secret", life.path);
    let rotated = life.call("POST", &path, &json!({"overlap": 3600})).await;
    rotated["secret"].as_str().unwrap().parse().unwrap()
}

fn is_signed_by(request: &ReceivedRequest, secret: &SigningSecret) -> bool {
    let header = |name| request.header(name);
    let signed = (
        request.id(),
        header("webhook-timestamp"),
        header("webhook-signature"),
    );
    verify_standard(secret, signed, &request.body, request.at, PATIENCE * 10).is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_tells_what_the_dispatcher_and_the_history_know() {
    let (life, _) = Life::begin().await;
    let status = async || {
        life.call("GET", &format!("{}/status", life.path), &json!({}))
            .await
    };
    life.publish("a").await;
    let first = eventually(PATIENCE, "a success in the history", async || {
        let status = status().await;
        (!status["last_success"].is_null()).then_some(status)
    })
    .await;
    assert_eq!(
        (&first["state"], &first["by"]),
        (&json!("active"), &json!("test"))
    );
    assert_eq!(
        (&first["circuit"], &first["dispatcher"]),
        (&json!("closed"), &json!("test"))
    );
    assert_eq!(
        (&first["failed_in_a_row"], &first["last_failures"]),
        (&json!(0), &json!([]))
    );

    let busy = Behaviour {
        headers: vec![("retry-after", "600".to_owned())],
        ..Behaviour::status(503)
    };
    life.receiver.behave("/a", busy);
    life.publish("a").await;
    let failing = eventually(PATIENCE, "a failure in the history", async || {
        let status = status().await;
        (status["last_failures"] != json!([])).then_some(status)
    })
    .await;
    assert_eq!(failing["last_failures"][0]["outcome"], "status_5xx");
    assert_eq!(failing["failed_in_a_row"], 1);
    assert!(failing["held_back_until"].is_string(), "{failing}");

    // A change is a new beginning.
    life.patch(&json!({"description": "mended"})).await;
    let after = status().await;
    assert_eq!(
        (&after["failed_in_a_row"], &after["held_back_until"]),
        (&json!(0), &json!(null))
    );
    life.pipeline.stop().await;
}

/// A home with a configuration, and the commands on what is in it.
struct Home(TempDir);

impl Home {
    fn new(broker: &TestBroker) -> Self {
        let home = TempDir::new().unwrap();
        let config = format!(
            "[broker]\nurl = \"{}\"\n[registry]\ndatabase = \"fanfare.db\"\nencryption_key = \"{}\"\n\
             [history]\ndatabase = \"history.db\"\n[dispatcher.egress]\nallow_networks = [\"127.0.0.0/8\"]\n",
            broker.url(),
            "07".repeat(32),
        );
        std::fs::write(home.path().join("fanfare.toml"), config).unwrap();
        Self(home)
    }

    /// What `fanfare endpoints …` prints as JSON, and whether it succeeded.
    async fn endpoints(&self, arguments: &[&str]) -> (Value, bool) {
        let mut command = Command::new(fanfare_binary());
        command
            .args(["--output", "json", "endpoints"])
            .args(arguments)
            .current_dir(self.0.path());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output = output.await.unwrap();
        let printed = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        (printed, output.status.success())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_is_created_changed_tried_out_and_removed_by_commands() {
    let (broker, receiver) = (TestBroker::new(Version::V4_3), Receiver::start().await);
    let home = Home::new(&broker);
    let url = receiver.url("/a");
    let (added, _) = home
        .endpoints(&["add", "--tenant=t", "--url", &url, "--types=a"])
        .await;
    let id = added["id"].as_str().unwrap();
    let one = |command: &'static str| [command, "--tenant=t", id];

    let moved = format!("--url={}", receiver.url("/b"));
    let (updated, _) = home
        .endpoints(&[&one("update")[..], &[&moved, "--rate=5/s"]].concat())
        .await;
    assert_eq!(
        (&updated["rate"], &updated["event_types"]),
        (&json!("5/s"), &json!(["a"]))
    );
    let (rotated, _) = home.endpoints(&one("rotate-secret")).await;
    assert_ne!(rotated["secret"], added["secret"]);

    let (listed, _) = home
        .endpoints(&["list", "--type=a", "--url=/b", "--state=active"])
        .await;
    assert_eq!(listed[0]["id"], id);
    let (none, _) = home.endpoints(&["list", "--type=b"]).await;
    assert_eq!(none, json!([]));

    let (tried, accepted) = home
        .endpoints(&[&one("test")[..], &["--data", r#"{"n":1}"#]].concat())
        .await;
    assert_eq!((&tried["outcome"], accepted), (&json!("succeeded"), true));
    let request = receiver.expect_requests(1, PATIENCE).await.remove(0);
    assert_eq!(
        (&*request.path, tried["request_body"].as_str()),
        ("/b", std::str::from_utf8(&request.body).ok())
    );
    for secret in [&added["secret"], &rotated["secret"]] {
        request.assert_signed_by(&secret.as_str().unwrap().parse().unwrap());
    }
    receiver.behave("/b", Behaviour::status(500));
    let (tried, accepted) = home.endpoints(&one("test")).await;
    assert_eq!(
        (&tried["outcome"], &tried["status"], accepted),
        (&json!("status_5xx"), &json!(500), false)
    );

    let (shown, _) = home.endpoints(&one("show")).await;
    assert_eq!(
        (&shown["by"], &shown["circuit"]),
        (&json!("cli"), &json!("unknown"))
    );
    assert_eq!(shown["dispatcher"], "unknown (no dispatcher answered)");
    assert_eq!(shown["last_failures"], json!([]), "a trial is not recorded");
    assert!(home.endpoints(&one("remove")).await.1);
    assert!(!home.endpoints(&one("show")).await.1);
}
