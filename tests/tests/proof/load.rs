//! Publishes events at a pace, and pairs them with the requests that they lead to.

use std::{collections::HashMap, time::Duration};

use fanfare_producer::{EventBuilder, Producer};
use fanfare_testkit::Receiver;
use futures_util::{StreamExt as _, stream};
use tokio::time::{self, Instant, MissedTickBehavior};

pub(crate) const TENANT: &str = "t";

/// Publishes one event with this number. `series` keeps numbers of different runs apart.
pub(crate) async fn publish(producer: &Producer, event_type: &str, series: &str, number: u64) {
    let event = EventBuilder::new(TENANT, event_type, "/proof")
        .id(&format!("{series}-{number}"))
        .json(format!(r#"{{"series":"{series}","number":{number}}}"#).as_bytes())
        .build()
        .unwrap();
    producer.publish(&event).await.unwrap();
}

/// Publishes at `rate` per second for as long as `lasting`, and returns when each was published.
///
/// Open loop: a publish that takes long does not hold up the next one.
pub(crate) async fn paced(
    producer: &Producer,
    event_type: &str,
    series: &str,
    rate: u32,
    lasting: Duration,
) -> Vec<Instant> {
    let mut ticks = time::interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let count = u64::from(rate) * lasting.as_secs();
    let times = stream::unfold((ticks, 0), |(mut ticks, number)| async move {
        (number < count).then_some(())?;
        let due = ticks.tick().await;
        // What the machine is late by counts: it is when the event was due that matters.
        Some(((number, due), (ticks, number + 1)))
    });
    let publishing = times.map(|(number, due)| async move {
        publish(producer, event_type, series, number).await;
        due
    });
    publishing.buffered(1000).collect().await
}

/// Publishes `count` events as fast as they are confirmed, 500 at a time.
pub(crate) async fn burst(producer: &Producer, event_type: &str, series: &str, count: u64) {
    stream::iter(0..count)
        .for_each_concurrent(500, |number| publish(producer, event_type, series, number))
        .await;
}

/// When the event with each number arrived first at a path.
pub(crate) fn arrivals(receiver: &Receiver, path: &str, series: &str) -> HashMap<u64, Instant> {
    let mut arrived = HashMap::new();
    for request in receiver.requests().iter().filter(|r| r.path == path) {
        let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
        let data = &body["data"];
        if data["series"] == series {
            let number = data["number"].as_u64().unwrap();
            arrived.entry(number).or_insert(request.instant);
        }
    }
    arrived
}
