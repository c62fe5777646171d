//! Decides who is owed an event, and hands the deliveries on.
//!
//! The router consumes `events`, matches each against the registry snapshot, publishes one delivery
//! for each endpoint that wants it, waits until the broker has them all, and only then acknowledges
//! the event. A crash in between routes the event again; the deliveries keep their ids, so receivers
//! recognise the repeat.
//!
//! A delivery that has to wait, or whose endpoint is flooded, goes straight to the delay line.
//!
//! A message that is no event goes to `rejected` with the reason. An event that nobody wants is
//! counted. Without a registry snapshot nothing is consumed: not knowing who wants an event must
//! never look like nobody wanting it.

mod decide;
mod diversions;
mod metrics;
mod run;
mod settings;

pub use diversions::{Diversion, Diversions};
pub use run::{Router, run};
pub use settings::Settings;
