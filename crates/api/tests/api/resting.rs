//! Messages that rest: looked at, dealt with once, and told of in the audit log.

use std::sync::Arc;

use fanfare_broker::Place;
use fanfare_deadletters::{Desk, Settings};
use fanfare_model::{
    DeadLetter, DeadLetterReason, Delivery, EndpointId, Event, Failure, FailureClass, Timestamp,
    TraceContext,
};
use fanfare_testkit::{PlainAmqp, TestBroker, Version, eventually, wall_clock};
use fanfare_wire::encode_dead_letter;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    history::server_with_events,
    support::{PATIENCE, Server, problem},
};

fn endpoint(number: u8) -> EndpointId {
    EndpointId::from_bytes([number; 16])
}

fn letter(number: u8) -> DeadLetter {
    let since = Timestamp::from_second(1_790_000_000 + i64::from(number)).unwrap();
    let event = Event::for_tests("t", "/s", &number.to_string(), "a.b", br#"{"n":1}"#);
    let trace = TraceContext::default();
    let failure = Failure {
        class: FailureClass::Status5xx,
        status: Some(503),
        error: "the receiver answered 503".to_owned(),
    };
    let delivery = Delivery::new(Arc::new(event), endpoint(number % 2), 1, trace, since);
    DeadLetter {
        delivery: delivery.after_failure(failure, since, None),
        reason: DeadLetterReason::Exhausted,
        since,
    }
}

/// A server on a broker that has five dead letters and one rejected event.
async fn server_with_letters(broker: &TestBroker) -> Server {
    let server = Server::start(&broker.settings(), |_| {}).await;
    server.broker.wait_until_connected().await;
    let topology = server.broker.topology();
    let (publisher, address) = (server.broker.publisher(), topology.dead_address());
    for number in 1..=5 {
        let letter = encode_dead_letter(&letter(number));
        publisher.publish(&address, letter).await.unwrap();
    }
    let plain = PlainAmqp::connect(broker.url()).await;
    let headers = [
        ("x-fanfare-reason", "malformed"),
        ("x-fanfare-routing-key", "t.a.b"),
    ];
    plain
        .publish(("fanfare.rejected", ""), "text/plain", &headers, b"?")
        .await;
    for (place, depth) in [(Place::DeadLetters, 5), (Place::Rejected, 1)] {
        expect_depth(&server, place, depth).await;
    }
    server
}

async fn expect_depth(server: &Server, place: Place, depth: u32) {
    let queue = server.broker.topology().queue_of(place);
    let what = format!("{depth} messages in {place}");
    eventually(PATIENCE, &what, async || {
        (server.broker.depth(&queue).await.ok()? == depth).then_some(())
    })
    .await;
}

async fn get(server: &Server, path: &str) -> Value {
    answer(server.get(path).await).await.1
}

async fn post(server: &Server, path: &str, body: &Value) -> Response {
    let request = server.call(Method::POST, path).json(body);
    request.send().await.unwrap()
}

async fn answer(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text);
    (status, body.unwrap_or_else(|_| panic!("{status}: {text}")))
}

/// Does what was asked for, as a process with the role `api` would.
async fn carry_out(server: &Server, place: Place) {
    let settings = Settings {
        replay_pace: "10000/s".parse().unwrap(),
        ..Settings::default()
    };
    let desk = Desk::new(
        &server.broker,
        server.registry.clone(),
        wall_clock(),
        settings,
    );
    let stop = CancellationToken::new();
    desk.run(place, &stop, &mut |_| {}).await.unwrap();
}

