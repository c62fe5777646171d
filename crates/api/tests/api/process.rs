//! What operators see of the process, and how it ends.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::support::{Server, unreachable};

#[tokio::test]
async fn the_process_tells_of_itself_without_a_key() {
    let ready = Arc::new(AtomicBool::new(true));
    let check = Arc::clone(&ready);
    let server = Server::start(&unreachable(), |api| {
        api.health = api
            .health
            .clone()
            .with("broker", move || check.load(Ordering::Relaxed));
    })
    .await;
    let get = async |path| {
        let response = server
            .call_without_key(Method::GET, path)
            .send()
            .await
            .unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(get("/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(
        get("/metrics").await,
        (200, "fanfare_sample 1\n".to_owned())
    );
    for (holds, status) in [(true, 200), (false, 503)] {
        ready.store(holds, Ordering::Relaxed);
        let (got, body) = get("/readyz").await;
        let body: Value = serde_json::from_str(&body).unwrap();
        let checks = json!({"broker": holds, "serving": true});
        assert_eq!(
            (got, body),
            (status, json!({"ready": holds, "checks": checks}))
        );
    }
}

#[tokio::test]
async fn the_description_of_the_api_is_what_was_agreed() {
    let server = Server::without_broker().await;
    let request = server.call_without_key(Method::GET, "/v1/openapi.json");
    let document: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    insta::assert_json_snapshot!("openapi", document);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_is_finished_after_shutdown() {
    // A check that waits keeps its request in flight for as long as the test likes.
    let (arrive, mut arrived) = mpsc::channel(1);
    let (release, released) = std::sync::mpsc::channel();
    let released = Mutex::new(released);
    let server = Server::start(&unreachable(), |api| {
        api.health = api.health.clone().with("patience", move || {
            arrive.try_send(()).unwrap();
            released.lock().unwrap().recv().is_ok()
        });
    })
    .await;
    let request = server.call_without_key(Method::GET, "/readyz").send();
    let stopping = async {
        arrived.recv().await.unwrap();
        server.shut_down();
        release.send(()).unwrap();
    };
    let (response, ()) = tokio::join!(request, stopping);
    let body: Value = response.unwrap().json().await.unwrap();
    let checks = json!({"patience": true, "serving": false});
    assert_eq!(body, json!({"ready": false, "checks": checks}));
    assert!(server.ended().await.is_ok());
}
