//! One event owed to one endpoint, and what happened to it so far.

use std::sync::Arc;

use jiff::Timestamp;

use crate::{DeliveryId, EndpointId, Event, FailureClass};

/// One event owed to one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The same for every repeat; sent as `webhook-id`.
    pub id: DeliveryId,
    /// Whom it is owed to.
    pub endpoint: EndpointId,
    /// What is owed. Shared by the deliveries of one event.
    pub event: Arc<Event>,
    /// The registry version that it was routed by.
    pub registry_version: u64,
    /// When it was routed first.
    pub first_seen: Timestamp,
    /// How many attempts failed so far, in this replay.
    pub failed_attempts: u32,
    /// How many times a person or a rule replayed it.
    pub replay: u32,
    /// Not to be attempted earlier than this, and when that wait began.
    pub wait: Option<Wait>,
    /// Worthless after this.
    pub deadline: Option<Timestamp>,
    /// When the endpoint's last request started, as far as the last owner knew.
    pub last_start: Option<Timestamp>,
    /// The failures so far, if any.
    pub failures: Option<FailureHistory>,
    /// The trace that the producer began.
    pub trace: TraceContext,
}

impl Delivery {
    /// An event newly owed to an endpoint.
    pub fn new(
        event: Arc<Event>,
        endpoint: EndpointId,
        registry_version: u64,
        trace: TraceContext,
        now: Timestamp,
    ) -> Self {
        Self {
            id: DeliveryId::derive(&event, endpoint),
            endpoint,
            registry_version,
            first_seen: now,
            failed_attempts: 0,
            replay: 0,
            wait: event
                .deliver_after()
                .filter(|at| *at > now)
                .map(|until| Wait { since: now, until }),
            deadline: event.deliver_before(),
            last_start: None,
            failures: None,
            trace,
            event,
        }
    }

    /// The number of the next attempt, from 1.
    pub fn next_attempt(&self) -> u32 {
        self.failed_attempts.saturating_add(1)
    }

    /// The delivery with one more failed attempt, waiting until `retry_at` if there is a next one.
    #[must_use]
    pub fn after_failure(
        mut self,
        failure: Failure,
        now: Timestamp,
        retry_at: Option<Timestamp>,
    ) -> Self {
        self.failed_attempts = self.next_attempt();
        self.wait = retry_at.map(|until| Wait { since: now, until });
        let first_at = self.failures.as_ref().map_or(now, |past| past.first_at);
        self.failures = Some(FailureHistory {
            first_at,
            last_at: now,
            last: failure,
        });
        self
    }

    /// The delivery owed anew because a person or a rule asked for it: under the same id, with fresh attempts.
    ///
    /// A deadline that has passed is dropped: whoever replays it knows that it is late.
    #[must_use]
    pub fn replayed(self, now: Timestamp) -> Self {
        Self {
            replay: self.replay.saturating_add(1),
            failed_attempts: 0,
            failures: None,
            wait: None,
            deadline: self.deadline.filter(|deadline| *deadline > now),
            ..self
        }
    }

    /// The delivery waiting until `until`, with nothing else changed.
    #[must_use]
    pub fn waiting(mut self, until: Timestamp, now: Timestamp) -> Self {
        // A wait that goes on keeps its beginning, by which its precision is judged.
        let since = match self.wait {
            Some(wait) if wait.until == until => wait.since,
            Some(_) | None => now,
        };
        self.wait = Some(Wait { since, until });
        self
    }
}

/// A wait in the delay line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// When it began.
    pub since: Timestamp,
    /// Not earlier than this.
    pub until: Timestamp,
}

/// Why one attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure.
    pub class: FailureClass,
    /// The status, if the receiver answered.
    pub status: Option<u16>,
    /// A sentence for people, without secrets and bodies.
    pub error: String,
}

/// The failures of a delivery so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureHistory {
    /// When the first attempt failed.
    pub first_at: Timestamp,
    /// When the last attempt failed.
    pub last_at: Timestamp,
    /// The last failure.
    pub last: Failure,
}

