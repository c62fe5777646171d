//! The only thing that dials a receiver, and only where the egress policy allows it.
//!
//! The rule itself is the model's [`EgressPolicy`]; what an outcome leads to is decided elsewhere.

use std::{sync::Arc, time::Duration};

use fanfare_model::{EgressPolicy, Outcome, Timestamp};
use ipnet::IpNet;
use reqwest::{Client, Response, header::RETRY_AFTER, redirect, retry};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use self::{
    guard::{Guard, SystemResolver},
    retry_after::retry_after,
};
use crate::request::SignedRequest;

mod failure;
mod guard;
mod retry_after;
#[cfg(test)]
mod tests;

pub use self::guard::Resolver;

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
    /// How many idle connections are kept for each receiver.
    pub idle_per_host: usize,
}

impl Default for EgressSettings {
    fn default() -> Self {
        Self {
            allow_networks: Vec::new(),
            connect_timeout: Duration::from_secs(5),
            response_bytes: 64 * 1024,
            // Fewer than are in flight at once would make new connections all the time.
            idle_per_host: 64,
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

const USER_AGENT: &str = concat!("Fanfare/", env!("CARGO_PKG_VERSION"));

/// Shorter than the 5 s after which Node's server closes an idle connection, the shortest among common
/// servers: a POST must not meet a connection that its receiver is closing.
const IDLE_TIME: Duration = Duration::from_secs(4);

/// HTTP/2's own default (RFC 9113, section 6.9.2). The client's default of 2 MiB would be buffered for
/// every request whose body is not read.
const STREAM_WINDOW: u32 = 65_535;

/// Calls receivers. Cheap to clone; the clones share one pool of connections.
#[derive(Debug, Clone)]
pub struct Egress {
    client: Client,
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
        let client = Client::builder()
            .dns_resolver(guard)
            // A proxy would resolve and dial by its own rules, and a redirect leads where nobody registered.
            .no_proxy()
            .redirect(redirect::Policy::none())
            // An attempt is one request: what the client repeated by itself no rate would have counted.
            .retry(retry::never())
            .user_agent(USER_AGENT)
            .connect_timeout(settings.connect_timeout)
            .pool_max_idle_per_host(settings.idle_per_host)
            .pool_idle_timeout(IDLE_TIME)
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .build()
            .map_err(|source| EgressFault::Client { source })?;
        Ok(Self {
            client,
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
        request: SignedRequest,
        now: Timestamp,
        timeout: Duration,
    ) -> Outcome {
        // The client asks no resolver about a host that is an address, so the guard would not see it.
        if let Err(blocked) = self.policy.check_url(&request.target) {
            return Outcome::Blocked {
                detail: blocked.to_string(),
            };
        }
        let deadline = Instant::now() + timeout;
        let sending = self
            .client
            .post(request.target.url().clone())
            .headers(request.headers)
            .body(request.body)
            .send();
        match timeout_at(deadline, sending).await {
            Err(_) => Outcome::TimedOut,
            Ok(Err(error)) => failure::outcome_of(&error, &request.target),
            Ok(Ok(response)) => {
                let outcome = Outcome::Answered {
                    status: response.status().as_u16(),
                    retry_after: response
                        .headers()
                        .get(RETRY_AFTER)
                        .and_then(|value| retry_after(value.to_str().ok()?, now)),
                };
                self.drain(response, deadline).await;
                outcome
            }
        }
    }

    /// Reads a short body to its end, which returns the connection to the pool; gives up on any other,
    /// which closes it.
    async fn drain(&self, mut response: Response, deadline: Instant) {
        let mut left = self.response_bytes;
        while let Ok(Ok(Some(chunk))) = timeout_at(deadline, response.chunk()).await {
            match left.checked_sub(chunk.len()) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    }
}
