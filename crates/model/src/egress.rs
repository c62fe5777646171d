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
/// Invariant: http or https, a host, no user information, no fragment, at most 2,000 bytes as parsed.
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
    #[error("the URL is too long: accepted are up to 2,000 bytes, percent-encoded")]
    TooLong,
    /// A fragment, which is never sent.
    #[error("a fragment (`#…`) is never sent: remove it")]
    Fragment,
    /// Characters that a URL does not hold, or a backslash: parsers disagree about them.
    #[error(
        "control characters, spaces and backslashes are not accepted in a URL: percent-encode them"
    )]
    Characters,
}

const LONGEST_URL: usize = 2000;

impl FromStr for TargetUrl {
    type Err = TargetUrlError;

    fn from_str(text: &str) -> Result<Self, TargetUrlError> {
        if text.len() > LONGEST_URL {
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
        let authority = authority(text).ok_or(TargetUrlError::Malformed)?;
        // An empty user name (`http://@host/`) leaves no trace in the parsed URL.
        if authority.contains('@') || !url.username().is_empty() || url.password().is_some() {
            return Err(TargetUrlError::UserInformation);
        }
        if url.fragment().is_some() {
            return Err(TargetUrlError::Fragment);
        }
        if url.host().is_none() {
            return Err(TargetUrlError::Malformed);
        }
        // Parsing percent-encodes, so what is written down may be longer than what was read.
        if url.as_str().len() > LONGEST_URL {
            return Err(TargetUrlError::TooLong);
        }
        Ok(Self(url))
    }
}

/// What stands between exactly two slashes and the path. The URL standard also takes one slash, or
/// many, but other parsers find another host there.
fn authority(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once(':')?;
    let authority = rest.strip_prefix("//")?.split(['/', '?', '#']).next()?;
    (!authority.is_empty()).then_some(authority)
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
#[error(
    "address {address} is {why}: accepted are public addresses and the operator's allowed networks"
)]
pub struct BlockedAddress {
    /// The address as it was given.
    pub address: IpAddr,
    /// What kind of address it is.
    pub why: &'static str,
}

/// A URL whose text alone shows that it must not be dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockedTarget {
    /// The host is a forbidden address.
    #[error(transparent)]
    Address(#[from] BlockedAddress),
    /// The host is a name that is local to the sender.
    #[error("host `{0}` is local to the sender: accepted are names of public hosts")]
    Name(String),
    /// The port belongs to a protocol that is not HTTP.
    #[error(
        "port {0} belongs to another protocol than HTTP: use 443, 80, or a free one above 1023"
    )]
    Port(u16),
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
        if self.allows(address) {
            return Ok(());
        }
        let why = match address {
            IpAddr::V4(v4) => forbidden_v4(v4),
            IpAddr::V6(v6) => forbidden_v6(v6),
        };
        why.map_or(Ok(()), |why| Err(BlockedAddress { address, why }))
    }

    /// Judges a URL by what its text tells: its port, and an address or a local name as host.
    ///
    /// Every port of an allowed network is open. A name's port is judged without knowing its addresses.
    pub fn check_url(&self, target: &TargetUrl) -> Result<(), BlockedTarget> {
        match target.literal_address() {
            Some(address) if self.allows(address) => return Ok(()),
            Some(address) => self.check(address)?,
            None => self.check_name(target.url().host_str().unwrap_or_default())?,
        }
        match target.url().port() {
            Some(port) if FORBIDDEN_PORTS.contains(&port) => Err(BlockedTarget::Port(port)),
            Some(_) | None => Ok(()),
        }
    }

    fn check_name(&self, host: &str) -> Result<(), BlockedTarget> {
        // The URL parser has made it lower case.
        let name = host.trim_end_matches('.');
        // RFC 6761, section 6.3: always loopback, whatever a resolver says.
        let loopback = name == "localhost" || name.ends_with(".localhost");
        let blocked = (loopback && !self.allows(IpAddr::V4(Ipv4Addr::LOCALHOST)))
            || name == "metadata.google.internal";
        if blocked {
            return Err(BlockedTarget::Name(host.to_owned()));
        }
        Ok(())
    }

    fn allows(&self, address: IpAddr) -> bool {
        self.allow_networks.iter().any(|net| net.contains(&address))
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(a: u16, b: u16, c: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix)
}

