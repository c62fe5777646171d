//! What becomes of endpoints, and what is never told of them.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use fanfare_broker::Broker;
use fanfare_egress::{Egress, EgressSettings};
use fanfare_testkit::{Behaviour, Receiver, TestBroker, Version, eventually};
use fanfare_wire::ControlMessage;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::support::{Server, problem, unreachable};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn everything() -> Value {
    json!({
        "url": "https://example.com/hooks?x=1",
        "event_types": ["reward.*", "referral.confirmed"],
        "description": "the shop",
        "rate": "50/s burst 10",
        "max_in_flight": 4,
        "timeout": 2.5,
        "schedule": {"base": 5, "factor": 1.5, "cap": 3600, "attempts": 12, "window": 259200},
        "disable_after": {"consecutive_failures": 10},
        "success": "200,202",
        "permanent": "400-404",
        "headers": {"Authorization": "Bearer hush-hush"},
        "secret": SECRET,
    })
}

#[tokio::test]
async fn an_endpoint_is_shown_as_it_was_created() {
    let server = Server::without_broker().await;
    let response = server.create(&everything()).await;
    assert_eq!(response.status(), 201);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let mut created: Value = response.json().await.unwrap();
    assert_eq!(created["secret"], SECRET);

    let shown: Value = server.get(&location).await.json().await.unwrap();
    created.as_object_mut().unwrap().remove("secret");
    assert_eq!(created, shown);
    let id = shown["id"].as_str().unwrap();
    assert_eq!(location, format!("/v1/tenants/t/endpoints/{id}"));
    let mut constant = shown.clone();
    for changing in ["id", "created_at", "updated_at"] {
        constant[changing] = json!("…");
    }
    insta::assert_json_snapshot!("an_endpoint", constant);
}

#[tokio::test]
async fn what_is_left_out_has_its_default_and_a_secret_is_made() {
    let server = Server::without_broker().await;
    let minimal = json!({"url": "https://example.com/", "event_types": ["*"]});
    let created: Value = server.create(&minimal).await.json().await.unwrap();
    for (member, expected) in [
        ("description", json!("")),
        ("state", json!("active")),
        ("rate", json!(null)),
        ("max_in_flight", json!(16)),
        ("timeout", json!(15.0)),
        ("success", json!("200-299")),
        ("permanent", json!("")),
        (
            "schedule",
            json!([0, 5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400]),
        ),
        (
            "disable_after",
            json!({"consecutive_failures": null, "failing_for": 432_000}),
        ),
        ("header_names", json!([])),
    ] {
        assert_eq!(created[member], expected, "{member}");
    }
    let secret = created["secret"].as_str().unwrap();
    assert!(secret.parse::<fanfare_model::SigningSecret>().is_ok());
}

/// Calls receivers on this machine.
fn local() -> Egress {
    let settings = EgressSettings {
        allow_networks: vec!["127.0.0.0/8".parse().unwrap()],
        ..EgressSettings::default()
    };
    Egress::new(&settings).unwrap()
}

#[tokio::test]
async fn an_allowed_network_may_be_registered() {
    let server = Server::start(&unreachable(), |api| api.egress = local()).await;
    let local = json!({"url": "http://127.0.0.1:9000/", "event_types": ["*"]});
    assert_eq!(server.create(&local).await.status(), 201);
}

#[tokio::test]
async fn a_deleted_endpoint_is_gone_and_the_change_is_ascribed_to_the_key() {
    let server = Server::without_broker().await;
    let path = created(&server).await;
    let others = path.replace("/t/", "/u/");
    for (path, status) in [(&others, 404), (&path, 204), (&path, 404)] {
        let response = server.call(Method::DELETE, path).send().await.unwrap();
        assert_eq!(response.status(), status, "{path}");
    }
    let (status, code, _) = problem(server.get(&path).await).await;
    assert_eq!((status, &*code), (404, "no_such_endpoint"));

    let audit = server
        .registry
        .audit(&fanfare_registry::AuditPage::latest(2))
        .await
        .unwrap();
    let actions: Vec<_> = audit.iter().map(|entry| &*entry.action).collect();
    assert_eq!(actions, ["endpoint.delete", "endpoint.create"]);
    for entry in &audit {
        assert!(entry.actor.starts_with("key_"), "{}", entry.actor);
    }
}

