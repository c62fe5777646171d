//! The commands that an operator or a developer runs.

pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod listen;
