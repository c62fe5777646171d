//! Whether a request is genuine, by whichever way its sender signs.

use std::time::Duration;

use axum::http::HeaderMap;
use fanfare_model::{SignatureFault, SignatureScheme, SigningSecret, Timestamp, verify_standard};
use subtle::ConstantTimeEq as _;

use super::{Refusal, text};

/// How far a timestamp may be from now. The libraries of Standard Webhooks use the same.
pub(super) const TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// `Ok` means that whoever sent it knows the secret.
pub(super) fn verify(
    scheme: &SignatureScheme,
    secret: &SigningSecret,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<(), Refusal> {
    match scheme {
        SignatureScheme::Standard => {
            let id = text(headers, "webhook-id")?;
            let timestamp = text(headers, "webhook-timestamp")?;
            let signatures = text(headers, "webhook-signature")?;
            verify_standard(secret, (id, timestamp, signatures), body, now, TOLERANCE)?;
            Ok(())
        }
        SignatureScheme::Custom(_) => verify_custom(scheme, secret, headers, body, now),
    }
}

/// Signs as the sender must have signed, at the time that it says, and compares.
fn verify_custom(
    scheme: &SignatureScheme,
    secret: &SigningSecret,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<(), Refusal> {
    let mut names = scheme.headers();
    let name = names.next().unwrap_or_default();
    let given = text(headers, name)?;
    let claimed = match names.next() {
        Some(time) => Some(text(headers, time)?),
        None => given.split(',').find_map(|part| part.strip_prefix("t=")),
    };
    let signed_at = claimed.map(|seconds| signed_at(seconds, now)).transpose()?;
    let expected = scheme.sign([secret], "", signed_at.unwrap_or(now), body);
    let expected = expected.iter().find(|(header, _)| *header == name);
    let expected = expected.and_then(|(_, value)| value.rsplit(',').next());
    // Several signatures come while a secret is being replaced.
    let fits = expected.is_some_and(|expected| {
        let mut parts = given.split(',');
        parts.any(|part| part.as_bytes().ct_eq(expected.as_bytes()).into())
    });
    if fits {
        Ok(())
    } else {
        Err(SignatureFault::Mismatch.into())
    }
}

fn signed_at(seconds: &str, now: Timestamp) -> Result<Timestamp, Refusal> {
    let parsed = seconds.parse().ok();
    let moment = parsed.and_then(|seconds| Timestamp::from_second(seconds).ok());
    let moment = moment.ok_or(SignatureFault::Timestamp)?;
    if now.as_second().abs_diff(moment.as_second()) > TOLERANCE.as_secs() {
        return Err(SignatureFault::Stale(TOLERANCE).into());
    }
    Ok(moment)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    const BODY: &[u8] = b"{\"a\":1}";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn signed(scheme: &SignatureScheme, secrets: &[SigningSecret], moment: Timestamp) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let time = moment.as_second().to_string();
        let standard = [
            ("webhook-id", "msg_1".to_owned()),
            ("webhook-timestamp", time),
        ];
        let signature = scheme.sign(secrets, "msg_1", moment, BODY);
        for (name, value) in standard.into_iter().chain(signature) {
            let name: HeaderName = name.parse().unwrap();
            headers.insert(name, HeaderValue::from_str(&value).unwrap());
        }
        headers
    }

    #[test]
    fn every_way_to_sign_is_verified() {
        for (name, is_timed) in [
            ("standard", true),
            ("github", false),
            ("shopify", false),
            ("referralhero", false),
            ("stripe", true),
            ("custom(header=x-mine,timestamp=x-time)", true),
        ] {
            let scheme: SignatureScheme = name.parse().unwrap();
            let [secret, other] = [(); 2].map(|()| scheme.generate_secret());
            let verdict = |headers: &HeaderMap, body| {
                verify(&scheme, &secret, headers, body, at(1_700_000_000))
            };
            let now = at(1_700_000_000);
            let genuine = signed(&scheme, std::slice::from_ref(&secret), now);
            assert_eq!(verdict(&genuine, BODY), Ok(()), "{name}");
            let mismatch = Err(SignatureFault::Mismatch.into());
            assert_eq!(verdict(&genuine, b"{}"), mismatch, "{name}");
            let forged = signed(&scheme, std::slice::from_ref(&other), now);
            assert_eq!(verdict(&forged, BODY), mismatch, "{name}");
            let old = signed(&scheme, std::slice::from_ref(&secret), at(1_699_999_000));
            let is_stale = verdict(&old, BODY) == Err(SignatureFault::Stale(TOLERANCE).into());
            assert_eq!(is_stale, is_timed, "{name}");
            let missing = verdict(&HeaderMap::new(), BODY);
            assert!(matches!(missing, Err(Refusal::Header(_))), "{name}");
        }
    }

    #[test]
    fn one_of_several_signatures_is_enough() {
        for name in ["standard", "stripe"] {
            let scheme: SignatureScheme = name.parse().unwrap();
            let secrets = [(); 2].map(|()| scheme.generate_secret());
            let headers = signed(&scheme, &secrets, at(100));
            for secret in &secrets {
                let verdict = verify(&scheme, secret, &headers, BODY, at(100));
                assert_eq!(verdict, Ok(()), "{name}");
            }
        }
    }
}
