//! The numbers that the router owns.

use fanfare_registry::Snapshots;
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};

/// What was routed, rejected and wanted by nobody.
pub(crate) struct Metrics {
    events: Counter<u64>,
    deliveries: Counter<u64>,
    diverted: Counter<u64>,
}

/// What became of a message on `events`.
#[derive(Clone, Copy)]
pub(crate) enum EventFate {
    Routed,
    Unmatched,
    Rejected,
}

impl Metrics {
    pub(crate) fn new(meter: &Meter, snapshots: &Snapshots) -> Self {
        let snapshots = snapshots.clone();
        meter
            .u64_observable_gauge("fanfare_router_damaged_endpoints")
            .with_description("Endpoints that are set aside because they cannot be read")
            .with_callback(move |observer| {
                if let Some(snapshot) = snapshots.current() {
                    observer.observe(snapshot.damaged() as u64, &[]);
                }
            })
            .build();
        Self {
            events: meter
                .u64_counter("fanfare_router_events")
                .with_description("Messages taken from the events queue, by what became of them")
                .build(),
            deliveries: meter
                .u64_counter("fanfare_router_deliveries")
                .with_description("Deliveries handed on")
                .build(),
            diverted: meter
                .u64_counter("fanfare_router_diverted")
                .with_description(
                    "Deliveries of flooded endpoints that went straight to the delay line",
                )
                .build(),
        }
    }

    pub(crate) fn event(&self, fate: EventFate) {
        let fate = match fate {
            EventFate::Routed => "routed",
            EventFate::Unmatched => "unmatched",
            EventFate::Rejected => "rejected",
        };
        self.events.add(1, &[KeyValue::new("fate", fate)]);
    }

    pub(crate) fn diverted(&self) {
        self.diverted.add(1, &[]);
    }

    pub(crate) fn deliveries(&self, count: usize) {
        self.deliveries
            .add(u64::try_from(count).unwrap_or(u64::MAX), &[]);
    }
}
