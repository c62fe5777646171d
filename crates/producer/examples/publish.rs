//! Publishes a thousand events, a hundred at a time, and says how it went.
//!
//! Run it against a broker: `cargo run -p fanfare-producer --example publish -- amqp://127.0.0.1:5672`.

use anyhow::Context as _;
use fanfare_producer::{EventBuilder, Producer, Settings};
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut settings = Settings::default();
    if let Some(url) = std::env::args().nth(1) {
        settings.url = url.into();
    }
    let producer = Producer::connect(&settings, "publish example").await?;

    let mut publishing = JoinSet::new();
    for number in 0..1000 {
        if publishing.len() == 100 {
            let published = publishing
                .join_next()
                .await
                .context("a publish is under way")?;
            published??;
        }
        let event = EventBuilder::new("MF4c1b7e20", "subscriber.updated", "/examples/publish")
            .id(&format!("example-{number}"))
            .json(format!(r#"{{"number":{number}}}"#).as_bytes())
            .build()?;
        let producer = producer.clone();
        publishing.spawn(async move { producer.publish(&event).await });
    }
    while let Some(published) = publishing.join_next().await {
        published??;
    }
    producer.close().await;

    #[expect(clippy::print_stdout, reason = "an example speaks to people")]
    {
        println!("RabbitMQ has stored 1000 events");
    }
    Ok(())
}
