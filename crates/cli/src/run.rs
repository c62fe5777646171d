//! Carries out the command that was asked for.

use std::process::ExitCode;

use anyhow::bail;

use crate::{Args, Command, Sources, commands};

/// Runs one command to its end. `Err` is a fault to be told to the operator.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let sources = || Sources::of_process(args.config.clone());
    match &args.command {
        Command::Listen(listen) => commands::listen::run(listen).await?,
        Command::Config => commands::config::run(args.output, &sources())?,
        Command::Completions(completions) => commands::completions::run(completions)?,
        Command::Dev(_)
        | Command::Serve(_)
        | Command::Publish(_)
        | Command::Endpoints(_)
        | Command::DeadLetters(_)
        | Command::Topology { .. }
        | Command::Bench(_) => bail!("this command is not part of this build"),
    }
    Ok(ExitCode::SUCCESS)
}
