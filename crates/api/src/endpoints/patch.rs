//! Changes of an endpoint as JSON merge patches (RFC 7396).

use fanfare_model::{EgressPolicy, Endpoint};
use fanfare_registry::NewEndpoint;
use serde_json::{Map, Value};

use super::form::{EndpointForm, refused};
use crate::{
    extract::from_json,
    problem::{Code, Problem},
};

/// What a profile fills in: a patch that names one asks for these anew.
const PREFILLED: [&str; 5] = [
    "disable_after",
    "format",
    "schedule",
    "signature",
    "success",
];

/// Members of an endpoint that are to be changed; null resets one to its default.
pub(super) struct Patch(Map<String, Value>);

impl Patch {
    /// Reads a patch whose members an endpoint has.
    pub(super) fn read(body: &[u8]) -> Result<Self, Problem> {
        let Value::Object(mut members) = from_json(body)? else {
            let detail = "a merge patch is a JSON object with the members to change";
            return Err(Problem::new(Code::InvalidRequest, detail));
        };
        // A null for something unknown would otherwise be lost in the merge.
        let names = members.keys().map(|name| (name.clone(), Value::Null));
        let names = Value::Object(names.collect());
        from_json::<EndpointForm>(names.to_string().as_bytes())?;
        if members.get("secret").is_some_and(Value::is_null) {
            let detail = "`secret` cannot be removed: `rotate-secret` makes a new one";
            return Err(refused("secret", detail));
        }
        if let Some(Value::Object(headers)) = members.get_mut("headers") {
            *headers = in_lower_case(std::mem::take(headers))?;
        }
        Ok(Self(members))
    }

    /// What the endpoint is to be.
    pub(super) fn apply(
        &self,
        endpoint: Endpoint,
        egress: &EgressPolicy,
    ) -> Result<NewEndpoint, Problem> {
        let form = serde_json::to_value(EndpointForm::from(&endpoint));
        let mut form = form.expect("a form is made of JSON");
        if let Value::Object(members) = &mut form {
            // Another kind of proof has other members, of which none is known to who asks.
            let proof = self.0.get("auth").and_then(|auth| auth.get("kind"));
            let proof = proof.is_some().then_some("auth");
            let profile = self.0.contains_key("profile").then_some(PREFILLED);
            for name in profile.into_iter().flatten().chain(proof) {
                members.remove(name);
            }
        }
        merge(&mut form, Value::Object(self.0.clone()));
        let form: EndpointForm = from_json(form.to_string().as_bytes())?;
        form.read_for(endpoint, egress)
    }
}

/// Header names as they are kept.
fn in_lower_case(headers: Map<String, Value>) -> Result<Map<String, Value>, Problem> {
    let mut kept = Map::new();
    for (name, value) in headers {
        let lower = name.to_ascii_lowercase();
        if kept.insert(lower.clone(), value).is_some() {
            let detail = format!("header `{lower}` is there twice");
            return Err(refused(&format!("headers.{name}"), &detail));
        }
    }
    Ok(kept)
}

