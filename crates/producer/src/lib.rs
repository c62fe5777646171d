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

mod build;
mod error;
mod producer;

pub use build::EventBuilder;
pub use error::ProducerFault;
pub use fanfare_broker::Settings;
pub use fanfare_model::{Event, TraceContext};
pub use producer::Producer;
