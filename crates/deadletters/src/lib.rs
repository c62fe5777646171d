//! The operations on messages that rest until somebody deals with them: dead letters, rejected events,
//! what found no way, and what ended processes.
//!
//! The queue is the only truth. A [`View`] looks into it, or into the index of dead letters that the history
//! keeps, and changes nothing; [`reindex`] sets that index right.
//! [`Desk::request`] writes down what is to be done, so that it outlives the process; [`Desk::run`] passes
//! over the queue and does it, whoever asked. What an operation has dealt with is written down before it is
//! acknowledged: a process that dies in the middle leaves nothing undone, and nothing counted twice.

mod settings;

mod desk;
mod pass;
mod plan;

mod entry;
mod filter;
mod group;
mod look;
mod reindex;
mod tally;
mod view;

mod keeper;
mod rules;

mod consequence;
mod error;
mod metrics;

pub use consequence::Action;
pub use desk::{Asked, Desk, Progress, Request};
pub use entry::Entry;
pub use error::DeadLettersFault;
pub use filter::{Filter, InvalidFilter};
pub use group::{Group, GroupBy};
pub use keeper::keep;
pub use metrics::{Metrics, watch};
pub use reindex::{Reindexed, reindex};
pub use settings::Settings;
pub use view::{Found, Looked, Seen, View};
