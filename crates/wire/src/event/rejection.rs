//! Why a message is not accepted as an event, in words for whoever published it.

use std::fmt;

/// Why a message is not accepted as an event. `Display` is a sentence that names the field and what
/// would be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct EventRejection {
    /// What kind of reason, stable across releases.
    pub code: RejectionCode,
    /// The attribute, property or member at fault, if it is one.
    pub field: Option<String>,
    /// The sentence; at most 500 characters.
    pub detail: String,
}

impl EventRejection {
    pub(crate) fn new(code: RejectionCode, field: Option<&str>, detail: impl AsRef<str>) -> Self {
        // Both may quote what the producer sent, which is as long as it likes.
        Self {
            code,
            field: field.map(|name| name.escape_debug().take(64).collect()),
            detail: detail.as_ref().chars().take(500).collect(),
        }
    }

    /// The same reason, said of one event of a batch; `index` counts from 0.
    #[must_use]
    pub fn in_batch(self, index: usize) -> Self {
        let detail = format!(
            "event {index} of the batch, counted from 0: {}",
            self.detail
        );
        Self::new(self.code, self.field.as_deref(), detail)
    }

    /// An attribute that is absent.
    pub(super) fn missing(attribute: &str, expected: &str) -> Self {
        let detail = format!("`{attribute}` is missing: accepted is {expected}");
        Self::new(RejectionCode::MissingAttribute, Some(attribute), detail)
    }

    /// An attribute with a value, or a name, that is not accepted.
    pub(super) fn invalid(attribute: &str, expected: &str) -> Self {
        let shown: String = attribute.escape_debug().take(64).collect();
        let detail = format!("`{shown}` must be {expected}");
        Self::new(RejectionCode::InvalidAttribute, Some(attribute), detail)
    }

    /// Data that is not what its media type says.
    pub(super) fn invalid_data(field: &str, detail: impl AsRef<str>) -> Self {
        Self::new(RejectionCode::InvalidData, Some(field), detail)
    }
}

/// What kind of reason a message is rejected for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RejectionCode {
    /// Neither a content type nor headers of a CloudEvent.
    NotACloudEvent,
    /// Structured mode, but the body is no JSON object with distinct members.
    MalformedJson,
    /// Protobuf mode, but the body is not the message.
    MalformedProtobuf,
    /// A required attribute is absent.
    MissingAttribute,
    /// An attribute breaks its rule.
    InvalidAttribute,
    /// The tenant is not the one that the routing key or the address names.
    TenantMismatch,
    /// More bytes than accepted.
    TooLarge,
    /// A CloudEvent in a form that is not supported.
    UnsupportedMode,
    /// The data is not what its media type says.
    InvalidData,
    /// No event at all, but a message on a delivery queue that is no bundle.
    UnreadableDelivery,
}

impl RejectionCode {
    /// The name in headers, metrics and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotACloudEvent => "not_a_cloudevent",
            Self::MalformedJson => "malformed_json",
            Self::MalformedProtobuf => "malformed_protobuf",
            Self::MissingAttribute => "missing_attribute",
            Self::InvalidAttribute => "invalid_attribute",
            Self::TenantMismatch => "tenant_mismatch",
            Self::TooLarge => "too_large",
            Self::UnsupportedMode => "unsupported_mode",
            Self::InvalidData => "invalid_data",
            Self::UnreadableDelivery => "unreadable_delivery",
        }
    }
}

impl fmt::Display for RejectionCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
