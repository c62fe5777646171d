//! The only thing that dials a receiver, and only where the egress policy allows it.
//!
//! The rule itself is the model's [`EgressPolicy`]; what an outcome leads to is decided elsewhere.

use std::{sync::Arc, time::Duration};

use fanfare_model::{Auth, EgressPolicy, Endpoint, Outcome, TargetUrl, Timestamp};
use ipnet::IpNet;
use reqwest::{
    Method, Response, StatusCode,
    header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER},
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use self::{
    clients::Clients,
    guard::{Guard, SystemResolver},
    retry_after::retry_after,
    tokens::{Asker, Tokens},
};
use crate::{request::SignedRequest, trial::Said};

mod clients;
mod failure;
mod guard;
mod retry_after;
#[cfg(test)]
mod tests;
mod tokens;

pub use self::{
    clients::{InvalidTls, check_tls},
    guard::Resolver,
};

/// How receivers are called.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct EgressSettings {
    /// Networks that may be called although they are not public, such as `127.0.0.0/8` for development.
    pub allow_networks: Vec<IpNet>,
    /// How long resolving, connecting and the TLS handshake may take together.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    pub connect_timeout: Duration,
    /// How much of a response body is read so that its connection can be used again.
    pub response_bytes: usize,
    /// How many idle connections are kept for each receiver, which may have many endpoints.
    pub idle_per_host: usize,
}

impl Default for EgressSettings {
    fn default() -> Self {
        Self {
            allow_networks: Vec::new(),
            connect_timeout: Duration::from_secs(5),
            response_bytes: 64 * 1024,
            // Fewer than are in flight at once would make new connections all the time.
            idle_per_host: 1024,
        }
    }
}

/// Why nothing can be called at all.
#[derive(Debug, thiserror::Error)]
pub enum EgressFault {
    /// The resolver configuration of the system cannot be read.
    #[error("reading the system's resolver configuration")]
    Resolver {
        /// What the resolver said.
        source: hickory_resolver::net::NetError,
    },
    /// The HTTP client cannot be set up, for example because the system has no root certificates.
    #[error("setting up the HTTP client")]
    Client {
        /// What the client said.
        source: reqwest::Error,
    },
}

/// Calls receivers. Cheap to clone; the clones share one pool of connections.
#[derive(Debug, Clone)]
pub struct Egress {
    clients: Arc<Clients>,
    tokens: Arc<Tokens>,
    policy: Arc<EgressPolicy>,
    response_bytes: usize,
}

impl Egress {
    /// Resolves by the system's configuration and hosts file. Must be called within a Tokio runtime.
    pub fn new(settings: &EgressSettings) -> Result<Self, EgressFault> {
        let resolver = SystemResolver::new().map_err(|source| EgressFault::Resolver { source })?;
        Self::with_resolver(settings, Arc::new(resolver))
    }

    /// Resolves by `resolver`. Its answers are judged like any other.
    pub fn with_resolver(
        settings: &EgressSettings,
        resolver: Arc<dyn Resolver>,
    ) -> Result<Self, EgressFault> {
        let policy = Arc::new(EgressPolicy::allowing(settings.allow_networks.clone()));
        // Half of the time to connect, so that a silent resolver is told from a silent receiver.
        let guard = Guard::new(resolver, Arc::clone(&policy), settings.connect_timeout / 2);
        let clients = Clients::new(guard, settings.clone());
        clients
            .check()
            .map_err(|source| EgressFault::Client { source })?;
        Ok(Self {
            clients: Arc::new(clients),
            tokens: Arc::new(Tokens::default()),
            policy,
            response_bytes: settings.response_bytes,
        })
    }

    /// Posts a request and waits at most `timeout` for the answer. `now` is what `Retry-After` dates are
    /// measured from.
    ///
    /// The status is the answer. A body that is late, broken or too long changes nothing but that its
    /// connection is closed.
    pub(crate) async fn post(
        &self,
        endpoint: &Endpoint,
        request: SignedRequest,
        now: Timestamp,
        timeout: Duration,
    ) -> Outcome {
        let deadline = Instant::now() + timeout;
        match self.exchange(endpoint, request, deadline).await {
            Err(outcome) => outcome,
            Ok(response) => {
                let outcome = answered(&response, now);
                self.drain(response, deadline, |_| ()).await;
                outcome
            }
        }
    }

