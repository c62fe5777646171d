//! How many requests may be in flight to a receiver: the endpoint's number, or less while it is too slow.
//!
//! Pure. Halved when a request is not answered in time, one more after each round of answers, as TCP does.

/// The limit of one lane.
#[derive(Debug)]
pub(super) struct Limit {
    allowed: u16,
    /// Answers since `allowed` changed.
    answers: u16,
    /// Requests before this one started under an earlier limit, and say nothing about this one.
    since: u64,
}

impl Default for Limit {
    fn default() -> Self {
        Self {
            allowed: u16::MAX,
            answers: 0,
            since: 0,
        }
    }
}

impl Limit {
    /// How many may be in flight; `ceiling` is what the endpoint allows.
    pub(super) fn at_most(&self, ceiling: u16) -> u16 {
        self.allowed.min(ceiling).max(1)
    }

    /// A request was answered.
    pub(super) fn answered(&mut self, ceiling: u16) {
        if self.allowed >= ceiling {
            return;
        }
        self.answers += 1;
        if self.answers >= self.allowed {
            (self.allowed, self.answers) = (self.allowed + 1, 0);
        }
    }

    /// The request with this number was not answered in time; `next_number` is the next one's.
    pub(super) fn timed_out(&mut self, number: u64, next_number: u64, ceiling: u16) {
        // Those that started together time out together: once is enough.
        if number >= self.since {
            self.allowed = (self.at_most(ceiling) / 2).max(1);
            (self.answers, self.since) = (0, next_number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_halves_once_for_a_round_and_grows_by_one_a_round() {
        let mut limit = Limit::default();
        assert_eq!(limit.at_most(16), 16);
        for number in 0..16 {
            limit.timed_out(number, 16, 16);
        }
        assert_eq!(limit.at_most(16), 8);
        for _ in 0..8 {
            limit.answered(16);
        }
        assert_eq!(limit.at_most(16), 9);
        for number in [16, 17, 18, 19, 20, 21] {
            limit.timed_out(number, number + 1, 16);
        }
        assert_eq!(limit.at_most(16), 1);
        for _ in 0..1000 {
            limit.answered(16);
        }
        assert_eq!(limit.at_most(16), 16);
        // An owner who allows more has more.
        assert_eq!(limit.at_most(20), 16);
        for _ in 0..100 {
            limit.answered(20);
        }
        assert_eq!(limit.at_most(20), 20);
    }
}
