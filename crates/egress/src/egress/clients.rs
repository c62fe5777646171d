//! The HTTP clients: one for each way of connecting, bounded in number and in age.
//!
//! A client keeps its connections, and asks the guard about new ones alone. A busy HTTP/2 connection would
//! therefore outlive every change of a name's addresses: so a client is replaced after a while, and its
//! connections end with the requests that are under way on them.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use fanfare_model::{Endpoint, HttpVersion, TlsIdentity};
use reqwest::{Certificate, Client, Identity, redirect, retry};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{EgressSettings, guard::Guard};

pub(super) const USER_AGENT: &str = concat!("Fanfare/", env!("CARGO_PKG_VERSION"));

/// Shorter than the 5 s after which Node's server closes an idle connection, the shortest among common
/// servers: a POST must not meet a connection that its receiver is closing.
const IDLE_TIME: Duration = Duration::from_secs(4);

/// HTTP/2's own default (RFC 9113, section 6.9.2). The client's default of 2 MiB would be buffered for
/// every request whose body is not read.
const STREAM_WINDOW: u32 = 65_535;

/// How long a client makes requests: the longest that a name's addresses go unchecked on a busy connection.
const LONGEST_USE: Duration = Duration::from_secs(60);

/// How many clients are kept. Each has a TLS configuration and connections of its own.
const MOST_CLIENTS: usize = 256;

/// All that tells one way of connecting from another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Way {
    /// A digest of what the connection shows and trusts; nothing where that is nothing out of the ordinary.
    tls: Option<[u8; 32]>,
    http_version: HttpVersion,
    connect_timeout: Duration,
}

#[derive(Debug)]
struct Known {
    client: Client,
    made: Instant,
    used: Instant,
}

/// Makes and keeps clients.
#[derive(Debug)]
pub(super) struct Clients {
    guard: Guard,
    settings: EgressSettings,
    known: Mutex<HashMap<Way, Known>>,
}

/// Why no connection can show or trust what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{member}` {problem}")]
pub struct InvalidTls {
    /// The member of the endpoint at fault.
    pub member: &'static str,
    /// What is wrong, and what would be accepted.
    pub problem: String,
}

impl Clients {
    pub(super) fn new(guard: Guard, settings: EgressSettings) -> Self {
        Self {
            guard,
            settings,
            known: Mutex::default(),
        }
    }

    /// The client for an endpoint.
    pub(super) fn of(&self, endpoint: &Endpoint) -> Result<Client, InvalidTls> {
        self.speaking(endpoint.http_version, endpoint)
    }

    /// The client that asks for an endpoint's tokens. The version of HTTP is the receiver's, not the server's.
    pub(super) fn for_tokens(&self, endpoint: &Endpoint) -> Result<Client, InvalidTls> {
        self.speaking(HttpVersion::Auto, endpoint)
    }

    fn speaking(
        &self,
        http_version: HttpVersion,
        endpoint: &Endpoint,
    ) -> Result<Client, InvalidTls> {
        let way = Way {
            tls: digest(&endpoint.tls),
            http_version,
            connect_timeout: endpoint
                .connect_timeout
                .unwrap_or(self.settings.connect_timeout),
        };
        let now = Instant::now();
        if let Some(known) = self.known().get_mut(&way)
            && now.duration_since(known.made) < LONGEST_USE
        {
            known.used = now;
            return Ok(known.client.clone());
        }
        // Not under the lock: it takes some milliseconds, and two who do it at once do no harm.
        let client = self.make(&way, &endpoint.tls)?;
        let mut known = self.known();
        if known.len() >= MOST_CLIENTS && !known.contains_key(&way) {
            let oldest = known.iter().min_by_key(|(_, known)| known.used);
            if let Some(way) = oldest.map(|(way, _)| way.clone()) {
                known.remove(&way);
            }
        }
        let (made, used) = (now, now);
        let kept = client.clone();
        known.insert(way, Known { client, made, used });
        Ok(kept)
    }

    /// Makes the client that nearly every endpoint uses, so that what is wrong with the system shows at once.
    pub(super) fn check(&self) -> Result<(), reqwest::Error> {
        let builder = Client::builder().dns_resolver(self.guard.clone());
        builder.no_proxy().build().map(|_| ())
    }

