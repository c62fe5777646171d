//! `fanfare config`: prints the effective settings, and where each comes from.

use crate::{
    OutputFormat, Sources,
    config::{Config, Effective},
    output::{self, Column, Row},
};

pub(crate) fn run(format: OutputFormat, sources: &Sources) -> anyhow::Result<()> {
    let loaded = Config::load(sources)?;
    output::print_rows(format, &loaded.effective())?;
    Ok(())
}

impl Row for Effective {
    const COLUMNS: &'static [Column<Self>] = &[
        Column {
            name: "key",
            value: |setting| setting.key.as_str().into(),
        },
        Column {
            name: "value",
            value: |setting| setting.value.clone(),
        },
        Column {
            name: "origin",
            value: |setting| setting.origin.to_string().into(),
        },
    ];
}
