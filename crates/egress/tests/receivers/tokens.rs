//! Receivers that want a token, and servers that give one.

use std::{
    net::TcpListener,
    sync::{Arc, Mutex},
    time::Duration,
};

use fanfare_egress::Egress;
use fanfare_model::{Auth, Endpoint, HttpVersion, Outcome};
use fanfare_testkit::{Behaviour, ReceivedRequest, Receiver, eventually};
use futures_util::future::join_all;
use serde_json::json;
use tokio::time::Instant;

use crate::support::{PATIENCE, answered, call, call_within, egress, endpoint};

const SECRET: &str = "hunter2 & co";

/// As servers do, this one lets more time pass than it says: what is under way, and clocks that differ.
const LEEWAY: Duration = Duration::from_secs(2);

/// A server that gives tokens at `/token`, and receives at `/` with those that are good.
struct Server {
    receiver: Receiver,
    /// Until when each token is good.
    given: Arc<Mutex<Vec<Instant>>>,
}

impl Server {
    async fn start() -> Self {
        let receiver = Receiver::start().await;
        let given: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let known = Arc::clone(&given);
        receiver.decide("/", move |request| {
            let good = is_good(&known.lock().unwrap(), request.header("authorization"));
            Behaviour::status(if good { 200 } else { 401 })
        });
        Self { receiver, given }
    }

    /// From now on each token is good for this long, and takes `delay` to be given.
    fn give(&self, seconds: u64, delay: Duration) {
        let given = Arc::clone(&self.given);
        self.receiver.decide("/token", move |_| {
            let mut given = given.lock().unwrap();
            given.push(Instant::now() + Duration::from_secs(seconds) + LEEWAY);
            let token = format!("token-{}", given.len());
            let body =
                json!({"access_token": token, "token_type": "bearer", "expires_in": seconds});
            Behaviour {
                body: body.to_string(),
                delay,
                ..Behaviour::status(200)
            }
        });
    }

    /// No token that was given is good any more.
    fn revoke(&self) {
        self.given.lock().unwrap().fill(Instant::now());
    }

    fn refuse(&self, status: u16, body: &str) {
        let body = body.to_owned();
        self.receiver.behave(
            "/token",
            Behaviour {
                body,
                ..Behaviour::status(status)
            },
        );
    }

    fn endpoint(&self, more: &[(&str, &str)]) -> Endpoint {
        let mut auth = json!({
            "kind": "oauth2", "token_url": self.receiver.url("/token"),
            "client_id": "me:myself", "client_secret": SECRET,
        });
        for (member, value) in more {
            auth[member] = json!(value);
        }
        let auth: Auth = serde_json::from_value(auth).unwrap();
        Endpoint {
            auth: Some(Box::new(auth)),
            ..endpoint(&self.receiver.url("/"))
        }
    }

    fn asked(&self) -> Vec<ReceivedRequest> {
        let mut requests = self.receiver.requests();
        requests.retain(|request| request.path == "/token");
        requests
    }
}

fn is_good(given: &[Instant], authorization: &str) -> bool {
    let number = authorization.strip_prefix("Bearer token-");
    let number: Option<usize> = number.and_then(|number| number.parse().ok());
    let until = number.and_then(|number| given.get(number.checked_sub(1)?));
    until.is_some_and(|until| Instant::now() < *until)
}

async fn no_token(egress: &Egress, endpoint: &Endpoint) -> String {
    let outcome = call(egress, endpoint).await;
    let Outcome::NoToken { detail } = outcome else {
        panic!("{outcome:?}")
    };
    detail
}

#[tokio::test]
async fn a_token_is_asked_for_as_the_server_wants_to_be_asked() {
    let server = Server::start().await;
    server.give(3600, Duration::ZERO);
    let egress = egress();
    let encoded = "hunter2+%26+co";
    for (more, authorization, form) in [
        (
            &[("scope", "a b")][..],
            "Basic bWUlM0FteXNlbGY6aHVudGVyMislMjYrY28=",
            "grant_type=client_credentials&scope=a+b".to_owned(),
        ),
        (
            &[("client_auth", "body"), ("audience", "https://x")],
            "",
            format!(
                "grant_type=client_credentials&audience=https%3A%2F%2Fx&client_id=me%3Amyself&client_secret={encoded}"
            ),
        ),
    ] {
        // The version is the receiver's: it must not matter to a server of tokens that speaks another.
        let endpoint = Endpoint {
            http_version: HttpVersion::Http2,
            ..server.endpoint(more)
        };
        assert_eq!(call(&egress, &endpoint).await, answered(200));
        let asked = server.asked().pop().unwrap();
        assert_eq!(asked.header("authorization"), authorization);
        assert_eq!(
            asked.header("content-type"),
            "application/x-www-form-urlencoded"
        );
        assert_eq!(asked.body, form);
        assert_eq!(asked.version, axum::http::Version::HTTP_11);
    }
}

