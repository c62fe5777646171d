//! An event published is received, signed, once or more; what fails is retried, kept and found again.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod alerts;
mod bad_events;
mod bundles;
mod command_line;
mod content;
mod dead_letters;
mod delivery;
mod examples;
mod failing;
mod floods;
mod history;
mod hostile;
mod identity;
mod life;
mod modes;
mod other_languages;
mod referralhero;
mod replays;
mod signatures;
mod waiting;
