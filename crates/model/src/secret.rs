//! Values that must never be shown: they print `[redacted]` and are wiped when dropped.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::Deserialize;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A secret text: a password, a key, a URL that holds one.
#[derive(Clone, Deserialize)]
#[serde(from = "String")]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Hides a text.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself, for the one place that has to use it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Secret {}

/// A secret that signs an endpoint's requests.
///
/// Source of the first two: Standard Webhooks specification, section "Signature scheme".
#[derive(Clone)]
pub enum SigningSecret {
    /// A key that the receiver has too: 24 to 64 bytes, shown as `whsec_` and base64.
    Shared(SharedKey),
    /// A private key, whose public half the receiver has: shown as `whsk_` and base64.
    Private(PrivateKey),
    /// A text that is a key as it stands: what other senders call a secret.
    Text(TextKey),
}

/// 24 to 64 bytes.
#[derive(Clone)]
pub struct SharedKey(Zeroizing<Vec<u8>>);

/// The seed of an ed25519 key pair.
#[derive(Clone)]
pub struct PrivateKey(Zeroizing<[u8; 32]>);

/// 16 to 256 visible ASCII characters and spaces.
#[derive(Clone)]
pub struct TextKey(Zeroizing<String>);

/// Why a text is not a signing secret. Never holds the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSigningSecret {
    /// It is none of Standard Webhooks.
    #[error(
        "a signing secret is `whsec_` followed by the base64 of 24 to 64 bytes, or `whsk_` followed by the \
         base64 of an ed25519 key: 32 bytes, or those and its 32 public ones"
    )]
    Standard,
    /// It cannot be a key as it stands.
    #[error(
        "a secret for a signature in a header of its own is 16 to 256 visible ASCII characters and spaces"
    )]
    Text,
}

const TEXT_LENGTHS: std::ops::RangeInclusive<usize> = 16..=256;

impl SigningSecret {
    /// A shared secret from its bytes.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, InvalidSigningSecret> {
        if (24..=64).contains(&bytes.len()) {
            Ok(Self::Shared(SharedKey(Zeroizing::new(bytes))))
        } else {
            Err(InvalidSigningSecret::Standard)
        }
    }

    /// A secret that is a key as it stands.
    pub fn from_text(text: &str) -> Result<Self, InvalidSigningSecret> {
        let fits = TEXT_LENGTHS.contains(&text.len())
            && text.bytes().all(|b| (0x20..0x7f).contains(&b))
            && text.trim() == text;
        if fits {
            Ok(Self::Text(TextKey(Zeroizing::new(text.to_owned()))))
        } else {
            Err(InvalidSigningSecret::Text)
        }
    }

    /// A new shared secret of 256 random bits.
    pub fn generate() -> Self {
        let bytes: [u8; 32] = rand::random();
        Self::Shared(SharedKey(Zeroizing::new(bytes.to_vec())))
    }

    /// A new ed25519 key pair.
    pub fn generate_private() -> Self {
        Self::Private(PrivateKey(Zeroizing::new(rand::random())))
    }

    /// A new text of 256 random bits.
    pub fn generate_text() -> Self {
        let bytes: [u8; 32] = rand::random();
        let text = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Self::Text(TextKey(Zeroizing::new(text)))
    }

    /// A new one of the same kind.
    #[must_use]
    pub fn generate_alike(&self) -> Self {
        match self {
            Self::Shared(_) => Self::generate(),
            Self::Private(_) => Self::generate_private(),
            Self::Text(_) => Self::generate_text(),
        }
    }

    /// The key bytes. Of a private key, its seed.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Shared(SharedKey(bytes)) => bytes,
            Self::Private(PrivateKey(seed)) => &**seed,
            Self::Text(TextKey(text)) => text.as_bytes(),
        }
    }

    /// The form that its owner knows it by, to be shown once.
    pub fn reveal(&self) -> String {
        match self {
            Self::Shared(SharedKey(bytes)) => format!("whsec_{}", STANDARD.encode(&**bytes)),
            Self::Private(key) => {
                let pair = Zeroizing::new(key.signing_key().to_keypair_bytes());
                format!("whsk_{}", STANDARD.encode(pair.as_slice()))
            }
            Self::Text(TextKey(text)) => text.to_string(),
        }
    }

    /// What a receiver verifies with: the public half of a private key, else the secret itself.
    pub fn public_key(&self) -> Option<PublicKey> {
        match self {
            Self::Private(key) => Some(PublicKey(key.signing_key().verifying_key())),
            Self::Shared(_) | Self::Text(_) => None,
        }
    }
}

