//! The load, the same for whatever is measured.

use std::fs;

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::{Duration, Instant};

use super::arrivals::Arrivals;

/// How many events may be under way at once. A closed loop: the rate is one that is sustained, without a backlog.
pub(super) const IN_FLIGHT: u64 = 2000;

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

/// Publishes `events` as fast as they arrive at the sink, all futures polled together.
pub(super) async fn run<F: Future<Output = anyhow::Result<()>>>(
    events: u64,
    arrivals: &mut Arrivals,
    publish: impl Fn(u64) -> F,
) -> anyhow::Result<Run> {
    let before = arrivals.count;
    let (begun, cpu) = (Instant::now(), cpu_time()?);
    let (mut published, mut publishing) = (0, FuturesUnordered::new());
    while arrivals.count < before + events {
        while published < events && before + published < arrivals.count + IN_FLIGHT {
            publishing.push(publish(published));
            published += 1;
        }
        tokio::select! {
            Some(confirmed) = publishing.next() => confirmed?,
            news = arrivals.next() => news?,
        }
    }
    let (took, cpu) = (begun.elapsed(), cpu_time()? - cpu);
    // The last confirms may come after the last arrivals.
    while let Some(confirmed) = publishing.next().await {
        confirmed?;
    }
    #[expect(clippy::cast_precision_loss, reason = "far fewer events than 2^52")]
    let events = events as f64;
    Ok(Run {
        rate: events / took.as_secs_f64(),
        cpu_micros: cpu.as_secs_f64() * 1e6 / events,
    })
}

/// JSON data of [`EVENT_BYTES`] that says when it was made, in microseconds since 1970.
pub(super) fn data(now_micros: i64) -> Vec<u8> {
    let mut data = format!("{{\"sent\":{now_micros},\"pad\":\"").into_bytes();
    data.resize(EVENT_BYTES - 2, b'x');
    data.extend_from_slice(b"\"}");
    data
}

/// The processor time that this process has used, with all its threads, in steps of 10 ms.
fn cpu_time() -> anyhow::Result<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").context("reading /proc/self/stat")?;
    ticks_of(&stat)
        .map(|ticks| Duration::from_millis(10 * ticks))
        .context("reading the processor time in /proc/self/stat")
}

/// User and system time in hundredths of a second (`proc_pid_stat(5)`, fields 14 and 15).
fn ticks_of(stat: &str) -> Option<u64> {
    // The second field is the program's name, which may hold anything.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
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

    #[test]
    fn processor_time_is_user_and_system_time() {
        let stat = "7 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 120 30 1 1 20 0";
        assert_eq!(ticks_of(stat), Some(150));
        assert_eq!(ticks_of("7 (a) S 1"), None);
        assert!(cpu_time().is_ok());
    }
}