#[tokio::test]
async fn a_state_is_changed_as_asked_and_a_disabled_endpoint_is_enabled_only_on_purpose() {
    let server = Server::without_broker().await;
    let path = created(&server).await;
    for (action, status, state) in [
        ("pause", 200, "paused"),
        ("pause", 200, "paused"),
        ("resume", 200, "active"),
        ("disable", 200, "disabled"),
        ("resume", 409, "disabled"),
        ("pause", 409, "disabled"),
        ("enable", 200, "active"),
        ("enable", 200, "active"),
    ] {
        let response = server.call(Method::POST, &format!("{path}/{action}"));
        let response = response.send().await.unwrap();
        if status == 409 {
            let (status, code, _) = problem(response).await;
            assert_eq!((status, &*code), (409, "endpoint_disabled"), "{action}");
        } else {
            assert_eq!(response.status(), status, "{action}");
            let answered: Value = response.json().await.unwrap();
            assert_eq!(answered["state"], state, "{action}");
        }
        let shown: Value = server.get(&path).await.json().await.unwrap();
        assert_eq!(shown["state"], state, "{action}");
    }
    let others = path.replace("/t/", "/u/");
    let response = server.call(Method::POST, &format!("{others}/pause"));
    let (status, code, _) = problem(response.send().await.unwrap()).await;
    assert_eq!((status, &*code), (404, "no_such_endpoint"));
}

/// Creates an endpoint, and returns its path.
async fn created(server: &Server) -> String {
    let created = server.create(&everything()).await;
    created.headers()["location"].to_str().unwrap().to_owned()
}

async fn patch(server: &Server, path: &str, body: &Value) -> Response {
    let request = server.call(Method::PATCH, path);
    let request = request.header("content-type", "application/merge-patch+json");
    request.body(body.to_string()).send().await.unwrap()
}

#[tokio::test]
async fn a_merge_patch_changes_only_what_it_names() {
    let server = Server::without_broker().await;
    let path = created(&server).await;
    for (body, changes) in [
        (json!({}), json!({})),
        (
            json!({"url": "https://example.com/b", "rate": null}),
            json!({"url": "https://example.com/b", "rate": null}),
        ),
        (
            json!({"headers": {"X-B": "hush-hush"}}),
            json!({"header_names": ["authorization", "x-b"]}),
        ),
        (
            json!({"headers": null, "timeout": null}),
            json!({"header_names": [], "timeout": 15.0}),
        ),
    ] {
        let mut expected: Value = server.get(&path).await.json().await.unwrap();
        let response = patch(&server, &path, &body).await;
        assert_eq!(response.status(), 200, "{body}");
        let shown: Value = response.json().await.unwrap();
        let read: Value = server.get(&path).await.json().await.unwrap();
        assert_eq!(shown, read);
        let members = expected.as_object_mut().unwrap();
        members.extend(changes.as_object().unwrap().clone());
        members.insert("updated_at".to_owned(), shown["updated_at"].clone());
        assert_eq!(shown, expected, "{body}");
    }
}

#[tokio::test]
async fn a_merge_patch_that_is_not_accepted_names_the_member() {
    let server = Server::without_broker().await;
    let path = created(&server).await;
    for (body, field) in [
        (json!({"colour": "red"}), Some("colour")),
        (json!({"colour": null}), Some("colour")),
        (json!({"url": null}), Some("url")),
        (json!({"url": "http://127.0.0.1/"}), Some("url")),
        (json!({"timeout": 31}), Some("timeout")),
        (json!({"rate": "fast"}), Some("rate")),
        (json!({"auth": {"kind": "bearer"}}), Some("auth")),
        (
            json!({"headers": {"x-a": "1", "X-A": "2"}}),
            Some("headers.x-a"),
        ),
        (json!({"headers": {"Host": "x"}}), Some("headers.host")),
        (json!({"signature": "github"}), Some("secret")),
        (json!({"secret": null}), Some("secret")),
        (json!({"tls": {"key": "x"}}), Some("tls.certificate")),
        (json!([1]), None),
    ] {
        let (status, code, fields) = problem(patch(&server, &path, &body).await).await;
        assert_eq!((status, &*code), (400, "invalid_request"), "{body}");
        assert_eq!(fields.first().map(String::as_str), field, "{body}");
    }
    let request = server.call(Method::PATCH, &path);
    let response = request.body("{}").send().await.unwrap();
    assert_eq!(problem(response).await.1, "unsupported_media_type");
    let other = patch(&server, &path.replace("/t/", "/u/"), &json!({})).await;
    assert_eq!(problem(other).await.1, "no_such_endpoint");
}

