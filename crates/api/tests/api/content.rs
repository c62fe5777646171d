//! Filters and templates on trial, and the catalogue of event types.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Server, problem};

async fn send(server: &Server, method: Method, path: &str, body: &Value) -> reqwest::Response {
    let request = server.call(method, path);
    request.json(body).send().await.unwrap()
}

fn event(data: &Value) -> Value {
    json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "reward.unlocked", "data": data})
}

#[tokio::test]
async fn a_filter_is_tried_with_an_event() {
    let server = Server::without_broker().await;
    let filter = json!({"data": {"n": [{"numeric": [">", 1]}]}});
    for (n, mismatch) in [
        (2, Value::Null),
        (
            1,
            json!({"at": "$.data.n", "found": "1", "wanted": r#"[{"numeric":[">",1]}]"#}),
        ),
    ] {
        let trial = json!({"filter": filter, "event": event(&json!({"n": n}))});
        let response = send(&server, Method::POST, "/v1/filters/test", &trial).await;
        let verdict: Value = response.json().await.unwrap();
        assert_eq!(verdict["matches"], mismatch.is_null());
        assert_eq!(verdict["mismatch"], mismatch);
    }
    let trial = json!({"filter": {"data": []}, "event": event(&json!({}))});
    let response = send(&server, Method::POST, "/v1/filters/test", &trial).await;
    let expected = (400, "invalid_request".to_owned(), vec!["filter".to_owned()]);
    assert_eq!(problem(response).await, expected);
}

#[tokio::test]
async fn a_template_is_tried_with_an_event() {
    let server = Server::without_broker().await;
    let path = "/v1/templates/render";
    let template = json!({"source": "{\"hi\": \"{{ data.name }}\"}"});
    let trial = json!({"template": template, "event": event(&json!({"name": "A\"B"}))});
    let response = send(&server, Method::POST, path, &trial).await;
    let rendered: Value = response.json().await.unwrap();
    assert_eq!(rendered["body"], r#"{"hi": "A\"B"}"#);
    let trial = json!({"template": template, "event": event(&json!({}))});
    let response = send(&server, Method::POST, path, &trial).await;
    let expected = (
        400,
        "invalid_request".to_owned(),
        vec!["template".to_owned()],
    );
    assert_eq!(problem(response).await, expected);
}

#[tokio::test]
async fn the_catalogue_is_kept_and_events_are_held_against_it() {
    let server = Server::without_broker().await;
    let path = "/v1/event-types/reward.unlocked";
    let schema = json!({"type": "object", "required": ["reward"]});
    let form = json!({"description": "d", "schema": schema, "enforced": true});
    let put: Value = send(&server, Method::PUT, path, &form)
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(put["schema"], schema);
    let shown: Value = server.get(path).await.json().await.unwrap();
    assert_eq!(shown, put);
    let listed: Value = server.get("/v1/event-types").await.json().await.unwrap();
    assert_eq!(listed["items"], json!([put]));

    let refused = server.publish(&event(&json!({}))).send().await.unwrap();
    let expected = (400, "schema_mismatch".to_owned(), vec!["data".to_owned()]);
    assert_eq!(problem(refused).await, expected);

    let wrong = json!({"schema": {"type": "numbr"}});
    let refused = send(&server, Method::PUT, path, &wrong).await;
    let expected = (
        400,
        "invalid_request".to_owned(),
        vec!["schema.type".to_owned()],
    );
    assert_eq!(problem(refused).await, expected);

    let deleted = server.call(Method::DELETE, path).send().await.unwrap();
    assert_eq!(deleted.status(), 204);
    let expected = (404, "no_such_event_type".to_owned(), Vec::new());
    assert_eq!(problem(server.get(path).await).await, expected);
}
