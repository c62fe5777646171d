//! Reads from a client's error what became of the request.

use std::{error::Error, io, iter};

use fanfare_model::{BlockedAddress, Outcome, TargetUrl};

/// The longest detail, in characters: it travels in headers and logs.
const LONGEST_DETAIL: usize = 200;

/// The outcome that a failed request stands for.
///
/// A connection that was not made in time is `NotConnected`, not `TimedOut`: a slow network and a slow
/// receiver want different remedies, and only the latter may have begun to work on the request.
pub(super) fn outcome_of(error: &reqwest::Error, target: &TargetUrl) -> Outcome {
    let blocked = causes(error).find_map(|cause| cause.downcast_ref::<BlockedAddress>());
    if let Some(blocked) = blocked {
        let host = target.url().host_str().unwrap_or_default();
        return Outcome::Blocked {
            detail: format!("host `{host}`: {blocked}"),
        };
    }
    let detail = detail(error);
    if error.is_builder() {
        Outcome::Unbuildable { detail }
    } else if error.is_dns() {
        Outcome::NameNotResolved { detail }
    } else if causes(error).any(is_of_tls) {
        Outcome::TlsFailed { detail }
    } else if error.is_connect() && error.is_timeout() {
        Outcome::NotConnected {
            detail: "no connection in time".to_owned(),
        }
    } else {
        Outcome::NotConnected { detail }
    }
}

/// Whether a cause is of TLS. A receiver that misses a certificate says so only after the client's handshake is
/// over, and then HTTP/2 keeps of the fault no more than its kind and its text. Of what a connection is read
/// through, TLS alone makes faults of this kind.
fn is_of_tls(cause: &(dyn Error + 'static)) -> bool {
    let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
    cause.is::<rustls::Error>() || kind == Some(io::ErrorKind::InvalidData)
}

/// The innermost cause. The outer ones only say that a request failed, and the outermost names the URL,
/// whose query may hold a credential.
fn detail(error: &reqwest::Error) -> String {
    let cause = causes(error).last();
    let text = cause.map_or_else(|| "the request failed".to_owned(), ToString::to_string);
    // Some of it may be the receiver's own words.
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LONGEST_DETAIL)
        .collect()
}

/// What is below the error itself, from the outside in.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    iter::successors(error.source(), |&cause| {
        match cause.downcast_ref::<io::Error>() {
            // Its `source` is the source of what it wraps, and would skip the wrapped error.
            Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            None => cause.source(),
        }
    })
}
