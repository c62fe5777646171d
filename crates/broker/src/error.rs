//! Faults of talking to the broker.

use std::time::Duration;

use lapin::{
    ErrorKind,
    protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError},
};

use crate::broker::is_soft_error;

/// Why something could not be done with the broker.
#[derive(Debug, thiserror::Error)]
pub enum BrokerFault {
    /// The URL is not an AMQP URL. Does not show it, because it may hold a password.
    #[error("`broker.url` is not an AMQP URL such as amqp://user:password@host:5672/vhost: {0}")]
    Url(String),
    /// No connection within the time that the caller gave.
    #[error("no connection to RabbitMQ within {0:?}; the log says why each try failed")]
    NotConnected(Duration),
    /// Something of ours exists with other arguments.
    #[error("{what} exists with other arguments than Fanfare needs; see `fanfare topology check`")]
    Differs {
        /// The exchange or queue.
        what: String,
        /// What the broker said.
        source: lapin::Error,
    },
    /// The broker refused or failed an operation.
    #[error("{what}")]
    Operation {
        /// What was being done.
        what: String,
        /// What the broker said.
        source: lapin::Error,
    },
    /// A message was not taken.
    #[error("a message was not published")]
    Unpublishable(#[source] PublishFault),
    /// The broker handle was closed.
    #[error("the connection to RabbitMQ was closed by this process")]
    Closed,
}

impl BrokerFault {
    pub(crate) fn operation(what: impl Into<String>) -> impl FnOnce(lapin::Error) -> Self {
        let what = what.into();
        move |source| Self::Operation { what, source }
    }

    /// Whether the broker closed the channel of an operation for this reason.
    pub(crate) fn is_soft(&self, expected: &AMQPSoftError) -> bool {
        match self {
            Self::Operation { source, .. } => is_soft_error(source, expected),
            Self::Url(_)
            | Self::NotConnected(_)
            | Self::Differs { .. }
            | Self::Closed
            | Self::Unpublishable(_) => false,
        }
    }

    /// Whether the broker ended the connection because it does not know what was asked for.
    pub(crate) fn is_unknown(&self) -> bool {
        let Self::Operation { source, .. } = self else {
            return false;
        };
        let ErrorKind::ProtocolError(error) = source.kind() else {
            return false;
        };
        matches!(
            error.kind(),
            AMQPErrorKind::Hard(AMQPHardError::COMMANDINVALID)
        )
    }

    /// Whether trying again later may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NotConnected(_) => true,
            Self::Operation { source, .. } => is_transient(source),
            Self::Unpublishable(fault) => fault.is_transient(),
            Self::Url(_) | Self::Differs { .. } | Self::Closed => false,
        }
    }
}

/// The broker's refusals last, except when it is the broker that is in trouble.
fn is_transient(error: &lapin::Error) -> bool {
    let ErrorKind::ProtocolError(error) = error.kind() else {
        return true;
    };
    match error.kind() {
        AMQPErrorKind::Hard(kind) => matches!(
            kind,
            AMQPHardError::CONNECTIONFORCED
                | AMQPHardError::RESOURCEERROR
                | AMQPHardError::INTERNALERROR
        ),
        AMQPErrorKind::Soft(_) => false,
    }
}

/// Why a publish did not succeed. Nothing was lost silently: the caller still has to act.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishFault {
    /// No queue takes the message: a hole in the topology.
    #[error("no queue takes messages for exchange `{exchange}` with routing key `{routing_key}`")]
    Unroutable {
        /// Where it was published to.
        exchange: String,
        /// With this key.
        routing_key: String,
    },
    /// The queue is full: slow down and try again.
    #[error("RabbitMQ refused the message because its queue is full: publish slower and try again")]
    Refused,
    /// A name or property is longer than AMQP allows.
    #[error("{0} is longer than the 255 bytes that AMQP allows")]
    TooLong(&'static str),
    /// The body is larger than brokers take by default.
    #[error("a message of {0} bytes is larger than the 16 MiB that RabbitMQ takes by default")]
    TooLarge(usize),
    /// The publisher was closed before the broker confirmed; it may have the message or not.
    #[error("the publisher was closed before RabbitMQ confirmed the message")]
    Closed,
}

impl PublishFault {
    /// Whether publishing the same message again later may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused | Self::Unroutable { .. } => true,
            Self::TooLong(_) | Self::TooLarge(_) | Self::Closed => false,
        }
    }
}
