//! Publishes what is in an outbox, and deletes it once RabbitMQ has it.

use std::time::Duration;

use fanfare_wire::{DecodedEvent, Envelope, EventLimits, decode_event};
use futures_util::{StreamExt as _, stream};
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Meter},
};
use sqlx::{PgPool, postgres::PgListener};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::OutboxFault;
use crate::{Producer, ProducerFault};

/// The rows of one transaction. They are locked until the last of them is confirmed, and repeated when the relay dies.
const ROWS: u16 = 100;
/// How long a relay that nobody wakes up lets pass before it looks again.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Publishes what is in an outbox. Any number of relays may serve one outbox.
pub struct Relay {
    pool: PgPool,
    producer: Producer,
    rows: u16,
    look_every: Duration,
    metrics: Metrics,
}

/// What became of the rows that a relay took at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pass {
    /// Published, confirmed and deleted.
    pub stored: usize,
    /// No events that Fanfare accepts: marked, with the reason, and left to people.
    pub refused: usize,
    /// Not confirmed: left as they were, to be published again.
    pub kept: usize,
}

/// A row, and when it was confirmed what follows.
enum Fate {
    Stored(i64),
    Refused(i64, String),
    Kept(ProducerFault),
}

struct Row {
    position: i64,
    message: Envelope,
    age: f64,
}

impl Relay {
    /// A relay for the outbox of this database. It uses two connections of the pool.
    pub fn new(pool: PgPool, producer: Producer) -> Self {
        Self {
            pool,
            producer,
            rows: ROWS,
            look_every: LOOK_EVERY,
            metrics: Metrics::new(&opentelemetry::global::meter("fanfare")),
        }
    }

    /// The same relay, taking so many rows at once. When it dies, at most these are repeated.
    #[must_use]
    pub fn rows(self, rows: u16) -> Self {
        Self {
            rows: rows.max(1),
            ..self
        }
    }

    /// The same relay, looking so often when nobody wakes it up.
    #[must_use]
    pub fn look_every(self, look_every: Duration) -> Self {
        Self { look_every, ..self }
    }

    /// The same relay with its numbers on this meter instead of OpenTelemetry's global one.
    #[must_use]
    pub fn measured_by(self, meter: &Meter) -> Self {
        Self {
            metrics: Metrics::new(meter),
            ..self
        }
    }

