//! Lets in whoever shows a known API key.
//!
//! A verified key is remembered, so that the store is not asked with every request, and so that an
//! outage of the store does not stop events from being accepted.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::Response,
};
use fanfare_registry::Registry;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::{
    problem::{Code, Problem},
    run::Shared,
};

/// How long a verified key is believed without asking: also how long a revoked key may still work.
const FRESH: Duration = Duration::from_secs(30);
/// How long a verified key is believed while the store is away, which would otherwise stop publishing.
const BELIEVED_IN_OUTAGE: Duration = Duration::from_secs(300);
/// Only keys that exist are remembered, so this is reached by nobody who does not own that many.
const MOST_REMEMBERED: usize = 10_000;
/// What a key has at most; keys of ours are shorter.
const LONGEST_KEY: usize = 256;

/// Who made a request, as the audit log names them. Handlers find it in the request.
#[derive(Clone)]
pub(crate) struct Actor(pub(crate) Arc<str>);

/// Refuses requests without a known key.
pub(crate) async fn require_key(
    State(shared): State<Arc<Shared>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let Some(key) = presented(request.headers()) else {
        let detail = "send an API key as `Authorization: Bearer ffk_…`";
        return Err(Problem::at("Authorization", Code::Unauthorized, detail));
    };
    let actor = shared
        .keys
        .verify(&shared.api.registry, key, Instant::now())
        .await?;
    request.extensions_mut().insert(actor);
    Ok(next.run(request).await)
}

fn presented(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    let key = key.trim();
    let plausible = key.starts_with("ffk_") && key.len() <= LONGEST_KEY;
    (scheme.eq_ignore_ascii_case("bearer") && plausible).then_some(key)
}

/// The keys that were verified lately, by their hash.
#[derive(Default)]
pub(crate) struct KnownKeys(Mutex<HashMap<[u8; 32], Known>>);

#[derive(Clone)]
struct Known {
    actor: Actor,
    verified_at: Instant,
    /// When the store was asked last, whether it answered or not: one that is away is not asked by
    /// every request.
    asked_at: Instant,
}

impl KnownKeys {
    /// Whose key it is. The store being away is a problem only for keys not verified lately.
    async fn verify(&self, registry: &Registry, key: &str, now: Instant) -> Result<Actor, Problem> {
        let hash: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        let known = self.lock().get(&hash).cloned();
        if let Some(known) = &known
            && now.duration_since(known.asked_at) < FRESH
            && now.duration_since(known.verified_at) < BELIEVED_IN_OUTAGE
        {
            return Ok(known.actor.clone());
        }
        match (registry.verify_api_key(key).await, known) {
            (Ok(Some(key)), _) => {
                let actor = Actor(key.id.to_string().into());
                self.remember(hash, actor.clone(), now);
                Ok(actor)
            }
            (Ok(None), _) => {
                self.lock().remove(&hash);
                let detail = "the API key is not known";
                Err(Problem::at("Authorization", Code::Unauthorized, detail))
            }
            (Err(fault), Some(known))
                if now.duration_since(known.verified_at) < BELIEVED_IN_OUTAGE =>
            {
                let error = &fault as &dyn std::error::Error;
                tracing::warn!(error, "an API key is believed without asking the store");
                if let Some(entry) = self.lock().get_mut(&hash) {
                    entry.asked_at = now;
                }
                Ok(known.actor)
            }
            (Err(fault), _) => Err(Problem::from(fault)),
        }
    }

    fn remember(&self, hash: [u8; 32], actor: Actor, now: Instant) {
        let mut known = self.lock();
        if known.len() >= MOST_REMEMBERED {
            known.clear();
        }
        let entry = Known {
            actor,
            verified_at: now,
            asked_at: now,
        };
        known.insert(hash, entry);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Known>> {
        self.0
            .lock()
            .expect("nobody panics while holding the known keys")
    }
}

#[cfg(test)]
mod tests {
    use fanfare_model::{Secret, Timestamp};
    use fanfare_registry::Settings;

    use super::*;

    #[tokio::test]
    async fn a_key_verified_lately_outlives_the_store_for_five_minutes() {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            database: folder.path().join("fanfare.db").into(),
            encryption_key: Some(Secret::new("a".repeat(64))),
            ..Settings::default()
        };
        let registry = Registry::open(&settings).await.unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let used = registry.create_api_key("used", "tester", now).await;
        let unused = registry.create_api_key("unused", "tester", now).await;
        let (used, unused) = (used.unwrap().key, unused.unwrap().key);

        let keys = KnownKeys::default();
        let start = Instant::now();
        let verify = async |key: &Secret, seconds| {
            let at = start + Duration::from_secs(seconds);
            keys.verify(&registry, key.expose(), at).await.is_ok()
        };
        assert!(verify(&used, 0).await);
        assert!(!verify(&Secret::new("ffk_x".to_owned()), 0).await);

        registry.close().await;
        assert!(!verify(&unused, 1).await);
        for (seconds, believed) in [(29, true), (31, true), (299, true), (301, false)] {
            assert_eq!(verify(&used, seconds).await, believed, "{seconds}");
        }
    }
}
