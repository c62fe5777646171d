//! The commands that an operator or a developer runs.

pub(crate) mod audit;
pub(crate) mod bench;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod dev;
pub(crate) mod dispatchers;
pub(crate) mod endpoints;
pub(crate) mod event_types;
pub(crate) mod events;
pub(crate) mod filter;
pub(crate) mod keys;
pub(crate) mod listen;
pub(crate) mod migrate;
pub(crate) mod outbox;
pub(crate) mod publish;
pub(crate) mod replay;
pub(crate) mod resting;
pub(crate) mod serve;
pub(crate) mod template;
pub(crate) mod topology;

mod broker;
mod content;
