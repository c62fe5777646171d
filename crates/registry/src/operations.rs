//! What people and rules ask to be done with kept messages, and how far it is.
//!
//! The registry keeps requests and their audit. What a filter means, and how a message is replayed, is
//! known by the crate that carries operations out.

use std::{collections::HashSet, fmt, str::FromStr};

use fanfare_model::{InvalidId, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    Registry, RegistryFault,
    store::{audit_row, damaged, failed, new_uuid},
};

/// Names an operation: `op_` and 32 hexadecimal digits of a UUID (version 7, so ids sort by age).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OperationId(pub(crate) Uuid);

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "op_{}", self.0.simple())
    }
}

impl fmt::Debug for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for OperationId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let digits = text.strip_prefix("op_");
        let digits = digits.filter(|d| d.len() == 32 && d.bytes().all(|b| b.is_ascii_hexdigit()));
        digits
            .and_then(|digits| Uuid::parse_str(digits).ok())
            .map(Self)
            .ok_or(InvalidId {
                what: "operation id",
                expected: "`op_` and 32 hexadecimal digits",
            })
    }
}

impl TryFrom<String> for OperationId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<OperationId> for String {
    fn from(id: OperationId) -> Self {
        id.to_string()
    }
}

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// Asked for; no message was dealt with yet.
    Pending,
    /// Some messages were dealt with; others may be left.
    Running,
    /// Every message that it was meant for was dealt with.
    Done,
    /// Somebody stopped it. What was dealt with stays so.
    Cancelled,
}

impl OperationState {
    /// The name in the store and in answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether there is something left to do.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Pending | Self::Running)
    }

    fn parse(text: &str) -> Result<Self, RegistryFault> {
        let all = [Self::Pending, Self::Running, Self::Done, Self::Cancelled];
        all.into_iter()
            .find(|state| state.name() == text)
            .ok_or_else(|| damaged("the state of an operation")(UnknownState(text.to_owned())))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a state")]
struct UnknownState(String);

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct NewOperation {
    /// Where the messages are, such as `dead-letters`.
    pub place: String,
    /// What to do with them, such as `replay`.
    pub action: String,
    /// Which of them.
    pub filter: Value,
    /// How fast, as text; empty for the installation's own pace.
    pub pace: String,
    /// Why, for those who read the audit.
    pub why: String,
    /// How many messages it was for when it was asked for.
    pub expected: u64,
    /// A second request under the same key is the first one.
    pub request_key: Option<String>,
}

/// An operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// Its name.
    pub id: OperationId,
    /// What was asked for.
    pub request: NewOperation,
    /// Who asked.
    pub actor: String,
    /// When. Only messages that were there by then are dealt with.
    pub requested_at: Timestamp,
    /// How far it is.
    pub state: OperationState,
    /// How many messages it has dealt with. Each counts once, however often it had to be repeated.
    pub resolved: u64,
    /// How far it has come, in the words of whoever carries it out; empty where it has no order to go by.
    pub checkpoint: String,
    /// When it changed last; when it is over, when it ended.
    pub changed_at: Timestamp,
}

/// A message that an operation dealt with.
#[derive(Debug, Clone, PartialEq)]
pub struct OperationItem {
    /// What the message is recognised by.
    pub message: String,
    /// When.
    pub at: Timestamp,
    /// What it was, without its payload.
    pub summary: Value,
}

/// Which operations to list, newest first.
#[derive(Debug, Clone, Default)]
pub struct OperationPage {
    /// Only those with something left to do.
    pub open_only: bool,
    /// Only those older than this one.
    pub before: Option<OperationId>,
    /// At most this many.
    pub limit: u32,
}

/// A row of the table `operations`.
#[derive(sqlx::FromRow)]
pub(crate) struct OperationRow {
    pub(crate) id: Vec<u8>,
    pub(crate) request_key: Option<String>,
    pub(crate) place: String,
    pub(crate) action: String,
    pub(crate) filter: String,
    pub(crate) pace: String,
    pub(crate) actor: String,
    pub(crate) why: String,
    pub(crate) state: String,
    pub(crate) expected: i64,
    pub(crate) resolved: i64,
    pub(crate) checkpoint: String,
    pub(crate) requested_at: i64,
    pub(crate) changed_at: i64,
}

/// A row of the table `operation_items`.
#[derive(sqlx::FromRow)]
pub(crate) struct OperationItemRow {
    pub(crate) message: String,
    pub(crate) at: i64,
    pub(crate) summary: String,
}

impl OperationRow {
    fn open(self) -> Result<Operation, RegistryFault> {
        let id = Uuid::from_slice(&self.id).map_err(damaged("the id of an operation"))?;
        let filter = serde_json::from_str(&self.filter);
        let count = |number: i64| u64::try_from(number).unwrap_or_default();
        Ok(Operation {
            id: OperationId(id),
            request: NewOperation {
                place: self.place,
                action: self.action,
                filter: filter.map_err(damaged("the filter of an operation"))?,
                pace: self.pace,
                why: self.why,
                expected: count(self.expected),
                request_key: self.request_key,
            },
            actor: self.actor,
            requested_at: moment(self.requested_at)?,
            state: OperationState::parse(&self.state)?,
            resolved: count(self.resolved),
            checkpoint: self.checkpoint,
            changed_at: moment(self.changed_at)?,
        })
    }
}

fn moment(microsecond: i64) -> Result<Timestamp, RegistryFault> {
    Timestamp::from_microsecond(microsecond).map_err(damaged("the time of an operation"))
}

