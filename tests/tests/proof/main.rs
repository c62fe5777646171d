//! The long and timed proofs, run by `make proof` on a quiet machine; their short forms are among the other tests.
//!
//! Each runs the program in processes of its own, prints a table and writes JSON below `target/proof`.

#![expect(clippy::unwrap_used, reason = "a proof fails by panicking")]
#![expect(clippy::print_stdout, reason = "a proof prints what it found")]

mod balance;
mod dead_letters;
mod fleet;
mod isolation;
mod load;
mod rates;
mod report;
