//! Writes batches of the journal to the store: each exactly once, whoever writes and however often.
//!
//! One transaction compares and sets the journal's offset and writes the rows. It takes the row of that
//! offset first, so two that record wait for each other, and numbers are given in the order of commits: a
//! feed that was read up to one number misses nothing that comes later.

use std::collections::HashMap;

use fanfare_model::{JournalBatch, JournalWriterId};

use crate::{
    GapKind, History, HistoryFault,
    rows::{NewDelivery, NewEvent},
    statement::{Statement, Value},
    store::Change,
    take_in::{Name, SUPERSEDES, TakenIn, column_over, day_of, name_of},
    writers::{NewGap, Writer, WriterState, Writers, signed},
};

/// How long an event of which only deliveries are known waits for the router's record, by the time of the
/// journal, before it takes its place in the feed.
const WAITS_FOR_ROUTER_MICROS: i64 = 60_000_000;

/// A part of the journal that was read.
#[derive(Debug, Clone, Default)]
pub struct Portion {
    /// The offset of its first batch: where the one before ended.
    pub from: u64,
    /// The offset after its last batch.
    pub next: u64,
    /// What was read.
    pub batches: Vec<JournalBatch>,
    /// What is missing besides: offsets that were removed, or that could not be read.
    pub missing: Vec<MissingOffsets>,
}

/// Offsets whose batches are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissingOffsets {
    /// How it came about.
    pub kind: GapKind,
    /// How many.
    pub count: u64,
}

/// What became of a portion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It is in the store.
    Done(Counts),
    /// Another recorder has come further, or the offset was set anew: go on from here.
    Elsewhere {
        /// The offset of what will be recorded next.
        next_offset: u64,
    },
}

/// How much was recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Batches that were new.
    pub batches: u64,
    /// Rows of all kinds.
    pub rows: u64,
    /// Gaps that were found.
    pub gaps: u64,
}

impl History {
    /// Records a portion of the journal, if it begins where the last one ended.
    pub async fn record(&self, portion: &Portion) -> Result<Recorded, HistoryFault> {
        let store = self.store().await?;
        let failed = || HistoryFault::query("recording");
        let days = TakenIn::days(&portion.batches);
        store.prepare_days(&days).await.map_err(failed())?;
        let change = store.begin().await.map_err(failed())?;
        record(change, portion).await.map_err(failed())
    }

    /// Goes back to the beginning of the journal, as when that has begun anew. Batches that were recorded
    /// before are recognised by their numbers.
    pub async fn start_over(&self) -> Result<(), HistoryFault> {
        let failed = || HistoryFault::query("starting over");
        let mut change = self.store().await?.begin().await.map_err(failed())?;
        let reset = Statement::new("UPDATE journal_state SET next_offset = 0");
        change.execute(reset).await.map_err(failed())?;
        change.commit().await.map_err(failed())
    }
}

async fn record(mut change: Change, portion: &Portion) -> sqlx::Result<Recorded> {
    let mut take = Statement::new("UPDATE journal_state SET next_offset = ");
    take.bind(signed(portion.next))
        .push(" WHERE next_offset = ")
        .bind(signed(portion.from))
        .push(" RETURNING next_seq, written_at");
    let taken: Vec<(i64, i64)> = change.fetch(take).await?;
    let Some((next_seq, written_at)) = taken.first().copied() else {
        let found = Statement::new("SELECT next_offset FROM journal_state");
        let rows: Vec<(i64,)> = change.fetch(found).await?;
        let next_offset = rows.first().map_or(0, |(next,)| next.unsigned_abs());
        return Ok(Recorded::Elsewhere { next_offset });
    };
    let mut recording = Recording {
        change,
        next_seq,
        rows: 0,
    };
    let times = portion.batches.iter();
    let times = times.map(|batch| batch.written_at.as_microsecond());
    let journal_time = times.max().unwrap_or(written_at).max(written_at);

    let mut writers = recording.writers(&portion.batches).await?;
    let taken = TakenIn::of(&portion.batches, &mut writers);
    writers.end_silent(journal_time);
    for missing in &portion.missing {
        writers.gaps.push(NewGap {
            writer: JournalWriterId {
                name: "journal".to_owned(),
                epoch: 0,
            },
            kind: missing.kind,
            missing: Some(signed(missing.count)),
            from_at: written_at,
            to_at: journal_time,
        });
    }
    recording.take_in(taken).await?;
    recording
        .late_events(journal_time - WAITS_FOR_ROUTER_MICROS)
        .await?;
    recording.note_writers(&writers).await?;
    let counts = Counts {
        batches: u64::try_from(writers.noted()).unwrap_or(u64::MAX),
        rows: recording.rows,
        gaps: u64::try_from(writers.gaps.len()).unwrap_or(u64::MAX),
    };
    recording.finish(journal_time).await?;
    Ok(Recorded::Done(counts))
}

