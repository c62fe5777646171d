//! The operations on deliveries that were given up on, over the queue that holds them.
//!
//! The queue is the only truth. [`list`] looks at it and changes nothing.

mod list;

pub use list::{Listed, Unreadable, list};
