//! The numbers that a producer owns, on the meter of the service that embeds it.

use std::time::Duration;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram, Meter, UpDownCounter},
};

use crate::ProducerFault;

/// Upper bounds of the buckets, in seconds: from a quick confirm to the usual patience.
const CONFIRM_BUCKETS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0,
];

/// Publishes, how they ended, and how long confirms took.
pub(crate) struct Metrics {
    publishes: Counter<u64>,
    confirm_seconds: Histogram<f64>,
    in_flight: UpDownCounter<i64>,
}

impl Metrics {
    pub(crate) fn new(meter: &Meter) -> Self {
        Self {
            publishes: meter
                .u64_counter("fanfare_producer_publishes")
                .with_description("Publishes of events, by how they ended")
                .build(),
            confirm_seconds: meter
                .f64_histogram("fanfare_producer_confirm_duration")
                .with_unit("s")
                .with_description("How long RabbitMQ took to confirm an event")
                .with_boundaries(CONFIRM_BUCKETS.to_vec())
                .build(),
            in_flight: meter
                .i64_up_down_counter("fanfare_producer_in_flight")
                .with_description("Publishes under way")
                .build(),
        }
    }

    pub(crate) fn started(&self) -> InFlight {
        self.in_flight.add(1, &[]);
        InFlight(self.in_flight.clone())
    }

    pub(crate) fn ended(&self, result: &Result<(), ProducerFault>, took: Duration) {
        let name = match result {
            Ok(()) => "stored",
            Err(ProducerFault::Overloaded) => "refused",
            Err(ProducerFault::Unconfirmed(_)) => "unconfirmed",
            Err(ProducerFault::Invalid(_)) => "invalid",
            Err(ProducerFault::Broker(_) | ProducerFault::NotDeclared | ProducerFault::Closed) => {
                "failed"
            }
        };
        self.publishes.add(1, &[KeyValue::new("result", name)]);
        if result.is_ok() {
            self.confirm_seconds.record(took.as_secs_f64(), &[]);
        }
    }
}

/// Counts one publish less when it is dropped, however the publish ended.
pub(crate) struct InFlight(UpDownCounter<i64>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.add(-1, &[]);
    }
}
