//! Tokens of OAuth 2: fetched by client credentials (RFC 6749, section 4.4), kept until they are about to
//! expire, and fetched anew when a receiver refuses one.
//!
//! Whoever asks for a token asks for all who need the same one. A question outlives the attempt that put it,
//! so that impatient attempts do not put it again and again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use fanfare_model::{ClientAuth, ClientCredentials, Outcome, Secret, TargetUrl};
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use reqwest::{Client, Response};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout, timeout_at};

use super::failure;

/// How many clients' tokens are kept.
const MOST_TOKENS: usize = 10_000;
/// A token is renewed this long before it expires, or at nine tenths of its life if that is later.
const LEAST_LEFT: Duration = Duration::from_secs(30);
/// How long a server may take to give a token.
const LONGEST_FETCH: Duration = Duration::from_secs(10);
/// How long a failure stands before the server is asked again.
const FAILURE_LASTS: Duration = Duration::from_secs(1);
/// A token that a receiver refuses this soon is not stale: another would be refused too.
const TOO_YOUNG: Duration = Duration::from_secs(1);
/// The most bytes of an answer that are read.
const LONGEST_ANSWER: usize = 64 * 1024;
/// What the server says about how long a token is good is believed up to this.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The tokens of all endpoints, by who asks for them.
#[derive(Debug, Default)]
pub(super) struct Tokens(Mutex<HashMap<Asker, Slot>>);

/// Who asks for a token: a digest of all that the token may depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Asker([u8; 32]);

/// A question to a server of tokens, which all who need its answer wait for.
type Question = Shared<BoxFuture<'static, Answer>>;

#[derive(Debug, Clone)]
struct Answer {
    token: Result<Token, Outcome>,
    at: Instant,
}

/// What is known for one asker.
#[derive(Debug)]
struct Slot {
    token: Option<Token>,
    /// The question that is under way, or whose failure still stands.
    question: Option<Question>,
    used: Instant,
}

/// A token in use.
#[derive(Debug, Clone)]
pub(super) struct Token {
    pub(super) value: Arc<Secret>,
    asked: Instant,
    /// None when the server did not say how long it is good.
    life: Option<Life>,
}

#[derive(Debug, Clone, Copy)]
struct Life {
    renew_at: Instant,
    /// From here on a request could arrive with a token that has expired on its way.
    used_until: Instant,
}

impl Tokens {
    /// A token that is good, fetched if need be. While a token is renewed, requests go on with the old one.
    /// `Err` is what becomes of the attempt that needed it.
    pub(super) async fn get(
        &self,
        asker: Asker,
        asking: &ClientCredentials,
        client: &Client,
        deadline: Instant,
    ) -> Result<Token, Outcome> {
        let question = {
            let mut known = self.known();
            let slot = slot(&mut known, asker);
            slot.settle();
            if slot.question.is_none() && slot.token.as_ref().is_none_or(Token::is_due) {
                slot.question = Some(ask(asking.clone(), client.clone()));
            }
            match (&slot.token, &slot.question) {
                (Some(token), _) if token.is_good() => return Ok(token.clone()),
                (_, Some(question)) => question.clone(),
                (_, None) => unreachable!("a token that is not good is due"),
            }
        };
        match timeout_at(deadline, question).await {
            Ok(answer) => answer.token,
            Err(_) => Err(none(&asking.token_url, LATE)),
        }
    }

    /// Forgets a token that a receiver refused, so that the next attempt has another.
    pub(super) fn refused(&self, asker: Asker, used: &Token) {
        let mut known = self.known();
        let slot = slot(&mut known, asker);
        slot.settle();
        let kept = slot.token.as_ref().map(|token| token.asked);
        if kept == Some(used.asked) && used.asked.elapsed() >= TOO_YOUNG {
            slot.token = None;
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Asker, Slot>> {
        self.0
            .lock()
            .expect("nobody panics while holding the tokens")
    }
}

/// The slot of an asker, for which another's makes room.
fn slot(known: &mut HashMap<Asker, Slot>, asker: Asker) -> &mut Slot {
    if known.len() >= MOST_TOKENS && !known.contains_key(&asker) {
        let idlest = known.iter().min_by_key(|(_, slot)| slot.used);
        if let Some(idlest) = idlest.map(|(asker, _)| *asker) {
            known.remove(&idlest);
        }
    }
    let now = Instant::now();
    let slot = known.entry(asker).or_insert_with(|| Slot {
        token: None,
        question: None,
        used: now,
    });
    slot.used = now;
    slot
}

impl Slot {
    /// Takes an answer in, and forgets a failure that no longer stands.
    fn settle(&mut self) {
        let Some(answer) = self.question.as_ref().and_then(Shared::peek) else {
            return;
        };
        match &answer.token {
            Ok(token) => self.token = Some(token.clone()),
            Err(_) if answer.at.elapsed() < FAILURE_LASTS => return,
            Err(_) => {}
        }
        self.question = None;
    }
}

impl Token {
    fn new(value: Secret, asked: Instant, seconds: Option<u64>) -> Self {
        let life = seconds.map(|seconds| {
            let life = Duration::from_secs(seconds).min(LONGEST_LIFE);
            let renew_after = life.saturating_sub(LEAST_LEFT).max(life.mul_f64(0.9));
            Life {
                renew_at: asked + renew_after,
                used_until: asked + (renew_after + life) / 2,
            }
        });
        Self {
            value: Arc::new(value),
            asked,
            life,
        }
    }

    fn is_due(&self) -> bool {
        self.life
            .is_some_and(|life| Instant::now() >= life.renew_at)
    }

    fn is_good(&self) -> bool {
        self.life
            .is_none_or(|life| Instant::now() < life.used_until)
    }
}

impl Asker {
    /// `tls` is what the connection shows and trusts: some servers bind tokens to a certificate (RFC 8705).
    pub(super) fn new(asking: &ClientCredentials, tls: Option<[u8; 32]>) -> Self {
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
        digest.update(tls.unwrap_or_default());
        Self(digest.finalize().into())
    }
}

/// Puts a question, whose answer comes whether or not anybody still waits for it.
fn ask(asking: ClientCredentials, client: Client) -> Question {
    let answering = async move {
        let fetched = timeout(LONGEST_FETCH, fetch(&asking, &client)).await;
        Answer {
            token: fetched.unwrap_or_else(|_| Err(none(&asking.token_url, LATE))),
            at: Instant::now(),
        }
    };
    let question = answering.boxed().shared();
    #[expect(
        clippy::disallowed_methods,
        reason = "it ends by itself, and nothing is lost when it is cut short"
    )]
    drop(tokio::spawn(question.clone()));
    question
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
    let response = response.map_err(|error| unreached(&error, target))?;
    let status = response.status();
    let answered = read(response).await;
    if !status.is_success() {
        let code = answered.as_deref().and_then(error_code);
        let code = code.map_or_else(String::new, |code| format!(": {code}"));
        return Err(none(
            target,
            &format!("it answered {}{code}", status.as_u16()),
        ));
    }
    let grant = answered.and_then(|body| serde_json::from_slice::<Grant>(&body).ok());
    let Some(grant) = grant.filter(|grant| is_visible(grant.access_token.expose())) else {
        return Err(none(target, "its answer holds no `access_token`"));
    };
    if grant
        .token_type
        .is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer"))
    {
        return Err(none(
            target,
            "its answer holds a token that is no bearer token",
        ));
    }
    Ok(Token::new(grant.access_token, asked, grant.expires_in))
}

fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

const LATE: &str = "no answer in time";

fn none(target: &TargetUrl, why: &str) -> Outcome {
    let host = target.url().host_str().unwrap_or_default();
    Outcome::NoToken {
        detail: format!("no token from `{host}`: {why}"),
    }
}

/// A forbidden address stays one: no later attempt gets further.
fn unreached(error: &reqwest::Error, target: &TargetUrl) -> Outcome {
    match failure::outcome_of(error, target) {
        blocked @ Outcome::Blocked { .. } => blocked,
        Outcome::NameNotResolved { detail }
        | Outcome::NotConnected { detail }
        | Outcome::TlsFailed { detail }
        | Outcome::Unbuildable { detail }
        | Outcome::NoToken { detail } => none(target, &detail),
        Outcome::Answered { .. } | Outcome::TimedOut => none(target, LATE),
    }
}

/// An answer with a token (section 5.1).
#[derive(Deserialize)]
struct Grant {
    access_token: Secret,
    token_type: Option<String>,
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

/// What an answer without a token says is wrong (section 5.2): one of these words, and never the server's own.
fn error_code(body: &[u8]) -> Option<&'static str> {
    const CODES: [&str; 6] = [
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
    ];
    let answer: serde_json::Value = serde_json::from_slice(body).ok()?;
    let said = answer.get("error")?.as_str()?;
    CODES.into_iter().find(|code| *code == said)
}

/// The body of an answer, if it is of a length that can be.
async fn read(mut response: Response) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        if body.len() + chunk.len() > LONGEST_ANSWER {
            return None;
        }
        body.extend_from_slice(&chunk);
    }
    Some(body)
}

fn is_visible(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_token_is_renewed_while_it_is_still_good() {
        for (life, renewed_at, used_until) in [
            (0, 0.0, 0.0),
            (10, 9.0, 9.5),
            (60, 54.0, 57.0),
            (3600, 3570.0, 3585.0),
            (u64::MAX, 86_370.0, 86_385.0),
        ] {
            let token = Token::new(Secret::new("x".to_owned()), Instant::now(), Some(life));
            let states = [
                (renewed_at - 0.1, (false, true)),
                (renewed_at, (true, renewed_at < used_until)),
                (used_until, (true, false)),
            ];
            let mut passed = 0.0;
            for (at, expected) in states.into_iter().filter(|(at, _)| *at >= 0.0) {
                tokio::time::advance(Duration::from_secs_f64(at - passed)).await;
                passed = at;
                assert_eq!(
                    (token.is_due(), token.is_good()),
                    expected,
                    "{life} at {at}"
                );
            }
        }
        let endless = Token::new(Secret::new("x".to_owned()), Instant::now(), None);
        tokio::time::advance(LONGEST_LIFE * 2).await;
        assert!(!endless.is_due() && endless.is_good());
    }

    #[test]
    fn lives_are_read_in_every_spelling() {
        for (written, seconds) in [
            ("60", Some(60)),
            ("\"60\"", Some(60)),
            ("60.9", Some(60)),
            ("-1", Some(0)),
            ("null", None),
            ("\"soon\"", None),
            ("[60]", None),
        ] {
            let json = format!(r#"{{"access_token": "x", "expires_in": {written}}}"#);
            let grant: Grant = serde_json::from_str(&json).unwrap();
            assert_eq!(grant.expires_in, seconds, "{written}");
        }
    }

    #[tokio::test]
    async fn the_number_of_tokens_is_bounded_and_the_idlest_goes() {
        let mut known = HashMap::new();
        let asker = |number: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            Asker(bytes)
        };
        for number in 0..MOST_TOKENS {
            slot(&mut known, asker(number));
        }
        slot(&mut known, asker(0));
        slot(&mut known, asker(MOST_TOKENS));
        assert_eq!(known.len(), MOST_TOKENS);
        assert!(known.contains_key(&asker(0)) && known.contains_key(&asker(MOST_TOKENS)));
    }
}
