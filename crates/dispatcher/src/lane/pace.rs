//! How fast requests of a lane may start.

use std::{sync::Arc, time::Duration};

use fanfare_model::{Rate, Timestamp};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// The limiter of a lane, for the rate that it was made for.
#[derive(Default)]
pub(super) struct Pace {
    limiter: Option<(Rate, Arc<DefaultDirectRateLimiter>)>,
    pub(super) last_start: Option<Timestamp>,
}

impl Pace {
    /// Whether there is nothing to remember.
    pub(super) fn is_as_new(&self) -> bool {
        self.limiter.is_none()
    }

    /// The limiter for `rate`, which goes on from the last start that is known here or to the delivery.
    pub(super) fn limiter_for(
        &mut self,
        rate: Rate,
        last_start: Option<Timestamp>,
        now: Timestamp,
    ) -> Arc<DefaultDirectRateLimiter> {
        if let Some((known, limiter)) = &self.limiter
            && *known == rate
        {
            return Arc::clone(limiter);
        }
        let quota = Quota::with_period(rate.interval())
            .expect("a rate of at most 100,000 a second has an interval")
            .allow_burst(rate.burst());
        let limiter = Arc::new(RateLimiter::direct(quota));
        let last_start = last_start.max(self.last_start);
        let started_lately = last_start
            .and_then(|start| Duration::try_from(now.duration_since(start)).ok())
            .is_some_and(|ago| ago < rate.interval() * rate.burst().get());
        // A new limiter begins with a full burst. Where requests started lately, under another rate or
        // another owner, that would be a burst too many.
        if self.limiter.is_some() || started_lately {
            let drained = limiter.check_n(rate.burst());
            drained
                .expect("the burst fits the quota")
                .expect("a new limiter is full");
        }
        self.limiter = Some((rate, Arc::clone(&limiter)));
        limiter
    }
}
