//! One attempt that is watched: what was sent, and what was answered.

use std::time::Duration;

use bytes::Bytes;
use fanfare_model::{Auth, Delivery, Endpoint, Outcome, Timestamp};
use reqwest::header::HeaderMap;
use tokio::time::Instant;

use crate::{attempt::unbuildable, egress::Egress, request};

/// How much of a body is kept.
const MOST_SHOWN: usize = 16 * 1024;

const REDACTED: &str = "[redacted]";

/// What became of a request, and what both sides said.
#[derive(Debug)]
pub struct Trial {
    /// What was sent; absent when no request could be built.
    pub request: Option<Said>,
    /// What was answered; absent when nothing was.
    pub response: Option<Said>,
    /// What the receiver did with it.
    pub outcome: Outcome,
    /// How long that took.
    pub took: Duration,
}

/// Headers without what is secret, and the beginning of a body.
#[derive(Debug)]
pub struct Said {
    /// The headers. Of a request, those that are not the connection's.
    pub headers: Vec<(String, String)>,
    /// The body, or its beginning.
    pub body: Bytes,
    /// Whether there was more of it.
    pub is_cut: bool,
}

/// Sends `delivery` to `endpoint` once, in exactly the way of an attempt, and tells everything about it.
pub async fn try_out(
    egress: &Egress,
    endpoint: &Endpoint,
    delivery: &Delivery,
    now: Timestamp,
    timeout: Duration,
) -> Trial {
    let started = Instant::now();
    let request = match request::build(endpoint, delivery, now) {
        Ok(request) => request,
        Err(fault) => {
            return Trial {
                request: None,
                response: None,
                outcome: unbuildable(&fault),
                took: started.elapsed(),
            };
        }
    };
    let mut sent = Said::of(&request.headers);
    sent.take(&request.body);
    if let Some(Auth::OAuth2(_)) = endpoint.auth.as_deref() {
        // Its token is fetched when the request is sent.
        let header = ("authorization".to_owned(), REDACTED.to_owned());
        sent.headers.push(header);
    }
    let (outcome, response) = egress.converse(endpoint, request, now, timeout).await;
    Trial {
        request: Some(sent),
        response,
        outcome,
        took: started.elapsed(),
    }
}

impl Said {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let header =
            |(name, value): (&reqwest::header::HeaderName, &reqwest::header::HeaderValue)| {
                let is_secret = value.is_sensitive() || name == reqwest::header::SET_COOKIE;
                let value = if is_secret {
                    REDACTED.to_owned()
                } else {
                    String::from_utf8_lossy(value.as_bytes()).into_owned()
                };
                (name.to_string(), value)
            };
        Self {
            headers: headers.iter().map(header).collect(),
            body: Bytes::new(),
            is_cut: false,
        }
    }

    /// Takes in a part of the body, as far as there is room.
    pub(crate) fn take(&mut self, part: &[u8]) {
        let room = MOST_SHOWN - self.body.len();
        self.is_cut |= part.len() > room;
        self.body = [&self.body, &part[..part.len().min(room)]].concat().into();
    }
}
