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

/// What is sent where, the member at fault, and what is said to be accepted.
#[rustfmt::skip]
const BAD_INPUTS: &[(&str, &str, &str, &str)] = &[
    ("filter", "[]", "filter", "accepted is an object"),
    ("filter", "{}", "filter", "accepted is an object with at least one member"),
    ("filter", r#"{"type": "a"}"#, "filter", "accepted is a list of values and conditions"),
    ("filter", r#"{"Type": ["a"]}"#, "filter", "accepted are `data` and names of attributes"),
    ("filter", r#"{"data": {"a": []}}"#, "filter", "accepted is a list of values"),
    ("filter", r#"{"data": {"a": [{"like": "b"}]}}"#, "filter", "one of `prefix`, `suffix`"),
    ("filter", r#"{"data": {"a": [{"numeric": ["!", 5]}]}}"#, "filter", "accepted are `=`, `<`"),
    ("filter", r#"{"data": {"a": [{"wildcard": "x"}]}}"#, "filter", "accepted are 1 to 8"),
    ("filter", r#"{"data": {"$and": []}}"#, "filter", "accepted is `$or`"),
    ("template", r#"{}"#, "template.source", "accepted is either `source`"),
    ("template", r#"{"source": "[{{ nmae }}]"}"#, "template.source", "accepted are `data`"),
    ("template", r#"{"source": "{{ data|uper }}"}"#, "template.source", "docs/templates.md"),
    ("template", r#"{"source": "{% include 'x' %}"}"#, "template.source", "accepted are `if`"),
    ("template", r#"{"source": "{}", "media_type": "json"}"#, "template.media_type", "`application/json`"),
    ("template", r#"{"preset": "slak"}"#, "template.preset", "accepted are `slack`"),
    ("template", r#"{"preset": "telegram"}"#, "template.parameters.chat_id", "needs `chat_id`"),
    ("template", r#"{"preset": "slack", "parameters": {"x": "y"}}"#, "template.parameters.x", "accepted are `title`"),
    ("schema", "5", "schema", "which is an object"),
    ("schema", r#"{"type": "numbr"}"#, "schema.type", "not a JSON Schema"),
    ("schema", r#"{"$ref": "https://example.com/x"}"#, "schema.$ref", "references within the schema"),
    ("enforced", "true", "enforced", "accepted is `schema` beside it"),
    ("sample", "5", "sample", ""),
    ("data", r#"{"reward": {"id": "x"}}"#, "data.reward.id", "is not of type \"integer\""),
    ("data", "{}", "data", "\"reward\" is a required property"),
];

/// Where a member is sent to, beside what else it needs.
fn request(member: &str, value: &Value) -> (Method, &'static str, Value) {
    let reward = json!({"type": "object", "properties": {"id": {"type": "integer"}}});
    let schema =
        json!({"type": "object", "required": ["reward"], "properties": {"reward": reward}});
    let types = "/v1/event-types/reward.unlocked";
    match member {
        "filter" | "template" => {
            let mut endpoint = json!({"url": "https://example.com/", "event_types": ["*"]});
            endpoint[member] = value.clone();
            (Method::POST, "/v1/tenants/t/endpoints", endpoint)
        }
        "sample" => (
            Method::PUT,
            types,
            json!({"schema": schema, "sample": value}),
        ),
        "put" => (
            Method::PUT,
            types,
            json!({"schema": schema, "enforced": true}),
        ),
        "data" => (Method::POST, "/v1/tenants/t/events", event(value)),
        _ => (Method::PUT, types, json!({member: value})),
    }
}

#[tokio::test]
async fn bad_content_is_refused_at_its_place_with_what_is_accepted() {
    let server = Server::without_broker().await;
    let (method, path, body) = request("put", &Value::Null);
    let put = send(&server, method, path, &body).await;
    assert_eq!(put.status(), 200);
    for (member, value, field, accepted) in BAD_INPUTS {
        let (method, path, body) = request(member, &serde_json::from_str(value).unwrap());
        let response = send(&server, method, path, &body).await;
        assert_eq!(response.status(), 400, "{member} {value}");
        let problem: Value = response.json().await.unwrap();
        assert_eq!(problem["errors"][0]["field"], *field, "{member} {value}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(accepted), "{member} {value}: {detail}");
    }
}