/// Sources: the IANA IPv4 special-purpose registry, and the metadata addresses of cloud providers.
const FORBIDDEN_V4: [(Ipv4Net, &str); 19] = [
    (v4(0, 0, 0, 0, 8), "of this network"),
    (v4(10, 0, 0, 0, 8), "private"),
    (v4(100, 64, 0, 0, 10), "of a carrier-grade NAT"),
    (v4(127, 0, 0, 0, 8), "loopback"),
    (v4(168, 63, 129, 16, 32), "a cloud metadata service"),
    (v4(169, 254, 0, 0, 16), "link-local"),
    (v4(172, 16, 0, 0, 12), "private"),
    (v4(192, 0, 0, 0, 24), "reserved"),
    (v4(192, 0, 2, 0, 24), "for documentation"),
    (v4(192, 31, 196, 0, 24), "reserved"),
    (v4(192, 52, 193, 0, 24), "reserved"),
    (v4(192, 88, 99, 0, 24), "a 6to4 relay"),
    (v4(192, 168, 0, 0, 16), "private"),
    (v4(192, 175, 48, 0, 24), "reserved"),
    (v4(198, 18, 0, 0, 15), "for benchmarks"),
    (v4(198, 51, 100, 0, 24), "for documentation"),
    (v4(203, 0, 113, 0, 24), "for documentation"),
    (v4(224, 0, 0, 0, 4), "multicast"),
    (v4(240, 0, 0, 0, 4), "reserved"),
];

/// Only these can be public (IANA IPv6 address space registry).
const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 0, 3);

/// What is not public within them (IANA IPv6 special-purpose registry).
const FORBIDDEN_V6: [(Ipv6Net, &str); 6] = [
    (v6(0x2001, 0, 0, 23), "of a special purpose, such as Teredo"),
    (v6(0x2001, 0xdb8, 0, 32), "for documentation"),
    (v6(0x2002, 0, 0, 16), "6to4, which embeds an IPv4 address"),
    (v6(0x2620, 0x4f, 0x8000, 48), "reserved"),
    (v6(0x3fff, 0, 0, 20), "for documentation"),
    (v6(0x3ffe, 0, 0, 16), "of the former 6bone"),
];

/// Ports on which a POST could speak to something that is no web server.
///
/// The first rows are the "bad ports" of the Fetch standard (section "Port blocking"); the last two
/// are file shares, data stores, brokers and orchestrators that operators run beside Fanfare.
#[rustfmt::skip]
const FORBIDDEN_PORTS: &[u16] = &[
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102,
    103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465,
    512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993,
    995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668,
    6669, 6679, 6697, 10080,
    445, 1433, 1521, 2181, 2375, 2376, 2379, 2380, 3306, 3389, 4369, 5432, 5671, 5672, 6379, 9042,
    9092, 9200, 9300, 10250, 11211, 15671, 15672, 25672, 27017,
];

fn forbidden_v4(address: Ipv4Addr) -> Option<&'static str> {
    FORBIDDEN_V4
        .iter()
        .find_map(|(net, why)| net.contains(&address).then_some(*why))
}

fn forbidden_v6(address: Ipv6Addr) -> Option<&'static str> {
    // Every known form that embeds an IPv4 address is forbidden as a whole: there is no honest use of one.
    if !GLOBAL_V6.contains(&address) {
        return Some("not global unicast (loopback, private, link-local, mapped or reserved)");
    }
    let segments = address.segments();
    if segments[4] & !0x0200 == 0 && segments[5] == 0x5efe {
        return Some("ISATAP, which embeds an IPv4 address");
    }
    FORBIDDEN_V6
        .iter()
        .find_map(|(net, why)| net.contains(&address).then_some(*why))
}

#[cfg(test)]
mod tests;
