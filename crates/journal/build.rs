//! Makes cargo notice an added migration, which the macro that embeds them cannot.

#![allow(
    clippy::print_stdout,
    reason = "a build script talks to cargo on stdout"
)]

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
