//! The form in which events are published.

use fanfare_model::{Event, Timestamp, TraceContext};
use fanfare_wire::{Envelope, event_envelope, event_envelope_binary, event_envelope_protobuf};

/// The form in which events are published. Fanfare reads each of them; other consumers may not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Attributes as headers, the data byte for byte as body. What any AMQP tool can read, and the dearest:
    /// RabbitMQ and both clients read and write every header.
    Binary,
    /// The event as one JSON document.
    Structured,
    /// The event as one protobuf message: nobody reads its data on the way, and nothing of it is changed.
    #[default]
    Protobuf,
}

impl Mode {
    /// The message that publishes an event.
    pub(crate) fn message(self, event: &Event, trace: &TraceContext, now: Timestamp) -> Envelope {
        match self {
            Self::Binary => event_envelope_binary(event, trace, now),
            Self::Structured => event_envelope(event, trace, now),
            Self::Protobuf => event_envelope_protobuf(event, trace, now),
        }
    }
}
