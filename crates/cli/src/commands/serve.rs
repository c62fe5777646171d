//! `fanfare serve`: runs one or more roles until a signal.

use std::process::ExitCode;

use anyhow::Context as _;

use crate::{
    Config, ServeArgs, Sources, clock,
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
    let fanfare = Fanfare::start(config, args.roles.clone(), clock, stop).await?;
    tracing::info!(address = %fanfare.address(), "serving health and metrics, and the API if it is a role");
    Ok(match fanfare.run().await? {
        Ending::Orderly => ExitCode::SUCCESS,
        Ending::Aborted(_) => ExitCode::from(ABORTED),
    })
}
