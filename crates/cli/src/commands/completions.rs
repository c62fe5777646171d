//! `fanfare completions`: prints a completion script.

use std::io::{self, Write};

use clap::CommandFactory;

use crate::{Args, CompletionsArgs};

pub(crate) fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "fanfare", &mut script);
    io::stdout().lock().write_all(&script)?;
    Ok(())
}
