//! `fanfare event-types`: the catalogue of event types.

use anyhow::{Context, bail};
use fanfare_model::{EventType, Timestamp};
use fanfare_registry::{CatalogueFile, CataloguedType, NewEventType, Registry};
use serde_json::Value;

use super::content::read;
use crate::{
    Config, DataSource, EventTypesCommand, LoadEventTypesArgs, OutputFormat, PutEventTypeArgs,
    Sources, clock,
    output::{self, Column, Row},
};

/// As the audit log names who changes something here.
const ACTOR: &str = "cli";

pub(crate) async fn run(
    format: OutputFormat,
    command: &EventTypesCommand,
    sources: &Sources,
) -> anyhow::Result<()> {
    let settings = Config::load(sources)?.settings;
    let registry = Registry::open(&settings.registry).await?;
    let done = carry_out(format, command, &registry, clock::system_clock().now()).await;
    registry.close().await;
    done
}

async fn carry_out(
    format: OutputFormat,
    command: &EventTypesCommand,
    registry: &Registry,
    now: Timestamp,
) -> anyhow::Result<()> {
    match command {
        EventTypesCommand::List => {
            let types = registry.event_types().await?;
            let rows: Vec<_> = types.into_iter().map(Shown).collect();
            output::print_rows(format, &rows)?;
        }
        EventTypesCommand::Show(args) => {
            let known = registry.event_type(&args.name).await?;
            let known = known.with_context(|| not_catalogued(&args.name))?;
            output::print_one(format, &Shown(known))?;
        }
        EventTypesCommand::Put(args) => {
            let put = registry.put_event_type(new(args)?, ACTOR, now).await?;
            output::print_one(format, &Shown(put))?;
        }
        EventTypesCommand::Delete(args) => {
            if !registry.delete_event_type(&args.name, ACTOR, now).await? {
                bail!(not_catalogued(&args.name));
            }
        }
        EventTypesCommand::Load(args) => {
            let rows = load(args, registry, now).await?;
            output::print_rows(format, &rows)?;
        }
    }
    Ok(())
}

fn not_catalogued(name: &EventType) -> String {
    format!("the catalogue has no event type `{name}`")
}

fn new(args: &PutEventTypeArgs) -> anyhow::Result<NewEventType> {
    let json = |source: &Option<DataSource>, argument: &str| -> anyhow::Result<Option<Value>> {
        let Some(source) = source else {
            return Ok(None);
        };
        let read = serde_json::from_slice(&read(source)?);
        read.map(Some)
            .with_context(|| format!("`{argument}` is not JSON"))
    };
    Ok(NewEventType {
        name: args.name.clone(),
        description: args.description.clone(),
        schema: json(&args.schema, "--schema")?,
        sample: json(&args.sample, "--sample")?,
        enforced: args.enforce,
    })
}

/// Puts every event type of a catalogue, or none if one of them is not accepted.
async fn load(
    args: &LoadEventTypesArgs,
    registry: &Registry,
    now: Timestamp,
) -> anyhow::Result<Vec<Shown>> {
    let mut file = match &args.catalogue {
        DataSource::Inline(name) => CatalogueFile::built_in(name).cloned().with_context(|| {
            format!("there is no catalogue `{name}`: accepted are `referral`, `@file` and `-`")
        })?,
        source @ (DataSource::File(_) | DataSource::Stdin) => {
            serde_json::from_slice(&read(source)?)
                .context("the catalogue is not accepted: it is `{\"event_types\": […]}`")?
        }
    };
    for one in &mut file.event_types {
        one.enforced |= args.enforce;
    }
    for one in &file.event_types {
        one.validate()
            .with_context(|| format!("event type `{}` is not accepted", one.name))?;
    }
    let mut loaded = Vec::new();
    for one in file.event_types {
        loaded.push(Shown(registry.put_event_type(one, ACTOR, now).await?));
    }
    Ok(loaded)
}

/// An event type as a row.
struct Shown(CataloguedType);

impl Shown {
    const TYPE: Column<Self> = Column {
        name: "type",
        value: |Self(known)| known.definition.name.as_str().into(),
    };
    const ENFORCED: Column<Self> = Column {
        name: "enforced",
        value: |Self(known)| known.definition.enforced.into(),
    };
    const DESCRIPTION: Column<Self> = Column {
        name: "description",
        value: |Self(known)| known.definition.description.as_str().into(),
    };
}

impl Row for Shown {
    const COLUMNS: &'static [Column<Self>] = &[
        Self::TYPE,
        Self::DESCRIPTION,
        Self::ENFORCED,
        Column {
            name: "schema",
            value: |Self(known)| known.definition.schema.clone().into(),
        },
        Column {
            name: "sample",
            value: |Self(known)| known.definition.sample.clone().into(),
        },
        Column {
            name: "updated_at",
            value: |Self(known)| known.updated_at.to_string().into(),
        },
    ];
    const TABLE: &'static [Column<Self>] = &[
        Self::TYPE,
        Self::ENFORCED,
        Column {
            name: "schema",
            value: |Self(known)| known.definition.schema.is_some().into(),
        },
        Column {
            name: "sample",
            value: |Self(known)| known.definition.sample.is_some().into(),
        },
        Self::DESCRIPTION,
    ];
}
