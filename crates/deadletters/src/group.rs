//! Counts resting messages by what they have in common.

use std::{collections::BTreeMap, fmt, str::FromStr};

use fanfare_journal::LetterGroup;
use fanfare_model::Timestamp;
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::Entry;

/// By what messages are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupBy {
    /// Whom they were for.
    Endpoint,
    /// Whose they are.
    Tenant,
    /// The type of the event.
    Type,
    /// Why they rest.
    Reason,
    /// How long they rest: less than an hour, a day, a week, or longer.
    Age,
}

impl GroupBy {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Endpoint,
        Self::Tenant,
        Self::Type,
        Self::Reason,
        Self::Age,
    ];

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Tenant => "tenant",
            Self::Type => "type",
            Self::Reason => "reason",
            Self::Age => "age",
        }
    }

    fn of(self, entry: &Entry, now: Timestamp) -> Option<String> {
        match self {
            Self::Endpoint => entry.endpoint.clone(),
            Self::Tenant => entry.tenant.clone(),
            Self::Type => entry.event_type.clone(),
            Self::Reason => Some(entry.reason.clone()),
            Self::Age => entry.since.map(|since| age(since, now).to_owned()),
        }
    }
}

impl Group {
    /// A group as the index has it.
    pub(crate) fn of_letters(by: &[GroupBy], group: LetterGroup) -> Self {
        let value = |by: &GroupBy| match by {
            GroupBy::Endpoint => group.endpoint.map(|endpoint| endpoint.to_string()),
            GroupBy::Tenant => group.tenant.as_ref().map(|tenant| tenant.to_string()),
            GroupBy::Type => group.event_type.clone(),
            GroupBy::Reason => group.reason.clone(),
            GroupBy::Age => group.age.and_then(|age| Some(AGES.get(age)?.1.to_owned())),
        };
        Self {
            by: by.iter().map(|by| (*by, value(by))).collect(),
            count: group.count,
            oldest: Some(group.oldest),
            newest: Some(group.newest),
        }
    }
}

impl fmt::Display for GroupBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for GroupBy {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let by = Self::ALL.into_iter().find(|by| by.name() == text);
        by.ok_or("accepted are `endpoint`, `tenant`, `type`, `reason` and `age`")
    }
}

/// Messages that have in common what they were grouped by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    /// What they have in common.
    pub by: BTreeMap<GroupBy, Option<String>>,
    /// How many there are.
    pub count: u64,
    /// Since when the oldest of them rests.
    pub oldest: Option<Timestamp>,
    /// Since when the newest of them rests.
    pub newest: Option<Timestamp>,
}

/// Groups that grow by one message after the other.
#[derive(Debug)]
pub(crate) struct Grouping {
    by: Vec<GroupBy>,
    now: Timestamp,
    groups: BTreeMap<Vec<Option<String>>, Group>,
}

impl Grouping {
    pub(crate) fn new(by: &[GroupBy], now: Timestamp) -> Self {
        Self {
            by: by.to_vec(),
            now,
            groups: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, entry: &Entry) {
        let key: Vec<_> = self.by.iter().map(|by| by.of(entry, self.now)).collect();
        let by = &self.by;
        let group = self.groups.entry(key).or_insert_with_key(|key| Group {
            by: by.iter().copied().zip(key.iter().cloned()).collect(),
            count: 0,
            oldest: None,
            newest: None,
        });
        group.count += 1;
        group.oldest = [group.oldest, entry.since].into_iter().flatten().min();
        group.newest = group.newest.max(entry.since);
    }

    /// The groups, the largest first.
    pub(crate) fn finish(self) -> Vec<Group> {
        let mut groups: Vec<Group> = self.groups.into_values().collect();
        groups.sort_by_key(|group| std::cmp::Reverse(group.count));
        groups
    }
}

/// Ages, by the seconds below which each lies.
const AGES: [(i64, &str); 4] = [
    (3600, "under 1h"),
    (86_400, "1h to 1d"),
    (604_800, "1d to 7d"),
    (i64::MAX, "over 7d"),
];

fn age(since: Timestamp, now: Timestamp) -> &'static str {
    let seconds = now.as_second() - since.as_second();
    let age = AGES.iter().find(|(below, _)| seconds < *below);
    age.map_or("over 7d", |(_, name)| name)
}

/// The moments between which ages change.
pub(crate) fn moments(now: Timestamp) -> Vec<Timestamp> {
    let bounds = AGES.iter().filter(|(below, _)| *below < i64::MAX);
    let ago = |(below, _): &(i64, &str)| now.checked_sub(SignedDuration::from_secs(*below));
    bounds.filter_map(|bound| ago(bound).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::tests::dead_letter;

    #[test]
    fn groups_are_counted_and_the_largest_comes_first() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let mut grouping = Grouping::new(&[GroupBy::Tenant, GroupBy::Age], now);
        for (tenant, since) in [("a", 999_999), ("b", 999_000), ("b", 998_000), ("b", 1)] {
            grouping.add(&dead_letter(tenant, "gone", since));
        }
        let groups = grouping.finish();
        let shown = groups.iter().map(|group| {
            let by = group.by.values().map(|value| value.as_deref().unwrap());
            (by.collect::<Vec<_>>(), group.count)
        });
        let expected = [
            (vec!["b", "under 1h"], 2),
            (vec!["a", "under 1h"], 1),
            (vec!["b", "over 7d"], 1),
        ];
        assert_eq!(shown.collect::<Vec<_>>(), expected);
        assert_eq!(groups[0].oldest, Timestamp::from_second(998_000).ok());
        assert_eq!(groups[0].newest, Timestamp::from_second(999_000).ok());
    }
}