impl PrivateKey {
    pub(crate) fn signing_key(&self) -> SigningKey {
        SigningKey::from_bytes(&self.0)
    }
}

impl FromStr for SigningSecret {
    type Err = InvalidSigningSecret;

    /// Reads a secret of Standard Webhooks; [`SigningSecret::from_text`] takes any other.
    fn from_str(text: &str) -> Result<Self, InvalidSigningSecret> {
        const INVALID: InvalidSigningSecret = InvalidSigningSecret::Standard;
        if let Some(encoded) = text.strip_prefix("whsk_") {
            let bytes = Zeroizing::new(STANDARD.decode(encoded).map_err(|_| INVALID)?);
            let (seed, public) = bytes.split_first_chunk::<32>().ok_or(INVALID)?;
            let key = PrivateKey(Zeroizing::new(*seed));
            let belongs =
                public.is_empty() || public == key.signing_key().verifying_key().as_bytes();
            return if belongs {
                Ok(Self::Private(key))
            } else {
                Err(INVALID)
            };
        }
        let encoded = text.strip_prefix("whsec_").ok_or(INVALID)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| INVALID)?;
        Self::from_bytes(bytes)
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl PartialEq for SigningSecret {
    fn eq(&self, other: &Self) -> bool {
        let same_kind = std::mem::discriminant(self) == std::mem::discriminant(other);
        same_kind && bool::from(self.as_bytes().ct_eq(other.as_bytes()))
    }
}

impl Eq for SigningSecret {}

/// The public half of an ed25519 key pair, shown as `whpk_` and base64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(pub(crate) VerifyingKey);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "whpk_{}", STANDARD.encode(self.0.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_never_print_themselves() {
        for secret in [SigningSecret::generate(), SigningSecret::generate_private()] {
            assert_eq!(format!("{secret:?}"), "[redacted]");
            assert_eq!(secret.reveal().parse(), Ok(secret));
        }
        let text = SigningSecret::generate_text();
        assert_eq!(format!("{text:?}"), "[redacted]");
        assert_eq!(SigningSecret::from_text(&text.reveal()), Ok(text));
        assert_eq!(format!("{:?}", Secret::new("x".into())), "[redacted]");
    }

    #[test]
    fn weak_or_malformed_secrets_are_refused() {
        let short = format!("whsec_{}", STANDARD.encode([0; 23]));
        let long = format!("whsec_{}", STANDARD.encode([0; 65]));
        let half = format!("whsk_{}", STANDARD.encode([1; 31]));
        let mismatched = format!("whsk_{}", STANDARD.encode([1; 64]));
        for bad in [
            "",
            "whsec_",
            "whsec_***",
            "whsk_",
            &short,
            &long,
            &half,
            &mismatched,
            &STANDARD.encode([0; 32]),
        ] {
            assert!(bad.parse::<SigningSecret>().is_err(), "{bad}");
        }
        for bad in [
            "",
            "fifteen-letters",
            "fifteen-letters ",
            "sechzehn-Zeichen-ä",
            &"x".repeat(257),
        ] {
            assert!(SigningSecret::from_text(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_private_key_is_read_with_and_without_its_public_half() {
        let secret: SigningSecret = format!("whsk_{}", STANDARD.encode([7; 32]))
            .parse()
            .unwrap();
        assert_eq!(secret.reveal().parse(), Ok(secret.clone()));
        let public = secret.public_key().unwrap().to_string();
        assert!(public.starts_with("whpk_"));
        assert_ne!(secret, SigningSecret::from_bytes(vec![7; 32]).unwrap());
        assert_eq!(SigningSecret::generate().public_key(), None);
    }
}
