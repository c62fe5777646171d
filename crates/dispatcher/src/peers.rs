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
    heard: HashMap<String, Instant>,
}

impl Peers {
    pub(crate) fn new(me: &str) -> Self {
        Self {
            me: me.to_owned(),
            heard: HashMap::new(),
        }
    }

    /// A dispatcher announced itself. Returns whether it is new here.
    pub(crate) fn hear(&mut self, id: &str, now: Instant) -> bool {
        id != self.me && self.heard.insert(id.to_owned(), now).is_none()
    }

    /// A dispatcher said that it leaves.
    pub(crate) fn forget(&mut self, id: &str) {
        self.heard.remove(id);
    }

    /// Drops those not heard of any more.
    pub(crate) fn forget_the_silent(&mut self, now: Instant) {
        self.heard
            .retain(|_, heard| now.duration_since(*heard) < FORGET_AFTER);
    }

    /// Whether another dispatcher comes before this one for a partition.
    pub(crate) fn outrank_me(&self, key: PartitionKey) -> bool {
        self.others_outrank_me(key, None)
    }

    /// The same, leaving out one that let go of the partition.
    pub(crate) fn others_outrank_me(&self, key: PartitionKey, but: Option<&str>) -> bool {
        let mine = priority(&self.me, key);
        let mut others = self.heard.keys().filter(|id| Some(id.as_str()) != but);
        others.any(|id| priority(id, key) > mine)
    }

    /// Whether anyone else is there, but this one.
    pub(crate) fn are_there(&self, but: Option<&str>) -> bool {
        self.heard.keys().any(|id| Some(id.as_str()) != but)
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
                assert_eq!(peers.hear(id, now), id != me);
                assert!(!peers.hear(id, now));
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
            peers.hear("b", now);
            peers.forget_the_silent(now + ANNOUNCE_EVERY);
            assert!(keys().any(|key| peers.outrank_me(key)));
            leave(&mut peers, now);
            assert!(!keys().any(|key| peers.outrank_me(key)));
        }
    }
}
