//! A transactional outbox: events that are published if and only if a database transaction commits.
//!
//! A service that changes its database and publishes an event can fail between the two. With an outbox it
//! writes the event into a table of the same database, in the same transaction, and a [`Relay`] publishes it
//! from there and deletes it once RabbitMQ has confirmed. What was committed is published at least once, what
//! was rolled back never, whatever is killed when. A repeat has the same id and is recognised.
//!
//! ```no_run
//! use fanfare_producer::{EventBuilder, outbox::{self, sqlx::PgPool}};
//!
//! # async fn example(pool: PgPool) -> Result<(), Box<dyn std::error::Error>> {
//! let event = EventBuilder::new("MF4c1b7e20", "reward.unlocked", "/rewards")
//!     .id("31-unlocked")
//!     .json(br#"{"reward":31}"#)
//!     .build()?;
//! let mut transaction = pool.begin().await?;
//! // … what the event tells of …
//! outbox::enqueue(&mut *transaction, &event).await?;
//! transaction.commit().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Services in other languages insert into the table themselves: `outbox/schema.sql` says what. Any number of
//! relays may run, in services or as `fanfare outbox relay`; each takes rows that no other has. Events have no order.

mod fault;
mod relay;

use std::time::Duration;

use fanfare_model::{Event, Timestamp, TraceContext};
use fanfare_wire::{EventLimits, EventRejection, RejectionCode, check_event};
use sqlx::{Connection as _, PgConnection, PgExecutor};

pub use fault::OutboxFault;
pub use relay::{Pass, Relay};
/// The database library whose transactions events are enqueued in.
pub use sqlx;

use crate::{Mode, trace};

/// What the outbox needs in the database, for whoever has a migration tool. May be run again and again.
pub const SCHEMA: &str = include_str!("outbox/schema.sql");

/// The number of the lock that keeps two programs from creating the table at the same time.
const CREATING: i64 = 0x6661_6e66_6172_6500;

/// Creates what the outbox needs, unless it is there.
pub async fn create_table(connection: &mut PgConnection) -> Result<(), OutboxFault> {
    let create = async {
        let mut transaction = connection.begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock($1)")
            .bind(CREATING)
            .execute(&mut *transaction)
            .await?;
        sqlx::raw_sql(SCHEMA).execute(&mut *transaction).await?;
        transaction.commit().await
    };
    create.await.map_err(OutboxFault::Database)
}

/// Keeps an event in the outbox, as part of the caller's transaction and of its OpenTelemetry span.
///
/// It is published once the transaction has committed. After a fault of the database the transaction is not usable any more.
pub async fn enqueue<'c>(
    transaction: impl PgExecutor<'c>,
    event: &Event,
) -> Result<(), OutboxFault> {
    enqueue_in_trace(transaction, event, &trace::current()).await
}

/// Keeps an event in the outbox as part of this trace.
pub async fn enqueue_in_trace<'c>(
    transaction: impl PgExecutor<'c>,
    event: &Event,
    trace: &TraceContext,
) -> Result<(), OutboxFault> {
    check_event(event).map_err(OutboxFault::Invalid)?;
    // The moment is that of publishing; only the form is of interest here.
    let message = Mode::Protobuf.message(event, trace, Timestamp::UNIX_EPOCH);
    check_size(message.size())?;
    sqlx::query(
        "INSERT INTO fanfare_outbox (event, content_type, traceparent, tracestate) \
         VALUES ($1, $2, $3, $4)",
    )
    .bind(&*message.body)
    .bind(message.properties.content_type)
    .bind(&trace.traceparent)
    .bind(&trace.tracestate)
    .execute(transaction)
    .await
    .map_err(OutboxFault::Database)?;
    Ok(())
}

/// What is in an outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxStatus {
    /// Events that wait to be published.
    pub waiting: u64,
    /// How long the oldest of them has waited.
    pub oldest: Duration,
    /// Rows that are no events Fanfare accepts.
    pub refused: u64,
}

/// Looks what is in an outbox. Counts every row.
pub async fn status<'c>(executor: impl PgExecutor<'c>) -> Result<OutboxStatus, OutboxFault> {
    let (waiting, oldest, refused): (i64, f64, i64) = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE refused_at IS NULL), \
         coalesce(extract(epoch FROM now() - min(enqueued_at) FILTER (WHERE refused_at IS NULL)), 0)::float8, \
         count(*) FILTER (WHERE refused_at IS NOT NULL) FROM fanfare_outbox",
    )
    .fetch_one(executor)
    .await
    .map_err(OutboxFault::Database)?;
    Ok(OutboxStatus {
        waiting: waiting.unsigned_abs(),
        oldest: Duration::from_secs_f64(oldest.max(0.0)),
        refused: refused.unsigned_abs(),
    })
}

fn check_size(bytes: usize) -> Result<(), OutboxFault> {
    let most = EventLimits::default().max_event_bytes;
    if bytes <= most {
        return Ok(());
    }
    Err(OutboxFault::Invalid(EventRejection {
        code: RejectionCode::TooLarge,
        field: None,
        detail: format!("the event has {bytes} bytes, and at most {most} are accepted"),
    }))
}
