//! `fanfare keys`: makes API keys, directly in the registry that the configuration names.

use anyhow::Context as _;
use fanfare_model::{Clock, Secret};
use fanfare_registry::Registry;
use serde_json::json;

use crate::{Config, KeysCommand, OutputFormat, Sources, clock, output};

/// Who the audit log says it was.
const ACTOR: &str = "cli";

pub(crate) async fn run(
    format: OutputFormat,
    command: &KeysCommand,
    sources: &Sources,
) -> anyhow::Result<()> {
    let settings = Config::load(sources)?.settings;
    let registry = Registry::open(&settings.registry).await?;
    let KeysCommand::Create { name } = command;
    let made = registry
        .create_api_key(name, ACTOR, clock::system_clock().now())
        .await
        .context("making an API key")?;
    match format {
        OutputFormat::Table => output::print(made.key.expose())?,
        OutputFormat::Json => {
            let id = made.id.to_string();
            output::print(&json!({"id": id, "name": name, "key": made.key.expose()}).to_string())?;
        }
    }
    output::note("the key is not shown again")?;
    registry.close().await;
    Ok(())
}

/// Makes the first key of an installation that has none, and returns it to be shown once.
pub(crate) async fn first_key(
    registry: &Registry,
    clock: &Clock,
) -> anyhow::Result<Option<Secret>> {
    if registry.api_keys_exist().await? {
        return Ok(None);
    }
    let made = registry.create_api_key("first", ACTOR, clock.now()).await?;
    Ok(Some(made.key))
}
