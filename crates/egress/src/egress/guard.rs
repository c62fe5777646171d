//! Resolves the names of receivers and refuses the ones that lead to a forbidden address.
//!
//! The client dials exactly the addresses that are returned here, and asks again for every new
//! connection, so there is no moment between the check and the use of an address.

use std::{
    error::Error,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use fanfare_model::EgressPolicy;
use futures_util::future::BoxFuture;
use hickory_resolver::{TokioResolver, config::LookupIpStrategy, net::NetError};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::time::timeout;

/// Finds the addresses of a name.
pub trait Resolver: fmt::Debug + Send + Sync {
    /// All addresses of `name`, of both families.
    fn addresses(
        &self,
        name: &str,
    ) -> BoxFuture<'static, Result<Vec<IpAddr>, Box<dyn Error + Send + Sync>>>;
}

/// Resolves as the system is configured to: its name servers, and its hosts file first.
pub(super) struct SystemResolver(TokioResolver);

impl SystemResolver {
    pub(super) fn new() -> Result<Self, NetError> {
        let mut builder = TokioResolver::builder_tokio()?;
        let options = builder.options_mut();
        // Both families, always: a private address in one must not hide behind a public one in the other.
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        // A name with a dot is tried as it is before any search domain. Kubernetes sets 5, which sends
        // nearly every receiver's name through several domains of the cluster first.
        options.ndots = 1;
        builder.build().map(Self)
    }
}

impl Resolver for SystemResolver {
    fn addresses(
        &self,
        name: &str,
    ) -> BoxFuture<'static, Result<Vec<IpAddr>, Box<dyn Error + Send + Sync>>> {
        let (resolver, name) = (self.0.clone(), name.to_owned());
        Box::pin(async move { Ok(resolver.lookup_ip(name).await?.iter().collect()) })
    }
}

impl fmt::Debug for SystemResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SystemResolver")
    }
}

/// A resolver whose answers may be dialled.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    resolver: Arc<dyn Resolver>,
    policy: Arc<EgressPolicy>,
    patience: Duration,
}

/// Why a name has no answer although nothing is forbidden.
#[derive(Debug, thiserror::Error)]
enum NoAnswer {
    #[error("the name servers did not answer in time")]
    Late,
    #[error("the name has no addresses")]
    Empty,
}

impl Guard {
    pub(super) fn new(
        resolver: Arc<dyn Resolver>,
        policy: Arc<EgressPolicy>,
        patience: Duration,
    ) -> Self {
        Self {
            resolver,
            policy,
            patience,
        }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let lookup = timeout(self.patience, self.resolver.addresses(name.as_str()));
        let policy = Arc::clone(&self.policy);
        Box::pin(async move {
            let addresses = lookup.await.map_err(|_| NoAnswer::Late)??;
            if addresses.is_empty() {
                return Err(NoAnswer::Empty.into());
            }
            // One forbidden answer condemns all: a name that mixes them is up to something.
            for address in &addresses {
                policy.check(*address)?;
            }
            // The port 0 stands for the one of the URL.
            let dialled = addresses
                .into_iter()
                .map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(dialled) as Addrs)
        })
    }
}
