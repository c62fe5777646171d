//! What a tenant reads back: events, attempts, and the feed.

use std::sync::Arc;

use fanfare_journal::{History, Portion};
use fanfare_model::{
    AttemptRecord, DeadLetterReason, DeliveryId, DeliveryState, EndpointId, Event, FailureClass,
    HandledDelivery, JournalBatch, JournalEntry, JournalWriterId, OwedDelivery, RoutedEvent,
    Timestamp,
};
use serde_json::Value;

use crate::support::{Server, problem, unreachable};

/// A moment some seconds after the beginning.
fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + second).unwrap()
}

fn event(number: i64) -> Event {
    let data = format!(r#"{{"n":{number}}}"#);
    let kind = ["reward.granted", "referral.made"][number.unsigned_abs() as usize % 2];
    Event::for_tests("t", "/s", &number.to_string(), kind, data.as_bytes())
}

fn endpoint(number: u8) -> EndpointId {
    EndpointId::from_bytes([number; 16])
}

/// An event owed to endpoints 1 and 2; the second has it, the first did not take it.
fn happened(number: i64) -> Vec<JournalEntry> {
    let event = event(number);
    let owed = [1, 2].map(|number| OwedDelivery {
        id: DeliveryId::derive(&event, endpoint(number)),
        endpoint: endpoint(number),
        not_before: None,
        is_told: true,
    });
    let handled = owed.map(|owed| {
        let failed = owed.endpoint == endpoint(1);
        JournalEntry::Handled(HandledDelivery {
            delivery: owed.id,
            endpoint: owed.endpoint,
            event: (&event).into(),
            replay: 0,
            at: at(number),
            attempt: Some(AttemptRecord {
                number: 1,
                started_at: at(number),
                took_micros: 1500,
                status: Some(if failed { 503 } else { 200 }),
                failure: failed.then_some(FailureClass::Status5xx),
                error: if failed { "answered 503" } else { "" }.to_owned(),
            }),
            failed_attempts: failed.into(),
            state: match failed {
                true => DeliveryState::DeadLettered {
                    reason: DeadLetterReason::Exhausted,
                },
                false => DeliveryState::Delivered,
            },
        })
    });
    let routed = JournalEntry::Routed(RoutedEvent {
        event: Arc::new(event),
        data_left_out: false,
        at: at(number),
        trace_id: None,
        owed: owed.to_vec(),
    });
    std::iter::once(routed).chain(handled).collect()
}

async fn record(history: &History, number: u64, entries: Vec<JournalEntry>) {
    let batch = JournalBatch {
        writer: JournalWriterId {
            name: "tests".to_owned(),
            epoch: at(0).as_microsecond().unsigned_abs(),
        },
        sequence: number,
        written_at: at(100),
        dropped: 0,
        is_last: false,
        entries,
    };
    let portion = Portion {
        from: number - 1,
        next: number,
        batches: vec![batch],
        missing: Vec::new(),
    };
    history.record(&portion).await.unwrap();
}

async fn get(server: &Server, path: &str) -> Value {
    let response = server.get(&format!("/v1/tenants/t/{path}")).await;
    let status = response.status();
    let body = response.text().await.unwrap();
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

fn ids(answer: &Value) -> Vec<&str> {
    let items = answer["items"].as_array().unwrap().iter();
    let id = |item: &'_ Value| item.get("event").map_or("id", |_| "nested");
    items
        .map(|item| match id(item) {
            "nested" => item["event"]["id"].as_str().unwrap(),
            _ => item["id"].as_str().unwrap(),
        })
        .collect()
}

/// A server with three events recorded, of which the first endpoint has none.
pub(crate) async fn server_with_events(broker: &fanfare_broker::Settings) -> Server {
    let server = Server::start(broker, |_| {}).await;
    record(&server.history, 1, (1..=3).flat_map(happened).collect()).await;
    server
}

#[tokio::test]
async fn events_are_searched_by_what_is_known_of_them() {
    let server = server_with_events(&unreachable()).await;
    let (one, two) = (endpoint(1), endpoint(2));
    let moment = at(2);
    for (query, expected) in [
        ("", &["3", "2", "1"][..]),
        ("?type=referral.made", &["3", "1"]),
        ("?id=2&source=/s", &["2"]),
        ("?id=2&source=/other", &[]),
        (&format!("?since={moment}"), &["3", "2"]),
        (&format!("?until={moment}"), &["1"]),
        (&format!("?endpoint={one}&state=missed"), &["3", "2", "1"]),
        (&format!("?endpoint={one}&state=delivered"), &[]),
        (
            &format!("?endpoint={two}&state=delivered,owed&type=reward.*"),
            &["2"],
        ),
    ] {
        let answer = get(&server, &format!("events{query}")).await;
        assert_eq!(ids(&answer), expected, "{query}");
        assert_eq!(answer["next"], Value::Null, "{query}");
    }
    let first = get(&server, "events?limit=2").await;
    let next = first["next"].as_str().unwrap();
    let second = get(&server, &format!("events?limit=2&after={next}")).await;
    assert_eq!((ids(&first).len(), ids(&second)), (2, vec!["1"]));
    let missed = get(
        &server,
        &format!("events?endpoint={one}&state=missed&limit=1"),
    )
    .await;
    assert_eq!(
        missed["items"][0]["deliveries"][0]["state"],
        "dead_lettered"
    );
    let next = missed["next"].as_str().unwrap();
    let path = format!("events?endpoint={one}&state=missed&limit=2&after={next}");
    assert_eq!(ids(&get(&server, &path).await), ["2", "1"]);
}

#[tokio::test]
async fn an_event_is_shown_with_its_deliveries_and_attempts() {
    let server = server_with_events(&unreachable()).await;
    let shown = get(&server, "events/2").await;
    assert_eq!(shown["event"]["type"], "reward.granted");
    assert_eq!(shown["payload"]["data"]["n"], 2);
    assert_eq!(shown["deliveries"].as_array().unwrap().len(), 2);
    assert_eq!(shown["attempts"].as_array().unwrap().len(), 2);

    let attempts = get(&server, "attempts?outcome=failed&event=2").await;
    let [attempt] = attempts["items"].as_array().unwrap().as_slice() else {
        panic!("{attempts}");
    };
    assert_eq!(attempt["outcome"], "status_5xx");
    assert_eq!(attempt["took_ms"], 1.5);
    assert_eq!(attempt["then"], "dead_lettered");
    assert_eq!(attempt["endpoint"], endpoint(1).to_string());
}

#[tokio::test]
async fn whoever_goes_on_from_a_cursor_misses_nothing_that_is_recorded_later() {
    let server = server_with_events(&unreachable()).await;
    let first = get(&server, "feed?limit=2").await;
    assert_eq!(ids(&first), ["1", "2"]);
    assert_eq!(first["more"], true);
    let next = first["next"].as_str().unwrap();
    let path = format!("feed?after={next}");
    let second = get(&server, &path).await;
    assert_eq!((ids(&second), &second["more"]), (vec!["3"], &false.into()));

    // It happened before everything else, and was recorded after it.
    record(&server.history, 2, happened(0)).await;
    let late = format!("feed?after={}", second["next"].as_str().unwrap());
    let third = get(&server, &late).await;
    assert_eq!(ids(&third), ["0"]);
    let again = format!("feed?after={}", third["next"].as_str().unwrap());
    let none = get(&server, &again).await;
    assert_eq!((ids(&none), &none["next"]), (vec![], &third["next"]));

    let missed = format!("feed?endpoint={}&state=missed", endpoint(1));
    let missed = get(&server, &missed).await;
    assert_eq!(ids(&missed), ["1", "2", "3", "0"]);
    assert_eq!(
        missed["items"][0]["deliveries"].as_array().unwrap().len(),
        1
    );
    let missed = format!("feed?endpoint={}&state=missed", endpoint(2));
    assert!(ids(&get(&server, &missed).await).is_empty());
}

#[tokio::test]
async fn what_is_asked_wrongly_is_named() {
    let server = server_with_events(&unreachable()).await;
    for (path, field) in [
        ("events?state=lost", "state"),
        ("events?limit=0", "limit"),
        ("events?limit=x", "limit"),
        ("events?since=yesterday", "since"),
        ("events?after=x", "after"),
        ("events?page=2", "page"),
        ("events?type=a&type=b", "type"),
        ("events?type=reward.*", "type"),
        ("events?state=missed&id=1", "id"),
        ("events?endpoint=1", "endpoint"),
        ("attempts?outcome=bad", "outcome"),
        ("attempts?delivery=1", "delivery"),
        ("feed?after=1", "after"),
        ("feed?since=2026-11-23T00:00:00Z", "since"),
    ] {
        let response = server.get(&format!("/v1/tenants/t/{path}")).await;
        let expected = (400, "invalid_request".to_owned(), vec![field.to_owned()]);
        assert_eq!(problem(response).await, expected, "{path}");
    }
    let response = server.get("/v1/tenants/t/events/9").await;
    assert_eq!(problem(response).await.1, "no_such_event");
    // Nothing of one tenant is told to another.
    let response = server.get("/v1/tenants/u/events/1").await;
    assert_eq!(problem(response).await.1, "no_such_event");
}
