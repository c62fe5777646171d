//! What the broker crate promises, against every supported line of RabbitMQ.
//!
//! Each test has a virtual host of its own; those that stop a node or raise an alarm have a node of their own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

mod delay_line;
mod inbox;
mod looking;
mod node;
mod ownership;
mod publisher;
mod reading;
mod settlement;
mod topology;
