//! Which addresses may be called.
//!
//! The rule alone: the dispatcher resolves and dials by it. A target is judged twice, by its text when
//! it is registered and by every address it resolves to when it is dialled.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use url::{Host, Url};

/// A URL that requests may go to, as far as its text tells.
///
/// Invariant: http or https, a host, no user information, no fragment, at most 2,000 bytes.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TargetUrl(Url);

impl TargetUrl {
    /// The parsed URL.
    pub fn url(&self) -> &Url {
        &self.0
    }

    /// The address, if the host is written as one. A resolver is never asked about such a host.
    pub fn literal_address(&self) -> Option<IpAddr> {
        match self.0.host()? {
            Host::Ipv4(address) => Some(IpAddr::V4(address)),
            Host::Ipv6(address) => Some(IpAddr::V6(address)),
            Host::Domain(_) => None,
        }
    }
}

/// Why a text is not a target URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetUrlError {
    /// Not a URL at all.
    #[error("not a URL: accepted is an absolute URL such as https://example.com/hooks")]
    Malformed,
    /// Neither http nor https.
    #[error("scheme `{0}` is not accepted: use https (or http)")]
    Scheme(String),
    /// A user name or password in the URL.
    #[error("user information in the URL is not accepted: send credentials in a header")]
    UserInformation,
    /// Longer than 2,000 bytes.
    #[error("longer than 2,000 bytes")]
    TooLong,
    /// A fragment, which is never sent.
    #[error("a fragment (`#…`) is never sent: remove it")]
    Fragment,
    /// A name that means this machine, or a metadata service.
    #[error("host `{0}` is local to the sender and is not accepted")]
    LocalName(String),
    /// Characters that a URL does not hold, or a backslash: parsers disagree about them.
    #[error("the URL holds control characters, spaces or backslashes")]
    Characters,
}

impl FromStr for TargetUrl {
    type Err = TargetUrlError;

    fn from_str(text: &str) -> Result<Self, TargetUrlError> {
        if text.len() > 2000 {
            return Err(TargetUrlError::TooLong);
        }
        // The URL standard strips or converts these silently; a target that relies on it is not honest.
        if text
            .chars()
            .any(|c| c.is_control() || c.is_whitespace() || c == '\\')
        {
            return Err(TargetUrlError::Characters);
        }
        let url = Url::parse(text).map_err(|_| TargetUrlError::Malformed)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(TargetUrlError::Scheme(url.scheme().to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() || authority_has_at(text) {
            return Err(TargetUrlError::UserInformation);
        }
        if url.fragment().is_some() {
            return Err(TargetUrlError::Fragment);
        }
        if url.host().is_none() {
            return Err(TargetUrlError::Malformed);
        }
        Ok(Self(url))
    }
}

/// An empty user name (`http://@host/`) leaves no trace in the parsed URL.
fn authority_has_at(text: &str) -> bool {
    let rest = text.split_once("//").map_or(text, |(_, rest)| rest);
    rest.split(['/', '?', '#'])
        .next()
        .unwrap_or_default()
        .contains('@')
}

impl TryFrom<String> for TargetUrl {
    type Error = TargetUrlError;

    fn try_from(text: String) -> Result<Self, TargetUrlError> {
        text.parse()
    }
}

impl From<TargetUrl> for String {
    fn from(url: TargetUrl) -> Self {
        url.0.into()
    }
}

impl fmt::Display for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An address that must not be dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("address {address} is {why}")]
pub struct BlockedAddress {
    /// The address as it was given.
    pub address: IpAddr,
    /// What kind of address it is.
    pub why: &'static str,
}

/// Which addresses may be dialled: everything public, and the networks that the operator opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EgressPolicy {
    allow_networks: Vec<IpNet>,
}

impl EgressPolicy {
    /// A policy with holes for these networks, meant for development and private installations.
    pub fn allowing(allow_networks: Vec<IpNet>) -> Self {
        Self { allow_networks }
    }

