//! Operations on resting messages, on real brokers of both versions.

#![allow(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

mod index;
mod looking;
mod others;
mod passes;
mod support;