/// A transaction under way.
pub(crate) struct Recording {
    change: Change,
    next_seq: i64,
    rows: u64,
}

impl Recording {
    /// A transaction that writes what no journal told, and waits for those that record.
    pub(crate) async fn beside_the_journal(mut change: Change) -> sqlx::Result<Self> {
        let take =
            Statement::new("UPDATE journal_state SET next_seq = next_seq RETURNING next_seq");
        let taken: Vec<(i64,)> = change.fetch(take).await?;
        let (next_seq,) = taken.first().copied().ok_or(sqlx::Error::RowNotFound)?;
        Ok(Self {
            change,
            next_seq,
            rows: 0,
        })
    }

    pub(crate) async fn finish_beside_the_journal(mut self) -> sqlx::Result<()> {
        let mut finish = Statement::new("UPDATE journal_state SET next_seq = ");
        finish.bind(self.next_seq);
        self.change.execute(finish).await?;
        self.change.commit().await
    }

    /// How many rows were written.
    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    fn number(&mut self) -> i64 {
        let number = self.next_seq;
        self.next_seq += 1;
        number
    }

    async fn take_in(&mut self, taken: TakenIn) -> sqlx::Result<()> {
        let mut days: HashMap<i64, [i64; 3]> = HashMap::new();
        for event in &taken.routed {
            let day = days.entry(day_of(event.at)).or_default();
            *day = [day[0] + 1, day[1], day[2] + event.bytes()];
        }
        let seqs = self.name_events(&taken).await?;

        let deliveries: Vec<_> = taken.deliveries.values().collect();
        for delivery in &deliveries {
            days.entry(day_of(delivery.at)).or_default()[2] += NewDelivery::BYTES;
        }
        let supersedes = |insert: &mut Statement| _ = insert.push(SUPERSEDES);
        self.insert_deliveries(&deliveries, &seqs, &supersedes)
            .await?;

        let mut attempts = taken.attempts;
        for attempt in &mut attempts {
            attempt.seq = self.number();
            attempt.event_seq = seqs[&name_of(&attempt.event)];
            let day = days.entry(day_of(attempt.at)).or_default();
            *day = [day[0], day[1] + 1, day[2] + attempt.bytes()];
        }
        self.rows += u64::try_from(attempts.len()).unwrap_or(u64::MAX);
        self.change.insert_attempts(&attempts).await?;
        self.note_days(days).await
    }

    /// Writes the events that are not known yet, and returns the numbers of all.
    pub(crate) async fn name_events(
        &mut self,
        taken: &TakenIn,
    ) -> sqlx::Result<HashMap<Name, i64>> {
        let mut seqs = self.known_events(taken).await?;
        self.insert_events(&taken.routed, &mut seqs).await?;
        let stubs = stubs(taken, &seqs);
        self.insert_events(&stubs, &mut seqs).await?;
        Ok(seqs)
    }

