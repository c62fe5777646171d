//! The index of dead letters: deliveries that stand as given up on, found by what they have in common.
//!
//! The truth is in their queue. The recorder keeps the index from the journal; [`History::enter_letters`] and
//! [`History::drop_letters`] set it right by what the queue holds.

use std::collections::HashSet;

use fanfare_model::{
    DeadLetter, DeadLetterReason, DeliveryId, DeliveryState, EndpointId, EventTypePattern,
    TenantId, Timestamp,
};

use crate::{
    DeliveryRecord, History, HistoryFault, LastFailure,
    record::Recording,
    rows::{DeliveryRow, NewDelivery, damaged, moment, sixteen},
    search::matching,
    statement::Statement,
    take_in::TakenIn,
};

/// Which dead letters to find: those for which everything that is set holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LetterFilter {
    /// With one of these ids; with any, if there is none.
    pub ids: Vec<DeliveryId>,
    /// Of this tenant.
    pub tenant: Option<TenantId>,
    /// For this endpoint.
    pub endpoint: Option<EndpointId>,
    /// Of this type, or family of types.
    pub event_type: Option<EventTypePattern>,
    /// Given up on for this reason.
    pub reason: Option<String>,
    /// Given up on for other reasons than these.
    pub not_reasons: Vec<String>,
    /// Whose last answer had this status.
    pub status: Option<u16>,
    /// Given up on before this.
    pub before: Option<Timestamp>,
    /// Given up on at this moment or later.
    pub after: Option<Timestamp>,
}

/// A dead letter, without its data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// How the delivery stands.
    pub delivery: DeliveryRecord,
    /// Why it was given up on.
    pub reason: DeadLetterReason,
    /// The id of the event.
    pub event_id: String,
    /// Where the event happened.
    pub event_source: String,
    /// The media type of its data, as far as the event is recorded.
    pub content_type: Option<String>,
    /// The trace that the producer began.
    pub trace_id: Option<String>,
}

/// By what dead letters are counted together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LetterKey {
    /// Whose they are.
    Tenant,
    /// Whom they are for.
    Endpoint,
    /// What happened.
    Type,
    /// Why they were given up on.
    Reason,
    /// How many of these moments had passed by then, which are in descending order: 0 for the youngest.
    Age(Vec<Timestamp>),
}

/// Dead letters that have in common what they were grouped by. What they were not is not set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterGroup {
    /// The owner.
    pub tenant: Option<TenantId>,
    /// Whom they are for.
    pub endpoint: Option<EndpointId>,
    /// What happened.
    pub event_type: Option<String>,
    /// Why they were given up on.
    pub reason: Option<String>,
    /// Which of the ages that were asked for.
    pub age: Option<usize>,
    /// How many.
    pub count: u64,
    /// When the oldest was given up on.
    pub oldest: Timestamp,
    /// When the newest was given up on.
    pub newest: Timestamp,
}

const DEAD: &str = "d.state = 'dead_lettered'";

/// How many of the ids in the index are compared with the queue at once.
const IDS_AT_ONCE: i64 = 10_000;

impl History {
    /// The dead letters that match, those that rest longest first, after the one at this place.
    pub async fn letters(
        &self,
        filter: &LetterFilter,
        after: Option<(Timestamp, DeliveryId)>,
        limit: u32,
    ) -> Result<Vec<Letter>, HistoryFault> {
        let found = letters(filter, after, limit);
        self.find::<LetterRow, _>("listing dead letters", found)
            .await
    }

    /// How many dead letters match.
    pub async fn count_letters(&self, filter: &LetterFilter) -> Result<u64, HistoryFault> {
        let mut found = Statement::new("SELECT COUNT(*) AS n FROM deliveries d");
        restrict(&mut found, DEAD, filter);
        let rows: Vec<(i64,)> = self.rows("counting dead letters", found).await?;
        Ok(rows.iter().map(|(count,)| count.unsigned_abs()).sum())
    }

