//! The delay line: in which queue a delivery waits, and when it hops again.
//!
//! Pure. RabbitMQ expires messages at the head of a queue only, so each tier is a queue with one time
//! to live. A wait that fits no tier is split into hops, each in the largest tier that fits.

use std::{fmt, time::Duration};

use fanfare_model::{Timestamp, Wait};

/// One queue of the delay line and how long it holds what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tier {
    seconds: u32,
}

impl Tier {
    /// How long the tier holds a message.
    pub fn wait(self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }
}

impl fmt::Display for Tier {
    /// The name in the broker. The time to live is in the name, because a queue's arguments never change.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.seconds)
    }
}

/// The tiers, from one second to eight hours.
#[derive(Debug, Clone)]
pub struct DelayLine {
    /// Invariant: sorted, at most a factor of two apart.
    tiers: Vec<Tier>,
}

impl Default for DelayLine {
    /// 1, 2, 4 … 16,384 seconds, and 8 hours.
    fn default() -> Self {
        let doubling = (0..15).map(|power| 1_u32 << power);
        let tiers = doubling.chain([8 * 3600]).map(|seconds| Tier { seconds });
        Self {
            tiers: tiers.collect(),
        }
    }
}

impl DelayLine {
    /// How much longer than asked the last hop may make a wait: a tenth of it, or a second if that is more.
    fn tolerance(wait: Duration) -> Duration {
        (wait / 10).max(Duration::from_secs(1))
    }

    /// The tiers, shortest first.
    pub fn tiers(&self) -> &[Tier] {
        &self.tiers
    }

    /// The next hop of a wait; `None` when it is over.
    ///
    /// A wait never ends early, and at most a tenth of it (or a second) late. It ends with the hop
    /// whose tier is long enough and late by no more than that; until then it takes the largest tier that fits.
    pub fn next_hop(&self, wait: Wait, now: Timestamp) -> Option<Tier> {
        let rest = Duration::try_from(wait.until.duration_since(now)).unwrap_or_default();
        if rest.is_zero() {
            return None;
        }
        let whole = Duration::try_from(wait.until.duration_since(wait.since)).unwrap_or(rest);
        let longest = *self.tiers.last().expect("there are tiers");
        let enough = self.tiers.iter().find(|tier| tier.wait() >= rest).copied();
        let ends_it = enough.filter(|tier| tier.wait() - rest <= Self::tolerance(whole));
        let fits = || self.tiers.iter().rfind(|tier| tier.wait() <= rest).copied();
        ends_it.or_else(fits).or(enough).or(Some(longest))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    /// Follows a wait through its hops: how many, and how late it ends.
    fn follow(millis: i64) -> (u32, i64) {
        let line = DelayLine::default();
        let wait = Wait {
            since: at(0),
            until: at(millis),
        };
        let (mut now, mut hops) = (0, 0);
        while let Some(tier) = line.next_hop(wait, at(now)) {
            now += i64::try_from(tier.wait().as_millis()).unwrap();
            hops += 1;
        }
        (hops, now - millis)
    }

    #[test]
    fn waits_take_the_hops_they_need() {
        for (millis, hops, late) in [
            (0, 0, 0),
            (1, 1, 999),
            (1000, 1, 0),
            (1001, 1, 999),
            (5000, 2, 0),
            (5500, 2, 500),
            (60_000, 1, 4000),
            (300_000, 2, 20_000),
            (28_800_000, 1, 0),
            (86_400_000, 3, 0),
        ] {
            assert_eq!(follow(millis), (hops, late), "{millis} ms");
        }
    }

    proptest! {
        #[test]
        fn a_wait_is_never_early_and_hardly_late(millis in 1..200_000_000_i64) {
            let (hops, late) = follow(millis);
            prop_assert!(late >= 0);
            prop_assert!(late <= (millis / 10).max(1000));
            prop_assert!(hops <= 12);
        }
    }

    #[test]
    fn the_mean_number_of_hops_is_at_most_two_and_a_half() {
        // Waits from one second to eight hours, evenly over the orders of magnitude.
        let waits = (0..4000).map(|n| (1000.0 * 28_800_f64.powf(f64::from(n) / 4000.0)) as i64);
        let hops: u32 = waits.map(|millis| follow(millis).0).sum();
        let mean = f64::from(hops) / 4000.0;
        assert!(mean <= 2.5, "{mean}");
    }
}
