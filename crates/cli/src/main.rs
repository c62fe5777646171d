//! Starts the program and turns its end into an exit code.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use fanfare_cli::Args;
use tikv_jemallocator::Jemalloc;

/// What AMQP and HTTP allocate for each delivery is much and short-lived, and the C library's allocator
/// took a quarter of a router's time for it (decision 0033).
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    // One provider for everything that speaks TLS; a second installation is the only way it can fail.
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .ok();
    match fanfare_cli::run(Args::parse()).await {
        Ok(code) => code,
        Err(error) => {
            // With stderr closed there is nobody left to tell.
            writeln!(io::stderr(), "error: {error:#}").ok();
            ExitCode::FAILURE
        }
    }
}
