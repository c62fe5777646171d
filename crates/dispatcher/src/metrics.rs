//! The numbers that the dispatcher owns. Labels are bounded: ids live in logs and history.

use std::{collections::HashSet, sync::Mutex, time::Duration};

use fanfare_model::{
    DeadLetterReason, Delivery, DisabledReason, FailureClass, Settlement, TenantId,
};
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram, Meter, UpDownCounter},
};

/// Upper bounds of the latency buckets, in seconds: from a millisecond to the longest timeout.
const LATENCY_BUCKETS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 30.0,
];

/// Attempts, settlements and how long things took.
pub(crate) struct Metrics {
    attempts: Counter<u64>,
    attempt_seconds: Histogram<f64>,
    end_to_end_seconds: Histogram<f64>,
    settlements: Counter<u64>,
    dead_letters: Counter<u64>,
    tenants: Tenants,
    hops: Counter<u64>,
    waits: Counter<u64>,
    floods: Counter<u64>,
    circuits: Counter<u64>,
    disabled: Counter<u64>,
    untold: Counter<u64>,
    in_flight: UpDownCounter<i64>,
    owned: Gauge<u64>,
}

impl Metrics {
    pub(crate) fn new(meter: &Meter) -> Self {
        let seconds = |name, description| {
            meter
                .f64_histogram(name)
                .with_unit("s")
                .with_description(description)
                .with_boundaries(LATENCY_BUCKETS.to_vec())
                .build()
        };
        let counter = |name, description| {
            meter
                .u64_counter(name)
                .with_description(description)
                .build()
        };
        Self {
            attempts: counter(
                "fanfare_dispatcher_attempts",
                "HTTP requests made, by class of failure or `success`",
            ),
            attempt_seconds: seconds(
                "fanfare_dispatcher_attempt_duration",
                "How long one HTTP request took",
            ),
            end_to_end_seconds: seconds(
                "fanfare_dispatcher_end_to_end_duration",
                "From the routing of an event to its delivery",
            ),
            settlements: counter(
                "fanfare_dispatcher_settlements",
                "What became of deliveries, by settlement and reason",
            ),
            dead_letters: dead_letters(meter),
            tenants: Tenants::default(),
            hops: counter(
                "fanfare_dispatcher_hops",
                "Hops in the delay line, by kind of wait: `retry`, `deferral` or `schedule`",
            ),
            waits: counter(
                "fanfare_dispatcher_waits",
                "Waits that began here, by kind; hops by waits is how many hops one takes",
            ),
            floods: counter(
                "fanfare_dispatcher_floods",
                "Times that routers were told of a flooded endpoint",
            ),
            circuits: counter(
                "fanfare_dispatcher_circuits",
                "Circuits of endpoints that `opened` or `closed`",
            ),
            disabled: counter(
                "fanfare_dispatcher_endpoints_disabled",
                "Endpoints disabled because of what their receivers did, by reason",
            ),
            untold: counter(
                "fanfare_dispatcher_operational_events_untold",
                "Operational events that could not be published",
            ),
            in_flight: in_flight(meter),
            owned: owned(meter),
        }
    }

    pub(crate) fn attempt_starts(&self) {
        self.in_flight.add(1, &[]);
    }

    pub(crate) fn attempt_ends(&self, class: Option<FailureClass>, took: Duration) {
        self.in_flight.add(-1, &[]);
        let class = class.map_or("success", FailureClass::name);
        self.attempts.add(1, &[KeyValue::new("class", class)]);
        self.attempt_seconds.record(took.as_secs_f64(), &[]);
    }

    pub(crate) fn owns(&self, partitions: usize) {
        self.owned
            .record(u64::try_from(partitions).unwrap_or(u64::MAX), &[]);
    }

    pub(crate) fn delivered_after(&self, seconds: f64) {
        self.end_to_end_seconds.record(seconds, &[]);
    }

    pub(crate) fn settled(&self, settlement: &Settlement) {
        let (settlement, reason) = names(settlement);
        let labels = [
            KeyValue::new("settlement", settlement),
            KeyValue::new("reason", reason),
        ];
        self.settlements.add(1, &labels);
    }

    /// A dead letter is in its queue.
    pub(crate) fn buried(&self, reason: DeadLetterReason, tenant: &TenantId) {
        let labels = [
            KeyValue::new("reason", reason.name()),
            KeyValue::new("tenant", self.tenants.label(tenant)),
        ];
        self.dead_letters.add(1, &labels);
    }

    pub(crate) fn circuit(&self, change: &'static str) {
        self.circuits.add(1, &[KeyValue::new("change", change)]);
    }

    pub(crate) fn disabled(&self, reason: DisabledReason) {
        self.disabled
            .add(1, &[KeyValue::new("reason", reason.name())]);
    }

