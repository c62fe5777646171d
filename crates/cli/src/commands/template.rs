//! `fanfare template`: tries templates, and lists those that come with Fanfare.

use anyhow::Context;
use fanfare_model::{Rendered, TemplatePreset, Timestamp};
use serde_json::{Value, json};

use super::content::{sample_event, template};
use crate::{
    OutputFormat, TemplateCommand, TemplateRenderArgs, clock,
    output::{self, Column, Row},
};

pub(crate) fn run(format: OutputFormat, command: &TemplateCommand) -> anyhow::Result<()> {
    match command {
        TemplateCommand::Render(args) => {
            let rendered = render(args, clock::system_clock().now())?;
            output::print(&shown(format, &rendered))?;
        }
        TemplateCommand::Presets => output::print_rows(format, &Shown::all())?,
    }
    Ok(())
}

fn render(args: &TemplateRenderArgs, now: Timestamp) -> anyhow::Result<Rendered> {
    let template = template(&args.template)?
        .context("there is nothing to render: accepted is `--template` or `--preset`")?;
    let event = sample_event(&args.event)?;
    Ok(template.render(&event, "example", now)?)
}

/// The header and the body, as they stand in a request.
fn shown(format: OutputFormat, rendered: &Rendered) -> String {
    let body = String::from_utf8_lossy(&rendered.body);
    match format {
        OutputFormat::Table => format!(
            "content-type: {}\n\n{}",
            rendered.media_type,
            output::harmless(&body)
        ),
        OutputFormat::Json => output::to_json(&json!({
            "headers": {"content-type": rendered.media_type},
            "body": body,
        })),
    }
}

/// A preset as a row.
struct Shown(&'static TemplatePreset);

impl Shown {
    fn all() -> Vec<Self> {
        TemplatePreset::ALL.iter().map(Self).collect()
    }

    const NAME: Column<Self> = Column {
        name: "name",
        value: |Self(preset)| preset.name.into(),
    };
    const REQUIRED: Column<Self> = Column {
        name: "required",
        value: |Self(preset)| names(preset.required),
    };
    const OPTIONAL: Column<Self> = Column {
        name: "optional",
        value: |Self(preset)| names(preset.optional),
    };
    const DESCRIPTION: Column<Self> = Column {
        name: "description",
        value: |Self(preset)| preset.description.into(),
    };
}

impl Row for Shown {
    const COLUMNS: &'static [Column<Self>] = &[
        Self::NAME,
        Self::REQUIRED,
        Self::OPTIONAL,
        Self::DESCRIPTION,
        Column {
            name: "media_type",
            value: |Self(preset)| preset.media_type.into(),
        },
        Column {
            name: "source",
            value: |Self(preset)| preset.source.into(),
        },
    ];
    const TABLE: &'static [Column<Self>] = &[
        Self::NAME,
        Self::REQUIRED,
        Self::OPTIONAL,
        Self::DESCRIPTION,
    ];
}

fn names(names: &[&str]) -> Value {
    names.iter().copied().collect()
}