/// The W3C trace context that travels with an event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceContext {
    /// The `traceparent` value.
    pub traceparent: Option<String>,
    /// The `tracestate` value.
    pub tracestate: Option<String>,
}

impl TraceContext {
    /// Keeps what has the form of a trace context (W3C Trace Context, section 3.2) and drops the rest.
    pub fn from_headers(traceparent: Option<&str>, tracestate: Option<&str>) -> Self {
        let traceparent = traceparent.filter(|text| is_traceparent(text));
        Self {
            // A state without a parent means nothing.
            tracestate: traceparent
                .and(tracestate)
                .filter(|text| text.len() <= 512 && text.bytes().all(|b| (0x20..0x7f).contains(&b)))
                .map(str::to_owned),
            traceparent: traceparent.map(str::to_owned),
        }
    }

    /// The trace id, 32 hexadecimal digits.
    pub fn trace_id(&self) -> Option<&str> {
        self.traceparent.as_deref().and_then(|text| text.get(3..35))
    }
}

fn is_traceparent(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, span, flags] = parts[..] else {
        return false;
    };
    let hex = |part: &str, len| {
        part.len() == len && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let zero = |part: &str| part.bytes().all(|b| b == b'0');
    hex(version, 2)
        && version != "ff"
        && hex(trace, 32)
        && !zero(trace)
        && hex(span, 16)
        && !zero(span)
        && hex(flags, 2)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn delivery() -> Delivery {
        let event = Arc::new(Event::for_tests("t", "s", "1", "a", b"{}"));
        let endpoint = EndpointId::from_uuid(Uuid::from_u128(1));
        Delivery::new(event, endpoint, 1, TraceContext::default(), at(100))
    }

    #[test]
    fn failures_add_up_and_keep_the_first() {
        let failure = |error: &str| Failure {
            class: FailureClass::Status5xx,
            status: Some(503),
            error: error.to_owned(),
        };
        let once = delivery().after_failure(failure("a"), at(110), Some(at(120)));
        let twice = once.after_failure(failure("b"), at(130), None);
        let past = twice.failures.clone().unwrap();
        assert_eq!(twice.failed_attempts, 2);
        assert_eq!((past.first_at, past.last_at), (at(110), at(130)));
        assert_eq!(past.last.error, "b");
        assert_eq!(twice.wait, None);
    }

    #[test]
    fn a_replay_starts_afresh_under_the_same_id() {
        let failure = Failure {
            class: FailureClass::Timeout,
            status: None,
            error: "late".to_owned(),
        };
        let owed = Delivery {
            deadline: Some(at(150)),
            ..delivery()
        };
        let failed = owed.clone().after_failure(failure, at(110), Some(at(120)));
        let again = failed.clone().replayed(at(140));
        let expected = Delivery { replay: 1, ..owed };
        assert_eq!(again, expected);
        assert_eq!(failed.replayed(at(160)).deadline, None);
        assert_eq!(again.replayed(at(140)).replay, 2);
    }

    #[test]
    fn a_wait_that_goes_on_keeps_its_beginning() {
        let first = delivery().waiting(at(200), at(100));
        let on = first.waiting(at(200), at(150));
        assert_eq!(on.wait.unwrap().since, at(100));
        let anew = on.waiting(at(300), at(160));
        assert_eq!(anew.wait.unwrap().since, at(160));
        assert_eq!(anew.failed_attempts, 0);
    }

    #[test]
    fn only_a_well_formed_trace_is_carried() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = TraceContext::from_headers(Some(good), Some("a=b"));
        assert_eq!(trace.trace_id(), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        assert_eq!(trace.tracestate.as_deref(), Some("a=b"));
        for bad in [
            "",
            "00-0-0-0",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nx: y",
        ] {
            let trace = TraceContext::from_headers(Some(bad), Some("a=b"));
            assert_eq!(trace, TraceContext::default(), "{bad:?}");
        }
    }
}
