//! What a person or a program may do to the state of an endpoint.

use jiff::Timestamp;

use crate::{DisabledReason, EndpointState};

/// A change of an endpoint's state, as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateChange {
    /// Let deliveries wait.
    Pause,
    /// End a pause.
    Resume,
    /// Make dead letters of deliveries.
    Disable,
    /// Call it again after it was disabled.
    Enable,
}

/// Why a state cannot be changed so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the endpoint is disabled: enable it first")]
pub struct InvalidStateChange;

impl StateChange {
    /// The state after the change; the same one where there is nothing to change.
    pub fn apply(
        self,
        state: &EndpointState,
        now: Timestamp,
    ) -> Result<EndpointState, InvalidStateChange> {
        use EndpointState::{Active, Disabled, Paused};
        match (self, state) {
            (Self::Pause | Self::Resume, Disabled { .. }) => Err(InvalidStateChange),
            (Self::Pause, Active | Paused) => Ok(Paused),
            (Self::Resume, Active | Paused) | (Self::Enable, Disabled { .. }) => Ok(Active),
            (Self::Disable, Active | Paused) => Ok(Disabled {
                reason: DisabledReason::Requested,
                since: now,
            }),
            (Self::Disable, Disabled { .. }) | (Self::Enable, Active | Paused) => Ok(state.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_changes_as_asked_and_a_disabled_endpoint_is_enabled_only_on_purpose() {
        use EndpointState::{Active, Paused};
        let at = |second| Timestamp::from_second(second).unwrap();
        let disabled = |reason, second| EndpointState::Disabled {
            reason,
            since: at(second),
        };
        let requested = disabled(DisabledReason::Requested, 9);
        let gone = disabled(DisabledReason::Gone, 1);
        for (change, from, expected) in [
            (StateChange::Pause, Active, Ok(Paused)),
            (StateChange::Pause, Paused, Ok(Paused)),
            (StateChange::Pause, gone.clone(), Err(InvalidStateChange)),
            (StateChange::Resume, Active, Ok(Active)),
            (StateChange::Resume, Paused, Ok(Active)),
            (StateChange::Resume, gone.clone(), Err(InvalidStateChange)),
            (StateChange::Disable, Active, Ok(requested.clone())),
            (StateChange::Disable, Paused, Ok(requested)),
            (StateChange::Disable, gone.clone(), Ok(gone.clone())),
            (StateChange::Enable, Active, Ok(Active)),
            (StateChange::Enable, Paused, Ok(Paused)),
            (StateChange::Enable, gone, Ok(Active)),
        ] {
            assert_eq!(change.apply(&from, at(9)), expected, "{change:?} {from:?}");
        }
    }
}
