//! `fanfare serve`: runs one or more roles until a signal.

use std::process::ExitCode;

use anyhow::Context as _;
use fanfare_model::Clock;
use fanfare_registry::Registry;

use crate::{
    Config, Role, ServeArgs, Sources, clock,
    commands::keys::first_key,
    output,
    signals::Signals,
    wiring::{Ending, Fanfare, Stop},
};

/// What a process answers that had to hand work back unfinished.
const ABORTED: u8 = 3;

pub(crate) async fn run(args: &ServeArgs, sources: &Sources) -> anyhow::Result<ExitCode> {
    let config = Config::load(sources)?.settings;
    fanfare_telemetry::init_logs(&config.telemetry).context("setting up logs")?;
    let signals = Signals::watch().context("watching for signals")?;
    let stop = Stop {
        terminate: signals.terminate.clone(),
        abort: signals.abort.clone(),
    };
    let clock = clock::system_clock();
    let fanfare = Fanfare::start(config, args.roles.clone(), clock.clone(), stop).await?;
    if args.roles.contains(&Role::Api) {
        show_first_key(fanfare.registry(), &clock).await?;
    }
    tracing::info!(address = %fanfare.address(), "serving health and metrics, and the API if it is a role");
    Ok(match fanfare.run().await? {
        Ending::Orderly => ExitCode::SUCCESS,
        Ending::Aborted(_) => ExitCode::from(ABORTED),
    })
}

/// Without a key nobody can use the API, so a new installation makes one and shows it once.
async fn show_first_key(registry: &Registry, clock: &Clock) -> anyhow::Result<()> {
    match first_key(registry, clock).await {
        Ok(None) => {}
        Ok(Some(key)) => {
            output::print(&format!("API key, not shown again: {}", key.expose()))?;
        }
        Err(error) => {
            let error = format!("{error:#}");
            tracing::warn!(
                error,
                "whether there is an API key is unknown; `fanfare keys create` makes one"
            );
        }
    }
    Ok(())
}
