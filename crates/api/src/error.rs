//! Faults of ours, and what a caller is told of them.

use std::{error::Error, io};

use fanfare_deadletters::DeadLettersFault;
use fanfare_journal::HistoryFault;
use fanfare_producer::ProducerFault;
use fanfare_registry::{InvalidEndpoint, RegistryFault};
use fanfare_replay::ReplayFault;

use crate::problem::{Code, Problem};

/// Why the API ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ApiFault {
    /// Connections cannot be accepted any more.
    #[error("serving HTTP")]
    Serving(#[source] io::Error),
}

impl From<RegistryFault> for Problem {
    /// Logs a fault of ours: its text is not for callers.
    fn from(fault: RegistryFault) -> Self {
        if let RegistryFault::Invalid(invalid) = &fault {
            return Self::from(invalid);
        }
        if let RegistryFault::InvalidEventType(invalid) = &fault {
            let code = Code::InvalidRequest;
            return Self::at(&invalid.field, code, &invalid.to_string());
        }
        if let RegistryFault::State(refused) = &fault {
            return Self::new(Code::EndpointDisabled, &refused.to_string());
        }
        let error = &fault as &dyn Error;
        if fault.is_transient() {
            tracing::warn!(error, "a request could not be carried out");
            let detail = "the store of endpoints and keys did not answer: try again";
            Self::new(Code::StoreUnavailable, detail)
        } else {
            tracing::error!(error, "a request could not be carried out");
            Self::internal()
        }
    }
}

impl From<HistoryFault> for Problem {
    /// Logs a fault of ours: its text is not for callers.
    fn from(fault: HistoryFault) -> Self {
        let error = &fault as &dyn Error;
        if fault.is_transient() {
            tracing::warn!(error, "the history could not be asked");
            let detail = "the history did not answer: try again";
            Self::new(Code::HistoryUnavailable, detail)
        } else {
            tracing::error!(error, "the history could not be asked");
            Self::internal()
        }
    }
}

impl From<DeadLettersFault> for Problem {
    /// Logs a fault of ours: its text is not for callers.
    fn from(fault: DeadLettersFault) -> Self {
        let fault = match fault {
            DeadLettersFault::Store(fault) => return fault.into(),
            DeadLettersFault::Index(fault) => return fault.into(),
            DeadLettersFault::Refused { why } => return Self::new(Code::InvalidRequest, &why),
            DeadLettersFault::Broker { .. }
            | DeadLettersFault::Publish(_)
            | DeadLettersFault::Unconfirmed(_)
            | DeadLettersFault::Unreadable { .. } => fault,
        };
        let error = &fault as &dyn Error;
        if fault.is_transient() {
            tracing::warn!(error, "a queue could not be looked into");
            let detail = "RabbitMQ did not answer: try again";
            Self::new(Code::QueueUnavailable, detail)
        } else {
            tracing::error!(error, "a queue could not be looked into");
            Self::internal()
        }
    }
}

impl From<ReplayFault> for Problem {
    /// Logs a fault of ours: its text is not for callers.
    fn from(fault: ReplayFault) -> Self {
        let text = fault.to_string();
        match fault {
            ReplayFault::Refused { field, why } => Self::at(field, Code::InvalidRequest, &why),
            ReplayFault::NoSuchEndpoint { .. } => Self::new(Code::NoSuchEndpoint, &text),
            ReplayFault::EndpointDisabled { .. } => Self::new(Code::EndpointDisabled, &text),
            ReplayFault::NoSuchEvent { .. } => Self::new(Code::NoSuchEvent, &text),
            ReplayFault::History(fault) => fault.into(),
            ReplayFault::Store(fault) => fault.into(),
            // Only those who run an operation meet these.
            ReplayFault::Broker(_)
            | ReplayFault::Publish(_)
            | ReplayFault::Unconfirmed(_)
            | ReplayFault::DeadLetters(_)
            | ReplayFault::LockLost(_)
            | ReplayFault::Unreadable { .. } => {
                let error = &fault as &dyn Error;
                tracing::error!(error, "a request could not be carried out");
                Self::internal()
            }
        }
    }
}

impl From<&InvalidEndpoint> for Problem {
    fn from(invalid: &InvalidEndpoint) -> Self {
        Self::at(invalid.field, Code::InvalidRequest, &invalid.to_string())
    }
}

impl From<ProducerFault> for Problem {
    /// Logs a fault of ours: its text is not for callers.
    fn from(fault: ProducerFault) -> Self {
        match fault {
            ProducerFault::Invalid(rejection) => Self::from(rejection),
            ProducerFault::Overloaded => {
                let detail = "RabbitMQ holds as many events as it may: wait and publish again";
                Self::new(Code::Overloaded, detail)
            }
            ProducerFault::Unconfirmed(waited) => {
                tracing::warn!("RabbitMQ did not confirm an event within {waited:?}");
                let detail = format!(
                    "RabbitMQ did not confirm the event within {waited:?}, and it may have been \
                     stored: publish it again with the same id (`event_id`) and source, so that \
                     a repeat is recognised"
                );
                Self::new(Code::Unconfirmed, &detail)
            }
            ProducerFault::Closed | ProducerFault::NotDeclared | ProducerFault::Broker(_) => {
                let error = &fault as &dyn Error;
                tracing::error!(error, "an event could not be published");
                let detail = "the event was not stored: publish it again with the same id \
                              (`event_id`) and source";
                Self::new(Code::BrokerUnavailable, detail)
            }
        }
    }
}
