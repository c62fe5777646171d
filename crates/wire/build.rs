//! Generates the protobuf types from `proto/`, without needing `protoc`.

#![allow(
    clippy::print_stdout,
    reason = "a build script speaks to cargo by its output"
)]

use std::error::Error;

const PROTO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto");

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO}/fanfare");
    println!("cargo::rerun-if-changed={PROTO}/io");
    let roots = [
        "fanfare/v1/delivery.proto",
        "fanfare/v1/journal.proto",
        "io/cloudevents/v1/cloudevents.proto",
    ];
    let files = protox::compile(roots, [PROTO])?;
    prost_build::Config::new()
        // Slices of the message instead of copies.
        .bytes(["."])
        // A fixed order, so that the same value is always the same bytes.
        .btree_map(["."])
        .compile_fds(files)?;
    Ok(())
}
