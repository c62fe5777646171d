//! Replays of history: what an endpoint missed, what a new endpoint is to have from the past, and one event again.
//!
//! [`Desk::request`] writes an operation down, so that it outlives the process. Whoever runs it reads the
//! history page by page and publishes deliveries as a router does: under the `webhook-id` that the receiver knows,
//! with fresh attempts, as the next replay. What is published is confirmed before it is noted, together
//! with how far the operation has come: a process that dies repeats at most one portion.
//!
//! Operations are kept, listed, audited and cancelled as those on dead letters are. A dead letter that was
//! replayed from the history is discarded from its queue afterwards, so that the queue tells the truth.

mod desk;
mod request;
mod run;

mod decide;
mod keeper;

mod error;

pub use desk::Desk;
pub use error::ReplayFault;
pub use keeper::keep;
pub use request::{Action, Filter, InvalidOutcome, Outcome, Request};
pub use run::{Checkpoint, Progress};

/// Where the registry says that operations of this crate are.
pub const PLACE: &str = "history";
