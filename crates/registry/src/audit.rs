//! Who changed what, written in the transaction of the change itself.

use fanfare_model::{TenantId, Timestamp};

/// One change, of the registry or of something that is administered beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its number: later entries have higher ones.
    pub id: i64,
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

/// Which audit entries to read, newest first: those for which everything that is given holds.
#[derive(Debug, Clone, Default)]
pub struct AuditPage {
    /// What concerns this tenant.
    pub tenant: Option<TenantId>,
    /// What this caller did.
    pub actor: Option<String>,
    /// This action, such as `endpoint.create`, or all that begin so: `endpoint`.
    pub action: Option<String>,
    /// What was done to this id.
    pub subject: Option<String>,
    /// What was done then or later.
    pub since: Option<Timestamp>,
    /// What was done before then.
    pub until: Option<Timestamp>,
    /// What came before this entry.
    pub before: Option<i64>,
    /// At most this many.
    pub limit: u32,
}

impl AuditPage {
    /// The latest entries.
    pub fn latest(limit: u32) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }
}
