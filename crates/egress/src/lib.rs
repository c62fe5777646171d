//! Calls receivers: builds a request, signs it, and sends it where the egress policy allows.
//!
//! The only thing that dials a receiver. The dispatcher attempts deliveries by it; whoever administers
//! endpoints tries them out by it. What follows from an outcome is decided elsewhere.
//!
//! Reading order: `attempt.rs` is one attempt, `trial.rs` one that is watched, `request.rs` what is sent, `egress.rs` how.

mod attempt;
mod handshake;
mod trial;

mod body;
mod request;

mod egress;

pub use attempt::attempt;
pub use egress::{Egress, EgressFault, EgressSettings, InvalidTls, Resolver, check_tls};
pub use handshake::{NotAllowed, ask_for_permission};
pub use trial::{Said, Trial, try_out};
