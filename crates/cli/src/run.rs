//! Carries out the command that was asked for.

use std::process::ExitCode;

use fanfare_broker::Place;

use crate::{Args, Command, Sources, commands};

/// Runs one command to its end. `Err` is a fault to be told to the operator.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let sources = || Sources::of_process(args.config.clone());
    match &args.command {
        Command::Listen(listen) => return commands::listen::run(args.output, listen).await,
        Command::Config => commands::config::run(args.output, &sources())?,
        Command::Completions(completions) => commands::completions::run(completions)?,
        Command::Dev(dev) => return commands::dev::run(dev, &sources()).await,
        Command::Serve(serve) => return commands::serve::run(serve, &sources()).await,
        Command::Publish(publish) => {
            return commands::publish::run(args.output, publish, &sources()).await;
        }
        Command::Outbox(command) => {
            commands::outbox::run(args.output, command, &sources()).await?;
        }
        Command::Endpoints(command) => {
            commands::endpoints::run(args.output, command, &sources()).await?;
        }
        Command::EventTypes(command) => {
            commands::event_types::run(args.output, command, &sources()).await?;
        }
        Command::Filter(command) => return commands::filter::run(args.output, command),
        Command::Template(command) => commands::template::run(args.output, command)?,
        Command::Keys(command) => {
            commands::keys::run(args.output, command, &sources()).await?;
        }
        Command::DeadLetters(command) => {
            commands::resting::dead_letters(args.output, command, &sources()).await?;
        }
        Command::Rejected(command) => {
            commands::resting::others(args.output, Place::Rejected, command, &sources()).await?;
        }
        Command::Unroutable(command) => {
            commands::resting::others(args.output, Place::Unroutable, command, &sources()).await?;
        }
        Command::Crashed(command) => {
            commands::resting::others(args.output, Place::Crashed, command, &sources()).await?;
        }
        Command::Events(command) => {
            commands::events::run(args.output, command, &sources()).await?;
        }
        Command::Replay(replay) => commands::replay::run(args.output, replay, &sources()).await?,
        Command::Attempts(attempts) => {
            commands::events::attempts(args.output, attempts, &sources()).await?;
        }
        Command::Audit(audit) => commands::audit::run(args.output, audit, &sources()).await?,
        Command::Migrate(migrate) => {
            commands::migrate::run(args.output, migrate, &sources()).await?;
        }
        Command::Dispatchers => commands::dispatchers::run(args.output, &sources()).await?,
        Command::Topology { markdown: true, .. } => commands::topology::print_page()?,
        Command::Topology { command, .. } => {
            return commands::topology::run(args.output, command.as_ref(), &sources()).await;
        }
        Command::Bench(bench) => commands::bench::run(args.output, bench, &sources()).await?,
        Command::BenchSink => commands::bench::sink::run().await?,
    }
    Ok(ExitCode::SUCCESS)
}
