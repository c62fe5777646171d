//! The recorder and the history: what was routed, attempted and settled.
//!
//! Routers and dispatchers write numbered batches to the stream `journal`. The recorder writes them to the
//! store, each exactly once: the offset in the stream is compared and set in the same transaction.
//! [`History`] answers questions about it, and is never on the path of a delivery.
//!
//! What is missing is known: the numbers of batches show gaps, and a delivery whose outcome may have been
//! lost is shown as unknown.

mod feed;
mod history;
mod letters;
mod records;
mod search;

mod recorder;

mod record;
mod retention;
mod take_in;
mod writers;

mod migration;
mod rows;
mod statement;
mod store;

mod error;
mod metrics;
mod settings;

pub use error::HistoryFault;
pub use feed::{FeedFilter, FeedPart, InvalidOutcome, InvalidState};
pub use history::History;
pub use letters::{Letter, LetterFilter, LetterGroup, LetterKey};
pub use migration::{migrate, migrations};
pub use record::{Counts, MissingOffsets, Portion, Recorded};
pub use recorder::{Recorder, record_journal};
pub use records::{
    AttemptEntry, Cursor, DeliveryRecord, EventHistory, EventRecord, FeedCursor, FeedEntry, Gap,
    GapKind, InvalidCursor, LastFailure, OwedEvent, Progress,
};
pub use search::{AttemptFilter, DeliveryFilter, EventFilter, OutcomeFilter, Page, StateFilter};
pub use settings::Settings;
