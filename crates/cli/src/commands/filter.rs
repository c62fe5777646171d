//! `fanfare filter`: tries filters.

use std::process::ExitCode;

use fanfare_model::{EventView, Mismatch};

use super::content::{filter, sample_event};
use crate::{
    FilterCommand, OutputFormat,
    output::{self, Column, Row},
};

/// Succeeds when the event matches, as `grep` does.
pub(crate) fn run(format: OutputFormat, command: &FilterCommand) -> anyhow::Result<ExitCode> {
    let FilterCommand::Test(args) = command;
    let filter = filter(&args.filter)?;
    let event = sample_event(&args.event)?;
    let verdict = Verdict(filter.mismatch(&EventView::new(&event)));
    output::print_one(format, &verdict)?;
    Ok(match verdict.0 {
        None => ExitCode::SUCCESS,
        Some(_) => ExitCode::FAILURE,
    })
}

/// Whether an event matches, and the first place that differs when it does not.
struct Verdict(Option<Mismatch>);

impl Row for Verdict {
    const COLUMNS: &'static [Column<Self>] = &[
        Column {
            name: "matches",
            value: |Self(mismatch)| mismatch.is_none().into(),
        },
        Column {
            name: "at",
            value: |Self(mismatch)| mismatch.as_ref().map(|one| &*one.at).into(),
        },
        Column {
            name: "found",
            value: |Self(mismatch)| {
                let found = mismatch.as_ref().map(|one| one.found.as_deref());
                found.map(|found| found.unwrap_or("nothing")).into()
            },
        },
        Column {
            name: "wanted",
            value: |Self(mismatch)| mismatch.as_ref().map(|one| &*one.wanted).into(),
        },
    ];
}