    /// Publishes until `shutdown`, then finishes the rows in hand.
    ///
    /// A database or a RabbitMQ that is away is waited for, with growing pauses.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut listener = None;
        let mut pause = FIRST_PAUSE;
        while !shutdown.is_cancelled() {
            match self.pass().await {
                Ok(pass) if pass.kept == 0 => {
                    pause = FIRST_PAUSE;
                    if pass.stored + pass.refused < self.rows.into() {
                        let more = self.more(&mut listener);
                        shutdown.run_until_cancelled(more).await;
                    }
                    continue;
                }
                Ok(pass) => warn!(kept = pass.kept, "events stay in the outbox"),
                Err(fault) => {
                    let error = &fault as &dyn std::error::Error;
                    warn!(error, "the outbox cannot be read now");
                    listener = None;
                }
            }
            let jittered = time::sleep(pause.mul_f64(rand::random_range(0.5..1.0)));
            shutdown.run_until_cancelled(jittered).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Takes rows that no other relay has, publishes them, and deletes those that RabbitMQ confirmed.
    ///
    /// `Err` means that the database failed: what was published is still there, and will be published again.
    pub async fn pass(&self) -> Result<Pass, OutboxFault> {
        self.pass_once().await.map_err(OutboxFault::Database)
    }

    async fn pass_once(&self) -> Result<Pass, sqlx::Error> {
        // The rows are locked for as long as the transaction lives. When this process or its connection dies,
        // PostgreSQL ends the transaction, and the rows are there for others.
        let mut transaction = self.pool.begin().await?;
        let rows: Vec<RowTuple> = sqlx::query_as(TAKE)
            .bind(i64::from(self.rows))
            .fetch_all(&mut *transaction)
            .await?;
        let rows: Vec<Row> = rows.into_iter().map(Row::from).collect();
        self.metrics.oldest(rows.iter().map(|row| row.age));
        if rows.is_empty() {
            transaction.rollback().await?;
            return Ok(Pass::default());
        }
        let publishing = stream::iter(rows).map(|row| self.publish(row));
        let fates: Vec<Fate> = publishing
            .buffer_unordered(self.rows.into())
            .collect()
            .await;
        let sorted = Sorted::from(fates);
        // Delete last. A crash before this repeats the publish; in the other order it would lose the event.
        sqlx::query("DELETE FROM fanfare_outbox WHERE position = ANY($1)")
            .bind(&sorted.stored)
            .execute(&mut *transaction)
            .await?;
        if !sorted.refused.is_empty() {
            sqlx::query(
                "UPDATE fanfare_outbox AS row SET refused_at = now(), refusal = why.detail \
                 FROM unnest($1::bigint[], $2::text[]) AS why (position, detail) \
                 WHERE row.position = why.position",
            )
            .bind(&sorted.refused)
            .bind(&sorted.refusals)
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        let pass = sorted.pass();
        self.metrics.passed(pass);
        Ok(pass)
    }

    async fn publish(&self, row: Row) -> Fate {
        let decoded = decode_event(&row.message, None, &EventLimits::default());
        let DecodedEvent { event, trace } = match decoded {
            Ok(decoded) => decoded,
            Err(rejection) => return Fate::Refused(row.position, rejection.to_string()),
        };
        match self.producer.publish_in_trace(&event, &trace).await {
            Ok(()) => Fate::Stored(row.position),
            Err(ProducerFault::Invalid(rejection)) => {
                Fate::Refused(row.position, rejection.to_string())
            }
            Err(fault) => Fate::Kept(fault),
        }
    }

    /// Waits until a transaction with events committed, or until it is time to look anyway.
    async fn more(&self, listener: &mut Option<PgListener>) {
        if listener.is_none() {
            *listener = self.listener().await.ok();
        }
        let told = async {
            match listener.as_mut() {
                Some(listening) => listening.try_recv().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        match time::timeout(self.look_every, told).await {
            Ok(true) => {
                // One look serves them all.
                while listener
                    .as_mut()
                    .and_then(PgListener::next_buffered)
                    .is_some()
                {}
            }
            Ok(false) => {
                *listener = None;
                time::sleep(self.look_every).await;
            }
            Err(_) => {}
        }
    }

    async fn listener(&self) -> Result<PgListener, sqlx::Error> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen("fanfare_outbox").await?;
        Ok(listener)
    }
}

type RowTuple = (i64, Vec<u8>, String, Option<String>, Option<String>, f64);

const TAKE: &str = "SELECT position, event, content_type, traceparent, tracestate, \
     extract(epoch FROM now() - enqueued_at)::float8 FROM fanfare_outbox \
     WHERE refused_at IS NULL ORDER BY position LIMIT $1 FOR UPDATE SKIP LOCKED";

impl From<RowTuple> for Row {
    fn from((position, event, content_type, traceparent, tracestate, age): RowTuple) -> Self {
        let mut message = Envelope {
            body: event.into(),
            ..Envelope::default()
        };
        message.properties.content_type = Some(content_type);
        for (name, value) in [("traceparent", traceparent), ("tracestate", tracestate)] {
            if let Some(value) = value {
                message.headers.insert(name, value);
            }
        }
        Self {
            position,
            message,
            age,
        }
    }
}

/// The fates of rows, as statements want them.
#[derive(Default)]
struct Sorted {
    stored: Vec<i64>,
    refused: Vec<i64>,
    refusals: Vec<String>,
    kept: usize,
}

impl From<Vec<Fate>> for Sorted {
    fn from(fates: Vec<Fate>) -> Self {
        let mut sorted = Self::default();
        for fate in fates {
            match fate {
                Fate::Stored(position) => sorted.stored.push(position),
                Fate::Refused(position, why) => {
                    warn!(position, why, "a row of the outbox is no event");
                    sorted.refused.push(position);
                    sorted.refusals.push(why);
                }
                Fate::Kept(fault) => {
                    // The others failed for the same reason.
                    if sorted.kept == 0 {
                        warn!(%fault, "an event of the outbox was not published");
                    }
                    sorted.kept += 1;
                }
            }
        }
        sorted
    }
}

impl Sorted {
    fn pass(&self) -> Pass {
        Pass {
            stored: self.stored.len(),
            refused: self.refused.len(),
            kept: self.kept,
        }
    }
}

/// The numbers that a relay owns.
struct Metrics {
    events: Counter<u64>,
    oldest: Gauge<f64>,
}

impl Metrics {
    fn new(meter: &Meter) -> Self {
        Self {
            events: meter
                .u64_counter("fanfare_outbox_events")
                .with_description("Events taken from the outbox, by what became of them")
                .build(),
            oldest: meter
                .f64_gauge("fanfare_outbox_oldest")
                .with_unit("s")
                .with_description("How long the oldest event that this relay found had waited")
                .build(),
        }
    }

    fn oldest(&self, ages: impl Iterator<Item = f64>) {
        self.oldest.record(ages.fold(0.0, f64::max), &[]);
    }

    fn passed(&self, pass: Pass) {
        for (result, count) in [
            ("stored", pass.stored),
            ("refused", pass.refused),
            ("kept", pass.kept),
        ] {
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            if count > 0 {
                self.events.add(count, &[KeyValue::new("result", result)]);
            }
        }
    }
}
