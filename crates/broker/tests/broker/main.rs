//! What the broker crate promises, against every supported line of RabbitMQ.
//!
//! Each test has a virtual host of its own; those that stop a node or raise an alarm have a node of their own.

mod support;

mod publisher;