#[tokio::test]
async fn many_who_need_a_token_ask_once() {
    let server = Server::start().await;
    server.give(3600, Duration::from_millis(300));
    let (egress, endpoint) = (egress(), server.endpoint(&[]));
    let calls = (0..50).map(|_| call(&egress, &endpoint));
    for outcome in join_all(calls).await {
        assert_eq!(outcome, answered(200));
    }
    assert_eq!(server.asked().len(), 1);
    // Another client is another, and other endpoints of the same one are not.
    assert_eq!(call(&egress, &server.endpoint(&[])).await, answered(200));
    assert_eq!(server.asked().len(), 1);
    let other = server.endpoint(&[("scope", "other")]);
    assert_eq!(call(&egress, &other).await, answered(200));
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn a_token_that_expires_is_renewed_before_that() {
    let server = Server::start().await;
    server.give(2, Duration::from_millis(50));
    let (egress, endpoint) = (egress(), server.endpoint(&[]));
    eventually(PATIENCE, "three tokens", async || {
        assert_eq!(call(&egress, &endpoint).await, answered(200));
        (server.asked().len() >= 3).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_token_is_used_to_its_end_when_it_cannot_be_renewed() {
    let server = Server::start().await;
    server.give(4, Duration::ZERO);
    let (egress, endpoint) = (egress(), server.endpoint(&[]));
    assert_eq!(call(&egress, &endpoint).await, answered(200));
    server.refuse(503, "");
    eventually(PATIENCE, "a renewal", async || {
        let outcome = call(&egress, &endpoint).await;
        let renewing = server.asked().len() > 1;
        assert!(outcome == answered(200) || renewing, "{outcome:?}");
        renewing.then_some(())
    })
    .await;
    eventually(PATIENCE, "the end of the token", async || {
        let outcome = call(&egress, &endpoint).await;
        assert_ne!(outcome, answered(401));
        (outcome != answered(200)).then_some(())
    })
    .await;
    server.give(3600, Duration::ZERO);
    eventually(PATIENCE, "another token", async || {
        (call(&egress, &endpoint).await == answered(200)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_token_that_a_receiver_refuses_is_replaced() {
    let server = Server::start().await;
    server.give(3600, Duration::ZERO);
    let (egress, endpoint) = (egress(), server.endpoint(&[]));
    assert_eq!(call(&egress, &endpoint).await, answered(200));
    server.revoke();
    assert_eq!(call(&egress, &endpoint).await, answered(401));
    eventually(PATIENCE, "another token", async || {
        (call(&egress, &endpoint).await == answered(200)).then_some(())
    })
    .await;
    assert_eq!(server.asked().len(), 2);

    // Whoever refuses every token does not make us ask for one each time.
    server.receiver.behave("/", Behaviour::status(401));
    let calls = (0..50).map(|_| call(&egress, &endpoint));
    for outcome in join_all(calls).await {
        assert_eq!(outcome, answered(401));
    }
    assert!(server.asked().len() <= 3, "{}", server.asked().len());
}

#[tokio::test]
async fn a_server_that_gives_no_token_is_told_from_a_receiver_that_fails() {
    let server = Server::start().await;
    let egress = egress();
    let long = "x".repeat(100_000);
    for (number, (status, body, expected)) in [
        (500, "", "it answered 500"),
        (
            401,
            r#"{"error": "invalid_client"}"#,
            "it answered 401: invalid_client",
        ),
        // Whatever else it says may be what it was told.
        (400, r#"{"error": "hunter2"}"#, "it answered 400"),
        (302, "", "it answered 302"),
        (200, "", "its answer holds no `access_token`"),
        (200, "{}", "its answer holds no `access_token`"),
        (
            200,
            r#"{"access_token": ""}"#,
            "its answer holds no `access_token`",
        ),
        (
            200,
            r#"{"access_token": "a\nb"}"#,
            "its answer holds no `access_token`",
        ),
        (200, &long, "its answer holds no `access_token`"),
        (
            200,
            r#"{"access_token": "x", "token_type": "mac"}"#,
            "its answer holds a token that is no bearer token",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        server.refuse(status, body);
        let endpoint = server.endpoint(&[("scope", &number.to_string())]);
        let detail = no_token(&egress, &endpoint).await;
        assert_eq!(detail, format!("no token from `127.0.0.1`: {expected}"));
    }
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let closed = format!("http://{closed}/token");
    let endpoint = server.endpoint(&[("token_url", &closed)]);
    let detail = no_token(&egress, &endpoint).await;
    assert!(detail.contains("refused"), "{detail}");

    let forbidden = server.endpoint(&[("token_url", "http://169.254.169.254/token")]);
    let outcome = call(&egress, &forbidden).await;
    assert!(matches!(outcome, Outcome::Blocked { .. }), "{outcome:?}");
    let asked = server.asked().len();
    assert_eq!(
        server.receiver.count(),
        asked,
        "the receiver was not called"
    );
}

#[tokio::test]
async fn a_failure_stands_for_all_who_ask_and_passes() {
    let server = Server::start().await;
    server.refuse(503, "");
    let (egress, endpoint) = (egress(), server.endpoint(&[]));
    for detail in join_all((0..20).map(|_| no_token(&egress, &endpoint))).await {
        assert!(detail.ends_with("it answered 503"), "{detail}");
    }
    assert_eq!(server.asked().len(), 1);
    server.give(3600, Duration::ZERO);
    eventually(PATIENCE, "a token", async || {
        (call(&egress, &endpoint).await == answered(200)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_question_outlives_the_attempt_that_put_it() {
    let server = Server::start().await;
    server.give(3600, Duration::from_millis(1500));
    let (egress, endpoint) = (egress(), server.endpoint(&[]));
    let impatient = call_within(&egress, &endpoint, Duration::from_millis(200)).await;
    let detail = "no token from `127.0.0.1`: no answer in time".to_owned();
    assert_eq!(impatient, Outcome::NoToken { detail });
    assert_eq!(call(&egress, &endpoint).await, answered(200));
    assert_eq!(server.asked().len(), 1);
}
