//! What can go wrong with the history.

/// A fault of the history.
#[derive(Debug, thiserror::Error)]
pub enum HistoryFault {
    /// The database cannot be opened, at least not now.
    #[error("opening the history `{database}`")]
    Unavailable {
        /// The database, without a password.
        database: String,
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The database was changed by a later release, which this one would damage.
    #[error(
        "the history `{database}` was written by a newer release (schema {found}, this one knows \
         {known}): upgrade, or restore a backup from before"
    )]
    NewerSchema {
        /// The database, without a password.
        database: String,
        /// The schema that was found.
        found: i64,
        /// The newest schema that this release knows.
        known: i64,
    },
    /// The database refused or did not answer.
    #[error("{doing} in the history")]
    Query {
        /// What was being done, such as `searching attempts`.
        doing: &'static str,
        /// What went wrong.
        source: sqlx::Error,
    },
    /// Something stored cannot be understood.
    #[error("{what} in the history is damaged")]
    Damaged {
        /// What was being read.
        what: &'static str,
    },
}

impl HistoryFault {
    pub(crate) fn query(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Query { doing, source }
    }

    /// Whether the same call may succeed later without anyone changing anything here.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::Query { .. } => true,
            Self::NewerSchema { .. } | Self::Damaged { .. } => false,
        }
    }
}
