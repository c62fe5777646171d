//! The numbers of the queues, and of what is done with what rests in them. Labels are bounded.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use fanfare_broker::{Broker, BrokerFault, Place, QueueCounts};
use fanfare_journal::{History, HistoryFault, LetterFilter, LetterKey};
use fanfare_model::{Clock, Timestamp};
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    Action,
    tally::{self, Sum},
};

/// How often queues and dead letters are counted.
const COUNTING: Duration = Duration::from_secs(15);

/// The numbers of the queues. Cheap to clone; clones share them.
#[derive(Clone)]
pub struct Metrics {
    resolved: Counter<u64>,
    passes: Counter<u64>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    queues: BTreeMap<String, QueueCounts>,
    unowned_partitions: Option<u64>,
    dead_letters: BTreeMap<(String, String), Sum>,
    now: Option<Timestamp>,
}

impl Metrics {
    /// Instruments that show nothing until [`watch`] has looked.
    pub fn new(meter: &Meter) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let metrics = Self {
            resolved: meter
                .u64_counter("fanfare_dead_letters_resolved")
                .with_description("Resting messages that were dealt with, by place and action")
                .build(),
            passes: meter
                .u64_counter("fanfare_dead_letters_passes")
                .with_description("Passes over queues of resting messages, by place and ending")
                .build(),
            state,
        };
        metrics.observe_queues(meter);
        metrics.observe_dead_letters(meter);
        for place in Place::ALL {
            // A counter that does not exist cannot be seen to grow.
            metrics.passes.add(0, &ending(place, "complete"));
            metrics.passes.add(0, &ending(place, "incomplete"));
        }
        metrics
            .resolved
            .add(0, &dealt_with(Place::DeadLetters, Action::Replay));
        metrics
            .resolved
            .add(0, &dealt_with(Place::DeadLetters, Action::Discard));
        metrics
    }

    fn observe_queues(&self, meter: &Meter) {
        let observe = |name, description, value: fn(&QueueCounts) -> u32| {
            let state = Arc::clone(&self.state);
            meter
                .u64_observable_gauge(name)
                .with_description(description)
                .with_callback(move |observer| {
                    for (queue, counts) in &lock(&state).queues {
                        let label = KeyValue::new("queue", queue.clone());
                        observer.observe(value(counts).into(), &[label]);
                    }
                })
                .build();
        };
        observe(
            "fanfare_queue_messages",
            "Messages that are ready in a queue, or in all of its kind",
            |counts| counts.ready,
        );
        observe(
            "fanfare_queue_consumers",
            "Consumers of a queue, or of all of its kind",
            |counts| counts.consumers,
        );
        let state = Arc::clone(&self.state);
        meter
            .u64_observable_gauge("fanfare_partitions_without_dispatcher")
            .with_description("Partitions that no dispatcher consumes")
            .with_callback(move |observer| {
                if let Some(unowned) = lock(&state).unowned_partitions {
                    observer.observe(unowned, &[]);
                }
            })
            .build();
    }

    fn observe_dead_letters(&self, meter: &Meter) {
        let labels = |(reason, tenant): &(String, String)| {
            [
                KeyValue::new("reason", reason.clone()),
                KeyValue::new("tenant", tenant.clone()),
            ]
        };
        let state = Arc::clone(&self.state);
        meter
            .u64_observable_gauge("fanfare_dead_letters")
            .with_description("Dead letters by reason and tenant; small tenants share a label")
            .with_callback(move |observer| {
                for (key, sum) in &lock(&state).dead_letters {
                    observer.observe(sum.count, &labels(key));
                }
            })
            .build();
        let state = Arc::clone(&self.state);
        meter
            .u64_observable_gauge("fanfare_dead_letters_oldest_age")
            .with_unit("s")
            .with_description("How long the oldest dead letter rests, by reason and tenant")
            .with_callback(move |observer| {
                let state = lock(&state);
                let Some(now) = state.now else { return };
                if state.dead_letters.is_empty() {
                    observer.observe(0, &[]);
                }
                for (key, sum) in &state.dead_letters {
                    let age = u64::try_from(now.as_second() - sum.oldest.as_second());
                    observer.observe(age.unwrap_or_default(), &labels(key));
                }
            })
            .build();
    }

    pub(crate) fn resolved(&self, place: Place, action: Action, messages: usize) {
        let messages = u64::try_from(messages).unwrap_or(u64::MAX);
        self.resolved.add(messages, &dealt_with(place, action));
    }

    pub(crate) fn passed(&self, place: Place, is_whole: bool) {
        let name = if is_whole { "complete" } else { "incomplete" };
        self.passes.add(1, &ending(place, name));
    }
}

