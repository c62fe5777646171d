//! Attempts deliveries: one signed request each, and what becomes of it.
//!
//! A dispatcher consumes the partitions it owns. Each delivery goes through its endpoint's lane, which
//! bounds the requests in flight and their rate; the outcome of the attempt decides its settlement;
//! the settlement is carried out at the broker, confirmed, and only then is the message acknowledged.
//! What has to wait longer than seconds waits in the broker's delay line, never here.
//!
//! RabbitMQ decides which partitions are this dispatcher's, and may change its mind: `ownership.rs` lets go
//! of them in order.
//!
//! Reading order: `run.rs` is the loop, `decide.rs` the rules, `lane.rs` the waiting, `settle.rs` the
//! consequences. The request itself is the work of the crate `egress`.

mod run;

mod ownership;
mod partition;
mod peers;

mod breaker;
mod decide;
mod lane;
mod lanes;
mod seen;

mod crashed;
mod floods;
mod operational;
mod record;
mod reports;
mod settle;

mod error;
mod metrics;
mod settings;

#[cfg(test)]
mod samples;

pub use error::DispatcherFault;
pub use run::{Dispatcher, run};
pub use settings::Settings;
