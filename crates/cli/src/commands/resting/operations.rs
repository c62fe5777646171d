//! `fanfare dead-letters operations`: what was asked for, and how far it is.

use anyhow::Context as _;
use fanfare_broker::Place;
use fanfare_registry::{OperationItem, OperationPage, Registry};

use super::{Office, act};
use crate::{Config, OperationsCommand, OutputFormat, output};

/// How many messages of an operation are read at once.
const PAGE: u32 = 1000;

pub(super) async fn run(
    format: OutputFormat,
    command: &OperationsCommand,
    settings: &Config,
) -> anyhow::Result<()> {
    match command {
        OperationsCommand::List { open, limit } => {
            let registry = Registry::open(&settings.registry).await?;
            let page = OperationPage {
                open_only: *open,
                before: None,
                limit: *limit,
            };
            output::print_rows(format, &registry.operations(&page).await?)?;
            registry.close().await;
        }
        OperationsCommand::Show { id, messages } => {
            let registry = Registry::open(&settings.registry).await?;
            if *messages {
                let mut items: Vec<OperationItem> = Vec::new();
                loop {
                    let after = items.last().map_or("", |item| item.message.as_str());
                    let page = registry.operation_items(*id, after, PAGE).await?;
                    let is_last = page.len() < PAGE as usize;
                    items.extend(page);
                    if is_last {
                        break;
                    }
                }
                output::print_rows(format, &items)?;
            } else {
                act::print_operation(format, &registry, *id).await?;
            }
            registry.close().await;
        }
        OperationsCommand::Cancel { id } => {
            let office = Office::open(settings).await?;
            let cancelled = office.desk.cancel(*id, &act::actor()).await?;
            let operation = cancelled.with_context(|| format!("there is no operation `{id}`"))?;
            output::print_one(format, &operation)?;
            office.close().await;
        }
        OperationsCommand::Resume => {
            let office = Office::open(settings).await?;
            for place in Place::ALL {
                act::carry_out(&office.desk, place, None).await?;
            }
            output::note("everything that was asked for is done")?;
            office.close().await;
        }
    }
    Ok(())
}