    /// The same, and what was answered.
    pub(crate) async fn converse(
        &self,
        endpoint: &Endpoint,
        request: SignedRequest,
        now: Timestamp,
        timeout: Duration,
    ) -> (Outcome, Option<Said>) {
        let deadline = Instant::now() + timeout;
        match self.exchange(endpoint, request, deadline).await {
            Err(outcome) => (outcome, None),
            Ok(response) => {
                let (outcome, mut said) = (answered(&response, now), Said::of(response.headers()));
                let whole = self.drain(response, deadline, |part| said.take(part)).await;
                said.is_cut |= !whole;
                (outcome, Some(said))
            }
        }
    }

    /// Asks a receiver what it allows, and returns the headers of its answer.
    pub(crate) async fn options(
        &self,
        endpoint: &Endpoint,
        headers: HeaderMap,
        timeout: Duration,
    ) -> Result<HeaderMap, Outcome> {
        self.check(&endpoint.url)?;
        let client = self.clients.of(endpoint).map_err(unusable)?;
        let asking = client.request(Method::OPTIONS, endpoint.url.url().clone());
        let asking = asking.headers(headers).send();
        let deadline = Instant::now() + timeout;
        let answer = answer_by(deadline, asking, &endpoint.url).await?;
        Ok(answer.headers().clone())
    }

    /// Which addresses may be called.
    pub fn policy(&self) -> &EgressPolicy {
        &self.policy
    }

    /// Sends a request, with a token where the endpoint asks for one. A failure to get it is an outcome as
    /// well. A token that is refused is not used again; the request is not repeated, because no rate would
    /// have counted that.
    async fn exchange(
        &self,
        endpoint: &Endpoint,
        mut request: SignedRequest,
        deadline: Instant,
    ) -> Result<Response, Outcome> {
        self.check(&request.target)?;
        let client = self.clients.of(endpoint).map_err(unusable)?;
        let mut used = None;
        if let Some(Auth::OAuth2(asking)) = endpoint.auth.as_deref() {
            self.check(&asking.token_url)?;
            let asker = Asker::new(asking, clients::digest(&endpoint.tls));
            let asked = self.clients.for_tokens(endpoint).map_err(unusable)?;
            let token = self.tokens.get(asker, asking, &asked, deadline).await?;
            let value = format!("Bearer {}", token.value.expose());
            let mut value = HeaderValue::try_from(value).expect("tokens are visible characters");
            value.set_sensitive(true);
            request.headers.insert(AUTHORIZATION, value);
            used = Some((asker, token));
        }
        let sending = client
            .post(request.target.url().clone())
            .headers(request.headers)
            .body(request.body)
            .send();
        let response = answer_by(deadline, sending, &request.target).await?;
        if let Some((asker, token)) = used
            && response.status() == StatusCode::UNAUTHORIZED
        {
            self.tokens.refused(asker, &token);
        }
        Ok(response)
    }

    /// The client asks no resolver about a host that is an address, so the guard would not see it.
    fn check(&self, target: &TargetUrl) -> Result<(), Outcome> {
        self.policy
            .check_url(target)
            .map_err(|blocked| Outcome::Blocked {
                detail: blocked.to_string(),
            })
    }

    /// Reads a short body to its end, which returns the connection to the pool; gives up on any other,
    /// which closes it. Returns whether it was read to its end.
    async fn drain(
        &self,
        mut response: Response,
        deadline: Instant,
        mut take: impl FnMut(&[u8]),
    ) -> bool {
        let mut left = self.response_bytes;
        loop {
            match timeout_at(deadline, response.chunk()).await {
                Ok(Ok(Some(chunk))) => {
                    take(&chunk);
                    match left.checked_sub(chunk.len()) {
                        Some(rest) => left = rest,
                        None => return false,
                    }
                }
                Ok(Ok(None)) => return true,
                Ok(Err(_)) | Err(_) => return false,
            }
        }
    }
}

fn unusable(invalid: InvalidTls) -> Outcome {
    Outcome::TlsFailed {
        detail: invalid.to_string(),
    }
}

async fn answer_by(
    deadline: Instant,
    sending: impl Future<Output = reqwest::Result<Response>>,
    target: &TargetUrl,
) -> Result<Response, Outcome> {
    match timeout_at(deadline, sending).await {
        Err(_) => Err(Outcome::TimedOut),
        Ok(Err(error)) => Err(failure::outcome_of(&error, target)),
        Ok(Ok(response)) => Ok(response),
    }
}

fn answered(response: &Response, now: Timestamp) -> Outcome {
    let wait = response.headers().get(RETRY_AFTER);
    Outcome::Answered {
        status: response.status().as_u16(),
        retry_after: wait.and_then(|value| retry_after(value.to_str().ok()?, now)),
    }
}
