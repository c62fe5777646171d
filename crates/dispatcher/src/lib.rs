//! Attempts deliveries: one signed request each, and what became of it.

#![cfg_attr(
    not(test),
    expect(dead_code, reason = "the loop that attempts is not here yet")
)]

mod attempt;
mod egress;
mod request;

pub use egress::{Egress, EgressFault, EgressSettings, Resolver};
