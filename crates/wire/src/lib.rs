//! Turns the nouns of Fanfare into messages and back.
//!
//! A message is an [`Envelope`]: properties, headers and a body, in no library's terms. The broker
//! crate turns envelopes into AMQP and back. Old messages outlive a deploy: what they look like is
//! decided here alone, so the rest of the code never meets an old form.
//!
//! Every decoder is total: whatever the bytes are, it returns a value or says what is wrong.
//!
//! Reading order: [`decode_event`] reads what producers publish; [`encode_bundle`] carries deliveries
//! from router to dispatcher; [`encode_dead_letter`] keeps the ones given up on; [`encode_rejected`]
//! keeps the messages that are no events; [`encode_journal_batch`] tells the history what happened;
//! [`ControlMessage`] is what processes tell each other.

mod bundle;
mod control;
mod conversion;
mod dead_letter;
mod envelope;
mod error;
mod event;
mod journal;
mod proto;
mod rejected;

pub use bundle::{decode_bundle, encode_bundle, is_bundle};
pub use control::{
    Circuit, ControlMessage, DispatcherPresence, EndpointStanding, PartitionPresence,
    PartitionRole, ReceiverStanding, StartsHandedOver,
};
pub use dead_letter::{decode_dead_letter, encode_dead_letter};
pub use envelope::{Envelope, HeaderValue, Headers, Properties};
pub use error::DecodeFault;
pub use event::{
    DecodedEvent, EventDefaults, EventLimits, EventRejection, RejectionCode, check_event,
    decode_event, decode_event_with, decode_structured_json, encode_structured, event_envelope,
    event_envelope_binary, event_envelope_protobuf, is_batch, split_batch, trace_of_event,
};
pub use journal::{decode_journal_batch, encode_journal_batch};
pub use rejected::encode_rejected;
