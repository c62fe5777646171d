//! Why a message of our own cannot be read.

/// Why a message between our own processes cannot be read. Retrying never helps.
#[derive(Debug, thiserror::Error)]
pub enum DecodeFault {
    /// The bytes are not the message they should be.
    #[error("the {what} is not readable")]
    Malformed {
        /// What was to be read: `bundle`, `dead-letter record`.
        what: &'static str,
        /// What the bytes lack.
        source: prost::DecodeError,
    },
    /// The message has a version that this program does not know.
    #[error("the {what} has version {version}, and only version 1 is known here")]
    UnknownVersion {
        /// What was to be read.
        what: &'static str,
        /// The version it has.
        version: u32,
    },
    /// The message is larger than any that is sent.
    #[error("the message has {bytes} bytes, more than the {limit} that are ever sent")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The most that would be read.
        limit: usize,
    },
    /// A bundle without a delivery.
    #[error("the bundle holds no delivery")]
    Empty,
    /// A delivery refers to an event that the message does not hold.
    #[error("a delivery refers to event {index}, which the message does not hold")]
    NoSuchEvent {
        /// Where the event should be.
        index: u32,
    },
    /// A field holds what it must not.
    #[error("field `{field}` must be {expected}")]
    InvalidField {
        /// The name of the field.
        field: &'static str,
        /// What would be accepted.
        expected: &'static str,
    },
    /// A field or header that every such message has is absent.
    #[error("`{name}` is missing")]
    Missing {
        /// The name of the field or header.
        name: &'static str,
    },
}
