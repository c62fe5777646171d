//! Why an event was not published, and what to do about it.

use std::time::Duration;

use fanfare_broker::{BrokerFault, PublishFault};
use fanfare_wire::EventRejection;

/// Why an event was not published.
#[derive(Debug, thiserror::Error)]
pub enum ProducerFault {
    /// The event is not one that Fanfare accepts. Mend it; publishing it again will not help.
    #[error("the event was not published: {0}")]
    Invalid(EventRejection),
    /// RabbitMQ holds as many events as it may. Wait and publish again.
    #[error("RabbitMQ has no room for more events: wait and publish again")]
    Overloaded,
    /// No confirm came in time. The event may have been stored: publish it again with the same id.
    #[error(
        "RabbitMQ did not confirm within {0:?}: publish again with the same id and source, so that a \
         repeat is recognised"
    )]
    Unconfirmed(Duration),
    /// RabbitMQ could not be reached or does not know Fanfare's exchanges.
    #[error("no connection for publishing")]
    Broker(#[source] BrokerFault),
    /// The exchange is there and the queue behind it is not. Start Fanfare once, or declare the topology.
    #[error("the event was not stored: Fanfare's queues are not declared in this virtual host")]
    NotDeclared,
    /// The producer was closed.
    #[error("the producer is closed")]
    Closed,
}

impl ProducerFault {
    /// Whether publishing the same event again later may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Overloaded | Self::Unconfirmed(_) | Self::NotDeclared => true,
            Self::Broker(fault) => fault.is_transient(),
            Self::Invalid(_) | Self::Closed => false,
        }
    }
}

impl From<PublishFault> for ProducerFault {
    fn from(fault: PublishFault) -> Self {
        match fault {
            PublishFault::Refused => Self::Overloaded,
            PublishFault::Unroutable { .. } => Self::NotDeclared,
            PublishFault::Closed => Self::Closed,
            PublishFault::TooLarge(bytes) => Self::Invalid(EventRejection {
                code: fanfare_wire::RejectionCode::TooLarge,
                field: None,
                detail: format!("the event has {bytes} bytes, more than RabbitMQ takes"),
            }),
            PublishFault::TooLong(what) => Self::Invalid(EventRejection {
                code: fanfare_wire::RejectionCode::InvalidAttribute,
                field: Some(what.to_owned()),
                detail: format!("{what} is longer than the 255 bytes that AMQP allows"),
            }),
        }
    }
}
