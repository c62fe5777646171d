//! Decides what a pass does with each message. Pure: the pass carries it out.

use std::collections::{HashMap, HashSet};

use fanfare_broker::HeldTag;
use fanfare_model::{DeliveryId, Timestamp};

use crate::{Entry, Filter};

/// What is to become of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It stays.
    Keep,
    /// It stays, and makes another one superfluous that is in hand.
    KeepInstead(HeldTag),
    /// It is a copy of one that was seen in this pass.
    Drop,
    /// The operation of this number deals with it.
    Act(usize),
}

/// Which messages an operation is for.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) filter: Filter,
    /// Those that rest since then or longer: what comes back because of a replay is not replayed again.
    pub(crate) until: Timestamp,
    /// Whether it leaves the debt with somebody else, as a replay does, or ends it.
    pub(crate) hands_on: bool,
    /// Whether it is still to be carried out.
    pub(crate) is_open: bool,
}

impl Order {
    fn is_for(&self, entry: &Entry) -> bool {
        let in_time = entry.since.is_none_or(|since| since <= self.until);
        self.is_open && in_time && self.filter.matches(entry)
    }
}

/// What was seen of a delivery: by its highest replay.
#[derive(Debug, Clone, Copy)]
struct Seen {
    replay: u32,
    /// The message, if it stays and is in hand.
    kept: Option<HeldTag>,
}

/// The orders of a pass, and the deliveries that it has seen.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) orders: Vec<Order>,
    /// Whether what stays remains in hand.
    holds: bool,
    seen: HashMap<DeliveryId, Seen>,
    /// Messages about no delivery that were handed on: some may come back as they were.
    handed_on: HashSet<String>,
}

impl Plan {
    pub(crate) fn new(orders: Vec<Order>, holds: bool) -> Self {
        Self {
            orders,
            holds,
            seen: HashMap::new(),
            handed_on: HashSet::new(),
        }
    }

    /// Whether anything is left to be carried out.
    pub(crate) fn is_open(&self) -> bool {
        self.orders.iter().any(|order| order.is_open)
    }

    /// Whether a message was handed on in this pass, and is here again.
    pub(crate) fn has_come_back(&self, entry: &Entry) -> bool {
        self.handed_on.contains(&entry.id)
    }

    /// What is to become of a message.
    ///
    /// A delivery is owed once, so of two messages about it one is enough: the one that was replayed
    /// more often, because a dispatcher may remember the attempts of the other as settled.
    pub(crate) fn decide(&mut self, entry: &Entry, tag: HeldTag) -> Verdict {
        let order = self.orders.iter().position(|order| order.is_for(entry));
        let Some(delivery) = entry.delivery() else {
            if order.is_some_and(|order| self.orders[order].hands_on) {
                self.handed_on.insert(entry.id.clone());
            }
            return order.map_or(Verdict::Keep, Verdict::Act);
        };
        if order.is_some_and(|order| !self.orders[order].hands_on) {
            // Discarded, and so is every copy of it.
            return order.map_or(Verdict::Keep, Verdict::Act);
        }
        let before = self.seen.get(&delivery).copied();
        if before.is_some_and(|seen| seen.replay >= entry.replay) {
            return Verdict::Drop;
        }
        let kept = (order.is_none() && self.holds).then_some(tag);
        let replay = entry.replay;
        self.seen.insert(delivery, Seen { replay, kept });
        match (order, before.and_then(|seen| seen.kept)) {
            (Some(order), _) => Verdict::Act(order),
            (None, Some(superfluous)) => Verdict::KeepInstead(superfluous),
            (None, None) => Verdict::Keep,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::tests::dead_letter;

    fn order(reason: &str, hands_on: bool) -> Order {
        Order {
            filter: Filter {
                reason: Some(reason.to_owned()),
                ..Filter::default()
            },
            until: Timestamp::from_second(1000).unwrap(),
            hands_on,
            is_open: true,
        }
    }

    fn entry(delivery: u8, replay: u32, reason: &str) -> Entry {
        Entry {
            id: DeliveryId::from_bytes([delivery; 16]).to_string(),
            replay,
            ..dead_letter("t", reason, 500)
        }
    }

    /// Shows messages to a plan that replays what is exhausted and discards what is gone.
    fn check(holds: bool, messages: &[(Entry, Verdict)]) {
        let mut plan = Plan::new(vec![order("exhausted", true), order("gone", false)], holds);
        for (number, (entry, expected)) in messages.iter().enumerate() {
            let verdict = plan.decide(entry, HeldTag::for_tests(number as u64));
            assert_eq!(verdict, *expected, "message {number}, holds: {holds}");
        }
    }

    #[test]
    fn each_delivery_is_dealt_with_once() {
        use Verdict::{Act, Drop, Keep};
        for holds in [true, false] {
            check(
                holds,
                &[
                    (entry(1, 0, "exhausted"), Act(0)),
                    (entry(2, 0, "blocked"), Keep),
                    (entry(1, 0, "exhausted"), Drop),
                    (entry(2, 0, "blocked"), Drop),
                    (entry(3, 0, "gone"), Act(1)),
                    (entry(3, 0, "gone"), Act(1)),
                ],
            );
        }
    }

    #[test]
    fn of_two_messages_about_a_delivery_the_later_replay_stays() {
        use Verdict::{Act, Drop, Keep, KeepInstead};
        let messages = |kept| {
            [
                (entry(1, 0, "blocked"), Keep),
                (entry(1, 2, "blocked"), kept),
                (entry(1, 1, "blocked"), Drop),
                (entry(2, 0, "exhausted"), Act(0)),
                // Its replay failed meanwhile.
                (entry(2, 1, "blocked"), Keep),
            ]
        };
        check(true, &messages(KeepInstead(HeldTag::for_tests(0))));
        // What was put to the tail is not in hand any more; a later pass removes it.
        check(false, &messages(Keep));
    }

    #[test]
    fn what_came_later_than_the_request_is_not_meant() {
        let mut plan = Plan::new(vec![order("exhausted", true)], true);
        let late = Entry {
            since: Timestamp::from_second(1001).ok(),
            ..entry(1, 1, "exhausted")
        };
        let tag = HeldTag::for_tests(0);
        assert_eq!(plan.decide(&late, tag), Verdict::Keep);
        plan.orders[0].is_open = false;
        let early = entry(2, 0, "exhausted");
        assert_eq!(plan.decide(&early, tag), Verdict::Keep);
        assert!(!plan.is_open());
    }
}
