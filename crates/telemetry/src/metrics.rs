//! Keeps the numbers of the process and shows them in Prometheus' text format.

use opentelemetry::metrics::{Meter, MeterProvider};
use opentelemetry_sdk::{Resource, metrics::SdkMeterProvider};
use prometheus::{Registry, TextEncoder};

/// The metrics of the process. Cheap to clone; clones share the numbers.
#[derive(Debug, Clone)]
pub struct Metrics {
    meter_provider: SdkMeterProvider,
    registry: Registry,
}

impl Metrics {
    /// Metrics in which nothing has been counted yet.
    #[expect(
        clippy::new_without_default,
        reason = "two of them would be two sets of numbers"
    )]
    pub fn new() -> Self {
        let registry = Registry::new();
        let reader = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            // The names of our instruments are unique, so the crate that owns one adds nothing.
            .scope_info_enabled(false)
            .build()
            .expect("a new registry takes its first collector");
        let resource = Resource::builder_empty()
            .with_service_name("fanfare")
            .build();
        let meter_provider = SdkMeterProvider::builder()
            .with_resource(resource)
            .with_reader(reader)
            .build();
        Self {
            meter_provider,
            registry,
        }
    }

    /// What a crate makes its instruments with. `name` is the crate's, such as `fanfare.router`.
    pub fn meter(&self, name: &'static str) -> Meter {
        self.meter_provider.meter(name)
    }

    /// All numbers as they are now, in Prometheus' text format.
    pub fn render(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .expect("the text format is written to memory, and our metric names are valid")
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::KeyValue;

    use super::*;

    #[test]
    fn a_counter_and_a_gauge_appear_with_their_labels() {
        let metrics = Metrics::new();
        let meter = metrics.meter("fanfare.sample");
        let attempts = meter.u64_counter("fanfare.attempts").build();
        attempts.add(2, &[KeyValue::new("class", "status_5xx")]);
        attempts.add(1, &[KeyValue::new("class", "status_5xx")]);
        let depth = meter.i64_up_down_counter("fanfare.in_flight").build();
        depth.add(7, &[]);

        let text = metrics.render();
        for line in [
            r#"fanfare_attempts_total{class="status_5xx"} 3"#,
            "fanfare_in_flight 7",
            r#"target_info{service_name="fanfare"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is missing from:\n{text}");
        }
    }

    #[test]
    fn two_meters_of_one_name_share_a_counter() {
        let metrics = Metrics::new();
        for _ in 0..2 {
            let meter = metrics.meter("fanfare.sample");
            meter.u64_counter("fanfare.shared").build().add(1, &[]);
        }
        let text = metrics.render();
        assert!(text.contains("fanfare_shared_total 2"), "{text}");
    }
}
