//! The arguments of `fanfare listen`.

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr, time::Duration};

use fanfare_model::{Secret, SignatureScheme};
use url::{Host, Url};

use super::{duration, endpoints::secret};

/// Arguments of `fanfare listen`.
#[derive(Debug, Clone, clap::Args)]
pub struct ListenArgs {
    /// The address to listen at
    #[arg(long, default_value = "127.0.0.1")]
    pub address: IpAddr,
    /// The port to listen at; 0 for a free one
    #[arg(long, default_value_t = 8787)]
    pub port: u16,
    /// The endpoint's signing secret; without it nothing is verified
    #[arg(long, value_name = "SECRET", value_parser = secret)]
    pub secret: Option<Secret>,
    /// How requests are signed: `standard`, `github`, `shopify`, `stripe`, `referralhero` or
    /// `custom(header=X-Signature,prefix=sha256=,encoding=hex,timestamp=none)`
    #[arg(long, default_value = "standard")]
    pub signature: SignatureScheme,
    /// The status to answer with
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(200..=599))]
    pub status: u16,
    /// How long to wait before answering, such as `2s`
    #[arg(long, default_value = "0s", value_parser = duration)]
    pub delay: Duration,
    /// Hand each request on to a receiver on this machine, a port or a URL, and answer what it answers
    #[arg(long, value_name = "PORT|URL", conflicts_with = "status")]
    pub forward: Option<LocalUrl>,
    /// How many of the requests to fail, such as `30%`
    #[arg(long, value_name = "SHARE", default_value = "0%")]
    pub fail_rate: Share,
    /// The status of those that fail
    #[arg(long, default_value_t = 503, value_parser = clap::value_parser!(u16).range(200..=599))]
    pub fail_status: u16,
    /// How many attempts of each delivery to fail before one may succeed
    #[arg(long, value_name = "ATTEMPTS", default_value_t = 0)]
    pub fail_first: u32,
    /// How many of the requests to leave without an answer, such as `5%`
    #[arg(long, value_name = "SHARE", default_value = "0%")]
    pub hang_rate: Share,
    /// Append each request to this file, as a line of JSON
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Instead of listening, send what was recorded to `--forward`; with `--secret` it is signed anew
    #[arg(
        long,
        value_name = "FILE",
        requires = "forward",
        conflicts_with = "record"
    )]
    pub replay: Option<PathBuf>,
}

/// A part of the whole, from 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Share(f64);

impl Share {
    /// The part as a number from 0 to 1.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl FromStr for Share {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, whole) = match text.strip_suffix('%') {
            Some(number) => (number, 100.0),
            None => (text, 1.0),
        };
        let share = number.trim().parse::<f64>().ok().map(|n| n / whole);
        let share = share.filter(|share| (0.0..=1.0).contains(share));
        share
            .map(Self)
            .ok_or("accepted is a share such as `30%` or `0.3`")
    }
}

/// The URL of a receiver on this machine.
///
/// Invariant: plain HTTP to a loopback address, without user and password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalUrl(Url);

impl LocalUrl {
    /// The URL; its host is an address.
    pub fn url(&self) -> &Url {
        &self.0
    }
}

impl FromStr for LocalUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected =
            "accepted is a port of this machine, or a URL such as http://127.0.0.1:3000/hooks";
        if let Ok(port) = text.parse::<u16>() {
            let url = Url::parse(&format!("http://127.0.0.1:{port}/"));
            return url.map(Self).map_err(|_| expected);
        }
        let mut url = Url::parse(text).map_err(|_| expected)?;
        let is_local = match url.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            // A name is not looked up: what it means here is known.
            Some(Host::Domain("localhost")) => url.set_host(Some("127.0.0.1")).is_ok(),
            Some(Host::Domain(_)) | None => false,
        };
        let is_bare = url.username().is_empty() && url.password().is_none();
        if is_local && is_bare && url.scheme() == "http" {
            Ok(Self(url))
        } else {
            Err(expected)
        }
    }
}

impl fmt::Display for LocalUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_percentage_or_a_fraction() {
        for (text, share) in [("0%", 0.0), ("30%", 0.3), ("100 %", 1.0), ("0.5", 0.5)] {
            assert_eq!(text.parse(), Ok(Share(share)), "{text}");
        }
        for text in ["", "%", "101%", "-1%", "1.1", "NaN", "half"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
    }

    #[test]
    fn requests_are_handed_on_to_this_machine_alone() {
        for (text, url) in [
            ("3000", "http://127.0.0.1:3000/"),
            ("http://localhost:3000/a?b", "http://127.0.0.1:3000/a?b"),
            ("http://127.1.2.3/", "http://127.1.2.3/"),
            ("http://[::1]:80/", "http://[::1]/"),
        ] {
            let parsed: LocalUrl = text.parse().unwrap();
            assert_eq!(parsed.to_string(), url, "{text}");
        }
        for text in [
            "",
            "70000",
            "example.com",
            "http://example.com/",
            "http://10.0.0.1/",
            "http://localhost.example.com/",
            "https://127.0.0.1/",
            "http://user@127.0.0.1/",
            "ftp://127.0.0.1/",
            "http://0.0.0.0/",
        ] {
            assert!(text.parse::<LocalUrl>().is_err(), "{text}");
        }
    }
}
