//! Publishes events to Fanfare over AMQP, for backend services written in Rust.
//!
//! Services in other languages need no SDK: they publish CloudEvents with their own AMQP client. This
//! one adds what such a service would have to write itself: pipelining, confirms, back-pressure, and a
//! connection that comes back without losing what was handed in.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use fanfare_producer::{EventBuilder, Producer, Settings};
//!
//! let producer = Producer::connect(&Settings::default(), "billing").await?;
//! let event = EventBuilder::new("MF4c1b7e20", "reward.unlocked", "https://example.com/rewards")
//!     .id("31-unlocked")
//!     .json(br#"{"reward":31}"#)
//!     .build()?;
//! producer.publish(&event).await?;
//! producer.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! `Ok` from [`Producer::publish`] means that RabbitMQ has stored the event. It does not mean that the
//! event is wanted by anyone, or that it has been delivered.
//!
//! - Many events: [`Producer::publish_all`] keeps so many in flight and says what became of each.
//! - Back-pressure: [`ProducerFault::is_transient`] tells whether to wait and publish again, which
//!   [`Producer::publish_patiently`] does.
//! - Traces: an event continues the caller's OpenTelemetry span, or the trace it is given.
//! - Numbers: `fanfare_producer_*` on OpenTelemetry's global meter, or on the one it is given.
//! - An event that belongs to a database transaction: the feature `outbox` keeps it in a table of PostgreSQL,
//!   written in that transaction, and a relay publishes it from there.

mod build;
mod error;
mod metrics;
mod mode;
#[cfg(feature = "outbox")]
pub mod outbox;
mod producer;
mod trace;

pub use build::EventBuilder;
pub use error::ProducerFault;
pub use fanfare_broker::Settings;
pub use fanfare_model::{AttributeValue, Event, TraceContext};
pub use mode::Mode;
pub use producer::{Producer, Published};