    /// Judges an address.
    pub fn check(&self, address: IpAddr) -> Result<(), BlockedAddress> {
        if self.allow_networks.iter().any(|net| net.contains(&address)) {
            return Ok(());
        }
        let why = match address {
            IpAddr::V4(v4) => forbidden_v4(v4),
            IpAddr::V6(v6) => forbidden_v6(v6),
        };
        why.map_or(Ok(()), |why| Err(BlockedAddress { address, why }))
    }

    /// Judges a URL by what its text tells: an address as host, or a name that is local by definition.
    pub fn check_url(&self, target: &TargetUrl) -> Result<(), BlockedTarget> {
        if let Some(address) = target.literal_address() {
            return Ok(self.check(address)?);
        }
        let host = target.url().host_str().unwrap_or_default();
        let name = host.trim_end_matches('.').to_ascii_lowercase();
        let local = name == "localhost"
            || name.ends_with(".localhost")
            || name == "metadata.google.internal";
        let loopback_allowed = self.check(IpAddr::V4(Ipv4Addr::LOCALHOST)).is_ok();
        if local && !loopback_allowed {
            return Err(BlockedTarget::Name(host.to_owned()));
        }
        Ok(())
    }
}

/// A URL whose text alone shows that it must not be dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockedTarget {
    /// The host is a forbidden address.
    #[error(transparent)]
    Address(#[from] BlockedAddress),
    /// The host is a name that is local to the sender.
    #[error("host `{0}` is local to the sender")]
    Name(String),
}

/// Sources: the IANA IPv4 special-purpose registry, and the metadata addresses of cloud providers.
const FORBIDDEN_V4: [(&str, &str); 19] = [
    ("0.0.0.0/8", "of this network"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "of a carrier-grade NAT"),
    ("127.0.0.0/8", "loopback"),
    ("168.63.129.16/32", "a cloud metadata service"),
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "reserved"),
    ("192.0.2.0/24", "for documentation"),
    ("192.31.196.0/24", "reserved"),
    ("192.52.193.0/24", "reserved"),
    ("192.88.99.0/24", "a 6to4 relay"),
    ("192.168.0.0/16", "private"),
    ("192.175.48.0/24", "reserved"),
    ("198.18.0.0/15", "for benchmarks"),
    ("198.51.100.0/24", "for documentation"),
    ("203.0.113.0/24", "for documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
];

/// Only global unicast (2000::/3) can be public; within it these are not.
const FORBIDDEN_V6: [(&str, &str); 6] = [
    ("2001::/23", "of a special purpose, such as Teredo"),
    ("2001:db8::/32", "for documentation"),
    ("2002::/16", "6to4, which embeds an IPv4 address"),
    ("2620:4f:8000::/48", "reserved"),
    ("3fff::/20", "for documentation"),
    ("3ffe::/16", "of the former 6bone"),
];

fn forbidden_v4(address: Ipv4Addr) -> Option<&'static str> {
    FORBIDDEN_V4.iter().find_map(|(net, why)| {
        let net: Ipv4Net = net.parse().expect("the table holds networks");
        net.contains(&address).then_some(*why)
    })
}

fn forbidden_v6(address: Ipv6Addr) -> Option<&'static str> {
    // Every form that embeds an IPv4 address is forbidden as a whole: there is no honest use of one.
    let global: Ipv6Net = "2000::/3".parse().expect("a network");
    if !global.contains(&address) {
        return Some("not global unicast (loopback, private, link-local, mapped or reserved)");
    }
    let segments = address.segments();
    if matches!(segments[4] & !0x0200, 0) && segments[5] == 0x5efe {
        return Some("ISATAP, which embeds an IPv4 address");
    }
    FORBIDDEN_V6.iter().find_map(|(net, why)| {
        let net: Ipv6Net = net.parse().expect("the table holds networks");
        net.contains(&address).then_some(*why)
    })
}
