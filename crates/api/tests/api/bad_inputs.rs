//! What is not accepted, each with the error it gets: the member at fault, what is wrong, what would be accepted.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::Server;

/// What is sent as which member, the member at fault, and what is said of it.
type Row = (&'static str, &'static str, &'static str, &'static str);

/// Members of an endpoint.
#[rustfmt::skip]
const OF_ENDPOINTS: &[Row] = &[
    ("url", "null", "url", "missing: accepted is an absolute URL such as"),
    ("url", "5", "url", "expected a string"),
    ("url", r#""hooks""#, "url", "not a URL: accepted is an absolute URL such as"),
    ("url", r#""ftp://example.com/""#, "url", "scheme `ftp` is not accepted: use https"),
    ("url", r#""https://u:p@example.com/""#, "url", "user information in the URL is not accepted: send credentials in a header"),
    ("url", r##""https://example.com/#a""##, "url", "a fragment (`#…`) is never sent: remove it"),
    ("url", r#""https://example.com/a b""#, "url", "spaces and backslashes are not accepted in a URL: percent-encode"),
    ("url", r#""https://127.0.0.1/""#, "url", "accepted are public addresses"),
    ("url", r#""http://[::ffff:10.0.0.1]/""#, "url", "accepted are public addresses"),
    ("url", r#""https://169.254.169.254/""#, "url", "accepted are public addresses"),
    ("url", r#""https://localhost/""#, "url", "accepted are names of public hosts"),
    ("url", r#""https://example.com:22/""#, "url", "belongs to another protocol than HTTP: use 443"),
    ("event_types", "null", "event_types", "missing: accepted is a list of types and patterns"),
    ("event_types", "[]", "event_types", "must be 1 to 100 patterns"),
    ("event_types", r#"["a*"]"#, "event_types[0]", "`a*` is not an event type pattern: accepted are `*`"),
    ("description", "5", "description", "expected a string"),
    ("profile", r#""hubspot""#, "profile", "accepted is `standard`, `cloudevents`"),
    ("profile", r#""custom""#, "signature", "missing: accepted is a signature such as"),
    ("format", r#""xml""#, "format", "accepted is `standard`, `cloudevents`"),
    ("headers", "[]", "headers", "accepted is an object of names and texts"),
    ("headers", r#"{"x-a": 5}"#, "headers.x-a", "accepted is a text"),
    ("headers", r#"{"x a": "1"}"#, "headers.x a", "must be 1 to 100 letters, digits"),
    ("headers", r#"{"x-a": "1\r\nx-b: 2"}"#, "headers.x-a", "must be at most 2,000 visible ASCII characters"),
    ("headers", r#"{"Host": "x"}"#, "headers.Host", "is set by Fanfare or by HTTP itself and cannot be added"),
    ("headers", r#"{"webhook-id": "x"}"#, "headers.webhook-id", "is set by Fanfare or by HTTP itself"),
    ("headers", r#"{"X-A": "1", "x-a": "2"}"#, "headers.x-a", "header `x-a` is there twice"),
    ("filter", "[]", "filter", "accepted is an object"),
    ("filter", "{}", "filter", "accepted is an object with at least one member"),
    ("filter", r#"{"type": "a"}"#, "filter", "accepted is a list of values and conditions"),
    ("filter", r#"{"Type": ["a"]}"#, "filter", "accepted are `data` and names of attributes"),
    ("filter", r#"{"data": {"a": []}}"#, "filter", "accepted is a list of values"),
    ("filter", r#"{"data": {"a": [{"like": "b"}]}}"#, "filter", "at `$.data.a[0]`: unknown condition `like`: accepted is a text"),
    ("filter", r#"{"data": {"a": [{"prefix": 5}]}}"#, "filter", "accepted is a text"),
    ("filter", r#"{"data": {"a": [{"exists": "yes"}]}}"#, "filter", "accepted is true or false"),
    ("filter", r#"{"data": {"a": [{"numeric": ["!", 5]}]}}"#, "filter", "accepted are `=`, `<`"),
    ("filter", r#"{"data": {"a": [{"numeric": [">", 5, "<", 1]}]}}"#, "filter", "accepted is a lower bound below the upper one"),
    ("filter", r#"{"data": {"a": [{"wildcard": "x"}]}}"#, "filter", "accepted are 1 to 8"),
    ("filter", r#"{"data": {"a": [{"anything-but": []}]}}"#, "filter", "accepted is a value, a list of values"),
    ("filter", r#"{"data": {"$and": []}}"#, "filter", "accepted is `$or`"),
    ("filter", r#"{"data": {"$or": {}}}"#, "filter", "accepted is a list of patterns"),
    ("template", "{}", "template.source", "accepted is either `source`"),
    ("template", r#"{"source": "[{{ nmae }}]"}"#, "template.source", "line 1, column 5: nothing is called `nmae`: accepted are `data`"),
    ("template", r#"{"source": "{{ data|uper }}"}"#, "template.source", "docs/templates.md"),
    ("template", r#"{"source": "{% include 'x' %}"}"#, "template.source", "accepted are `if`"),
    ("template", r#"{"source": "{% if data %}"}"#, "template.source", "line 1"),
    ("template", r#"{"source": "{}", "media_type": "json"}"#, "template.media_type", "`application/json`"),
    ("template", r#"{"preset": "slak"}"#, "template.preset", "accepted are `slack`"),
    ("template", r#"{"preset": "telegram"}"#, "template.parameters.chat_id", "needs `chat_id`"),
    ("template", r#"{"preset": "slack", "parameters": {"x": "y"}}"#, "template.parameters.x", "accepted are `title`"),
    ("schedule", "[]", "schedule", "a list of 1 to 50 waits of at most 30 days"),
    ("schedule", "[-1]", "schedule[0]", "expected a whole number from 0 on"),
    ("schedule", "[0, 99999999]", "schedule", "a list of 1 to 50 waits of at most 30 days"),
    ("schedule", r#"["5s"]"#, "schedule[0]", "expected a whole number from 0 on"),
    ("schedule", r#"{"base": 5, "factor": 2, "cap": 1, "attempts": 3}"#, "schedule", "`cap` (`base` to 30 days)"),
    ("schedule", r#"{"base": 5}"#, "schedule", "missing field `factor`"),
    ("schedule", "true", "schedule", "waits"),
    ("rate", "50", "rate", "expected a string"),
    ("rate", r#""50""#, "rate", "`50` is not a rate: accepted are a number from 1 to 100000 and a unit, such as `50/s`"),
    ("rate", r#""0/s""#, "rate", "accepted are a number from 1 to 100000"),
    ("rate", r#""5/week""#, "rate", "`600/min` or `20/h`"),
    ("rate", r#""5/s burst 0""#, "rate", "with a burst from 1 to 100000"),
    ("secret", "5", "secret", "accepted is a text"),
    ("secret", r#""hunter2""#, "secret", "a signing secret is `whsec_` followed by the base64 of 24 to 64 bytes"),
    ("secret", r#""whsec_AAAA""#, "secret", "24 to 64 bytes"),
    ("secret", r#""whsk_AAAA""#, "secret", "an ed25519 key: 32 bytes"),
    ("signature", r#""hubspot""#, "signature", "accepted is `standard`, `github`"),
    ("signature", r#"{"header": "host"}"#, "signature", "cannot be added"),
    ("signature", r#"{"header": "x-a", "encoding": "octal"}"#, "signature.encoding", "expected `hex` or `base64`"),
    ("signature", r#"{"header": "x-a", "prefix": "a,b"}"#, "signature", "at most 32 visible ASCII characters"),
    ("signature", r#"{"header": "x-a", "timestamp": "x-a"}"#, "signature", "`none`, `inline` or the name of another header"),
    ("success", r#""ok""#, "success", "`ok` is not a set of status codes: accepted are codes from 200 to 599"),
    ("permanent", r#""99""#, "permanent", "accepted are codes from 200 to 599"),
    ("disable_after", r#"{"failing_for": 0}"#, "disable_after", "a span of 1 s to 365 days"),
    ("max_in_flight", r#""many""#, "max_in_flight", "expected a whole number"),
    ("max_in_flight", "0", "max_in_flight", "must be from 1 to 1024"),
    ("timeout", "31", "timeout", "from 1s to 30s"),
    ("connect_timeout", "20", "connect_timeout", "at most `timeout`"),
    ("auth", r#"{"kind": "magic"}"#, "auth.kind", "expected one of `basic`, `bearer`, `oauth2`"),
    ("auth", r#"{"kind": "bearer", "token": "a b"}"#, "auth.token", "1 to 4,000 visible ASCII characters"),
    ("auth", r#"{"kind": "oauth2", "token_url": "https://10.0.0.1/", "client_id": "a", "client_secret": "b"}"#, "auth.token_url", "accepted are public addresses"),
    ("tls", r#"{"ca": "x"}"#, "tls.ca", "accepted are some in PEM"),
    ("tls", r#"{"key": "x"}"#, "tls.certificate", "missing: accepted is the certificate of `tls.key`"),
    ("http_version", r#""3""#, "http_version", "accepted is `auto`, `1.1` or `2`"),
    ("colour", r#""red""#, "colour", "expected one of `profile`, `url`"),
];

/// Members of an event type, and the data of an event that is held against one.
#[rustfmt::skip]
const OF_EVENT_TYPES: &[Row] = &[
    ("schema", "5", "schema", "which is an object"),
    ("schema", r#"{"type": "numbr"}"#, "schema.type", "not a JSON Schema"),
    ("schema", r#"{"required": "id"}"#, "schema.required", "not a JSON Schema"),
    ("schema", r#"{"$ref": "https://example.com/x"}"#, "schema.$ref", "references within the schema"),
    ("enforced", "true", "enforced", "accepted is `schema` beside it"),
    ("sample", "5", "sample", "is not of type \"object\""),
    ("data", r#"{"reward": {"id": "x"}}"#, "data.reward.id", "is not of type \"integer\""),
    ("data", "{}", "data", "\"reward\" is a required property"),
];

/// Members of an event; `null` leaves one out.
#[rustfmt::skip]
const OF_EVENTS: &[Row] = &[
    ("specversion", "null", "specversion", "`1.0`"),
    ("specversion", r#""0.3""#, "specversion", "`1.0`"),
    ("id", "5", "id", "must be text"),
    ("source", "null", "source", "is missing"),
    ("source", r#""""#, "source", "must be a URI reference of 1 to 1024 bytes"),
    ("type", r#""a b""#, "type", "must be"),
    ("subject", r#""""#, "subject", "must be text that is not empty"),
    ("time", r#""today""#, "time", "must be an RFC 3339 timestamp"),
    ("datacontenttype", r#""json""#, "data", "because `datacontenttype` is `json`: send a string, `data_base64`, or a JSON media type"),
    ("datacontenttype", r#""""#, "datacontenttype", "a media type of at most 255 bytes such as `application/json`"),
    ("dataschema", r#""""#, "dataschema", "must be a URI"),
    ("tenant", r#""u""#, "tenant", "`t`"),
    ("Colour", r#""red""#, "Colour", "named with 1 to 20 lower-case letters and digits"),
    ("colour", "[1]", "colour", "a string, a boolean or a 32-bit integer"),
    ("deliverafter", r#""soon""#, "deliverafter", "must be an RFC 3339 timestamp such as"),
    ("data_base64", r#""x""#, "data_base64", "`data` and `data_base64` are both set: accepted is one of them"),
];

/// Where a row goes, with whatever else is needed there.
fn request(kind: &str, member: &str, value: Value) -> (Method, &'static str, Value) {
    let reward = json!({"type": "object", "properties": {"id": {"type": "integer"}}});
    let schema =
        json!({"type": "object", "required": ["reward"], "properties": {"reward": reward}});
    let types = "/v1/event-types/reward.unlocked";
    let mut event =
        json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "a.b", "data": {}});
    match (kind, member) {
        ("endpoint", _) => {
            let mut endpoint = json!({"url": "https://example.com/", "event_types": ["*"]});
            endpoint[member] = value;
            (Method::POST, "/v1/tenants/t/endpoints", endpoint)
        }
        ("event", _) => {
            event[member] = value;
            event
                .as_object_mut()
                .unwrap()
                .retain(|_, value| !value.is_null());
            (Method::POST, "/v1/tenants/t/events", event)
        }
        (_, "data") => {
            event["type"] = json!("reward.unlocked");
            event["data"] = value;
            (Method::POST, "/v1/tenants/t/events", event)
        }
        (_, "sample") => (
            Method::PUT,
            types,
            json!({"schema": schema, "sample": value}),
        ),
        (_, "good") => (
            Method::PUT,
            types,
            json!({"schema": schema, "enforced": true}),
        ),
        _ => (Method::PUT, types, json!({member: value})),
    }
}

#[tokio::test]
async fn bad_input_is_refused_at_its_place_with_what_is_accepted() {
    let server = Server::without_broker().await;
    let (method, path, good) = request("type", "good", Value::Null);
    let put = server.call(method, path).json(&good).send().await.unwrap();
    assert_eq!(put.status(), 200);
    let rows = [
        ("endpoint", OF_ENDPOINTS),
        ("type", OF_EVENT_TYPES),
        ("event", OF_EVENTS),
    ];
    let (mut count, mut wrong) = (0, Vec::new());
    for (kind, rows) in rows {
        for (member, value, field, said) in rows {
            count += 1;
            let (method, path, body) = request(kind, member, serde_json::from_str(value).unwrap());
            let response = server.call(method, path).json(&body).send().await.unwrap();
            let status = response.status();
            let problem: Value = response.json().await.unwrap();
            let error = &problem["errors"][0];
            let told = error["detail"].as_str().unwrap_or_default().contains(said);
            if status != 400 || error["field"] != *field || !told {
                wrong.push(format!("{kind} {member} {value}: {status} {problem}"));
            }
        }
    }
    assert!(count >= 60, "{count} rows");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
