//! Publishes events to Fanfare with its SDK: many at once, each confirmed, and as part of a trace.
//!
//! Usage: `fanfare-example-producer AMQP_URL TENANT COUNT`

#![expect(clippy::print_stdout, reason = "an example speaks to people")]

use std::num::NonZeroU16;

use anyhow::Context as _;
use fanfare_producer::{Event, EventBuilder, Producer, Settings, TraceContext};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

/// More would wait in this process anyway, where they are lost if it dies.
const MOST_IN_FLIGHT: NonZeroU16 = NonZeroU16::new(100).expect("not zero");

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().context("usage: AMQP_URL TENANT COUNT");
    let (url, tenant, count) = (next()?, next()?, next()?.parse::<u32>()?);
    let settings = Settings {
        url: url.into(),
        ..Settings::default()
    };
    let producer = Producer::connect(&settings, "example")
        .await?
        .max_in_flight(MOST_IN_FLIGHT);
    let trace = trace();

    let events: Vec<Event> = (0..count)
        .map(|number| event(&tenant, number))
        .collect::<Result<_, _>>()?;
    stream::iter(events)
        .map(Ok)
        .try_for_each_concurrent(usize::from(MOST_IN_FLIGHT.get()), |event| {
            publish(&producer, &trace, event)
        })
        .await?;
    producer.close().await;
    println!("RabbitMQ has stored {count} events");
    Ok(())
}

/// Waits while the queue is full. Within an OpenTelemetry span, `Producer::publish_all` does all of this.
async fn publish(producer: &Producer, trace: &TraceContext, event: Event) -> anyhow::Result<()> {
    let stored = producer.publish_patiently(&event, trace).await;
    stored.with_context(|| format!("{} was not stored", event.id))
}

fn event(tenant: &str, number: u32) -> anyhow::Result<Event> {
    let event = EventBuilder::new(tenant, "reward.unlocked", "/examples/rust")
        // Chosen once and kept with the business data, so that every repeat has the same.
        .id(&format!("rust-{number}"))
        .json(format!(r#"{{"reward":{number},"language":"rust"}}"#).as_bytes())
        .build()?;
    Ok(event)
}

/// A service without OpenTelemetry takes it from the request that it is working on.
fn trace() -> TraceContext {
    #[expect(clippy::disallowed_methods, reason = "an example has no request")]
    let traceparent = std::env::var("TRACEPARENT").ok();
    TraceContext::from_headers(traceparent.as_deref(), None)
}
