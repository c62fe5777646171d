//! The numbers that the recorder owns.

use std::sync::{Arc, Mutex, MutexGuard};

use fanfare_model::{Clock, Timestamp};
use opentelemetry::metrics::{Counter, Meter, ObservableGauge};

use crate::Counts;

/// What is recorded, and how far behind that is.
pub(crate) struct Metrics {
    batches: Counter<u64>,
    rows: Counter<u64>,
    gaps: Counter<u64>,
    failures: Counter<u64>,
    lag: Arc<Mutex<Lag>>,
    /// It is asked for as long as it is held.
    _lag_seconds: ObservableGauge<f64>,
}

#[derive(Default)]
struct Lag {
    /// When the oldest batch was written that is in hand and not recorded.
    waits_since: Option<Timestamp>,
    /// How late the last batch was when it was recorded.
    last: f64,
}

impl Metrics {
    pub(crate) fn new(meter: &Meter, clock: Clock) -> Self {
        let counter = |name, description| {
            meter
                .u64_counter(name)
                .with_description(description)
                .build()
        };
        let lag = Arc::new(Mutex::new(Lag::default()));
        let observed = Arc::clone(&lag);
        let lag_seconds = meter
            .f64_observable_gauge("fanfare_recorder_lag")
            .with_unit("s")
            .with_description("How long what happened takes to be in the history")
            .with_callback(move |observer| {
                let lag = lock(&observed);
                let seconds = lag.waits_since.map_or(lag.last, |since| {
                    clock.now().duration_since(since).as_secs_f64()
                });
                observer.observe(seconds.max(0.0), &[]);
            })
            .build();
        let metrics = Self {
            batches: counter(
                "fanfare_recorder_batches",
                "Batches of the journal that were recorded",
            ),
            rows: counter("fanfare_recorder_rows", "Rows that were recorded"),
            gaps: counter(
                "fanfare_recorder_gaps",
                "Gaps that were found in the journal",
            ),
            failures: counter(
                "fanfare_recorder_failures",
                "Tries to read the journal or to write the history that failed",
            ),
            lag,
            _lag_seconds: lag_seconds,
        };
        // A counter that does not exist cannot be seen to grow.
        metrics.recorded(&Counts::default(), None);
        metrics.failures.add(0, &[]);
        metrics
    }

    pub(crate) fn waits_since(&self, moment: Option<Timestamp>) {
        lock(&self.lag).waits_since = moment;
    }

    pub(crate) fn recorded(&self, counts: &Counts, newest: Option<(Timestamp, Timestamp)>) {
        self.batches.add(counts.batches, &[]);
        self.rows.add(counts.rows, &[]);
        self.gaps.add(counts.gaps, &[]);
        let mut lag = lock(&self.lag);
        lag.waits_since = None;
        if let Some((written, now)) = newest {
            lag.last = now.duration_since(written).as_secs_f64();
        }
    }

    pub(crate) fn failed(&self) {
        self.failures.add(1, &[]);
    }
}

fn lock(lag: &Mutex<Lag>) -> MutexGuard<'_, Lag> {
    lag.lock().expect("nobody panics while holding the lag")
}
