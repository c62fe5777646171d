//! Proves that nothing accepted is lost, and counts what is repeated.
//!
//! `confirmed x matching endpoints - (delivered ∪ dead letters ∪ still queued)` must be empty.

use std::collections::{HashMap, HashSet};

/// What is owed and what arrived, by (event id, endpoint name).
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    owed: HashSet<(String, String)>,
    arrived: HashMap<(String, String), u64>,
    dead: HashSet<(String, String)>,
}

/// What the ledger shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerReport {
    /// How many deliveries are owed.
    pub owed: usize,
    /// Owed, and neither arrived nor dead.
    pub missing: Vec<(String, String)>,
    /// Arrivals beyond the first of each delivery.
    pub duplicates: u64,
    /// How many deliveries are dead letters.
    pub dead: usize,
}

impl Ledger {
    /// The broker confirmed an event that this endpoint wants.
    pub fn owe(&mut self, event: &str, endpoint: &str) {
        self.owed.insert((event.to_owned(), endpoint.to_owned()));
    }

    /// The endpoint received the event and answered with success.
    pub fn arrived(&mut self, event: &str, endpoint: &str) {
        let key = (event.to_owned(), endpoint.to_owned());
        *self.arrived.entry(key).or_default() += 1;
    }

    /// The delivery is a dead letter.
    pub fn died(&mut self, event: &str, endpoint: &str) {
        self.dead.insert((event.to_owned(), endpoint.to_owned()));
    }

    /// What is missing and what came twice.
    pub fn report(&self) -> LedgerReport {
        let accounted =
            |key: &&(String, String)| self.arrived.contains_key(*key) || self.dead.contains(*key);
        let mut missing: Vec<_> = self
            .owed
            .iter()
            .filter(|key| !accounted(key))
            .cloned()
            .collect();
        missing.sort();
        LedgerReport {
            owed: self.owed.len(),
            missing,
            duplicates: self.arrived.values().map(|times| times - 1).sum(),
            dead: self.dead.len(),
        }
    }

    /// Panics when something is missing or more was repeated than `most_duplicates`.
    pub fn assert_balanced(&self, most_duplicates: u64) -> LedgerReport {
        let report = self.report();
        assert!(report.missing.is_empty(), "lost: {:?}", report.missing);
        let duplicates = report.duplicates;
        assert!(
            duplicates <= most_duplicates,
            "{duplicates} duplicates, at most {most_duplicates}"
        );
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_sees_what_is_missing_and_what_came_twice() {
        let mut ledger = Ledger::default();
        for (event, endpoint) in [("1", "a"), ("1", "b"), ("2", "a"), ("2", "b")] {
            ledger.owe(event, endpoint);
        }
        for (event, endpoint) in [("1", "a"), ("1", "a"), ("1", "b")] {
            ledger.arrived(event, endpoint);
        }
        ledger.died("2", "b");
        let report = ledger.report();
        assert_eq!(report.missing, [("2".to_owned(), "a".to_owned())]);
        assert_eq!((report.owed, report.duplicates, report.dead), (4, 1, 1));
    }
}