/// RFC 7396, section 2.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else {
        return;
    };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(&name);
        } else {
            merge(target.entry(name).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use fanfare_model::{HeaderField, Profile, SigningSecret};
    use serde_json::json;

    use super::*;

    #[test]
    fn the_examples_of_rfc_7396_hold() {
        // Appendix A.
        for (mut original, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": "b"}),
                json!({"b": "c"}),
                json!({"a": "b", "b": "c"}),
            ),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (
                json!({"a": "b", "b": "c"}),
                json!({"a": null}),
                json!({"b": "c"}),
            ),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (
                json!({"a": [{"b": "c"}]}),
                json!({"a": [1]}),
                json!({"a": [1]}),
            ),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"a": "foo"}), json!("bar"), json!("bar")),
            (
                json!({"e": null}),
                json!({"a": 1}),
                json!({"e": null, "a": 1}),
            ),
            (
                json!([1, 2]),
                json!({"a": "b", "c": null}),
                json!({"a": "b"}),
            ),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
        ] {
            merge(&mut original, patch.clone());
            assert_eq!(original, result, "{patch}");
        }
    }

    /// An endpoint on which nothing is as it is by default.
    fn endpoint() -> Endpoint {
        let mut new = NewEndpoint::new(
            "t".parse().unwrap(),
            "https://example.com/a".parse().unwrap(),
            vec!["a.*".parse().unwrap()],
        );
        new.prefill(Profile::Stripe);
        new.filter = Some(r#"{"data": {"a": [1]}}"#.parse().unwrap());
        let template = r#"{"source": "{{ data.a }}", "media_type": "text/plain"}"#;
        new.template = Some(serde_json::from_str(template).unwrap());
        new.description = "the shop".to_owned();
        new.rate = Some("50/s burst 10".parse().unwrap());
        new.max_in_flight = 3;
        new.timeout = std::time::Duration::from_millis(2345);
        new.schedule = "0,7s".parse().unwrap();
        new.success = "200".parse().unwrap();
        new.permanent = "400".parse().unwrap();
        new.disable_after = "3 failures".parse().unwrap();
        new.headers = vec![HeaderField::new("x-a", "1").unwrap()];
        let auth = r#"{"kind": "basic", "username": "u", "password": "p"}"#;
        new.auth = Some(serde_json::from_str(auth).unwrap());
        new.http_version = "2".parse().unwrap();
        new.format = fanfare_model::BodyFormat::CloudEventsBinary;
        new.request_origin = Some("events.example.com".parse().unwrap());
        new.connect_timeout = Some(std::time::Duration::from_millis(1234));
        new.secrets = vec![SigningSecret::generate_text()];
        let id = fanfare_model::EndpointId::from_bytes([7; 16]);
        new.registered(id, fanfare_model::Timestamp::UNIX_EPOCH)
    }

    fn patched(patch: &Value) -> Result<NewEndpoint, Problem> {
        let patch = Patch::read(patch.to_string().as_bytes())?;
        patch.apply(endpoint(), &EgressPolicy::default())
    }

    #[test]
    fn only_what_is_named_changes() {
        let secret = endpoint().secrets;
        let check = |patch: Value, change: &dyn Fn(&mut NewEndpoint)| {
            let mut expected = NewEndpoint::from(endpoint());
            change(&mut expected);
            let mut new = patched(&patch).unwrap();
            if patch.get("secret").is_none() {
                new.secrets = expected.secrets.clone();
            }
            assert_eq!(new, expected, "{patch}");
        };
        check(json!({}), &|_| ());
        check(json!({"url": "https://example.com/b"}), &|new| {
            new.url = "https://example.com/b".parse().unwrap();
        });
        check(
            json!({"rate": null, "filter": null, "template": null}),
            &|new| {
                (new.rate, new.filter, new.template) = (None, None, None);
            },
        );
        check(
            json!({"timeout": null, "auth": null, "description": null}),
            &|new| {
                new.timeout = Endpoint::DEFAULT_TIMEOUT;
                new.auth = None;
                new.description.clear();
            },
        );
        check(json!({"headers": {"X-A": null, "X-B": "2"}}), &|new| {
            new.headers = vec![HeaderField::new("x-b", "2").unwrap()];
        });
        check(json!({"auth": {"password": "q"}}), &|new| {
            let auth = r#"{"kind": "basic", "username": "u", "password": "q"}"#;
            new.auth = Some(serde_json::from_str(auth).unwrap());
        });
        check(json!({"auth": {"kind": "bearer", "token": "q"}}), &|new| {
            let auth = r#"{"kind": "bearer", "token": "q"}"#;
            new.auth = Some(serde_json::from_str(auth).unwrap());
        });
        check(
            json!({"profile": "github", "success": "202", "request_origin": null}),
            &|new| {
                new.prefill(Profile::GitHub);
                new.request_origin = None;
                new.success = "202".parse().unwrap();
            },
        );
        check(
            json!({"signature": null, "secret": SigningSecret::from_bytes(vec![1; 24]).unwrap().reveal()}),
            &|new| {
                new.signature = fanfare_model::SignatureScheme::Standard;
                new.secrets = vec![SigningSecret::from_bytes(vec![1; 24]).unwrap()];
            },
        );
        assert_eq!(
            patched(&json!({"max_in_flight": 4})).unwrap().secrets.len(),
            secret.len()
        );
    }
}
