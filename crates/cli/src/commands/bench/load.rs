//! The load, the same for whatever is measured.

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::{self, Duration, Instant, MissedTickBehavior};

use super::{arrivals::Arrivals, process};

/// How many events may be under way at once: not delivered to everybody yet. A closed loop: the rate is one that is
/// sustained, without a backlog. On a slow machine twice as many would be a flood to the lane of a single endpoint,
/// which puts off what takes it more than a moment; each of ten endpoints has as much before it as a single one.
pub(super) const IN_FLIGHT: u64 = 1000;

/// How many publishes may be unconfirmed where a backlog is made.
const UNCONFIRMED: usize = 1000;

/// The size of an event's data, in bytes.
pub(super) const EVENT_BYTES: usize = 1024;

/// What a run came to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    /// Deliveries per second, from the first publish to the last arrival.
    pub(super) rate: f64,
    /// Processor time of this process for each delivery, in microseconds.
    pub(super) cpu_micros: f64,
}

/// Publishes `events` as fast as their deliveries arrive at the sink, all futures polled together. Each event
/// has `fan_out` deliveries.
pub(super) async fn run<F: Future<Output = anyhow::Result<()>>>(
    events: u64,
    fan_out: u64,
    arrivals: &mut Arrivals,
    publish: impl Fn(u64) -> F,
) -> anyhow::Result<Run> {
    let (before, deliveries) = (arrivals.count, events * fan_out);
    let (begun, cpu) = (Instant::now(), process::own_cpu()?);
    let (mut published, mut publishing) = (0, FuturesUnordered::new());
    while arrivals.count < before + deliveries {
        while published < events
            && before + published * fan_out < arrivals.count + IN_FLIGHT * fan_out
        {
            publishing.push(publish(published));
            published += 1;
        }
        tokio::select! {
            Some(confirmed) = publishing.next() => confirmed?,
            news = arrivals.next() => news?,
        }
    }
    let (took, cpu) = (begun.elapsed(), process::own_cpu()? - cpu);
    // The last confirms may come after the last arrivals.
    while let Some(confirmed) = publishing.next().await {
        confirmed?;
    }
    Ok(Run {
        rate: per_second(deliveries, took),
        cpu_micros: each(cpu, deliveries),
    })
}

/// Publishes `rate` events per second, and waits until all have arrived.
pub(super) async fn paced<F: Future<Output = anyhow::Result<()>>>(
    rate: u32,
    lasting: Duration,
    arrivals: &mut Arrivals,
    publish: impl Fn(u64) -> F,
) -> anyhow::Result<()> {
    let mut ticks = time::interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (before, events) = (arrivals.count, u64::from(rate) * lasting.as_secs());
    let (mut published, mut publishing) = (0, FuturesUnordered::new());
    while arrivals.count < before + events || !publishing.is_empty() {
        tokio::select! {
            // A late confirm must not hold up the next event.
            _ = ticks.tick(), if published < events => {
                publishing.push(publish(published));
                published += 1;
            }
            Some(confirmed) = publishing.next() => confirmed?,
            news = arrivals.next() => news?,
        }
    }
    Ok(())
}

/// Publishes `events` and waits for their confirms alone.
pub(super) async fn store<F: Future<Output = anyhow::Result<()>>>(
    events: u64,
    publish: impl Fn(u64) -> F,
) -> anyhow::Result<()> {
    let mut publishing = FuturesUnordered::new();
    for number in 0..events {
        if publishing.len() == UNCONFIRMED {
            let confirmed = publishing.next().await;
            confirmed.context("no publish is under way")??;
        }
        publishing.push(publish(number));
    }
    while let Some(confirmed) = publishing.next().await {
        confirmed?;
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "far fewer deliveries than 2^52")]
pub(super) fn per_second(deliveries: u64, took: Duration) -> f64 {
    deliveries as f64 / took.as_secs_f64()
}

/// The share of one delivery, in microseconds.
#[expect(clippy::cast_precision_loss, reason = "far fewer deliveries than 2^52")]
pub(super) fn each(whole: Duration, deliveries: u64) -> f64 {
    whole.as_secs_f64() * 1e6 / deliveries as f64
}

/// JSON data of [`EVENT_BYTES`] that says when it was made, in microseconds since 1970.
pub(super) fn data(now_micros: i64) -> Vec<u8> {
    let mut data = format!("{{\"sent\":{now_micros},\"pad\":\"").into_bytes();
    data.resize(EVENT_BYTES - 2, b'x');
    data.extend_from_slice(b"\"}");
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_json_of_the_promised_size() {
        let data = data(1_763_900_000_000_000);
        let read: serde_json::Value = serde_json::from_slice(&data).unwrap();
        assert_eq!(data.len(), EVENT_BYTES);
        assert_eq!(read["sent"], 1_763_900_000_000_000_i64);
    }
}