    /// The dead letters that match, counted by what they have in common, the largest group first.
    pub async fn letter_groups(
        &self,
        filter: &LetterFilter,
        by: &[LetterKey],
    ) -> Result<Vec<LetterGroup>, HistoryFault> {
        let found = letter_groups(filter, by);
        self.find::<LetterGroupRow, _>("grouping dead letters", found)
            .await
    }

    /// Enters dead letters that were in their queue at `as_of`. What happened to one since then counts more.
    /// Returns how many were missing or stood otherwise.
    pub async fn enter_letters(
        &self,
        letters: &[DeadLetter],
        as_of: Timestamp,
    ) -> Result<u64, HistoryFault> {
        let failed = || HistoryFault::query("entering dead letters");
        let mut taken = TakenIn::default();
        let rows = letters
            .iter()
            .map(|letter| (letter.delivery.id, new_row(letter)));
        taken.deliveries.extend(rows);
        let change = self.store().await?.begin().await.map_err(failed())?;
        let entered = async {
            let mut recording = Recording::beside_the_journal(change).await?;
            let seqs = recording.name_events(&taken).await?;
            let deliveries: Vec<_> = taken.deliveries.values().collect();
            let supersedes = |insert: &mut Statement| {
                // What is the same already is not counted.
                insert
                    .push(
                        "(deliveries.state <> 'dead_lettered' \
                         OR deliveries.replay <> excluded.replay) \
                         AND deliveries.replay <= excluded.replay AND deliveries.changed_at < ",
                    )
                    .bind(as_of.as_microsecond());
            };
            let before = recording.rows();
            recording
                .insert_deliveries(&deliveries, &seqs, &supersedes)
                .await?;
            let entered = recording.rows() - before;
            recording.finish_beside_the_journal().await?;
            Ok(entered)
        };
        entered.await.map_err(failed())
    }

    /// Takes those out of the index that were not in their queue at `as_of`, and that nothing happened to
    /// since. What became of them is not known. Returns how many.
    pub async fn drop_letters(
        &self,
        in_queue: &HashSet<DeliveryId>,
        as_of: Timestamp,
    ) -> Result<u64, HistoryFault> {
        let doing = "comparing dead letters with their queue";
        let store = self.store().await?;
        let (mut after, mut dropped) = (Vec::new(), 0);
        loop {
            let mut found = Statement::new(
                "SELECT id FROM deliveries WHERE state = 'dead_lettered' AND changed_at < ",
            );
            found.bind(as_of.as_microsecond()).push(" AND id > ");
            found
                .bind(Some(after.clone()))
                .push(" ORDER BY id LIMIT ")
                .bind(IDS_AT_ONCE);
            let ids: Vec<(Vec<u8>,)> = self.rows(doing, found).await?;
            let Some((last,)) = ids.last() else {
                return Ok(dropped);
            };
            after.clone_from(last);
            let known = |id: &[u8]| id.try_into().ok().map(DeliveryId::from_bytes);
            let gone = ids.iter().filter(|(id,)| {
                let id = known(id);
                id.is_none_or(|id| !in_queue.contains(&id))
            });
            let gone: Vec<_> = gone.map(|(id,)| Some(id.clone())).collect();
            let mut change = store.begin().await.map_err(HistoryFault::query(doing))?;
            for page in gone.chunks(change.rows_at_once()) {
                let mut update = Statement::new(
                    "UPDATE deliveries SET state = 'owed', is_told = 0, reason = NULL \
                     WHERE state = 'dead_lettered' AND changed_at < ",
                );
                update.bind(as_of.as_microsecond()).push(" AND id IN (");
                update.bind_list(page.iter().cloned()).push(")");
                let rows = change.execute(update).await;
                dropped += rows.map_err(HistoryFault::query(doing))?;
            }
            change.commit().await.map_err(HistoryFault::query(doing))?;
        }
    }
}

