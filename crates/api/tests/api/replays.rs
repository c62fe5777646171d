//! Replays are asked for, counted, shown and cancelled over HTTP. Running them is tested with the whole program.

use fanfare_model::StateChange;
use fanfare_testkit::wall_clock;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::support::{Server, problem};

async fn post(server: &Server, path: &str, body: &Value) -> Response {
    let request = server.call(Method::POST, path).json(body);
    request.send().await.unwrap()
}

async fn endpoint(server: &Server) -> String {
    let asked = json!({"url": "https://example.com/hooks", "event_types": ["*"]});
    let created: Value = server.create(&asked).await.json().await.unwrap();
    created["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_replay_is_counted_asked_for_shown_and_cancelled() {
    let server = Server::without_broker().await;
    let id = endpoint(&server).await;
    let base = format!("/v1/tenants/t/endpoints/{id}");
    let asked = json!({"since": "2026-11-24T00:00:00Z", "types": ["a.*"], "why": "they were down"});
    let mut dry_run = asked.clone();
    dry_run["dry_run"] = true.into();
    for action in ["replay", "backfill"] {
        let path = format!("{base}/{action}");
        let counted = post(&server, &path, &dry_run).await;
        assert_eq!(counted.status(), 200);
        assert_eq!(
            counted.json::<Value>().await.unwrap(),
            json!({"expected": 0})
        );

        let accepted = post(&server, &path, &asked).await;
        assert_eq!(accepted.status(), 202);
        let location = accepted.headers()["location"].to_str().unwrap().to_owned();
        let accepted: Value = accepted.json().await.unwrap();
        assert_eq!(accepted["action"], action);
        assert_eq!(
            (&accepted["state"], &accepted["sent"]),
            (&"pending".into(), &0.into())
        );
        assert_eq!(accepted["filter"]["endpoint"], *id);
        assert!(accepted["filter"]["until"].is_string(), "until now");
        let shown: Value = server.get(&location).await.json().await.unwrap();
        assert_eq!(shown, accepted);
        let elsewhere = location.replace("/t/", "/u/");
        let (status, code, _) = problem(server.get(&elsewhere).await).await;
        assert_eq!((status, &*code), (404, "no_such_operation"));
        for _ in 0..2 {
            let cancelled = post(&server, &format!("{location}/cancel"), &json!({})).await;
            let cancelled: Value = cancelled.json().await.unwrap();
            assert_eq!(cancelled["state"], "cancelled");
        }
    }
    let listed = server.get("/v1/tenants/t/replays?limit=1").await;
    let first: Value = listed.json().await.unwrap();
    assert_eq!(first["items"][0]["action"], "backfill");
    let next = first["next"].as_str().unwrap();
    let rest = server
        .get(&format!("/v1/tenants/t/replays?after={next}"))
        .await;
    let rest: Value = rest.json().await.unwrap();
    assert_eq!(rest["items"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&rest["items"][0]["action"], &rest["next"]),
        (&"replay".into(), &Value::Null)
    );
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused() {
    let server = Server::without_broker().await;
    let id = endpoint(&server).await;
    let replay = format!("/v1/tenants/t/endpoints/{id}/replay");
    for (body, field) in [
        (json!({}), "why"),
        (json!({"why": " "}), "why"),
        (json!({"why": "x", "outcome": "lost"}), "outcome"),
        (json!({"why": "x", "since": "tuesday"}), "since"),
        (json!({"why": "x", "pace": "fast"}), "pace"),
        (
            json!({"why": "x", "since": "2026-11-24T00:00:00Z", "until": "2026-11-23T00:00:00Z"}),
            "until",
        ),
    ] {
        let (status, code, fields) = problem(post(&server, &replay, &body).await).await;
        assert_eq!((status, &*code), (400, "invalid_request"), "{body}");
        assert!(
            fields.iter().any(|name| name == field || name == "."),
            "{body} {fields:?}"
        );
    }
    let why = json!({"why": "x"});
    let other = replay.replace("/t/", "/u/");
    let (status, code, _) = problem(post(&server, &other, &why).await).await;
    assert_eq!((status, &*code), (404, "no_such_endpoint"));
    let resend = json!({"endpoint": id, "why": "x"});
    let unknown = post(&server, "/v1/tenants/t/events/1/resend", &resend).await;
    let (status, code, _) = problem(unknown).await;
    assert_eq!((status, &*code), (404, "no_such_event"));

    let (tenant, now) = ("t".parse().unwrap(), wall_clock().now());
    let endpoint = id.parse().unwrap();
    let change = StateChange::Disable;
    let disabled = server
        .registry
        .change_state(&tenant, endpoint, change, "tester", now);
    disabled.await.unwrap();
    let (status, code, _) = problem(post(&server, &replay, &why).await).await;
    assert_eq!((status, &*code), (409, "endpoint_disabled"));
}
