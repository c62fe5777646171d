//! Keys that callers of the API show. Only their SHA-256 is stored.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use fanfare_model::Secret;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Names an API key without telling it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ApiKeyId(pub(crate) Uuid);

impl fmt::Display for ApiKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key_{}", self.0.simple())
    }
}

impl fmt::Debug for ApiKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An API key that was just made.
#[derive(Debug)]
pub struct NewApiKey {
    /// Its public name.
    pub id: ApiKeyId,
    /// The key itself, to be shown once: nobody can read it back.
    pub key: Secret,
}

/// An API key that somebody showed and that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its public name.
    pub id: ApiKeyId,
    /// What its maker called it.
    pub name: String,
}

/// 256 random bits behind a prefix that secret scanners can look for.
pub(crate) fn generate() -> Secret {
    let bytes: [u8; 32] = rand::random();
    Secret::new(format!("ffk_{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// What is stored of a key, and what it is found by.
///
/// A key of 256 random bits needs no slow hash. Finding it by its hash tells nothing by how long it
/// takes: whoever probes cannot choose the hash of what they send.
pub(crate) fn digest(key: &str) -> Vec<u8> {
    Sha256::digest(key.as_bytes()).to_vec()
}
