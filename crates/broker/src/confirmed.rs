//! Decides what became of confirmed publishes: stored, refused, or returned because no queue takes them.
//!
//! RabbitMQ confirms a message that it returned, and sends the return first (`docs/confirms`). lapin
//! attaches a returned message to whichever confirm completes next, so a confirm alone says little:
//!
//! - A return is attached to a confirm that completed no later than its own. So nothing is decided
//!   until a fence, set behind everything complete by then, has passed without a return in sight.
//! - Once a return is in sight, others may sit on confirms to come. So everything waits until no
//!   confirm is outstanding: by then every return has surfaced.

use std::collections::HashMap;

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Stored,
    Refused,
    Returned,
}

/// What a returned message is recognised by: exchange, routing key and message id.
pub(crate) type Identity = (String, String, Option<String>);

/// Publishes that are confirmed, and not yet decided about.
#[derive(Debug, Default)]
pub(crate) struct Confirmed {
    /// In the order of their confirms.
    undecided: Vec<(u64, bool)>,
    /// How many of the undecided the fence is behind, while there is one.
    fence: Option<usize>,
    /// How many of the undecided a fence has passed.
    passed: usize,
    /// How often each message came back.
    returned: HashMap<Identity, u32>,
}

impl Confirmed {
    /// A publish was confirmed, with or without the return of some message attached.
    pub(crate) fn note(&mut self, number: u64, acked: bool, carried: Option<Identity>) {
        self.undecided.push((number, acked));
        if let Some(identity) = carried {
            *self.returned.entry(identity).or_default() += 1;
        }
    }

    /// How many publishes are confirmed and undecided.
    pub(crate) fn len(&self) -> usize {
        self.undecided.len()
    }

    /// Whether a message came back, so that nothing new should be published until all is decided.
    pub(crate) fn is_in_doubt(&self) -> bool {
        !self.returned.is_empty()
    }

    /// Whether the caller is to set a fence now.
    pub(crate) fn wants_fence(&mut self) -> bool {
        let wanted = self.fence.is_none() && !self.undecided.is_empty() && !self.is_in_doubt();
        if wanted {
            self.fence = Some(self.undecided.len());
        }
        wanted
    }

    /// Everything that was complete when the fence was set has been noted.
    pub(crate) fn fence_passed(&mut self) {
        self.passed = self.fence.take().unwrap_or_default();
    }

    /// What can be decided, now that this many confirms are still outstanding.
    pub(crate) fn decide(
        &mut self,
        outstanding: usize,
        identity: impl Fn(u64) -> Option<Identity>,
    ) -> Vec<(u64, Fate)> {
        let sure = match (self.is_in_doubt(), outstanding) {
            (false, _) => std::mem::take(&mut self.passed),
            (true, 0) => self.undecided.len(),
            (true, _) => 0,
        };
        // A fence that is still on its way covers what is left of its share.
        self.fence = self.fence.map(|behind| behind.saturating_sub(sure));
        let any_returned = self.is_in_doubt();
        let decided = self.undecided.drain(..sure).map(|(number, acked)| {
            let identity = any_returned.then(|| identity(number)).flatten();
            let returned = identity.is_some_and(|identity| {
                let count = self.returned.get_mut(&identity);
                count.is_some_and(|count| std::mem::replace(count, count.saturating_sub(1)) > 0)
            });
            let fate = match (returned, acked) {
                (true, _) => Fate::Returned,
                (false, true) => Fate::Stored,
                (false, false) => Fate::Refused,
            };
            (number, fate)
        });
        let decided: Vec<_> = decided.collect();
        if self.undecided.is_empty() && outstanding == 0 {
            self.returned.clear();
        }
        decided
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn identity(number: u64) -> Identity {
        (
            "exchange".into(),
            "key".into(),
            Some((number / 2).to_string()),
        )
    }

    #[test]
    fn nothing_is_decided_before_a_fence_has_passed() {
        let mut confirmed = Confirmed::default();
        confirmed.note(0, true, None);
        assert!(confirmed.wants_fence());
        confirmed.note(2, false, None);
        assert!(!confirmed.wants_fence());
        assert_eq!(confirmed.decide(5, |n| Some(identity(n))), []);
        confirmed.fence_passed();
        let decided = confirmed.decide(5, |n| Some(identity(n)));
        assert_eq!(decided, [(0, Fate::Stored)]);
        assert!(confirmed.wants_fence());
        confirmed.fence_passed();
        let decided = confirmed.decide(5, |n| Some(identity(n)));
        assert_eq!(decided, [(2, Fate::Refused)]);
    }

    #[test]
    fn a_return_keeps_all_undecided_until_no_confirm_is_outstanding() {
        let mut confirmed = Confirmed::default();
        confirmed.note(0, true, None);
        assert!(confirmed.wants_fence());
        confirmed.note(2, true, Some(identity(4)));
        confirmed.fence_passed();
        assert_eq!(confirmed.decide(1, |n| Some(identity(n))), []);
        confirmed.note(4, true, None);
        let decided = confirmed.decide(0, |n| Some(identity(n)));
        let expected = [(0, Fate::Stored), (2, Fate::Stored), (4, Fate::Returned)];
        assert_eq!(decided, expected);
        assert!(!confirmed.is_in_doubt());
    }

    proptest! {
        /// Numbers 2n and 2n + 1 look alike and share a fate. Returns are attached as lapin does:
        /// each to the next confirm that completes, in whatever order the confirms come.
        #[test]
        fn each_publish_gets_its_own_fate(
            returned in prop::collection::vec(any::<bool>(), 1..40),
            order in any::<prop::sample::Index>(),
        ) {
            let total = returned.len() as u64 * 2;
            let is_returned = |number: u64| returned[usize::try_from(number / 2).unwrap()];
            let mut waiting: std::collections::VecDeque<u64> = (0..total).filter(|n| is_returned(*n)).collect();
            let start = order.index(returned.len()) as u64;
            let mut confirmed = Confirmed::default();
            for step in 0..total {
                let number = (start + step) % total;
                confirmed.note(number, true, waiting.pop_front().map(identity));
            }
            for (number, fate) in confirmed.decide(0, |n| Some(identity(n))) {
                let expected = if is_returned(number) { Fate::Returned } else { Fate::Stored };
                prop_assert_eq!(fate, expected);
            }
            prop_assert!(!confirmed.is_in_doubt());
        }
    }
}
