//! Hands requests on to a receiver on this machine.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time;

use crate::LocalUrl;

/// As long as any sender of ours waits.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
const LARGEST_ANSWER: usize = 1024 * 1024;

/// What belongs to a connection rather than to a request (RFC 9110, section 7.6.1), or is made anew.
const NOT_HANDED_ON: [HeaderName; 8] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::HOST,
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What the receiver answered.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardFault {
    #[error("the request cannot be made")]
    Request(#[from] axum::http::Error),
    #[error("nothing answers there: {0}")]
    Connection(#[from] hyper_util::client::legacy::Error),
    #[error("the answer is not complete, or larger than 1 MiB")]
    Answer,
    #[error("there was no answer within {LONGEST_WAIT:?}")]
    TimedOut,
}

/// Where requests are handed on to. Dials loopback alone.
#[derive(Debug, Clone)]
pub(crate) struct Forward {
    target: LocalUrl,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Forward {
    pub(crate) fn to(target: LocalUrl) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { target, client }
    }

    /// Where it goes, for people.
    pub(crate) fn target(&self) -> &LocalUrl {
        &self.target
    }

    /// Sends a request as it came.
    pub(crate) async fn send(
        &self,
        method: Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Answer, ForwardFault> {
        let mut request = axum::http::Request::builder()
            .method(method)
            .uri(self.uri_for(uri))
            .body(Full::new(body))?;
        let sent = request.headers_mut();
        for (name, value) in headers {
            if !NOT_HANDED_ON.contains(name) {
                sent.append(name, value.clone());
            }
        }
        let exchange = async {
            let response = self.client.request(request).await?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, LARGEST_ANSWER).collect().await;
            let body = body.map_err(|_| ForwardFault::Answer)?.to_bytes();
            let mut headers = parts.headers;
            for name in NOT_HANDED_ON {
                headers.remove(name);
            }
            Ok(Answer {
                status: parts.status,
                headers,
                body,
            })
        };
        let answered = time::timeout(LONGEST_WAIT, exchange).await;
        answered.unwrap_or(Err(ForwardFault::TimedOut))
    }

    /// The target's own path if it has one, else that of the request.
    fn uri_for(&self, uri: &Uri) -> String {
        let target = self.target.url();
        if target.path() != "/" || target.query().is_some() {
            return target.to_string();
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        format!("{}{path}", target.as_str().trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_without_a_path_gets_that_of_the_request() {
        for (target, uri, expected) in [
            ("3000", "/hook?a=1", "http://127.0.0.1:3000/hook?a=1"),
            ("3000", "/", "http://127.0.0.1:3000/"),
            (
                "http://127.0.0.1:3000/mine",
                "/hook",
                "http://127.0.0.1:3000/mine",
            ),
            (
                "http://127.0.0.1:3000/?x",
                "/hook",
                "http://127.0.0.1:3000/?x",
            ),
        ] {
            let forward = Forward::to(target.parse().unwrap());
            assert_eq!(forward.uri_for(&uri.parse().unwrap()), expected);
        }
    }
}
