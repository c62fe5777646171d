//! What a lane knows of its endpoint's receiver, and what an attempt changes about it.

use fanfare_model::{DisabledReason, Endpoint, Outcome, Timestamp};
use fanfare_wire::ReceiverStanding;

use crate::{
    breaker::{Breaker, Change, Pass},
    decide,
};

/// What is known of the receiver. A change of the endpoint by its owner is a new beginning.
#[derive(Default)]
pub(super) struct Standing {
    /// When the endpoint that this is about was changed last.
    as_of: Option<Timestamp>,
    pub(super) held_back_until: Option<Timestamp>,
    pub(super) breaker: Breaker,
    /// How many attempts in a row failed, and when the first of them did.
    failing: Option<(u32, Timestamp)>,
    pub(super) given_up: Option<DisabledReason>,
}

/// What one attempt changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Turn {
    /// The circuit opened or closed.
    pub(crate) circuit: Option<Change>,
    /// The endpoint is to be disabled; told once.
    pub(crate) disable: Option<DisabledReason>,
}

impl Standing {
    /// Whether there is nothing to remember.
    pub(super) fn is_as_new(&self, now: Timestamp) -> bool {
        self.held_back_until.is_none_or(|until| until <= now)
            && self.breaker.is_as_new(now)
            && self.failing.is_none()
            && self.given_up.is_none()
    }

    /// What is known, for people; nothing before the first attempt.
    pub(super) fn told(&self, now: Timestamp) -> Option<ReceiverStanding> {
        let (circuit, open) = self.breaker.circuit(now);
        Some(ReceiverStanding {
            as_of: self.as_of?,
            circuit,
            open_since: open.map(|(since, _)| since),
            open_until: open.map(|(_, until)| until),
            held_back_until: self.held_back_until.filter(|until| *until > now),
            failed: self.failing.map_or(0, |(failed, _)| failed),
            failing_since: self.failing.map(|(_, since)| since),
        })
    }

    pub(super) fn is_of_another(&self, endpoint: &Endpoint) -> bool {
        self.as_of != Some(endpoint.updated_at)
    }

    pub(super) fn begin_anew(&mut self, endpoint: &Endpoint) {
        let mut breaker = std::mem::take(&mut self.breaker);
        breaker.reset();
        *self = Self {
            as_of: Some(endpoint.updated_at),
            breaker,
            ..Self::default()
        };
    }

    pub(super) fn learn(
        &mut self,
        pass: Option<Pass>,
        endpoint: &Endpoint,
        outcome: &Outcome,
        now: Timestamp,
    ) -> Turn {
        if let Some(wait) = decide::hold_back(outcome) {
            self.held_back_until = self.held_back_until.max(Some(now + wait));
        }
        let health = decide::health(outcome, &endpoint.success);
        let circuit = pass.and_then(|pass| self.breaker.record(&pass, health, now));
        let disable = self.give_up(endpoint, outcome, now);
        if disable.is_some() {
            self.given_up = disable;
        }
        Turn { circuit, disable }
    }

    /// Counts the failures in a row, and says when they are too many.
    fn give_up(
        &mut self,
        endpoint: &Endpoint,
        outcome: &Outcome,
        now: Timestamp,
    ) -> Option<DisabledReason> {
        // An event that no request can be built from says nothing about the endpoint.
        if matches!(outcome, Outcome::Unbuildable { .. }) {
            return None;
        }
        if outcome.failure(&endpoint.success).is_none() {
            self.failing = None;
            return None;
        }
        let (failed, since) = self.failing.unwrap_or((0, now));
        let failed = failed.saturating_add(1);
        self.failing = Some((failed, since));
        let reason = if matches!(outcome, Outcome::Answered { status: 410, .. }) {
            DisabledReason::Gone
        } else if endpoint.disable_after.applies(failed, since, now) {
            DisabledReason::Failing
        } else {
            return None;
        };
        self.given_up.is_none().then_some(reason)
    }
}
