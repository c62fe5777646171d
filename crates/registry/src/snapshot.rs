//! The whole registry at one version, compiled for lookups.

use std::{collections::HashMap, sync::Arc};

use fanfare_model::{Endpoint, EndpointId, EventType, EventTypePattern, TenantId};
use smallvec::SmallVec;

/// Every endpoint at one version of the registry. Immutable.
///
/// Paused and disabled endpoints are in it and match: what becomes of their deliveries is decided
/// when they are handled, not when they are routed.
#[derive(Debug, Default)]
pub struct Snapshot {
    version: u64,
    endpoints: HashMap<EndpointId, Arc<Endpoint>>,
    tenants: HashMap<TenantId, Wants>,
}

/// Who in a tenant wants what.
///
/// Invariant: no two entries of one endpoint match the same event type.
#[derive(Debug, Default)]
struct Wants {
    any: Endpoints,
    /// By prefix, ending in its dot.
    families: HashMap<Box<str>, Endpoints>,
    exact: HashMap<EventType, Endpoints>,
}

/// Often a single one.
type Endpoints = SmallVec<[Arc<Endpoint>; 1]>;

impl Snapshot {
    /// Compiles the endpoints that the registry held at `version`.
    pub fn new(version: u64, endpoints: Vec<Endpoint>) -> Self {
        let mut snapshot = Self::default();
        for endpoint in endpoints {
            snapshot.add(Arc::new(endpoint));
        }
        snapshot.at(version)
    }

    /// Adds an endpoint that is not in it.
    pub(crate) fn add(&mut self, endpoint: Arc<Endpoint>) {
        let wants = self.tenants.entry(endpoint.tenant.clone()).or_default();
        wants.add(&endpoint);
        self.endpoints.insert(endpoint.id, endpoint);
    }

    /// It is complete, and shows this version.
    pub(crate) fn at(self, version: u64) -> Self {
        Self { version, ..self }
    }

    /// The version of the registry that it shows.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The number of endpoints.
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Whether nothing is registered at all.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// The endpoint with this id.
    pub fn endpoint(&self, id: EndpointId) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(&id)
    }

    /// Every endpoint, in no order.
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.values()
    }

    /// How many endpoints were set aside because what is stored of them is damaged.
    pub fn damaged(&self) -> usize {
        let endpoints = self.endpoints.values();
        endpoints.filter(|one| one.state.is_damaged()).count()
    }

    /// The endpoints of a tenant that want this type of event, each once.
    ///
    /// The work depends on how many match, not on how many there are.
    pub fn matching<'a>(
        &'a self,
        tenant: &TenantId,
        event_type: &'a EventType,
    ) -> impl Iterator<Item = &'a Arc<Endpoint>> {
        self.tenants
            .get(tenant)
            .into_iter()
            .flat_map(move |wants| wants.matching(event_type))
    }
}

impl Wants {
    fn add(&mut self, endpoint: &Arc<Endpoint>) {
        for pattern in without_covered(&endpoint.event_types) {
            let wanting = match pattern {
                EventTypePattern::Any => &mut self.any,
                EventTypePattern::Family(prefix) => {
                    self.families.entry(prefix.clone()).or_default()
                }
                EventTypePattern::Exact(exact) => self.exact.entry(exact.clone()).or_default(),
            };
            wanting.push(Arc::clone(endpoint));
        }
    }

    fn matching<'a>(
        &'a self,
        event_type: &'a EventType,
    ) -> impl Iterator<Item = &'a Arc<Endpoint>> {
        let text = event_type.as_str();
        let families = text
            .match_indices('.')
            .filter_map(move |(dot, _)| self.families.get(&text[..=dot]));
        let exact = self.exact.get(event_type);
        self.any.iter().chain(families.chain(exact).flatten())
    }
}

/// The patterns that want something that no other pattern of the same endpoint wants.
fn without_covered(patterns: &[EventTypePattern]) -> impl Iterator<Item = &EventTypePattern> {
    patterns
        .iter()
        .enumerate()
        .filter(|(n, pattern)| {
            !patterns.iter().enumerate().any(|(other_n, other)| {
                // Of equal patterns the first one stays.
                covers(other, pattern) && (other != *pattern || other_n < *n)
            })
        })
        .map(|(_, pattern)| pattern)
}

/// Whether `wide` wants everything that `narrow` wants.
fn covers(wide: &EventTypePattern, narrow: &EventTypePattern) -> bool {
    match (wide, narrow) {
        (EventTypePattern::Any, _) => true,
        (EventTypePattern::Family(wide), EventTypePattern::Family(narrow)) => {
            narrow.starts_with(&**wide)
        }
        (_, EventTypePattern::Exact(narrow)) => wide.matches(narrow),
        (EventTypePattern::Family(_) | EventTypePattern::Exact(_), EventTypePattern::Any)
        | (EventTypePattern::Exact(_), EventTypePattern::Family(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use fanfare_model::Timestamp;
    use proptest::{collection::vec, prelude::*};
    use uuid::Uuid;

    use super::*;
    use crate::NewEndpoint;

    fn endpoint((n, (tenant, patterns)): (usize, (String, Vec<String>))) -> Endpoint {
        let patterns = patterns.iter().map(|pattern| pattern.parse().unwrap());
        let new = NewEndpoint::new(
            tenant.parse().unwrap(),
            "https://example.com/".parse().unwrap(),
            patterns.collect(),
        );
        let id = EndpointId::from_uuid(Uuid::from_u128(n as u128));
        new.registered(id, Timestamp::UNIX_EPOCH)
    }

    proptest! {
        #[test]
        fn a_snapshot_matches_what_the_patterns_match_each_once(
            endpoints in vec(("[xy]", vec(r"\*|[ab](\.[ab]){0,3}(\.\*)?", 1..6)), 0..20),
            tenant in "[xyz]",
            event_type in r"[ab](\.[ab]){0,4}",
        ) {
            let tenant: TenantId = tenant.parse().unwrap();
            let event_type: EventType = event_type.parse().unwrap();
            let endpoints: Vec<_> = endpoints.into_iter().enumerate().map(endpoint).collect();
            let naive: Vec<_> = endpoints
                .iter()
                .filter(|endpoint| endpoint.tenant == tenant && endpoint.wants(&event_type))
                .map(|endpoint| endpoint.id)
                .collect();

            let snapshot = Snapshot::new(7, endpoints.clone());
            let matching = snapshot.matching(&tenant, &event_type);
            let mut found: Vec<_> = matching.map(|endpoint| endpoint.id).collect();
            found.sort();
            prop_assert_eq!(found, naive);

            prop_assert_eq!((snapshot.version(), snapshot.len()), (7, endpoints.len()));
            for endpoint in &endpoints {
                prop_assert_eq!(&**snapshot.endpoint(endpoint.id).unwrap(), endpoint);
            }
        }
    }
}
