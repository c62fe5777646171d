//! Receivers that ask for more than a signature, as real servers on loopback.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

mod presets;
mod tls;
mod tokens;
mod versions;
