//! Counts dead letters by reason and tenant, for metrics whose labels are bounded.

use std::collections::BTreeMap;

use fanfare_model::Timestamp;

use crate::Entry;

/// How many tenants have a label of their own: those with the most dead letters. The others share one.
const MOST_TENANTS: usize = 20;

/// The label of all other tenants. No tenant can have this name.
const OTHERS: &str = "(other)";

/// How many there are, and since when the oldest of them rests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) count: u64,
    pub(crate) oldest: Option<Timestamp>,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.oldest = [self.oldest, other.oldest].into_iter().flatten().min();
    }
}

/// Dead letters by reason and tenant.
#[derive(Debug, Default)]
pub(crate) struct Tally(BTreeMap<(String, String), Sum>);

impl Tally {
    pub(crate) fn add(&mut self, entry: &Entry) {
        let tenant = entry.tenant.clone().unwrap_or_else(|| OTHERS.to_owned());
        let sum = self.0.entry((entry.reason.clone(), tenant)).or_default();
        sum.add(Sum {
            count: 1,
            oldest: entry.since,
        });
    }

    /// The sums, with the tenants that have few dead letters put together.
    pub(crate) fn bounded(self) -> BTreeMap<(String, String), Sum> {
        let mut by_tenant: BTreeMap<&str, u64> = BTreeMap::new();
        for ((_, tenant), sum) in &self.0 {
            *by_tenant.entry(tenant).or_default() += sum.count;
        }
        let mut tenants: Vec<(&str, u64)> = by_tenant.into_iter().collect();
        tenants.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let named = tenants.iter().take(MOST_TENANTS);
        let named: Vec<String> = named.map(|(tenant, _)| (*tenant).to_owned()).collect();
        let mut bounded: BTreeMap<(String, String), Sum> = BTreeMap::new();
        for ((reason, tenant), sum) in self.0 {
            let label = if named.contains(&tenant) {
                tenant
            } else {
                OTHERS.to_owned()
            };
            bounded.entry((reason, label)).or_default().add(sum);
        }
        bounded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::tests::dead_letter;

    #[test]
    fn tenants_beyond_the_largest_twenty_share_a_label() {
        let mut tally = Tally::default();
        for tenant in 0..30_i64 {
            for second in 0..=tenant {
                let name = format!("t{tenant:02}");
                tally.add(&dead_letter(&name, "exhausted", 100 + second));
            }
        }
        let bounded = tally.bounded();
        assert_eq!(bounded.len(), MOST_TENANTS + 1);
        let key = |tenant: &str| ("exhausted".to_owned(), tenant.to_owned());
        let others = bounded[&key(OTHERS)];
        // The ten smallest have 1 + 2 + … + 10.
        assert_eq!(others.count, 55);
        assert_eq!(others.oldest, Timestamp::from_second(100).ok());
        assert_eq!(bounded[&key("t29")].count, 30);
    }
}
