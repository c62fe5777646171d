//! Receivers that want to know who calls, through the whole program.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use fanfare_model::{Auth, ClientCertificate, Schedule, Secret, TlsIdentity};
use fanfare_registry::NewEndpoint;
use fanfare_testkit::{Authority, Behaviour, Identity, Receiver, TestBroker, Version, eventually};
use fanfare_tests::{PATIENCE, Pipeline};
use serde_json::json;

use crate::delivery::event;

/// How long a token is good, in seconds, as whoever gets it is told.
const LIFE: u64 = 2;
/// As servers do, this one lets a little more time pass: what is under way, and clocks that differ.
const LEEWAY: u64 = 2;

/// Gives tokens at `/token`, and takes notifications at `/hooks` with one that is good. Nobody gets in without a
/// certificate of `clients`.
struct Guarded {
    receiver: Receiver,
    given: Arc<Mutex<Vec<Instant>>>,
}

impl Guarded {
    async fn start(server: &Authority, clients: &Authority) -> Self {
        let receiver = Receiver::start_tls(server.server(Some(clients))).await;
        let given: Arc<Mutex<Vec<Instant>>> = Arc::default();
        let known = Arc::clone(&given);
        receiver.decide("/token", move |_| {
            let mut known = known.lock().unwrap();
            known.push(now());
            let token = format!("token-{}", known.len());
            Behaviour {
                body: json!({"access_token": token, "expires_in": LIFE}).to_string(),
                ..Behaviour::status(200)
            }
        });
        let known = Arc::clone(&given);
        receiver.decide("/hooks", move |request| {
            let number = request.header("authorization").rsplit('-').next().unwrap();
            let given = known.lock().unwrap()[number.parse::<usize>().unwrap() - 1];
            let good = now() < given + Duration::from_secs(LIFE + LEEWAY);
            Behaviour::status(if good { 200 } else { 401 })
        });
        Self { receiver, given }
    }

    fn tokens(&self) -> usize {
        self.given.lock().unwrap().len()
    }

    fn notified(&self) -> usize {
        let requests = self.receiver.requests();
        let hooks = requests.iter().filter(|request| request.path == "/hooks");
        hooks.count()
    }
}

/// Shows this certificate, trusts this authority, and asks for tokens.
fn identified(
    guarded: &Guarded,
    ours: Identity,
    trusted: &Authority,
) -> impl FnOnce(&mut NewEndpoint) {
    let auth = json!({
        "kind": "oauth2", "client_id": "c", "client_secret": "s",
        "token_url": guarded.receiver.url("/token"),
    });
    let auth: Auth = serde_json::from_value(auth).unwrap();
    let client = ClientCertificate {
        chain: ours.certificate,
        key: Secret::new(ours.key),
    };
    let ca = trusted.pem();
    move |new| {
        new.auth = Some(auth);
        new.tls.client = Some(Box::new(client));
        new.tls.ca = Some(ca.into());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deliveries_go_on_over_connections_that_show_a_certificate_while_tokens_expire() {
    let (server, clients) = (Authority::new(), Authority::new());
    let guarded = Guarded::start(&server, &clients).await;
    let broker = TestBroker::new(Version::V4_3);
    let pipeline = Pipeline::start(broker.settings()).await;
    let adjust = identified(&guarded, clients.identity("fanfare"), &server);
    let url = guarded.receiver.url("/hooks");
    pipeline.register("t", &url, &["*"], adjust).await;

    let amqp = pipeline.plain_amqp().await;
    let mut published = 0;
    eventually(PATIENCE, "three tokens", async || {
        let done = guarded.tokens() >= 3;
        if guarded.notified() == published {
            published += 1;
            let id = published.to_string();
            amqp.publish_event("t.a", &event(&id, "a")).await;
        }
        done.then_some(())
    })
    .await;
    eventually(PATIENCE, "the last notification", async || {
        (guarded.notified() == published).then_some(())
    })
    .await;
    pipeline.expect_depth("fanfare.dead-letters", 0).await;
    pipeline.stop().await;
    // Nothing was refused, else it would have come again.
    assert_eq!(guarded.notified(), published);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_shows_no_certificate_gets_a_dead_letter_and_is_not_heard() {
    let (server, clients) = (Authority::new(), Authority::new());
    let guarded = Guarded::start(&server, &clients).await;
    let broker = TestBroker::new(Version::V4_3);
    let pipeline = Pipeline::start(broker.settings()).await;
    let trusting = TlsIdentity {
        client: None,
        ca: Some(server.pem().into()),
    };
    let once = Schedule::from_seconds(vec![0]).unwrap();
    let adjust = |new: &mut NewEndpoint| {
        new.tls = trusting;
        new.schedule = once;
    };
    let url = guarded.receiver.url("/hooks");
    pipeline.register("t", &url, &["*"], adjust).await;
    let amqp = pipeline.plain_amqp().await;
    amqp.publish_event("t.a", &event("1", "a")).await;
    pipeline.expect_depth("fanfare.dead-letters", 1).await;
    let letter = amqp.get("fanfare.dead-letters").await.unwrap();
    // In TLS 1.3 the refusal comes when the client's handshake is over: it meets the request, or a closed connection.
    let class = letter.headers["x-fanfare-last-class"].as_str();
    assert!(["tls", "connect"].contains(&class), "{class}");
    pipeline.stop().await;
    assert_eq!(guarded.receiver.count(), 0);
}

#[expect(clippy::disallowed_methods, reason = "the server's own clock")]
fn now() -> Instant {
    Instant::now()
}
