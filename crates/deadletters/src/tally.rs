//! Counts dead letters by reason and tenant, for metrics whose labels are bounded.

use std::collections::BTreeMap;

use fanfare_journal::LetterGroup;
use fanfare_model::{TenantId, Timestamp};

/// How many tenants have a label of their own: those with the most dead letters. The others share one.
const MOST_TENANTS: usize = 20;

/// The label of all other tenants. No tenant can have this name.
const OTHERS: &str = "(other)";

/// How many there are, and since when the oldest of them rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) count: u64,
    pub(crate) oldest: Timestamp,
}

/// Dead letters by reason and tenant, from groups by these two, with the tenants that have few of them put
/// together.
pub(crate) fn bounded(groups: &[LetterGroup]) -> BTreeMap<(String, String), Sum> {
    let name = |group: &LetterGroup| group.tenant.as_ref().map(TenantId::to_string);
    let mut by_tenant: BTreeMap<Option<String>, u64> = BTreeMap::new();
    for group in groups {
        *by_tenant.entry(name(group)).or_default() += group.count;
    }
    let mut tenants: Vec<_> = by_tenant.into_iter().collect();
    tenants.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    tenants.truncate(MOST_TENANTS);

    let mut bounded: BTreeMap<(String, String), Sum> = BTreeMap::new();
    for group in groups {
        let named = tenants.iter().find(|(tenant, _)| *tenant == name(group));
        let label = named.and_then(|(tenant, _)| tenant.clone());
        let reason = group.reason.clone().unwrap_or_default();
        let key = (reason, label.unwrap_or_else(|| OTHERS.to_owned()));
        let sum = bounded.entry(key).or_insert(Sum {
            count: 0,
            oldest: group.oldest,
        });
        sum.count += group.count;
        sum.oldest = sum.oldest.min(group.oldest);
    }
    bounded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_beyond_the_largest_twenty_share_a_label() {
        let groups = (0..30_u32).map(|tenant| {
            let oldest = Timestamp::from_second(100 + i64::from(tenant)).unwrap();
            LetterGroup {
                tenant: format!("t{tenant:02}").parse().ok(),
                endpoint: None,
                event_type: None,
                reason: Some("exhausted".to_owned()),
                age: None,
                count: u64::from(tenant) + 1,
                oldest,
                newest: oldest,
            }
        });
        let bounded = bounded(&groups.collect::<Vec<_>>());
        assert_eq!(bounded.len(), MOST_TENANTS + 1);
        let key = |tenant: &str| ("exhausted".to_owned(), tenant.to_owned());
        let others = bounded[&key(OTHERS)];
        // The ten smallest have 1 + 2 + … + 10.
        assert_eq!(others.count, 55);
        assert_eq!(Some(others.oldest), Timestamp::from_second(100).ok());
        assert_eq!(bounded[&key("t29")].count, 30);
    }
}
