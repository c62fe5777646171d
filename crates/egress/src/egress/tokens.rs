//! Tokens of OAuth 2: fetched by client credentials (RFC 6749, section 4.4), kept until they are about to
//! expire, and fetched anew when a receiver refuses one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use fanfare_model::{ClientAuth, ClientCredentials, Outcome, Secret, TargetUrl};
use reqwest::{Client, Response};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::{
    sync::Mutex as FairMutex,
    time::{Instant, timeout_at},
};

use super::failure;

/// How many clients' tokens are kept.
const MOST_TOKENS: usize = 10_000;
/// A token is renewed this long before it expires, or at nine tenths of its life if that is later.
const LEAST_LEFT: Duration = Duration::from_secs(30);
/// How long a failure stands for those who asked at the same time.
const FAILURE_LASTS: Duration = Duration::from_secs(1);
/// A token that a receiver refuses this soon is not stale: another would be refused too.
const TOO_YOUNG: Duration = Duration::from_secs(1);
/// The most bytes of an answer that are read.
const LONGEST_ANSWER: usize = 64 * 1024;
/// What the server says about how long a token is good is believed up to this.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The tokens of all endpoints, by who asks for them.
#[derive(Debug, Default)]
pub(super) struct Tokens(Mutex<HashMap<[u8; 32], Arc<FairMutex<Slot>>>>);

#[derive(Debug, Default)]
enum Slot {
    #[default]
    Empty,
    Filled(Token),
    Failed {
        outcome: Outcome,
        until: Instant,
    },
}

/// A token in use.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) value: Arc<Secret>,
    fetched: Instant,
    /// Never, when the server did not say how long it is good.
    renew_at: Option<Instant>,
}

impl Tokens {
    /// A token that is good, fetched if need be. One request at a time asks for it; the others wait for the
    /// answer. `Err` is what becomes of the attempt that needed it.
    pub(super) async fn get(
        &self,
        asking: &ClientCredentials,
        client: &Client,
        deadline: Instant,
    ) -> Result<Token, Outcome> {
        let slot = self.slot(asking);
        let Ok(mut slot) = timeout_at(deadline, slot.lock()).await else {
            return Err(Outcome::TimedOut);
        };
        let now = Instant::now();
        match &*slot {
            Slot::Filled(token) if token.renew_at.is_none_or(|at| now < at) => {
                return Ok(token.clone());
            }
            Slot::Failed { outcome, until } if now < *until => return Err(outcome.clone()),
            Slot::Filled(_) | Slot::Failed { .. } | Slot::Empty => {}
        }
        let fetched = timeout_at(deadline, fetch(asking, client)).await;
        let fetched = fetched.unwrap_or_else(|_| Err(Outcome::TimedOut));
        *slot = match &fetched {
            Ok(token) => Slot::Filled(token.clone()),
            Err(outcome) => Slot::Failed {
                outcome: outcome.clone(),
                until: Instant::now() + FAILURE_LASTS,
            },
        };
        fetched
    }

    /// Forgets a token that a receiver refused, so that the next attempt has another.
    pub(super) async fn refused(&self, asking: &ClientCredentials, used: &Token) {
        let slot = self.slot(asking);
        let mut slot = slot.lock().await;
        if let Slot::Filled(token) = &*slot
            && token.fetched == used.fetched
            && used.fetched.elapsed() >= TOO_YOUNG
        {
            *slot = Slot::Empty;
        }
    }

    fn slot(&self, asking: &ClientCredentials) -> Arc<FairMutex<Slot>> {
        let mut known = self
            .0
            .lock()
            .expect("nobody panics while holding the tokens");
        let key = digest(asking);
        if known.len() >= MOST_TOKENS && !known.contains_key(&key) {
            // Whoever uses one now keeps it.
            known.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        Arc::clone(known.entry(key).or_default())
    }
}

fn digest(asking: &ClientCredentials) -> [u8; 32] {
    let mut digest = Sha256::new();
    for text in [
        asking.token_url.url().as_str(),
        &asking.client_id,
        asking.client_secret.expose(),
        asking.scope.as_deref().unwrap_or_default(),
        asking.audience.as_deref().unwrap_or_default(),
    ] {
        digest.update(text.len().to_be_bytes());
        digest.update(text);
    }
    digest.update([asking.client_auth as u8]);
    digest.finalize().into()
}

async fn fetch(asking: &ClientCredentials, client: &Client) -> Result<Token, Outcome> {
    let target = &asking.token_url;
    let (id, secret) = (&*asking.client_id, asking.client_secret.expose());
    let mut form = vec![("grant_type", "client_credentials")];
    form.extend(asking.scope.as_deref().map(|scope| ("scope", scope)));
    form.extend(
        asking
            .audience
            .as_deref()
            .map(|audience| ("audience", audience)),
    );
    let request = client.post(target.url().clone());
    let request = match asking.client_auth {
        // Section 2.3.1: both are encoded as in a form first.
        ClientAuth::Basic => request.basic_auth(encoded(id), Some(encoded(secret))),
        ClientAuth::Body => {
            form.extend([("client_id", id), ("client_secret", secret)]);
            request
        }
    };
    let body = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(form)
        .finish();
    let sent = request
        .header("content-type", "application/x-www-form-urlencoded")
        .header("accept", "application/json")
        .body(body)
        .send();
    let asked = Instant::now();
    let response = sent.await;
    let response = response.map_err(|error| failure::outcome_of(&error, target))?;
    if !response.status().is_success() {
        let status = response.status().as_u16();
        return Err(none(target, &format!("it answered {status}")));
    }
    let answer = read(response).await;
    let answer = answer.ok_or_else(|| none(target, "its answer holds no `access_token`"))?;
    let life = answer
        .expires_in
        .map(|seconds| Duration::from_secs(seconds).min(LONGEST_LIFE));
    Ok(Token {
        value: Arc::new(answer.access_token),
        fetched: asked,
        renew_at: life.map(|life| asked + life.saturating_sub(LEAST_LEFT).max(life.mul_f64(0.9))),
    })
}

fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

fn none(target: &TargetUrl, why: &str) -> Outcome {
    let host = target.url().host_str().unwrap_or_default();
    Outcome::NotConnected {
        detail: format!("no token from `{host}`: {why}"),
    }
}

/// An answer with a token (section 5.1).
#[derive(Deserialize)]
struct Answer {
    access_token: Secret,
    /// Some servers write it as a string.
    #[serde(default, deserialize_with = "seconds")]
    expires_in: Option<u64>,
}

fn seconds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let value = Option::<serde_json::Value>::deserialize(deserializer)?;
    Ok(value.and_then(|value| match value {
        serde_json::Value::Number(number) => number.as_f64().map(|seconds| seconds as u64),
        serde_json::Value::String(text) => text.parse().ok(),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Array(_)
        | serde_json::Value::Object(_) => None,
    }))
}

async fn read(mut response: Response) -> Option<Answer> {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        if body.len() + chunk.len() > LONGEST_ANSWER {
            return None;
        }
        body.extend_from_slice(&chunk);
    }
    let answer: Answer = serde_json::from_slice(&body).ok()?;
    let token = answer.access_token.expose();
    let fits = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
    fits.then_some(answer)
}
