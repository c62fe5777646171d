//! The dispatchers that are there, and which of them a partition goes to.
//!
//! Pure: callers say when something was heard. The broker decides who owns a partition; this is only how
//! a dispatcher learns that it is to let go of one.

use std::{collections::HashMap, time::Duration};

use fanfare_model::PartitionKey;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

/// How often a dispatcher announces itself.
pub(crate) const ANNOUNCE_EVERY: Duration = Duration::from_secs(2);

/// A dispatcher that was not heard of for this long is gone: three announcements missed.
const FORGET_AFTER: Duration = Duration::from_secs(7);

/// The other dispatchers.
#[derive(Debug)]
pub(crate) struct Peers {
    me: String,
    heard: HashMap<String, Heard>,
}

/// What a dispatcher announced last.
#[derive(Debug)]
struct Heard {
    at: Instant,
    /// What it consumes, and whether it takes itself for the owner. RabbitMQ may give it no other partition.
    consumes: HashMap<PartitionKey, bool>,
}

impl Peers {
    pub(crate) fn new(me: &str) -> Self {
        Self {
            me: me.to_owned(),
            heard: HashMap::new(),
        }
    }

    /// A dispatcher announced itself. Returns whether it is new here.
    pub(crate) fn hear(
        &mut self,
        id: &str,
        consumes: impl IntoIterator<Item = (PartitionKey, bool)>,
        at: Instant,
    ) -> bool {
        let consumes = consumes.into_iter().collect();
        id != self.me
            && self
                .heard
                .insert(id.to_owned(), Heard { at, consumes })
                .is_none()
    }

    /// A dispatcher said that it leaves.
    pub(crate) fn forget(&mut self, id: &str) {
        self.heard.remove(id);
    }

    /// Drops those not heard of any more.
    pub(crate) fn forget_the_silent(&mut self, now: Instant) {
        self.heard
            .retain(|_, heard| now.duration_since(heard.at) < FORGET_AFTER);
    }

    /// Whether another dispatcher comes before this one for a partition.
    pub(crate) fn outrank_me(&self, key: PartitionKey) -> bool {
        self.others_outrank_me(key, None)
    }

    /// The same, leaving out one that let go of the partition.
    pub(crate) fn others_outrank_me(&self, key: PartitionKey, but: Option<&str>) -> bool {
        let mine = priority(&self.me, key);
        let mut consumers = self
            .others(but)
            .filter(|(_, heard)| heard.consumes.contains_key(&key));
        consumers.any(|(id, _)| priority(id, key) > mine)
    }

    /// Whether another takes itself for the owner of a partition.
    pub(crate) fn own(&self, key: PartitionKey, but: Option<&str>) -> bool {
        let mut others = self.others(but);
        others.any(|(_, heard)| heard.consumes.get(&key) == Some(&true))
    }

    /// Whether anyone else is there, but this one.
    pub(crate) fn are_there(&self, but: Option<&str>) -> bool {
        self.others(but).next().is_some()
    }

    fn others<'p>(&'p self, but: Option<&'p str>) -> impl Iterator<Item = (&'p String, &'p Heard)> {
        let others = self.heard.iter();
        others.filter(move |(id, _)| Some(id.as_str()) != but)
    }
}

/// How much a dispatcher wants a partition: the owner is the one who wants it most.
pub(crate) fn priority(dispatcher: &str, key: PartitionKey) -> i32 {
    let digest = Sha256::new()
        .chain_update(dispatcher)
        .chain_update([0])
        .chain_update(key.to_string())
        .finalize();
    let mut head = [0; 4];
    head.copy_from_slice(&digest[..4]);
    i32::try_from(u32::from_be_bytes(head) >> 1).expect("31 bits fit")
}

#[cfg(test)]
mod tests {
    use fanfare_model::PartitionCount;

    use super::*;

    fn keys() -> impl Iterator<Item = PartitionKey> {
        let count = PartitionCount::try_from(64).unwrap();
        count.all().map(|partition| PartitionKey {
            generation: 1,
            partition,
        })
    }

    fn everything() -> impl Iterator<Item = (PartitionKey, bool)> {
        keys().map(|key| (key, false))
    }

    #[test]
    fn only_who_consumes_a_partition_outranks_for_it_and_only_its_owner_owns_it() {
        let now = Instant::now();
        let key = keys().find(|key| priority("b", *key) > priority("a", *key));
        let key = key.unwrap();
        let mut peers = Peers::new("a");
        for (consumes, outranks, owns) in [
            (None, false, false),
            (Some(false), true, false),
            (Some(true), true, true),
        ] {
            peers.hear("b", consumes.map(|owns| (key, owns)), now);
            assert_eq!(peers.outrank_me(key), outranks, "{consumes:?}");
            assert_eq!(peers.own(key, None), owns, "{consumes:?}");
            assert!(!peers.own(key, Some("b")) && !peers.others_outrank_me(key, Some("b")));
        }
    }

    #[test]
    fn partitions_spread_over_dispatchers_and_few_move_when_one_joins() {
        let owner = |names: &[&'static str], key| {
            *names.iter().max_by_key(|name| priority(name, key)).unwrap()
        };
        let (three, four) = (["a", "b", "c"], ["a", "b", "c", "d"]);
        for name in three {
            let owned = keys().filter(|key| owner(&three, *key) == name).count();
            assert!((10..=34).contains(&owned), "{name} owns {owned} of 64");
        }
        for key in keys() {
            let (before, after) = (owner(&three, key), owner(&four, key));
            assert!(before == after || after == "d");
        }
    }

    #[test]
    fn every_partition_is_left_to_exactly_one_dispatcher() {
        let (names, now) = (["a", "b", "c"], Instant::now());
        let all = names.map(|me| {
            let mut peers = Peers::new(me);
            for id in names {
                assert_eq!(peers.hear(id, everything(), now), id != me);
                assert!(!peers.hear(id, everything(), now));
            }
            peers
        });
        for key in keys() {
            let owners = all.iter().filter(|peers| !peers.outrank_me(key));
            assert_eq!(owners.count(), 1, "{key}");
        }
    }

    #[test]
    fn who_leaves_or_falls_silent_outranks_nobody() {
        let now = Instant::now();
        for leave in [
            (|peers, _| peers.forget("b")) as fn(&mut Peers, Instant),
            |peers, now| peers.forget_the_silent(now + FORGET_AFTER),
        ] {
            let mut peers = Peers::new("a");
            peers.hear("b", everything(), now);
            peers.forget_the_silent(now + ANNOUNCE_EVERY);
            assert!(keys().any(|key| peers.outrank_me(key)));
            leave(&mut peers, now);
            assert!(!keys().any(|key| peers.outrank_me(key)));
        }
    }
}
