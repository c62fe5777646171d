//! Knows the writers of the journal: which batches are repeats, and what is missing. Pure.

use std::collections::HashMap;

use fanfare_model::{JournalBatch, JournalWriterId};

use crate::GapKind;

/// A writer that said nothing for this long, while others did, is taken for dead. Writers give a sign of
/// life several times as often.
const LONGEST_SILENCE_MICROS: i64 = 120_000_000;

/// What is known of a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Writer {
    /// The last batch that was recorded.
    pub(crate) sequence: i64,
    /// When that was written.
    pub(crate) last_at: i64,
    pub(crate) state: WriterState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriterState {
    /// More is to be expected.
    Open,
    /// It ended in order.
    Closed,
    /// It ended otherwise.
    Lost,
}

impl WriterState {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Lost => "lost",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Open, Self::Closed, Self::Lost]
            .into_iter()
            .find(|state| state.name() == name)
    }
}

/// Something that is missing, to be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewGap {
    pub(crate) writer: JournalWriterId,
    pub(crate) kind: GapKind,
    pub(crate) missing: Option<i64>,
    pub(crate) from_at: i64,
    pub(crate) to_at: i64,
}

impl NewGap {
    /// Whether outcomes of deliveries may be missing: a router has none to tell, and an operator tells
    /// what a dispatcher goes on from.
    pub(crate) fn hides_outcomes(&self) -> bool {
        let role = self.writer.name.split(' ').next();
        !matches!(role, Some("router" | "operator"))
    }
}

/// All writers that matter to some batches, and what these batches change.
#[derive(Debug, Default)]
pub(crate) struct Writers {
    known: HashMap<JournalWriterId, Writer>,
    pub(crate) gaps: Vec<NewGap>,
    /// Taken for dead earlier, and alive after all.
    pub(crate) revived: Vec<JournalWriterId>,
    changed: Vec<JournalWriterId>,
    noted: usize,
}