fn ids(answer: &Value) -> Vec<&str> {
    let items = answer["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["event_id"].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_listed_grouped_and_shown() {
    let broker = TestBroker::new(Version::V4_3);
    let server = server_with_letters(&broker).await;
    let first = get(&server, "/v1/resting/dead-letters?limit=3").await;
    assert_eq!(ids(&first), ["1", "2", "3"]);
    assert_eq!(first["seen"]["place"], "queue", "nothing is recorded here");
    let next = first["next"].as_str().unwrap();
    let path = format!("/v1/resting/dead-letters?limit=3&after={next}");
    let second = get(&server, &path).await;
    assert_eq!(
        (ids(&second), &second["next"]),
        (vec!["4", "5"], &Value::Null)
    );
    let of_one = format!(
        "/v1/resting/dead-letters?endpoint={}&status=503",
        endpoint(1)
    );
    assert_eq!(ids(&get(&server, &of_one).await), ["1", "3", "5"]);

    let groups = get(
        &server,
        "/v1/resting/dead-letters/groups?by=endpoint,reason",
    )
    .await;
    let largest = &groups["items"][0];
    assert_eq!(largest["count"], 3);
    let by = json!({"endpoint": endpoint(1).to_string(), "reason": "exhausted"});
    assert_eq!(largest["by"], by);

    let id = first["items"][0]["id"].as_str().unwrap();
    let shown = get(&server, &format!("/v1/resting/dead-letters/messages/{id}")).await;
    assert_eq!(shown["data"], json!({"n": 1}));
    assert_eq!(shown["headers"]["x-fanfare-last-status"], 503);
    let rejected = get(&server, "/v1/resting/rejected").await;
    assert_eq!(rejected["items"][0]["reason"], "malformed");
    server.broker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_is_done_once_and_audited() {
    let broker = TestBroker::new(Version::V4_3);
    let server = server_with_letters(&broker).await;
    let replay = "/v1/resting/dead-letters/replay";
    let dry = json!({"endpoint": endpoint(1), "dry_run": true});
    let (status, counted) = answer(post(&server, replay, &dry).await).await;
    assert_eq!((status, &counted["expected"]), (200, &json!(3)));
    assert_eq!(counted["operation"], Value::Null);

    let meant = json!({"endpoint": endpoint(1), "why": "fixed"});
    let mut asked = Vec::new();
    for _ in 0..2 {
        let request = server.call(Method::POST, replay).json(&meant);
        let response = request
            .header("idempotency-key", "one")
            .send()
            .await
            .unwrap();
        let (status, answer) = answer(response).await;
        assert_eq!(status, 202);
        asked.push(answer["operation"]["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(asked[0], asked[1]);
    carry_out(&server, Place::DeadLetters).await;
    expect_depth(&server, Place::DeadLetters, 2).await;
    let path = format!("/v1/operations/{}", asked[0]);
    let done = get(&server, &path).await;
    assert_eq!(
        (&done["state"], &done["resolved"]),
        (&json!("done"), &json!(3))
    );
    let messages = get(&server, &format!("{path}/messages?limit=2")).await;
    assert_eq!(messages["items"].as_array().unwrap().len(), 2);
    assert!(messages["next"].is_string());

    // Nothing is left of it, so nothing is asked for.
    let (status, again) = answer(post(&server, replay, &meant).await).await;
    assert_eq!((status, &again["expected"]), (200, &json!(0)));

    let discard = json!({"all": true, "why": "a test"});
    let (_, answer) = answer(post(&server, "/v1/resting/rejected/discard", &discard).await).await;
    let id = answer["operation"]["id"].as_str().unwrap();
    let cancelled = post(&server, &format!("/v1/operations/{id}/cancel"), &json!({})).await;
    let cancelled: Value = cancelled.json().await.unwrap();
    assert_eq!(cancelled["state"], "cancelled");
    let open = get(&server, "/v1/operations?open=true").await;
    assert_eq!(open["items"], json!([]));
    let all = get(&server, "/v1/operations").await;
    assert_eq!(all["items"].as_array().unwrap().len(), 2);

    let audit = get(&server, &format!("/v1/audit?subject={}", asked[0])).await;
    let items = audit["items"].as_array().unwrap().iter();
    let actions: Vec<_> = items.map(|item| item["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["dead-letters.replay.done", "dead-letters.replay"]);
    assert_eq!(audit["items"][1]["detail"]["why"], "fixed");
    server.broker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_looked_up_in_the_index_and_the_queue_when_asked() {
    let broker = TestBroker::new(Version::V4_3);
    let server = server_with_events(&broker.settings()).await;
    server.broker.wait_until_connected().await;
    let listed = get(&server, "/v1/resting/dead-letters?type=referral.*").await;
    assert_eq!(ids(&listed), ["1", "3"]);
    let seen = &listed["seen"];
    assert_eq!(
        (&seen["place"], &seen["messages"]),
        (&json!("index"), &json!(3))
    );
    assert_eq!(seen["in_queue"], 0);
    let groups = get(&server, "/v1/resting/dead-letters/groups?by=type,age").await;
    assert_eq!(groups["items"].as_array().unwrap().len(), 2);
    let id = listed["items"][0]["id"].as_str().unwrap();
    let shown = get(&server, &format!("/v1/resting/dead-letters/messages/{id}")).await;
    assert_eq!(shown["data"], json!({"n": 1}));
    assert_eq!(shown["attempts"][0]["status"], 503);
    let queue = get(&server, "/v1/resting/dead-letters?from_queue=true").await;
    assert_eq!(queue["items"], json!([]));
    server.broker.close().await;
}

#[tokio::test]
async fn what_cannot_be_done_is_named() {
    let server = Server::without_broker().await;
    let meant = json!({"all": true, "why": "x"});
    for (path, body, field) in [
        ("resting/elsewhere/discard", &meant, Some("place")),
        ("resting/dead-letters/burn", &meant, Some("action")),
        ("resting/rejected/replay", &meant, None),
        (
            "resting/rejected/discard",
            &json!({"all": true}),
            Some("why"),
        ),
        (
            "resting/rejected/discard",
            &json!({"why": "x"}),
            Some("all"),
        ),
        (
            "resting/rejected/discard",
            &json!({"why": "x", "all": true, "reason": "y"}),
            Some("all"),
        ),
        (
            "resting/rejected/discard",
            &json!({"colour": 1}),
            Some("colour"),
        ),
    ] {
        let response = post(&server, &format!("/v1/{path}"), body).await;
        let fields: Vec<String> = field.into_iter().map(str::to_owned).collect();
        let expected = (400, "invalid_request".to_owned(), fields);
        assert_eq!(problem(response).await, expected, "{path} {body}");
    }
    for (path, status, code) in [
        ("resting/dead-letters?colour=1", 400, "invalid_request"),
        ("resting/dead-letters?after=x", 400, "invalid_request"),
        (
            "resting/dead-letters/groups?by=colour",
            400,
            "invalid_request",
        ),
        ("resting/rejected", 503, "queue_unavailable"),
        ("operations/op_1", 400, "invalid_request"),
        (
            "operations/op_00000000000000000000000000000001",
            404,
            "no_such_operation",
        ),
        ("audit?after=x", 400, "invalid_request"),
    ] {
        let (got, name, _) = problem(server.get(&format!("/v1/{path}")).await).await;
        assert_eq!((got, name.as_str()), (status, code), "{path}");
    }
}