#[tokio::test]
async fn a_rotated_secret_is_told_once_and_the_old_one_signs_beside_it() {
    let server = Server::without_broker().await;
    let path = created(&server).await;
    let rotate = async |body: Option<Value>| {
        let request = server.call(Method::POST, &format!("{path}/rotate-secret"));
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        request.send().await.unwrap()
    };
    let rotated: Value = rotate(None).await.json().await.unwrap();
    assert_ne!(rotated["secret"], SECRET);
    assert_eq!(rotated["retiring_until"].as_array().unwrap().len(), 1);
    let shown: Value = server.get(&path).await.json().await.unwrap();
    assert!(shown.get("secret").is_none());
    assert_eq!(shown["retiring_until"], rotated["retiring_until"]);

    let given = json!({"secret": SECRET, "overlap": 0});
    let rotated: Value = rotate(Some(given)).await.json().await.unwrap();
    assert_eq!(
        (&rotated["secret"], &rotated["retiring_until"]),
        (&json!(SECRET), &json!([]))
    );
    for (body, field) in [
        (json!({"overlap": -1}), "overlap"),
        (json!({"overlap": 2_592_001}), "overlap"),
        (json!({"secret": SECRET}), "secret"),
        (json!({"secret": "short"}), "secret"),
        (json!({"colour": 1}), "colour"),
    ] {
        let (status, code, fields) = problem(rotate(Some(body)).await).await;
        assert_eq!((status, &*code), (400, "invalid_request"), "{field}");
        assert_eq!(fields, [field]);
    }
}

#[tokio::test]
async fn pages_follow_each_other_and_end() {
    let server = Server::without_broker().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        let created: Value = server.create(&everything()).await.json().await.unwrap();
        ids.push(created["id"].clone());
    }
    ids.sort_by_key(ToString::to_string);
    let mut listed = Vec::new();
    let mut sizes = Vec::new();
    let mut query = "limit=2".to_owned();
    loop {
        let path = format!("/v1/tenants/t/endpoints?{query}");
        let page: Value = server.get(&path).await.json().await.unwrap();
        let items = page["items"].as_array().unwrap();
        sizes.push(items.len());
        listed.extend(items.iter().map(|item| item["id"].clone()));
        match page["next"].as_str() {
            Some(next) => query = format!("limit=2&after={next}"),
            None => break,
        }
    }
    assert_eq!((listed, sizes), (ids, vec![2, 2, 1]));
}

#[tokio::test]
async fn a_list_is_filtered_by_what_is_asked() {
    let server = Server::without_broker().await;
    let raw = json!({"url": "https://example.com/raw", "event_types": ["a"], "profile": "raw"});
    let other = json!({"url": "https://example.com/other", "event_types": ["b.*"]});
    for endpoint in [&raw, &other] {
        server.create(endpoint).await;
    }
    for (query, expected) in [
        (
            "",
            &["https://example.com/raw", "https://example.com/other"][..],
        ),
        ("?event_type=b.c", &["https://example.com/other"]),
        ("?format=raw", &["https://example.com/raw"]),
        ("?url=/oth&state=active", &["https://example.com/other"]),
        ("?state=disabled", &[]),
    ] {
        let page = server.get(&format!("/v1/tenants/t/endpoints{query}")).await;
        let page: Value = page.json().await.unwrap();
        let urls = page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["url"].clone());
        let mut urls: Vec<_> = urls.collect();
        urls.sort_by_key(|url| expected.iter().position(|known| url == known));
        assert_eq!(urls, expected, "{query}");
    }
    for field in ["state", "event_type", "format", "colour"] {
        let query = format!("/v1/tenants/t/endpoints?{field}=*");
        let (status, _, fields) = problem(server.get(&query).await).await;
        assert_eq!((status, fields), (400, vec![field.to_owned()]));
    }
}

