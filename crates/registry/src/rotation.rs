//! What becomes of an endpoint's secrets when it gets a new one.

use std::time::Duration;

use fanfare_model::{Endpoint, RetiringSecret, Secret, Timestamp};

use crate::{InvalidEndpoint, NewEndpoint};

/// A new secret for an endpoint, and how long the present ones sign beside it.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// The new one as its owner wrote it; one of the same kind as the present one is made when absent.
    pub secret: Option<Secret>,
    /// How long the present ones sign beside it. Ones that are being replaced already sign no longer than that.
    pub overlap: Duration,
}

impl Default for Rotation {
    fn default() -> Self {
        let (secret, overlap) = (None, Self::DEFAULT_OVERLAP);
        Self { secret, overlap }
    }
}

impl Rotation {
    /// The overlap unless the caller says otherwise.
    pub const DEFAULT_OVERLAP: Duration = Duration::from_secs(24 * 3600);
    /// The longest overlap.
    pub const LONGEST_OVERLAP: Duration = Duration::from_secs(30 * 24 * 3600);

    /// What the endpoint is to be from `now` on.
    pub(crate) fn apply(
        &self,
        endpoint: Endpoint,
        now: Timestamp,
    ) -> Result<NewEndpoint, InvalidEndpoint> {
        if self.overlap > Self::LONGEST_OVERLAP {
            return Err(refused("overlap", "at most 30 days"));
        }
        let present = endpoint.secrets.first();
        let secret = match (&self.secret, present) {
            (Some(text), _) => {
                let read = endpoint.signature.read_secret(text.expose());
                read.map_err(|fault| refused("secret", &format!("one that fits: {fault}")))?
            }
            (None, Some(present)) => present.generate_alike(),
            (None, None) => endpoint.signature.generate_secret(),
        };
        if endpoint.secrets.contains(&secret) {
            return Err(refused("secret", "another than the present one"));
        }
        let until = now + self.overlap;
        let mut new = NewEndpoint::from(endpoint);
        let replaced = std::mem::replace(&mut new.secrets, vec![secret]);
        let replaced = replaced
            .into_iter()
            .map(|secret| RetiringSecret { secret, until });
        let older = new.retiring.into_iter().map(|old| RetiringSecret {
            until: old.until.min(until),
            ..old
        });
        let retiring = replaced.chain(older).filter(|old| old.until > now);
        new.retiring = retiring.collect();
        if new.retiring.len() >= NewEndpoint::MOST_SECRETS {
            let most = NewEndpoint::MOST_SECRETS;
            let expected =
                format!("zero, which ends the older ones: {most} secrets sign at once already");
            return Err(refused("overlap", &expected));
        }
        Ok(new)
    }
}

fn refused(field: &'static str, expected: &str) -> InvalidEndpoint {
    let expected = expected.to_owned();
    InvalidEndpoint { field, expected }
}

#[cfg(test)]
mod tests {
    use fanfare_model::SigningSecret;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn endpoint(secret: SigningSecret) -> Endpoint {
        let mut endpoint = Endpoint::for_tests(1, "t", "https://example.com/");
        endpoint.secrets = vec![secret];
        endpoint
    }

    fn rotated(endpoint: Endpoint, rotation: &Rotation, second: i64) -> Endpoint {
        let (id, state, created) = (endpoint.id, endpoint.state.clone(), endpoint.created_at);
        let new = rotation.apply(endpoint, at(second)).unwrap();
        new.of(id, state, created, at(second))
    }

    #[test]
    fn the_new_secret_is_of_the_present_kind_and_the_old_one_signs_beside_it_for_a_while() {
        for secret in [SigningSecret::generate(), SigningSecret::generate_private()] {
            let old = secret.clone();
            let rotation = Rotation {
                overlap: Duration::from_secs(100),
                ..Rotation::default()
            };
            let endpoint = rotated(endpoint(secret), &rotation, 1000);
            let new = endpoint.secrets[0].clone();
            assert_ne!(new, old);
            assert_eq!(new.public_key().is_some(), old.public_key().is_some());
            let signing = |second| -> Vec<_> { endpoint.signing_secrets(at(second)).collect() };
            assert_eq!(signing(1099), [&new, &old]);
            assert_eq!(signing(1100), [&new]);
        }
    }

    #[test]
    fn no_overlap_ends_everything_older_at_once() {
        let second = rotated(endpoint(SigningSecret::generate()), &Rotation::default(), 0);
        assert_eq!(second.retiring.len(), 1);
        let rotation = Rotation {
            overlap: Duration::ZERO,
            ..Rotation::default()
        };
        let third = rotated(second, &rotation, 10);
        assert_eq!((third.secrets.len(), third.retiring), (1, Vec::new()));
    }

    #[test]
    fn a_rotation_keeps_its_bounds() {
        let secret = |text: &str| Some(Secret::new(text.to_owned()));
        let present = SigningSecret::generate();
        let (day, long) = (
            Duration::from_secs(24 * 3600),
            Duration::from_secs(31 * 24 * 3600),
        );
        for (secret, overlap, field) in [
            (None, long, "overlap"),
            (secret("sixteen-letters!"), day, "secret"),
            (secret(&present.reveal()), day, "secret"),
        ] {
            let rotation = Rotation { secret, overlap };
            let refused = rotation
                .apply(endpoint(present.clone()), at(0))
                .unwrap_err();
            assert_eq!(refused.field, field, "{rotation:?}");
        }
        let mut busy = endpoint(present);
        for second in 1..NewEndpoint::MOST_SECRETS as i64 {
            busy = rotated(busy, &Rotation::default(), second);
        }
        let refused = Rotation::default().apply(busy.clone(), at(10));
        assert_eq!(refused.unwrap_err().field, "overlap");
        let expired = Rotation::default().apply(busy, at(200_000)).unwrap();
        assert_eq!(expired.retiring.len(), 1);
    }
}
