//! Who changed what, written in the transaction of the change itself.

use fanfare_model::Timestamp;

/// One change of the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// Who, as the caller named them.
    pub actor: String,
    /// What was done, such as `endpoint.create`.
    pub action: String,
    /// To what: the id.
    pub subject: String,
    /// More about it. Holds no secret.
    pub detail: serde_json::Value,
}