fn new_row(letter: &DeadLetter) -> NewDelivery {
    let (delivery, since) = (&letter.delivery, letter.since.as_microsecond());
    let failures = delivery.failures.as_ref();
    NewDelivery {
        id: delivery.id,
        endpoint: delivery.endpoint,
        event: (&*delivery.event).into(),
        at: delivery.first_seen.as_microsecond(),
        state: DeliveryState::DeadLettered {
            reason: letter.reason,
        },
        changed_at: since,
        due_at: since,
        is_told: true,
        replay: delivery.replay,
        failed_attempts: delivery.failed_attempts,
        first_failed_at: failures.map(|failures| failures.first_at.as_microsecond()),
        last_failure: failures.map(|failures| LastFailure {
            class: failures.last.class,
            status: failures.last.status,
            error: failures.last.error.clone(),
        }),
    }
}

fn letters(filter: &LetterFilter, after: Option<(Timestamp, DeliveryId)>, limit: u32) -> Statement {
    let mut found = Statement::new(&format!(
        "SELECT {}, e.id AS event_id, e.source AS event_source, e.content_type, e.trace_id \
         FROM deliveries d JOIN events e ON e.seq = d.event_seq",
        DeliveryRow::columns()
    ));
    // Of few, all are sorted; of many, the first ones are read from an index that is in order.
    let few = filter.endpoint.is_some() || !filter.ids.is_empty();
    let condition = if few { DEAD } else { "d.reason IS NOT NULL" };
    restrict(&mut found, condition, filter);
    if let Some((since, id)) = after {
        found.push(" AND (d.changed_at, d.id) > (");
        found.bind(since.as_microsecond()).push(", ");
        found.bind(id.as_bytes()).push(")");
    }
    found.push(" ORDER BY d.changed_at, d.id LIMIT ");
    found.bind(i64::from(limit));
    found
}

fn letter_groups(filter: &LetterFilter, by: &[LetterKey]) -> Statement {
    let mut found = Statement::new("SELECT ");
    let mut grouped = Vec::new();
    for (key, column) in [
        (LetterKey::Tenant, "tenant"),
        (LetterKey::Endpoint, "endpoint"),
        (LetterKey::Type, "event_type"),
        (LetterKey::Reason, "reason"),
    ] {
        if by.contains(&key) {
            found.push(&format!("d.{column}, "));
            grouped.push(format!("d.{column}"));
        } else {
            found.push(&format!("NULL AS {column}, "));
        }
    }
    let ages = by.iter().find_map(|key| match key {
        LetterKey::Age(moments) => Some(moments),
        LetterKey::Tenant | LetterKey::Endpoint | LetterKey::Type | LetterKey::Reason => None,
    });
    if let Some(moments) = ages {
        found.push("CAST(CASE");
        for (age, moment) in moments.iter().enumerate() {
            found
                .push(" WHEN d.changed_at > ")
                .bind(moment.as_microsecond());
            found.push(&format!(" THEN {age}"));
        }
        found.push(&format!(" ELSE {} END AS BIGINT) AS age, ", moments.len()));
        grouped.push("age".to_owned());
    } else {
        found.push("NULL AS age, ");
    }
    found.push(
        "COUNT(*) AS count, MIN(d.changed_at) AS oldest, MAX(d.changed_at) AS newest \
         FROM deliveries d",
    );
    restrict(&mut found, DEAD, filter);
    if grouped.is_empty() {
        // Of nothing there is no group.
        found.push(" HAVING COUNT(*) > 0");
    } else {
        found.push(&format!(" GROUP BY {}", grouped.join(", ")));
    }
    found.push(" ORDER BY count DESC");
    found
}