impl Writers {
    /// `known` holds every open writer, and every one with a name that comes up.
    pub(crate) fn new(known: impl IntoIterator<Item = (JournalWriterId, Writer)>) -> Self {
        Self {
            known: known.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Takes note of a batch; whether it is new. A repeat has the number of one that was noted already.
    pub(crate) fn note(&mut self, batch: &JournalBatch) -> bool {
        let id = &batch.writer;
        let written_at = batch.written_at.as_microsecond();
        let sequence = signed(batch.sequence);
        let before = self.known.get(id).copied();
        if before.is_none() {
            self.end_earlier_lives(id);
        }
        let (last, last_at) = before.map_or((0, signed(id.epoch)), |w| (w.sequence, w.last_at));
        if sequence <= last {
            return false;
        }
        for (kind, missing) in [
            (GapKind::Batches, sequence - last - 1),
            (GapKind::Entries, signed(batch.dropped)),
        ] {
            if missing > 0 {
                self.gaps.push(NewGap {
                    writer: id.clone(),
                    kind,
                    missing: Some(missing),
                    from_at: last_at,
                    to_at: written_at,
                });
            }
        }
        if before.is_some_and(|writer| writer.state == WriterState::Lost) {
            let is_its_death = |gap: &NewGap| gap.kind == GapKind::Killed && gap.writer == *id;
            self.gaps.retain(|gap| !is_its_death(gap));
            self.revived.push(id.clone());
        }
        let state = if batch.is_last {
            WriterState::Closed
        } else {
            WriterState::Open
        };
        self.noted += 1;
        self.set(
            id.clone(),
            Writer {
                sequence,
                last_at: last_at.max(written_at),
                state,
            },
        );
        true
    }

    /// How many batches were new.
    pub(crate) fn noted(&self) -> usize {
        self.noted
    }

    /// Takes those for dead that said nothing for long, by the time of the journal.
    pub(crate) fn end_silent(&mut self, journal_time: i64) {
        let silent = self.known.iter().filter(|(_, writer)| {
            writer.state == WriterState::Open
                && writer.last_at < journal_time - LONGEST_SILENCE_MICROS
        });
        let mut silent: Vec<_> = silent.map(|(id, _)| id.clone()).collect();
        silent.sort();
        for id in silent {
            self.end(id, journal_time);
        }
    }

    /// What changed, each once.
    pub(crate) fn changed(&self) -> Vec<(&JournalWriterId, Writer)> {
        let mut changed: Vec<_> = self.changed.iter().collect();
        changed.sort();
        changed.dedup();
        let changed = changed.into_iter();
        changed.map(|id| (id, self.known[id])).collect()
    }

    /// A process that starts anew has ended before, in whatever way.
    fn end_earlier_lives(&mut self, id: &JournalWriterId) {
        let earlier = self.known.iter().filter(|(known, writer)| {
            known.name == id.name && known.epoch < id.epoch && writer.state == WriterState::Open
        });
        let earlier: Vec<_> = earlier.map(|(id, _)| id.clone()).collect();
        for known in earlier {
            self.end(known, signed(id.epoch));
        }
    }

    fn end(&mut self, id: JournalWriterId, at: i64) {
        let writer = self.known[&id];
        self.gaps.push(NewGap {
            writer: id.clone(),
            kind: GapKind::Killed,
            missing: None,
            from_at: writer.last_at,
            to_at: at.max(writer.last_at),
        });
        let state = WriterState::Lost;
        self.set(id, Writer { state, ..writer });
    }

    fn set(&mut self, id: JournalWriterId, writer: Writer) {
        self.known.insert(id.clone(), writer);
        self.changed.push(id);
    }
}

pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use fanfare_model::Timestamp;

    use super::*;

    fn id(name: &str, epoch: u64) -> JournalWriterId {
        let name = name.to_owned();
        JournalWriterId { name, epoch }
    }

    fn batch(writer: &JournalWriterId, sequence: u64, at: i64) -> JournalBatch {
        JournalBatch {
            writer: writer.clone(),
            sequence,
            written_at: Timestamp::from_microsecond(at).unwrap(),
            dropped: 0,
            is_last: false,
            entries: Vec::new(),
        }
    }

    fn kinds(writers: &Writers) -> Vec<(GapKind, Option<i64>)> {
        let gaps = writers.gaps.iter();
        gaps.map(|gap| (gap.kind, gap.missing)).collect()
    }

    #[test]
    fn numbers_tell_repeats_and_gaps() {
        let a = id("dispatcher a", 10);
        let mut writers = Writers::default();
        for (sequence, is_new) in [
            (1, true),
            (1, false),
            (2, true),
            (5, true),
            (4, false),
            (6, true),
        ] {
            assert_eq!(writers.note(&batch(&a, sequence, 20)), is_new, "{sequence}");
        }
        let full = JournalBatch {
            dropped: 7,
            ..batch(&a, 7, 30)
        };
        assert!(writers.note(&full));
        let expected = [(GapKind::Batches, Some(2)), (GapKind::Entries, Some(7))];
        assert_eq!(kinds(&writers), expected);
        assert_eq!(writers.changed().len(), 1);
    }

    #[test]
    fn a_writer_that_starts_anew_without_having_closed_was_killed() {
        let mut writers = Writers::default();
        writers.note(&batch(&id("dispatcher a", 10), 1, 20));
        writers.note(&batch(&id("dispatcher a", 50), 1, 60));
        assert_eq!(kinds(&writers), [(GapKind::Killed, None)]);
        let gap = &writers.gaps[0];
        assert_eq!((gap.from_at, gap.to_at), (20, 50));
        assert!(gap.hides_outcomes());

        let mut writers = Writers::default();
        let last = JournalBatch {
            is_last: true,
            ..batch(&id("router a", 10), 1, 20)
        };
        writers.note(&last);
        writers.note(&batch(&id("router a", 50), 1, 60));
        assert_eq!(kinds(&writers), []);
    }

    #[test]
    fn two_processes_of_one_name_are_not_taken_for_dead_for_long() {
        let (first, second) = (id("router a", 10), id("router a", 50));
        let mut writers = Writers::default();
        writers.note(&batch(&first, 1, 20));
        writers.note(&batch(&second, 1, 60));
        writers.note(&batch(&first, 2, 70));
        assert_eq!(kinds(&writers), []);
        assert_eq!(writers.revived, [first]);
        assert!(
            !NewGap {
                writer: second,
                kind: GapKind::Killed,
                missing: None,
                from_at: 0,
                to_at: 0
            }
            .hides_outcomes()
        );
    }

    #[test]
    fn who_is_silent_while_others_speak_was_killed() {
        let mut writers = Writers::default();
        writers.note(&batch(&id("dispatcher a", 10), 1, 20));
        let later = LONGEST_SILENCE_MICROS + 21;
        writers.note(&batch(&id("dispatcher b", 10), 1, later));
        writers.end_silent(later - 1);
        assert_eq!(kinds(&writers), []);
        writers.end_silent(later);
        writers.end_silent(later);
        assert_eq!(kinds(&writers), [(GapKind::Killed, None)]);
    }
}
