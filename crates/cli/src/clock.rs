//! The one place that reads the time of day.

use fanfare_model::{Clock, Timestamp};

/// The clock of this machine.
pub(crate) fn system_clock() -> Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the `Clock` that wiring hands to everyone else"
    )]
    Clock::new(Timestamp::now)
}