fn dealt_with(place: Place, action: Action) -> [KeyValue; 2] {
    [
        KeyValue::new("place", place.name()),
        KeyValue::new("action", action.name()),
    ]
}

fn ending(place: Place, ending: &'static str) -> [KeyValue; 2] {
    [
        KeyValue::new("place", place.name()),
        KeyValue::new("ending", ending),
    ]
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state
        .lock()
        .expect("nobody panics while holding the numbers")
}

/// Reads the depths of the queues from RabbitMQ, and counts dead letters by reason and tenant in their index,
/// until `shutdown`.
///
/// What cannot be read keeps its last value; the log says so.
pub async fn watch(
    broker: Broker,
    index: Option<History>,
    metrics: Metrics,
    clock: Clock,
    shutdown: CancellationToken,
) {
    let watching = async {
        loop {
            if let Err(fault) = count_queues(&broker, &metrics).await {
                let error = &fault as &dyn std::error::Error;
                warn!(error, "the depths of queues could not be read");
            }
            if let Some(index) = &index
                && let Err(fault) = count_letters(index, &metrics, clock.now()).await
            {
                let error = &fault as &dyn std::error::Error;
                warn!(error, "dead letters could not be counted");
            }
            time::sleep(COUNTING).await;
        }
    };
    shutdown.run_until_cancelled(watching).await;
}

async fn count_queues(broker: &Broker, metrics: &Metrics) -> Result<(), BrokerFault> {
    let topology = broker.topology();
    let partitions: Vec<String> = topology
        .partitions()
        .map(|key| topology.delivery_queue(key))
        .collect();
    let delays = topology.delay_queues();
    let events = topology.events_queue();
    let places = Place::ALL.map(|place| topology.queue_of(place));
    let all: Vec<String> = [events.clone()]
        .into_iter()
        .chain(places.clone())
        .chain(partitions.clone())
        .chain(delays.clone())
        .collect();
    let counts = broker.counts_of(&all).await?;
    let sum = |queues: &[String]| {
        let known = queues.iter().filter_map(|queue| counts.get(queue));
        known.fold(
            QueueCounts {
                ready: 0,
                consumers: 0,
            },
            |sum, counts| QueueCounts {
                ready: sum.ready.saturating_add(counts.ready),
                consumers: sum.consumers.saturating_add(counts.consumers),
            },
        )
    };
    let unowned = partitions.iter().filter(|queue| {
        counts
            .get(*queue)
            .is_none_or(|counts| counts.consumers == 0)
    });
    let mut shown = BTreeMap::from([
        ("events".to_owned(), sum(&[events])),
        ("deliveries".to_owned(), sum(&partitions)),
        ("delay".to_owned(), sum(&delays)),
    ]);
    for (place, queue) in Place::ALL.into_iter().zip(places) {
        shown.insert(place.name().to_owned(), sum(&[queue]));
    }
    let mut state = lock(&metrics.state);
    state.unowned_partitions = Some(unowned.count() as u64);
    state.queues = shown;
    Ok(())
}

async fn count_letters(
    index: &History,
    metrics: &Metrics,
    now: Timestamp,
) -> Result<(), HistoryFault> {
    let by = [LetterKey::Reason, LetterKey::Tenant];
    let groups = index.letter_groups(&LetterFilter::default(), &by).await?;
    let mut state = lock(&metrics.state);
    state.dead_letters = tally::bounded(&groups);
    state.now = Some(now);
    Ok(())
}
