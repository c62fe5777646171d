//! The API as its callers meet it: a real listener, a real store, and RabbitMQ where events matter.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_inputs;
mod content;
mod endpoints;
mod events;
mod history;
mod process;
mod refusals;
mod replays;
mod resting;
mod support;
