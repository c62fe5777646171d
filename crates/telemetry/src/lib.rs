//! What the process tells about itself: log lines on stderr, and metrics for `/metrics`.
//!
//! Each crate names its own spans and instruments; this one only carries them out of the process.

mod logs;
mod metrics;
mod settings;

pub use logs::{LogsFault, init_logs};
pub use metrics::Metrics;
pub use settings::{InvalidFilter, LogFilter, LogFormat, Settings};
