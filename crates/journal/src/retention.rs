//! Removes what is too old, or too much: the oldest first, a little at a time.

use std::time::Duration;

use fanfare_model::Timestamp;

use crate::{
    History, HistoryFault, Settings, rows::MICROS_A_DAY, statement::Statement, writers::signed,
};

/// How many rows one transaction removes, so that what is recorded meanwhile waits for milliseconds.
const AT_ONCE: i64 = 2000;

/// How long writers and gaps are remembered at least: longer than any journal.
const WRITERS_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

impl History {
    /// Removes what the settings say is too old or too much. Returns how many rows.
    ///
    /// A dead letter stays for as long as it is one, with its event.
    pub async fn forget(&self, settings: &Settings, now: Timestamp) -> Result<u64, HistoryFault> {
        let failed = || HistoryFault::query("removing what is old");
        let now = now.as_microsecond();
        let kept = signed(u64::try_from(settings.keep_for.as_micros()).unwrap_or(u64::MAX));
        let by_size = self.first_day_kept(settings.keep_bytes).await?;
        let before = (now - kept).max(by_size * MICROS_A_DAY);
        let store = self.store().await?;
        store.drop_days_before(before).await.map_err(failed())?;
        let mut removed = 0;
        let mut kinds = vec![events_before, deliveries_before];
        if !store.has_days() {
            kinds.push(attempts_before);
        }
        for remove in kinds {
            loop {
                let mut change = store.begin().await.map_err(failed())?;
                let rows = change.execute(remove(before)).await.map_err(failed())?;
                change.commit().await.map_err(failed())?;
                removed += rows;
                if rows == 0 {
                    break;
                }
            }
        }
        let forgotten = now - kept.max(signed(WRITERS_KEPT.as_micros().try_into().unwrap_or(0)));
        let mut change = store.begin().await.map_err(failed())?;
        for (table, column) in [("gaps", "to_at"), ("writers", "last_at")] {
            let mut remove = Statement::new(&format!("DELETE FROM {table} WHERE {column} < "));
            remove.bind(forgotten);
            change.execute(remove).await.map_err(failed())?;
        }
        let mut remove = Statement::new("DELETE FROM days WHERE day < ");
        remove.bind(before.div_euclid(MICROS_A_DAY));
        change.execute(remove).await.map_err(failed())?;
        change.commit().await.map_err(failed())?;
        Ok(removed)
    }

    /// The first day that can stay, so that all that is kept has at most so many bytes. The newest always stays.
    async fn first_day_kept(&self, keep_bytes: u64) -> Result<i64, HistoryFault> {
        let doing = "adding up what is kept";
        let found = Statement::new("SELECT day, bytes FROM days ORDER BY day DESC");
        let store = self.store().await?;
        let days: Vec<(i64, i64)> = store
            .fetch(found)
            .await
            .map_err(HistoryFault::query(doing))?;
        Ok(first_kept(&days, signed(keep_bytes)))
    }
}

/// The first of some days, newest first, with which all together stay within the bytes.
fn first_kept(days: &[(i64, i64)], keep_bytes: i64) -> i64 {
    let mut total = 0_i64;
    let mut kept = days.first().map_or(0, |(day, _)| *day);
    for (day, bytes) in days {
        total = total.saturating_add(*bytes);
        if total > keep_bytes {
            break;
        }
        kept = *day;
    }
    let all_fit = total <= keep_bytes;
    if all_fit {
        i64::MIN / MICROS_A_DAY
    } else {
        kept
    }
}

fn attempts_before(before: i64) -> Statement {
    // Of the rows that were recorded first, so that no index is needed for it.
    let mut remove = Statement::new(
        "DELETE FROM attempts WHERE seq IN (SELECT seq FROM attempts ORDER BY seq LIMIT ",
    );
    remove.bind(AT_ONCE).push(") AND at < ").bind(before);
    remove
}

fn events_before(before: i64) -> Statement {
    let mut remove = Statement::new("DELETE FROM events WHERE seq IN (SELECT seq FROM events e ");
    remove
        .push("WHERE at < ")
        .bind(before)
        .push(
            " AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.event_seq = e.seq \
             AND d.state = 'dead_lettered') ORDER BY at, seq LIMIT ",
        )
        .bind(AT_ONCE)
        .push(")");
    remove
}

fn deliveries_before(before: i64) -> Statement {
    let states = ["owed", "retrying", "delivered", "discarded"];
    let mut remove = Statement::new("DELETE FROM deliveries WHERE id IN (");
    for (index, state) in states.iter().enumerate() {
        let union = if index > 0 { " UNION ALL " } else { "" };
        remove
            .push(&format!(
                "{union}SELECT * FROM (SELECT id FROM deliveries WHERE state = '{state}' AND at < "
            ))
            .bind(before)
            .push(
                " AND NOT EXISTS (SELECT 1 FROM events e WHERE e.seq = event_seq) ORDER BY at LIMIT ",
            )
            .bind(AT_ONCE)
            .push(&format!(") AS part{index}"));
    }
    remove.push(")");
    remove
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_days_go_and_the_newest_always_stays() {
        let days = [(9, 50), (8, 30), (7, 40)];
        for (keep, first) in [
            (120, None),
            (119, Some(8)),
            (80, Some(8)),
            (79, Some(9)),
            (1, Some(9)),
        ] {
            let expected = first.unwrap_or(i64::MIN / MICROS_A_DAY);
            assert_eq!(first_kept(&days, keep), expected, "{keep}");
        }
        assert_eq!(first_kept(&[], 1), i64::MIN / MICROS_A_DAY);
    }
}