    /// The numbers of events of which deliveries are stored already.
    async fn known_events(&mut self, taken: &TakenIn) -> sqlx::Result<HashMap<Name, i64>> {
        let unknown = taken.deliveries.values();
        let unknown: Vec<_> = unknown.filter(|d| !taken.has_event(&d.event)).collect();
        let mut seqs = HashMap::new();
        for page in unknown.chunks(self.change.rows_at_once()) {
            let mut find = Statement::new("SELECT id, event_seq FROM deliveries WHERE id IN (");
            find.bind_list(page.iter().map(|delivery| delivery.id.as_bytes()))
                .push(")");
            let found: Vec<(Vec<u8>, i64)> = self.change.fetch(find).await?;
            let found: HashMap<Vec<u8>, i64> = found.into_iter().collect();
            for delivery in page {
                if let Some(seq) = found.get(&delivery.id.as_bytes()[..]) {
                    seqs.insert(name_of(&delivery.event), *seq);
                }
            }
        }
        Ok(seqs)
    }

    /// Inserts events, or fills in what is only known by its deliveries, and notes their numbers.
    async fn insert_events(
        &mut self,
        events: &[NewEvent],
        seqs: &mut HashMap<Name, i64>,
    ) -> sqlx::Result<()> {
        let columns = NewEvent::COLUMNS.join(", ");
        let filled = NewEvent::COLUMNS.iter().filter_map(|column| match *column {
            "seq" | "tenant" | "source" | "id" => None,
            "feed" => Some("feed = COALESCE(events.feed, excluded.feed)".to_owned()),
            other => Some(format!(
                "{other} = CASE WHEN events.is_complete = 0 AND excluded.is_complete = 1 \
                 THEN excluded.{other} ELSE events.{other} END"
            )),
        });
        let filled = filled.collect::<Vec<_>>().join(", ");
        for page in events.chunks(self.change.rows_at_once()) {
            let mut insert = Statement::new(&format!("INSERT INTO events ({columns}) VALUES "));
            let rows: Vec<Vec<Value>> = page
                .iter()
                .map(|event| event.values(self.number()))
                .collect();
            insert.bind_rows(rows).push(&format!(
                " ON CONFLICT (id, tenant, source) DO UPDATE SET {filled} \
                 RETURNING seq, tenant, source, id"
            ));
            let numbered: Vec<(i64, String, String, String)> = self.change.fetch(insert).await?;
            self.rows += u64::try_from(page.len()).unwrap_or(u64::MAX);
            let numbered = numbered.into_iter();
            seqs.extend(numbered.map(|(seq, tenant, source, id)| ((tenant, source, id), seq)));
        }
        Ok(())
    }

    /// Inserts deliveries, or changes those that stand otherwise where the new row `supersedes` the old one.
    pub(crate) async fn insert_deliveries(
        &mut self,
        deliveries: &[&NewDelivery],
        seqs: &HashMap<Name, i64>,
        supersedes: &(dyn Fn(&mut Statement) + Sync),
    ) -> sqlx::Result<()> {
        let columns = NewDelivery::COLUMNS.join(", ");
        let changed = NewDelivery::COLUMNS
            .iter()
            .map(|column| column_over(column));
        let changed: Vec<_> = changed.filter(|change| !change.is_empty()).collect();
        let changed = changed.join(", ");
        for page in deliveries.chunks(self.change.rows_at_once()) {
            let mut insert = Statement::new(&format!("INSERT INTO deliveries ({columns}) VALUES "));
            let rows = page.iter().map(|d| d.values(seqs[&name_of(&d.event)]));
            insert.bind_rows(rows);
            insert.push(&format!(" ON CONFLICT (id) DO UPDATE SET {changed} WHERE "));
            supersedes(&mut insert);
            self.rows += self.change.execute(insert).await?;
        }
        Ok(())
    }

    async fn note_days(&mut self, days: HashMap<i64, [i64; 3]>) -> sqlx::Result<()> {
        if days.is_empty() {
            return Ok(());
        }
        let mut insert = Statement::new("INSERT INTO days (day, events, attempts, bytes) VALUES ");
        let rows = days.into_iter().map(|(day, [events, attempts, bytes])| {
            vec![day.into(), events.into(), attempts.into(), bytes.into()]
        });
        insert.bind_rows(rows).push(
            " ON CONFLICT (day) DO UPDATE SET events = days.events + excluded.events, \
             attempts = days.attempts + excluded.attempts, bytes = days.bytes + excluded.bytes",
        );
        self.change.execute(insert).await.map(|_| ())
    }