impl Registry {
    /// Asks for an operation. Asked again under the same request key, it returns the first one as it is now.
    pub async fn request_operation(
        &self,
        new: NewOperation,
        actor: &str,
        now: Timestamp,
    ) -> Result<Operation, RegistryFault> {
        let id = OperationId(new_uuid(now));
        let detail = json!({
            "filter": &new.filter, "why": &new.why, "expected": new.expected, "pace": &new.pace,
        });
        let action = format!("{}.{}", new.place, new.action);
        let audit = audit_row(now, actor, &action, id, &detail);
        let row = OperationRow {
            id: id.0.as_bytes().to_vec(),
            request_key: new.request_key,
            place: new.place,
            action: new.action,
            filter: new.filter.to_string(),
            pace: new.pace,
            actor: actor.to_owned(),
            why: new.why,
            state: OperationState::Pending.name().to_owned(),
            expected: i64::try_from(new.expected).unwrap_or(i64::MAX),
            resolved: 0,
            checkpoint: String::new(),
            requested_at: now.as_microsecond(),
            changed_at: now.as_microsecond(),
        };
        let store = self.store().await?;
        let kept = store.insert_operation(&row, &audit).await;
        kept.map_err(failed("asking for an operation"))?.open()
    }

    /// One operation.
    pub async fn operation(&self, id: OperationId) -> Result<Option<Operation>, RegistryFault> {
        let store = self.store().await?;
        let row = store.operation(id.0.as_bytes()).await;
        let row = row.map_err(failed("reading an operation"))?;
        row.map(OperationRow::open).transpose()
    }

    /// A page of operations, newest first.
    pub async fn operations(&self, page: &OperationPage) -> Result<Vec<Operation>, RegistryFault> {
        let store = self.store().await?;
        // No UUID of version 7 is larger.
        let before = page
            .before
            .map_or([0xff; 16], |before| before.0.into_bytes());
        let rows = store
            .operations(page.open_only, &before, page.limit)
            .await
            .map_err(failed("listing operations"))?;
        rows.into_iter().map(OperationRow::open).collect()
    }

    /// Which of these messages the operation has dealt with already.
    pub async fn resolved_items(
        &self,
        id: OperationId,
        messages: &[String],
    ) -> Result<HashSet<String>, RegistryFault> {
        if messages.is_empty() {
            return Ok(HashSet::new());
        }
        let store = self.store().await?;
        let known = store.known_items(id.0.as_bytes(), messages).await;
        let known = known.map_err(failed("reading what an operation has done"))?;
        Ok(known.into_iter().collect())
    }

    /// Notes that the operation has dealt with these messages, and returns how far it is then.
    ///
    /// A message that was noted before is not counted again.
    pub async fn note_items(
        &self,
        id: OperationId,
        items: &[OperationItem],
        now: Timestamp,
    ) -> Result<Option<Operation>, RegistryFault> {
        self.note(id, None, items, now).await
    }

    /// The same, and that it has come this far with them: both or neither.
    pub async fn advance_operation(
        &self,
        id: OperationId,
        checkpoint: &str,
        items: &[OperationItem],
        now: Timestamp,
    ) -> Result<Option<Operation>, RegistryFault> {
        self.note(id, Some(checkpoint), items, now).await
    }

    async fn note(
        &self,
        id: OperationId,
        checkpoint: Option<&str>,
        items: &[OperationItem],
        now: Timestamp,
    ) -> Result<Option<Operation>, RegistryFault> {
        let rows: Vec<OperationItemRow> = items
            .iter()
            .map(|item| OperationItemRow {
                message: item.message.clone(),
                at: item.at.as_microsecond(),
                summary: item.summary.to_string(),
            })
            .collect();
        let store = self.store().await?;
        let row = store
            .insert_items(id.0.as_bytes(), checkpoint, &rows, now.as_microsecond())
            .await
            .map_err(failed("noting what an operation has done"))?;
        row.map(OperationRow::open).transpose()
    }

    /// The messages that an operation dealt with, in the order of their names.
    pub async fn operation_items(
        &self,
        id: OperationId,
        after: &str,
        limit: u32,
    ) -> Result<Vec<OperationItem>, RegistryFault> {
        let store = self.store().await?;
        let rows = store.items(id.0.as_bytes(), after, limit).await;
        let rows = rows.map_err(failed("reading what an operation has done"))?;
        rows.into_iter()
            .map(|row| {
                let summary = serde_json::from_str(&row.summary);
                Ok(OperationItem {
                    message: row.message,
                    at: moment(row.at)?,
                    summary: summary.map_err(damaged("the summary of a message"))?,
                })
            })
            .collect()
    }

    /// Ends an operation that is open, as done or cancelled, and returns it as it is then.
    ///
    /// One that is over already stays as it is.
    pub async fn end_operation(
        &self,
        id: OperationId,
        state: OperationState,
        actor: &str,
        now: Timestamp,
    ) -> Result<Option<Operation>, RegistryFault> {
        let Some(operation) = self.operation(id).await? else {
            return Ok(None);
        };
        let detail = json!({ "resolved": operation.resolved, "why": &operation.request.why });
        let request = &operation.request;
        let action = format!("{}.{}.{}", request.place, request.action, state.name());
        let audit = audit_row(now, actor, &action, id, &detail);
        let store = self.store().await?;
        let row = store
            .end_operation(id.0.as_bytes(), state.name(), &audit)
            .await
            .map_err(failed("ending an operation"))?;
        row.map(OperationRow::open).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_and_a_state_read_back_what_they_print() {
        let id = OperationId(Uuid::from_u128(7));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("op_7".parse::<OperationId>().is_err());
        for state in [OperationState::Pending, OperationState::Cancelled] {
            assert_eq!(OperationState::parse(state.name()).unwrap(), state);
        }
        assert!(OperationState::parse("tired").is_err());
    }
}
