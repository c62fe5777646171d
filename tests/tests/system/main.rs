//! An event published is received, signed, once or more; what fails is retried, kept and found again.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_events;
mod bundles;
mod delivery;
mod failing;
mod floods;
mod hostile;
mod other_languages;
mod waiting;