    fn make(&self, way: &Way, tls: &TlsIdentity) -> Result<Client, InvalidTls> {
        let settings = &self.settings;
        let builder = Client::builder()
            .dns_resolver(self.guard.clone())
            // A proxy would resolve and dial by its own rules, and a redirect leads where nobody registered.
            .no_proxy()
            .redirect(redirect::Policy::none())
            // An attempt is one request: what the client repeated by itself no rate would have counted.
            .retry(retry::never())
            .user_agent(USER_AGENT)
            .connect_timeout(way.connect_timeout)
            .pool_max_idle_per_host(settings.idle_per_host)
            .pool_idle_timeout(IDLE_TIME)
            .http2_initial_stream_window_size(STREAM_WINDOW);
        let builder = match way.http_version {
            HttpVersion::Auto => builder,
            HttpVersion::Http1 => builder.http1_only(),
            HttpVersion::Http2 => builder.http2_prior_knowledge(),
        };
        with_tls(builder, tls)?
            .build()
            .map_err(|fault| unusable(&fault))
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Way, Known>> {
        self.known
            .lock()
            .expect("nobody panics while holding the clients")
    }
}

/// Whether a connection could show and trust this.
pub fn check_tls(tls: &TlsIdentity) -> Result<(), InvalidTls> {
    if tls.is_default() {
        return Ok(());
    }
    let built = with_tls(Client::builder().no_proxy(), tls)?.build();
    built.map(|_| ()).map_err(|fault| unusable(&fault))
}

fn with_tls(
    mut builder: reqwest::ClientBuilder,
    tls: &TlsIdentity,
) -> Result<reqwest::ClientBuilder, InvalidTls> {
    if let Some(ca) = &tls.ca {
        builder = builder.tls_certs_merge(certificates("tls.ca", ca)?);
    }
    if let Some(client) = &tls.client {
        certificates("tls.certificate", &client.chain)?;
        let (chain, key) = (&client.chain, client.key.expose());
        let both = fanfare_model::Secret::new(format!("{chain}\n{key}"));
        let identity = Identity::from_pem(both.expose().as_bytes());
        // The fault is not told: it may hold a part of the key.
        let identity = identity.map_err(|_| InvalidTls {
            member: "tls.key",
            problem:
                "is no private key: accepted is one in PEM, such as `-----BEGIN PRIVATE KEY-----`"
                    .to_owned(),
        })?;
        builder = builder.identity(identity);
    }
    Ok(builder)
}

fn certificates(member: &'static str, pem: &str) -> Result<Vec<Certificate>, InvalidTls> {
    let found = Certificate::from_pem_bundle(pem.as_bytes()).unwrap_or_default();
    if found.is_empty() {
        let problem =
            "has no certificate: accepted are some in PEM, such as `-----BEGIN CERTIFICATE-----`";
        let problem = problem.to_owned();
        return Err(InvalidTls { member, problem });
    }
    Ok(found)
}

fn unusable(_: &reqwest::Error) -> InvalidTls {
    InvalidTls {
        member: "tls",
        problem: "cannot be used: accepted are X.509 certificates, and a key that belongs to `certificate`"
            .to_owned(),
    }
}

/// What tells one identity from another; nothing where that is nothing out of the ordinary.
pub(super) fn digest(tls: &TlsIdentity) -> Option<[u8; 32]> {
    if tls.is_default() {
        return None;
    }
    let mut digest = Sha256::new();
    let client = tls.client.as_ref();
    for text in [
        tls.ca.as_deref(),
        client.map(|client| client.chain.as_str()),
        client.map(|client| client.key.expose()),
    ] {
        let text = text.unwrap_or_default();
        digest.update(text.len().to_be_bytes());
        digest.update(text);
    }
    Some(digest.finalize().into())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fanfare_model::EgressPolicy;

    use super::*;
    use crate::egress::guard::SystemResolver;

    fn clients() -> Clients {
        let resolver = Arc::new(SystemResolver::new().unwrap());
        let patience = Duration::from_secs(1);
        let guard = Guard::new(resolver, Arc::new(EgressPolicy::default()), patience);
        Clients::new(guard, EgressSettings::default())
    }

    #[tokio::test]
    async fn endpoints_share_a_client_unless_they_connect_in_another_way() {
        let (clients, url) = (clients(), "https://a.example/");
        let plain = Endpoint::for_tests(1, "t", url);
        let other = Endpoint::for_tests(2, "u", "https://b.example/");
        let hasty = Endpoint {
            connect_timeout: Some(Duration::from_secs(1)),
            ..plain.clone()
        };
        let old = Endpoint {
            http_version: HttpVersion::Http1,
            ..plain.clone()
        };
        for endpoint in [&plain, &other, &plain] {
            clients.of(endpoint).unwrap();
            assert_eq!(clients.known().len(), 1);
        }
        for endpoint in [&hasty, &old, &hasty] {
            clients.of(endpoint).unwrap();
        }
        assert_eq!(clients.known().len(), 3);
    }

    #[tokio::test]
    async fn a_client_is_replaced_after_a_while_and_their_number_is_bounded() {
        let clients = clients();
        let endpoint = Endpoint::for_tests(1, "t", "https://a.example/");
        clients.of(&endpoint).unwrap();
        let made = |clients: &Clients| clients.known().values().map(|known| known.made).max();
        let before = made(&clients);
        clients.of(&endpoint).unwrap();
        assert_eq!(made(&clients), before);
        for known in clients.known().values_mut() {
            known.made -= LONGEST_USE;
        }
        clients.of(&endpoint).unwrap();
        assert!(made(&clients) >= before);
        assert_eq!(clients.known().len(), 1);

        let known = clients.known().values().next().unwrap().client.clone();
        for number in 0..MOST_CLIENTS as u64 {
            let now = Instant::now();
            let way = Way {
                tls: None,
                http_version: HttpVersion::Http1,
                connect_timeout: Duration::from_millis(number),
            };
            let (client, made, used) = (known.clone(), now, now);
            clients.known().insert(way, Known { client, made, used });
        }
        let hasty = Endpoint {
            connect_timeout: Some(Duration::from_secs(3)),
            ..endpoint
        };
        let before = clients.known().len();
        clients.of(&hasty).unwrap();
        assert!(clients.known().len() <= before);
    }

    #[test]
    fn what_is_no_certificate_or_key_is_refused() {
        let client = |chain: &str| {
            Some(fanfare_model::ClientCertificate {
                chain: chain.to_owned(),
                key: fanfare_model::Secret::new("hunter2".to_owned()),
            })
        };
        for (ca, client, member) in [
            (Some("x"), None, "tls.ca"),
            (None, client("x"), "tls.certificate"),
        ] {
            let (ca, client) = (ca.map(Into::into), client.map(Box::new));
            let fault = check_tls(&TlsIdentity { client, ca }).unwrap_err();
            assert_eq!(fault.member, member);
            assert!(!fault.to_string().contains("hunter2"));
        }
        assert_eq!(check_tls(&TlsIdentity::default()), Ok(()));
    }
}