fn restrict(statement: &mut Statement, condition: &str, filter: &LetterFilter) {
    statement.push(&format!(" WHERE {condition}"));
    if !filter.ids.is_empty() {
        statement.push(" AND d.id IN (");
        let ids = filter.ids.iter().map(DeliveryId::as_bytes);
        statement.bind_list(ids).push(")");
    }
    if let Some(tenant) = &filter.tenant {
        statement.push(" AND d.tenant = ").bind(tenant.as_str());
    }
    if let Some(endpoint) = filter.endpoint {
        statement
            .push(" AND d.endpoint = ")
            .bind(endpoint.as_bytes());
    }
    matching(statement, "d", filter.event_type.as_slice());
    if let Some(reason) = &filter.reason {
        statement.push(" AND d.reason = ").bind(reason.as_str());
    }
    for reason in &filter.not_reasons {
        statement.push(" AND d.reason <> ").bind(reason.as_str());
    }
    if let Some(status) = filter.status {
        statement
            .push(" AND d.last_status = ")
            .bind(i64::from(status));
    }
    if let Some(before) = filter.before {
        statement
            .push(" AND d.changed_at < ")
            .bind(before.as_microsecond());
    }
    if let Some(after) = filter.after {
        statement
            .push(" AND d.changed_at >= ")
            .bind(after.as_microsecond());
    }
}

/// A delivery that stands as a dead letter, and what is needed of its event.
#[derive(sqlx::FromRow)]
struct LetterRow {
    #[sqlx(flatten)]
    delivery: DeliveryRow,
    event_id: String,
    event_source: String,
    content_type: Option<String>,
    trace_id: Option<String>,
}

impl TryFrom<LetterRow> for Letter {
    type Error = HistoryFault;

    fn try_from(row: LetterRow) -> Result<Self, HistoryFault> {
        let reason = row.delivery.reason.as_deref();
        let reason = reason.and_then(|reason| reason.parse().ok());
        Ok(Self {
            reason: reason.ok_or_else(|| damaged("a dead letter"))?,
            delivery: row.delivery.try_into()?,
            event_id: row.event_id,
            event_source: row.event_source,
            content_type: row.content_type,
            trace_id: row.trace_id,
        })
    }
}

#[derive(sqlx::FromRow)]
struct LetterGroupRow {
    tenant: Option<String>,
    endpoint: Option<Vec<u8>>,
    event_type: Option<String>,
    reason: Option<String>,
    age: Option<i64>,
    count: i64,
    oldest: i64,
    newest: i64,
}

impl TryFrom<LetterGroupRow> for LetterGroup {
    type Error = HistoryFault;

    fn try_from(row: LetterGroupRow) -> Result<Self, HistoryFault> {
        let read = |row: LetterGroupRow| {
            let endpoint = row.endpoint.map(|bytes| sixteen(&bytes));
            Some(Self {
                tenant: row.tenant.map(|tenant| tenant.parse()).transpose().ok()?,
                endpoint: match endpoint {
                    Some(bytes) => Some(EndpointId::from_bytes(bytes?)),
                    None => None,
                },
                event_type: row.event_type,
                reason: row.reason,
                age: row.age.and_then(|age| age.try_into().ok()),
                count: row.count.try_into().ok()?,
                oldest: moment(row.oldest)?,
                newest: moment(row.newest)?,
            })
        };
        read(row).ok_or_else(|| damaged("a group of dead letters"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_for_is_grouped_by() {
        let filter = LetterFilter {
            reason: Some("gone".to_owned()),
            ..LetterFilter::default()
        };
        let by = [
            LetterKey::Reason,
            LetterKey::Age(vec![Timestamp::UNIX_EPOCH]),
        ];
        let statement = letter_groups(&filter, &by);
        let columns = "NULL AS tenant, NULL AS endpoint, NULL AS event_type, d.reason, \
                       CAST(CASE WHEN d.changed_at > $1 THEN 0 ELSE 1 END AS BIGINT) AS age";
        assert!(statement.sql.contains(columns), "{}", statement.sql);
        let restricted = "WHERE d.state = 'dead_lettered' AND d.reason = $2 GROUP BY d.reason, age";
        assert!(statement.sql.contains(restricted), "{}", statement.sql);
        let all = letter_groups(&LetterFilter::default(), &[]).sql;
        assert!(all.ends_with("HAVING COUNT(*) > 0 ORDER BY count DESC"));
    }
}
