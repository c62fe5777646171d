//! Nothing accepted is lost at any cut point, and what is repeated stays within its bound.

#![expect(
    clippy::print_stderr,
    reason = "bounds are told before a run, and counts after it"
)]

mod broker_outage;
mod dead_letters;
mod hand_over;
mod kills;
mod outbox;
mod recorders;
mod replays;
mod restart;
mod support;
