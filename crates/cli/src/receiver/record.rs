//! Requests as lines of JSON: to be kept in a file, read by scripts, and sent again.

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use fanfare_model::Timestamp;
use serde::{Deserialize, Serialize};

use super::{ReceivedRequest, Verdict};

/// What would let a reader of the file in somewhere.
const LEFT_OUT: [HeaderName; 3] = [
    header::AUTHORIZATION,
    header::COOKIE,
    header::PROXY_AUTHORIZATION,
];

/// A request as a line of a file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    at: Timestamp,
    method: String,
    uri: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    event_type: Option<String>,
    /// `verified`, `unchecked`, or why it was refused.
    verdict: String,
    /// The status of the answer; absent when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answer: Option<u16>,
    headers: Vec<(String, String)>,
    /// The body, if it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    /// The body, if it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

/// A request to be sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Replayable {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl From<&ReceivedRequest> for Record {
    fn from(request: &ReceivedRequest) -> Self {
        let (body, body_base64) = match std::str::from_utf8(&request.body) {
            Ok(text) => (Some(text.to_owned()), None),
            Err(_) => (None, Some(BASE64.encode(&request.body))),
        };
        let kept = request.headers.iter();
        let kept = kept.filter(|(name, _)| !LEFT_OUT.contains(name));
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        Self {
            at: request.at,
            method: request.method.to_string(),
            uri: request.uri.to_string(),
            id: request.id.clone(),
            event_type: request.event_type.clone(),
            verdict: match &request.verdict {
                Verdict::Genuine => "verified".to_owned(),
                Verdict::Unverified => "unchecked".to_owned(),
                Verdict::Refused(why) => why.to_string(),
            },
            answer: request.answer.map(|status| status.as_u16()),
            headers: kept
                .map(|(name, value)| (name.to_string(), text(value)))
                .collect(),
            body,
            body_base64,
        }
    }
}

impl Record {
    /// The line, without its break.
    pub(crate) fn line(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers can be written as JSON")
    }

    /// The request that the line tells of.
    pub(crate) fn replayable(self) -> Result<Replayable, &'static str> {
        let mut headers = HeaderMap::new();
        for (name, value) in self.headers {
            let name = name.parse::<HeaderName>();
            let value = value.parse::<HeaderValue>();
            let (Ok(name), Ok(value)) = (name, value) else {
                return Err("`headers` must be pairs of a name and a value");
            };
            headers.append(name, value);
        }
        let body = match (self.body, self.body_base64) {
            (Some(text), _) => text.into(),
            (None, Some(text)) => match BASE64.decode(text) {
                Ok(bytes) => bytes.into(),
                Err(_) => return Err("`body_base64` must be base64"),
            },
            (None, None) => Bytes::new(),
        };
        Ok(Replayable {
            method: self
                .method
                .parse()
                .map_err(|_| "`method` must be one of HTTP's")?,
            uri: self.uri.parse().map_err(|_| "`uri` must be a path")?,
            headers,
            body,
        })
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    fn request(body: &'static [u8]) -> ReceivedRequest {
        let mut headers = HeaderMap::new();
        for (name, value) in [("webhook-id", "msg_1"), ("authorization", "Bearer x")] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        ReceivedRequest {
            at: "2026-11-23T12:00:00Z".parse().unwrap(),
            method: Method::POST,
            uri: Uri::from_static("/hook?a=1"),
            headers,
            id: Some("msg_1".to_owned()),
            event_type: None,
            verdict: Verdict::Genuine,
            answer: Some(StatusCode::OK),
            because: None,
            body: Bytes::from_static(body),
        }
    }

    #[test]
    fn a_recorded_request_can_be_sent_again_without_its_credentials() {
        for body in [&b"{\"a\":1}\n"[..], b"\x00\xff", b""] {
            let request = request(body);
            let line = Record::from(&request).line();
            assert!(!line.contains("Bearer") && !line.contains('\n'), "{line}");
            let record: Record = serde_json::from_str(&line).unwrap();
            let again = record.replayable().unwrap();
            assert_eq!((again.method, again.uri), (request.method, request.uri));
            assert_eq!(again.body, request.body);
            assert_eq!(again.headers.len(), 1);
        }
    }
}
