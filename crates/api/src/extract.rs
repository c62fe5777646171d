//! Takes requests apart, and says what is wrong with a part in terms of its name.

use std::collections::BTreeMap;

use axum::{
    body::Body,
    extract::{
        FromRequest, FromRequestParts, Request,
        path::ErrorKind,
        rejection::{BytesRejection, PathRejection, QueryRejection},
    },
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use bytes::Bytes;
use fanfare_model::{EndpointId, TenantId};
use serde::{
    Deserialize,
    de::{
        DeserializeOwned,
        value::{self, MapDeserializer},
    },
};
use serde_json::error::Category;

use crate::problem::{Code, Problem};

/// The parameters of the path, by their names.
pub(crate) struct Path<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        type Texts = BTreeMap<String, String>;
        let texts = axum::extract::Path::<Texts>::from_request_parts(parts, state).await?;
        // In two steps, because axum does not say which parameter was refused by its own type.
        let texts = MapDeserializer::<_, value::Error>::new(texts.0.into_iter());
        let parameters = serde_path_to_error::deserialize(texts).map_err(|fault| {
            let field = fault.path().to_string();
            Problem::at(&field, Code::InvalidRequest, &fault.inner().to_string())
        })?;
        Ok(Self(parameters))
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        let PathRejection::FailedToDeserializePathParams(rejection) = rejection else {
            return Self::new(Code::InvalidRequest, "the path is not accepted");
        };
        if let ErrorKind::InvalidUtf8InPathParam { key } = rejection.kind() {
            return Self::at(key, Code::InvalidRequest, "the path must be UTF-8");
        }
        Self::new(Code::InvalidRequest, "the path is not accepted")
    }
}

/// The parameters of the query.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Problem))]
pub(crate) struct Query<T>(pub(crate) T);

impl From<QueryRejection> for Problem {
    fn from(_: QueryRejection) -> Self {
        Self::new(Code::InvalidRequest, "the query is not accepted")
    }
}

/// The tenant that a path names.
#[derive(Deserialize)]
pub(crate) struct TenantPath {
    pub(crate) tenant: TenantId,
}

/// The endpoint that a path names, and its tenant.
#[derive(Deserialize)]
pub(crate) struct EndpointPath {
    pub(crate) tenant: TenantId,
    pub(crate) endpoint: EndpointId,
}

/// A body of JSON.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let body = read_body(request, state, &["application/json"]).await?;
        from_json(&body).map(Self)
    }
}

/// A body of JSON, or none at all, which says nothing out of the ordinary.
pub(crate) struct OptionalJsonBody<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalJsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let typed = check_media_type(request.headers(), &["application/json"]);
        let body = read_bytes(request, state).await?;
        if body.is_empty() {
            return Ok(Self(T::default()));
        }
        typed?;
        from_json(&body).map(Self)
    }
}

/// The whole body, if it is of one of these media types.
pub(crate) async fn read_body<S: Send + Sync>(
    request: Request<Body>,
    state: &S,
    accepted: &[&str],
) -> Result<Bytes, Problem> {
    check_media_type(request.headers(), accepted)?;
    read_bytes(request, state).await
}

/// Refuses what is of none of these media types.
pub(crate) fn check_media_type(headers: &HeaderMap, accepted: &[&str]) -> Result<(), Problem> {
    let media_type = media_type(headers);
    if accepted.contains(&media_type.as_str()) {
        return Ok(());
    }
    let detail = format!("accepted in `Content-Type` is {}", accepted.join(" or "));
    let code = Code::UnsupportedMediaType;
    Err(Problem::at("Content-Type", code, &detail))
}

/// The whole body, whatever it is.
pub(crate) async fn read_bytes<S: Send + Sync>(
    request: Request<Body>,
    state: &S,
) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state)
        .await
        .map_err(Problem::from)
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let detail = "the body has more bytes than are accepted: send less data";
            return Self::new(Code::TooLarge, detail);
        }
        let detail = "the body could not be read to its end";
        Self::new(Code::InvalidRequest, detail)
    }
}

/// The media type of the body in lower case, without its parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE);
    let text = value.and_then(|value| value.to_str().ok());
    let essence = text.and_then(|text| text.split(';').next());
    essence.unwrap_or_default().trim().to_ascii_lowercase()
}

/// Reads JSON, and names the member at fault if it is not what is expected.
pub(crate) fn from_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|fault| {
        let field = fault.path().to_string();
        json_problem(&field, fault.inner())
    })?;
    json.end().map_err(|fault| json_problem(".", &fault))?;
    Ok(value)
}

/// What is accepted in place of a value of the wrong type, where that value may be a credential and must not be
/// quoted.
fn in_place_of_credentials(field: &str) -> Option<&'static str> {
    let member = field.split('.').next().unwrap_or_default();
    let holds_some = ["secret", "headers", "auth", "tls"].contains(&member);
    holds_some.then_some(match field {
        "headers" => "an object of names and texts, such as `{\"x-key\": \"…\"}`",
        "auth" => "an object such as `{\"kind\": \"bearer\", \"token\": \"…\"}`",
        "tls" => "an object of `certificate`, `key` and `ca`, each in PEM",
        _ => "a text",
    })
}

fn json_problem(field: &str, fault: &serde_json::Error) -> Problem {
    let text = fault.to_string();
    match fault.classify() {
        Category::Io | Category::Syntax | Category::Eof => {
            return Problem::new(Code::MalformedJson, &text);
        }
        Category::Data => {}
    }
    let credentials = in_place_of_credentials(field);
    if let Some(accepted) = credentials.filter(|_| text.contains("invalid type")) {
        let detail = format!("`{field}` is of the wrong type: accepted is {accepted}");
        return Problem::at(field, Code::InvalidRequest, &detail);
    }
    let detail = text.rsplit_once(" at line ").map_or(&*text, |(why, _)| why);
    let detail = without_types(detail);
    match Some(field)
        .filter(|field| *field != ".")
        .or_else(|| member_of(&detail))
    {
        Some(member) => Problem::at(member, Code::InvalidRequest, &detail),
        None => Problem::new(Code::InvalidRequest, &detail),
    }
}

/// The member that is missing or there twice: its place is the whole.
fn member_of(detail: &str) -> Option<&str> {
    let mut starts = ["missing field `", "duplicate field `"].into_iter();
    let rest = starts.find_map(|start| detail.strip_prefix(start))?;
    rest.strip_suffix('`')
}

/// The same, with what types are called in words.
fn without_types(detail: &str) -> String {
    if let Some((start, _)) = detail.split_once("expected struct ") {
        return format!("{start}expected an object");
    }
    for (name, words) in [
        ("expected u16", "expected a whole number from 0 on"),
        ("expected u32", "expected a whole number from 0 on"),
        ("expected u64", "expected a whole number from 0 on"),
        ("expected f64", "expected a number"),
    ] {
        if let Some(start) = detail.strip_suffix(name) {
            return format!("{start}{words}");
        }
    }
    detail.to_owned()
}
