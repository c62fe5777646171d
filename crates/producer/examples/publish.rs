//! Publishes a thousand events, a hundred at a time, and says how it went.
//!
//! Run it against a broker: `cargo run -p fanfare-producer --example publish -- amqp://127.0.0.1:5672`.

use std::{num::NonZeroU16, pin::pin};

use anyhow::Context as _;
use fanfare_producer::{Event, EventBuilder, Producer, Settings};
use futures_util::{StreamExt as _, stream};

const MOST_IN_FLIGHT: NonZeroU16 = NonZeroU16::new(100).expect("not zero");

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut settings = Settings::default();
    if let Some(url) = std::env::args().nth(1) {
        settings.url = url.into();
    }
    let producer = Producer::connect(&settings, "publish example")
        .await?
        .max_in_flight(MOST_IN_FLIGHT);
    let events: Vec<Event> = (0..1000).map(event).collect::<Result<_, _>>()?;
    {
        let mut published = pin!(producer.publish_all(stream::iter(events)));
        while let Some(published) = published.next().await {
            let id = published.event.id;
            published
                .result
                .with_context(|| format!("publishing {id}"))?;
        }
    }
    producer.close().await;

    #[expect(clippy::print_stdout, reason = "an example speaks to people")]
    {
        println!("RabbitMQ has stored 1000 events");
    }
    Ok(())
}

fn event(number: u32) -> anyhow::Result<Event> {
    let event = EventBuilder::new("MF4c1b7e20", "subscriber.updated", "/examples/publish")
        .id(&format!("example-{number}"))
        .json(format!(r#"{{"number":{number}}}"#).as_bytes())
        .build()?;
    Ok(event)
}