    pub(crate) fn untold(&self) {
        self.untold.add(1, &[]);
    }

    pub(crate) fn flood(&self) {
        self.floods.add(1, &[]);
    }

    /// A delivery goes into the delay line, at the beginning of its wait or in the middle of it.
    pub(crate) fn hop(&self, kind: WaitKind, begins: bool) {
        let label = [KeyValue::new("wait", kind.name())];
        self.hops.add(1, &label);
        if begins {
            self.waits.add(1, &label);
        }
    }
}

/// Which tenants have a label of their own: the first ones that come up in this process.
#[derive(Default)]
struct Tenants(Mutex<HashSet<TenantId>>);

impl Tenants {
    const MOST: usize = 50;
    /// No tenant can have this name.
    const OTHERS: &str = "(other)";

    fn label(&self, tenant: &TenantId) -> String {
        let mut known = self
            .0
            .lock()
            .expect("nobody panics while holding the tenants");
        if known.len() < Self::MOST {
            known.insert(tenant.clone());
        }
        match known.contains(tenant) {
            true => tenant.to_string(),
            false => Self::OTHERS.to_owned(),
        }
    }
}

/// What a wait in the delay line is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitKind {
    /// For the next attempt after one that failed.
    Retry,
    /// For a turn, a pause or a receiver.
    Deferral,
    /// For the beginning: `deliverafter`, the first wait of a schedule, or a flood that a router held back.
    Schedule,
}

impl WaitKind {
    fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Deferral => "deferral",
            Self::Schedule => "schedule",
        }
    }

    /// The wait that a delivery is in. One that a router began says so by having begun when it was routed.
    pub(crate) fn of(delivery: &Delivery) -> Self {
        let since = delivery.wait.map(|wait| wait.since);
        let failed = delivery.failures.as_ref().map(|past| past.last_at);
        if since.is_some() && since == failed {
            Self::Retry
        } else if since == Some(delivery.first_seen) {
            Self::Schedule
        } else {
            Self::Deferral
        }
    }
}

fn in_flight(meter: &Meter) -> UpDownCounter<i64> {
    meter
        .i64_up_down_counter("fanfare_dispatcher_in_flight")
        .with_description("HTTP requests under way")
        .build()
}

fn dead_letters(meter: &Meter) -> Counter<u64> {
    meter
        .u64_counter("fanfare_dispatcher_dead_letters")
        .with_description(
            "Dead letters made, by reason and tenant; tenants beyond the first fifty share a label",
        )
        .build()
}

fn owned(meter: &Meter) -> Gauge<u64> {
    meter
        .u64_gauge("fanfare_dispatcher_partitions_owned")
        .with_description("Partitions whose deliveries are attempted here")
        .build()
}

/// The settlement and its reason, as metrics and logs name them.
pub(crate) fn names(settlement: &Settlement) -> (&'static str, &'static str) {
    match settlement {
        Settlement::Delivered => ("delivered", ""),
        Settlement::Retry { failure, .. } => ("retry", failure.class.name()),
        Settlement::Defer { why, .. } => ("defer", why.name()),
        Settlement::DeadLetter { reason, .. } => ("dead_letter", reason.name()),
        Settlement::Discard { reason } => ("discard", reason.name()),
    }
}

#[cfg(test)]
mod tests {
    use fanfare_model::{Event, Failure};

    use super::*;
    use crate::samples::{at, delivery};

    #[test]
    fn tenants_beyond_the_first_fifty_share_a_label() {
        let tenants = Tenants::default();
        for _ in 0..2 {
            for number in 0..60 {
                let tenant: TenantId = format!("t{number}").parse().unwrap();
                let label = tenants.label(&tenant);
                assert_eq!(label == Tenants::OTHERS, number >= 50, "{label}");
            }
        }
    }

    #[test]
    fn the_kind_of_a_wait_can_be_told_from_the_delivery() {
        let fresh = || delivery(Event::for_tests("t", "s", "1", "a", b"{}"));
        let failure = || Failure {
            class: FailureClass::Timeout,
            status: None,
            error: String::new(),
        };
        let seen = fresh().first_seen;
        let later = seen + Duration::from_secs(5);
        let until = at(9_000_000_000);
        let retried = fresh().after_failure(failure(), later, Some(until));
        let deferred = retried.clone().waiting(
            until + Duration::from_secs(1),
            later + Duration::from_secs(1),
        );
        for (delivery, expected) in [
            (fresh().waiting(until, seen), WaitKind::Schedule),
            (fresh().waiting(until, later), WaitKind::Deferral),
            (retried, WaitKind::Retry),
            (deferred, WaitKind::Deferral),
        ] {
            assert_eq!(WaitKind::of(&delivery), expected, "{delivery:?}");
        }
    }
}
