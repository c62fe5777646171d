//! Signatures of requests, made and checked.
//!
//! Source: Standard Webhooks specification, section "Signature scheme".

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signature, Signer as _};
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::{PublicKey, SigningSecret};

/// The value of `webhook-signature` for one attempt: a signature for each secret, separated by spaces; `v1`
/// of a shared secret, `v1a` of a private key.
///
/// `timestamp` is the start of this attempt, sent in whole seconds as `webhook-timestamp`.
pub fn sign_standard<'a>(
    secrets: impl IntoIterator<Item = &'a SigningSecret>,
    id: &str,
    timestamp: Timestamp,
    body: &[u8],
) -> String {
    let signed = |secret: &SigningSecret| match secret {
        SigningSecret::Private(key) => {
            let message = signed_message(id, timestamp.as_second(), body);
            let signature = key.signing_key().sign(&message);
            format!("v1a,{}", STANDARD.encode(signature.to_bytes()))
        }
        SigningSecret::Shared(_) | SigningSecret::Text(_) => {
            let code = authentication_code(secret, id, timestamp.as_second(), body);
            format!("v1,{}", STANDARD.encode(code))
        }
    };
    let signatures: Vec<String> = secrets.into_iter().map(signed).collect();
    signatures.join(" ")
}

/// Why a request is not accepted as genuine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureFault {
    /// The timestamp is no whole number of seconds.
    #[error("the webhook-timestamp is not a whole number of seconds")]
    Timestamp,
    /// The timestamp is too far from now, so the request may be a replay.
    #[error("the webhook-timestamp is more than {0:?} away from now")]
    Stale(Duration),
    /// No signature fits.
    #[error("no signature in webhook-signature fits the secret and the body")]
    Mismatch,
}

/// Checks the three headers of a request against its body.
///
/// `Ok` means that someone who knows the secret signed exactly this id, time and body, at most
/// `tolerance` from `now`.
pub fn verify_standard(
    secret: &SigningSecret,
    (id, timestamp, signatures): (&str, &str, &str),
    body: &[u8],
    now: Timestamp,
    tolerance: Duration,
) -> Result<(), SignatureFault> {
    let seconds: i64 = timestamp.parse().map_err(|_| SignatureFault::Timestamp)?;
    if now.as_second().abs_diff(seconds) > tolerance.as_secs() {
        return Err(SignatureFault::Stale(tolerance));
    }
    let given = |version: &str| {
        let of_version = signatures.split(' ').filter_map(|text| {
            let (name, encoded) = text.split_once(',')?;
            (name == version).then(|| STANDARD.decode(encoded).ok())?
        });
        of_version.collect::<Vec<_>>()
    };
    let fits = match secret.public_key() {
        Some(PublicKey(key)) => {
            let message = signed_message(id, seconds, body);
            let signatures = given("v1a").into_iter();
            signatures
                .filter_map(|bytes| Signature::from_slice(&bytes).ok())
                .any(|signature| key.verify_strict(&message, &signature).is_ok())
        }
        None => {
            let expected = authentication_code(secret, id, seconds, body);
            given("v1")
                .iter()
                .any(|given| bool::from(given.ct_eq(&expected)))
        }
    };
    if fits {
        Ok(())
    } else {
        Err(SignatureFault::Mismatch)
    }
}

/// What a private key signs: the same text that an authentication code is made of.
fn signed_message(id: &str, seconds: i64, body: &[u8]) -> Vec<u8> {
    [format!("{id}.{seconds}.").as_bytes(), body].concat()
}

fn authentication_code(secret: &SigningSecret, id: &str, seconds: i64, body: &[u8]) -> [u8; 32] {
    let seconds = seconds.to_string();
    hmac_sha256(
        secret,
        &[id.as_bytes(), b".", seconds.as_bytes(), b".", body],
    )
}

/// HMAC-SHA256 of the parts, one after the other.
pub(crate) fn hmac_sha256(secret: &SigningSecret, parts: &[&[u8]]) -> [u8; 32] {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOLERANCE: Duration = Duration::from_secs(300);

    #[test]
    fn the_specifications_example_is_reproduced() {
        let secret: SigningSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let timestamp = Timestamp::from_second(1_614_265_330).unwrap();
        let signature = sign_standard(
            [&secret],
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            timestamp,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn old_and_new_secret_both_verify_during_a_rotation() {
        let (old, new) = (SigningSecret::generate(), SigningSecret::generate_private());
        let now = Timestamp::from_second(1_000_000).unwrap();
        let header = sign_standard([&new, &old], "id", now, b"body");
        for secret in [&old, &new] {
            let headers = ("id", "1000000", header.as_str());
            assert_eq!(
                verify_standard(secret, headers, b"body", now, TOLERANCE),
                Ok(())
            );
        }
    }

    #[test]
    fn stale_and_malformed_timestamps_are_refused() {
        let secret = SigningSecret::generate();
        let now = Timestamp::from_second(1_000_000).unwrap();
        for (timestamp, fault) in [
            ("999699", SignatureFault::Stale(TOLERANCE)),
            ("1000301", SignatureFault::Stale(TOLERANCE)),
            ("soon", SignatureFault::Timestamp),
        ] {
            let headers = ("id", timestamp, "v1,AAAA");
            let verdict = verify_standard(&secret, headers, b"", now, TOLERANCE);
            assert_eq!(verdict, Err(fault));
        }
    }

    proptest! {
        #[test]
        fn a_signature_fits_only_its_secret_id_time_and_body(
            body in proptest::collection::vec(any::<u8>(), 0..200),
            id in "[a-z0-9_]{1,20}",
            second in 0..4_000_000_000_i64,
            change in 0..4_u8,
            private in any::<bool>(),
        ) {
            let secret = if private {
                SigningSecret::generate_private()
            } else {
                SigningSecret::generate()
            };
            let time = Timestamp::from_second(second).unwrap();
            let header = sign_standard([&secret], &id, time, &body);
            let text = second.to_string();
            let headers = (id.as_str(), text.as_str(), header.as_str());
            prop_assert_eq!(verify_standard(&secret, headers, &body, time, TOLERANCE), Ok(()));

            let (mut other_body, mut other_id, mut other_text) = (body, id, text);
            let mut other_secret = secret;
            match change {
                0 => other_body.push(0),
                1 => other_id.push('x'),
                2 => other_text = (second + 1).to_string(),
                _ => other_secret = if private {
                    SigningSecret::generate_private()
                } else {
                    SigningSecret::generate()
                },
            }
            let headers = (other_id.as_str(), other_text.as_str(), header.as_str());
            let verdict = verify_standard(&other_secret, headers, &other_body, time, TOLERANCE);
            prop_assert_eq!(verdict, Err(SignatureFault::Mismatch));
        }
    }
}