#[tokio::test]
async fn an_endpoint_is_tried_out_as_it_would_be_called() {
    let server = Server::start(&unreachable(), |api| api.egress = local()).await;
    let receiver = Receiver::start().await;
    let asked = json!({
        "url": receiver.url("/hooks"),
        "event_types": ["*"],
        "profile": "referralhero",
        "headers": {"X-Key": "hush-hush"},
    });
    let created: Value = server.create(&asked).await.json().await.unwrap();
    let path = format!(
        "/v1/tenants/t/endpoints/{}",
        created["id"].as_str().unwrap()
    );
    let test = async |body: &Value| -> Value {
        let request = server.call(Method::POST, &format!("{path}/test"));
        request
            .json(body)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    };
    let tried = test(&json!({})).await;
    assert_eq!(
        (&tried["outcome"], &tried["status"]),
        (&json!("succeeded"), &json!(200))
    );
    assert_eq!(tried["request"]["headers"]["x-key"], "[redacted]");
    let received = receiver.requests();
    let signature = received[0].header("x-referralhero-signature");
    assert_eq!(
        tried["request"]["headers"]["x-referralhero-signature"],
        signature
    );
    assert_eq!(
        tried["request"]["body"].as_str().unwrap().as_bytes(),
        &received[0].body[..]
    );
    let sample = fanfare_registry::built_in_sample(&"new_registration".parse().unwrap());
    let sent: Value = serde_json::from_slice(&received[0].body).unwrap();
    assert_eq!(Some(&sent), sample);

    receiver.behave("/hooks", Behaviour::status(201));
    let tried = test(&json!({"type": "a.b", "data": {"n": 1}})).await;
    assert_eq!(
        (&tried["outcome"], &tried["status"]),
        (&json!("status_4xx"), &json!(201))
    );
    assert_eq!(tried["request"]["body"], r#"{"n":1}"#);
    for action in ["disable", "test"] {
        let response = server.call(Method::POST, &format!("{path}/{action}"));
        assert_eq!(response.send().await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn a_receiver_of_cloudevents_has_to_agree_when_it_is_asked() {
    let server = Server::start(&unreachable(), |api| api.egress = local()).await;
    let receiver = Receiver::start().await;
    let agrees = |limit: &str| Behaviour {
        headers: vec![
            ("webhook-allowed-origin", "events.example.com".to_owned()),
            ("webhook-allowed-rate", limit.to_owned()),
        ],
        ..Behaviour::status(200)
    };
    let asked = json!({
        "url": receiver.url("/hooks"),
        "event_types": ["*"],
        "profile": "cloudevents",
        "rate": "2/s",
        "request_origin": "events.example.com",
    });
    let refused = async || problem(server.create(&asked).await).await;
    assert_eq!(
        refused().await,
        (
            400,
            "invalid_request".to_owned(),
            vec!["request_origin".to_owned()]
        )
    );
    receiver.behave("/hooks", agrees("100"));
    assert_eq!(refused().await.2, ["rate"]);
    receiver.behave("/hooks", agrees("120"));
    let created = server.create(&asked).await;
    assert_eq!(created.status(), 201);
    let path = created.headers()["location"].to_str().unwrap().to_owned();
    let last = receiver.requests().pop().unwrap();
    assert_eq!(last.header("webhook-request-origin"), "events.example.com");
    assert_eq!(last.header("webhook-request-rate"), "120");

    let faster = patch(&server, &path, &json!({"rate": "3/s"})).await;
    assert_eq!(problem(faster).await.2, ["rate"]);
    receiver.behave("/hooks", Behaviour::status(200));
    let tried = server
        .call(Method::POST, &format!("{path}/test"))
        .send()
        .await;
    let tried: Value = tried.unwrap().json().await.unwrap();
    assert_eq!(tried["outcome"], "succeeded");
    assert!(
        tried["not_allowed"]
            .as_str()
            .unwrap()
            .contains("WebHook-Allowed-Origin")
    );
    assert_eq!(tried["request"]["headers"]["origin"], "events.example.com");
}

#[tokio::test]
async fn a_status_says_what_is_known_and_that_no_dispatcher_answered() {
    let server = Server::without_broker().await;
    let path = created(&server).await;
    let status = async || -> Value {
        let status = server.get(&format!("{path}/status")).await;
        status.json().await.unwrap()
    };
    let before = status().await;
    assert_eq!(
        (&before["state"], &before["circuit"]),
        (&json!("active"), &json!("unknown"))
    );
    assert_eq!(
        (&before["dispatcher"], &before["in_flight"]),
        (&json!(null), &json!(null))
    );
    assert_eq!(
        (&before["last_success"], &before["last_failures"]),
        (&json!(null), &json!([]))
    );
    let disabled = server.call(Method::POST, &format!("{path}/disable"));
    disabled.send().await.unwrap();
    let after = status().await;
    assert_eq!(
        (&after["state"], &after["reason"]),
        (&json!("disabled"), &json!("requested"))
    );
    assert_eq!(after["by"], before["by"]);
    assert!(after["since"].as_str() > before["since"].as_str());
}

#[tokio::test]
async fn a_change_is_announced_to_other_processes() {
    let rabbit = TestBroker::new(Version::V4_3);
    let settings = rabbit.settings();
    let server = Server::start(&settings, |_| {}).await;
    let within = Duration::from_secs(30);
    let other = Broker::connect(&settings, "another process", within);
    let other = other.await.unwrap();
    let mut inbox = other.control_inbox();
    // Only what is announced after the inbox was opened is heard, so changes go on until one is.
    let heard = eventually(within, "an announcement", async || {
        assert_eq!(server.create(&everything()).await.status(), 201);
        inbox.try_next()
    });
    let message = heard.await;
    let said = ControlMessage::decode(&message.envelope);
    message.receipt.settle();
    assert!(
        matches!(said, Some(ControlMessage::RegistryChanged { version }) if version > 0),
        "{said:?}"
    );
    other.close().await;
}

/// Takes log lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_secret_is_told_twice_or_logged() {
    let lines = Lines::default();
    let writer = lines.clone();
    let tracing_all = || tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE);
    // A log line that another test's thread comes by first would else be off for this one too. Whoever
    // else has installed a subscriber for all threads has done the same.
    drop(tracing_all().with_writer(std::io::sink).try_init());
    let subscriber = tracing_all().with_writer(move || writer.clone()).finish();
    // The test's runtime has one thread, so this hears the server too.
    let _hearing = tracing::subscriber::set_default(subscriber);

    let server = Server::without_broker().await;
    let path = created(&server).await;
    let mut told = String::new();
    for path in [&*path, "/v1/tenants/t/endpoints", "/metrics", "/readyz"] {
        told += &server.get(path).await.text().await.unwrap();
    }
    for (member, value) in [
        ("secret", json!(format!("{SECRET}!"))),
        ("secret", json!([SECRET])),
        ("secrets", json!([SECRET])),
        ("headers", json!({"host": "Bearer hush-hush"})),
        ("headers", json!({"x": ["Bearer hush-hush"]})),
        ("headers", json!("Bearer hush-hush")),
    ] {
        let mut refused = everything();
        refused[member] = value;
        let response = server.create(&refused).await;
        assert_eq!(response.status(), 400);
        told += &response.text().await.unwrap();
    }

    let logged = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("answered a request"), "{logged}");
    assert!(
        logged.contains("/v1/tenants/{tenant}/endpoints"),
        "{logged}"
    );
    // The client and the server's libraries share the log; only our lines are ours.
    let ours: String = logged
        .lines()
        .filter(|line| line.contains("fanfare"))
        .collect();
    for secret in [SECRET, "hush-hush", &server.key] {
        assert!(!told.contains(secret), "{secret} was told: {told}");
        assert!(!ours.contains(secret), "{secret} was logged");
    }
}