    /// Gives events whose routing is not recorded their place in the feed.
    async fn late_events(&mut self, before: i64) -> sqlx::Result<()> {
        let mut find = Statement::new("SELECT seq FROM events WHERE feed IS NULL AND at < ");
        find.bind(before).push(" ORDER BY at LIMIT 1000");
        let late: Vec<(i64,)> = self.change.fetch(find).await?;
        for (seq,) in late {
            let mut place = Statement::new("UPDATE events SET feed = ");
            place.bind(self.number()).push(" WHERE seq = ").bind(seq);
            self.change.execute(place).await?;
        }
        Ok(())
    }

    /// The open writers, and those with a name that comes up.
    async fn writers(&mut self, batches: &[JournalBatch]) -> sqlx::Result<Writers> {
        let mut names: Vec<_> = batches.iter().map(|b| b.writer.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let mut find = Statement::new(
            "SELECT name, epoch, sequence, last_at, state FROM writers WHERE state = 'open'",
        );
        if !names.is_empty() {
            find.push(" OR name IN (").bind_list(names).push(")");
        }
        let rows: Vec<(String, i64, i64, i64, String)> = self.change.fetch(find).await?;
        let known = rows
            .into_iter()
            .map(|(name, epoch, sequence, last_at, state)| {
                let epoch = epoch.unsigned_abs();
                let writer = Writer {
                    sequence,
                    last_at,
                    state: WriterState::named(&state).unwrap_or(WriterState::Lost),
                };
                (JournalWriterId { name, epoch }, writer)
            });
        Ok(Writers::new(known))
    }

    async fn note_writers(&mut self, writers: &Writers) -> sqlx::Result<()> {
        for (id, writer) in writers.changed() {
            let mut note = Statement::new(
                "INSERT INTO writers (name, epoch, sequence, last_at, state) VALUES ",
            );
            note.bind_rows([vec![
                id.name.as_str().into(),
                signed(id.epoch).into(),
                writer.sequence.into(),
                writer.last_at.into(),
                writer.state.name().into(),
            ]]);
            note.push(
                " ON CONFLICT (name, epoch) DO UPDATE SET sequence = excluded.sequence, \
                 last_at = excluded.last_at, state = excluded.state",
            );
            self.change.execute(note).await?;
        }
        for id in &writers.revived {
            let mut remove = Statement::new("DELETE FROM gaps WHERE kind = 'killed' AND writer = ");
            remove
                .bind(id.name.as_str())
                .push(" AND epoch = ")
                .bind(signed(id.epoch));
            self.change.execute(remove).await?;
        }
        for gap in &writers.gaps {
            let mut note = Statement::new(
                "INSERT INTO gaps \
                 (seq, writer, epoch, kind, missing, from_at, to_at, hides_outcomes) VALUES ",
            );
            note.bind_rows([vec![
                self.number().into(),
                gap.writer.name.as_str().into(),
                signed(gap.writer.epoch).into(),
                gap.kind.name().into(),
                gap.missing.into(),
                gap.from_at.into(),
                gap.to_at.into(),
                gap.hides_outcomes().into(),
            ]]);
            self.change.execute(note).await?;
        }
        Ok(())
    }

    async fn finish(mut self, journal_time: i64) -> sqlx::Result<()> {
        let mut finish = Statement::new("UPDATE journal_state SET next_seq = ");
        finish
            .bind(self.next_seq)
            .push(", written_at = ")
            .bind(journal_time);
        self.change.execute(finish).await?;
        self.change.commit().await
    }
}

/// What is known only by its deliveries.
fn stubs(taken: &TakenIn, seqs: &HashMap<Name, i64>) -> Vec<NewEvent> {
    let mut stubs: HashMap<Name, NewEvent> = HashMap::new();
    for delivery in taken.deliveries.values() {
        let name = name_of(&delivery.event);
        if !seqs.contains_key(&name) {
            stubs.entry(name).or_insert_with(|| NewEvent {
                key: delivery.event.clone(),
                at: delivery.at,
                routed: None,
            });
        }
    }
    stubs.into_values().collect()
}
