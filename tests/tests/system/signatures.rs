//! Signatures as they are delivered, verified by what others wrote.

use std::time::Duration;

use fanfare_model::{Endpoint, Profile, Secret, SigningSecret};
use fanfare_registry::{NewEndpoint, Rotation};
use fanfare_testkit::{ReceivedRequest, Receiver, TestBroker, Version, eventually, wall_clock};
use fanfare_tests::{PATIENCE, Pipeline, node, python};

use crate::delivery::event;

/// What a script says of a request with this body.
fn verdict(
    script: impl Fn(&[&str], &[u8]) -> String,
    first: &[&str],
    request: &ReceivedRequest,
    body: &[u8],
) -> bool {
    let headers = request.headers.iter();
    let headers = headers.map(|(name, value)| format!("{name}={}", value.to_str().unwrap()));
    let headers: Vec<_> = headers.collect();
    let mut arguments = first.to_vec();
    arguments.extend(headers.iter().map(String::as_str));
    script(&arguments, body).trim() == "valid"
}

/// Whether this request is what the key signed: it verifies, and nothing else does.
#[track_caller]
fn assert_signed(request: &ReceivedRequest, key: &str, signed: bool) {
    let by_node = |arguments: &[&str], body: &[u8]| node("verify_signature.js", arguments, body);
    let by_python =
        |arguments: &[&str], body: &[u8]| python("verify_signature.py", arguments, body);
    let forged = [&request.body[..], b" "].concat();
    let path = &request.path;
    assert_eq!(
        verdict(by_node, &[key], request, &request.body),
        signed,
        "{path}"
    );
    assert!(!verdict(by_node, &[key], request, &forged), "{path}");
    if !key.starts_with("whpk_") {
        let first = ["standard", key];
        assert_eq!(
            verdict(by_python, &first, request, &request.body),
            signed,
            "{path}"
        );
        assert!(!verdict(by_python, &first, request, &forged), "{path}");
    }
}

/// What a receiver verifies with.
fn key_of(secret: &SigningSecret) -> String {
    let public = secret.public_key();
    public.map_or_else(|| secret.reveal(), |key| key.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_public_libraries_verify_what_is_delivered_also_while_secrets_change() {
    let (broker, receiver) = (TestBroker::new(Version::V4_3), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    let (old, newer) = (SigningSecret::generate(), SigningSecret::generate());
    let (old_pair, pair) = (
        SigningSecret::generate_private(),
        SigningSecret::generate_private(),
    );
    let (day, second) = (Rotation::DEFAULT_OVERLAP, Duration::from_secs(1));
    // Who signs at first, who from then on and for how long beside the first, and whose signatures are expected.
    let cases = [
        ("/shared", &newer, None, vec![&newer]),
        ("/pair", &pair, None, vec![&pair]),
        ("/rotating", &old, Some((&newer, day)), vec![&newer, &old]),
        ("/rotated", &old, Some((&newer, second)), vec![&newer]),
        (
            "/rotating-pair",
            &old_pair,
            Some((&pair, day)),
            vec![&pair, &old_pair],
        ),
        (
            "/rotated-pair",
            &old_pair,
            Some((&pair, second)),
            vec![&pair],
        ),
        ("/to-a-pair", &old, Some((&pair, day)), vec![&pair, &old]),
    ];
    let mut overlaps_end = wall_clock().now();
    for (path, first, rotation, _) in &cases {
        let secrets = vec![(*first).clone()];
        let adjust = |new: &mut NewEndpoint| new.secrets = secrets;
        let url = receiver.url(path);
        let endpoint = pipeline.register("t", &url, &["*"], adjust).await;
        let Some((secret, overlap)) = *rotation else {
            continue;
        };
        let secret = Some(Secret::new(secret.reveal()));
        let rotation = Rotation { secret, overlap };
        let rotated = pipeline.rotate_secret(&endpoint, &rotation).await;
        if overlap == second {
            overlaps_end = rotated.retiring[0].until;
        }
    }
    eventually(PATIENCE, "the end of an overlap", async || {
        (wall_clock().now() > overlaps_end).then_some(())
    })
    .await;
    let amqp = pipeline.plain_amqp().await;
    amqp.publish_event("t.a", &event("1", "a")).await;
    let requests = receiver.expect_requests(cases.len(), PATIENCE).await;
    for (path, _, _, signing) in &cases {
        let request = requests.iter().find(|request| request.path == *path);
        let request = request.expect("every endpoint is called");
        let parts = request.header("webhook-signature").split(' ').count();
        assert_eq!(parts, signing.len(), "{path}");
        for secret in [&newer, &old, &pair, &old_pair] {
            assert_signed(request, &key_of(secret), signing.contains(&secret));
        }
    }
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_signatures_of_other_senders_are_what_their_receivers_verify() {
    let (broker, receiver) = (TestBroker::new(Version::V4_3), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    let senders = [
        ("github", Profile::GitHub),
        ("shopify", Profile::Shopify),
        ("stripe", Profile::Stripe),
        ("referralhero", Profile::ReferralHero),
    ];
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for (sender, profile) in senders {
        let url = receiver.url(&format!("/{sender}"));
        let adjust = |new: &mut NewEndpoint| new.prefill(profile);
        endpoints.push(pipeline.register("t", &url, &["*"], adjust).await);
    }
    let amqp = pipeline.plain_amqp().await;
    amqp.publish_event("t.a", &event("1", "a")).await;
    let requests = receiver.expect_requests(senders.len(), PATIENCE).await;
    let by_python =
        |arguments: &[&str], body: &[u8]| python("verify_signature.py", arguments, body);
    for ((sender, _), endpoint) in senders.iter().zip(&endpoints) {
        let path = format!("/{sender}");
        let request = requests
            .iter()
            .find(|request| request.path == path)
            .unwrap();
        assert_eq!(request.body, r#"{"n": 1}"#);
        let secret = endpoint.secrets[0].reveal();
        let verdict =
            |secret: &str, body: &[u8]| verdict(by_python, &[sender, secret], request, body);
        assert!(verdict(&secret, &request.body), "{sender}");
        assert!(!verdict(&secret, br#"{"n": 2}"#), "{sender}");
        assert!(
            !verdict("another secret of theirs", &request.body),
            "{sender}"
        );
    }
    pipeline.stop().await;
}
