//! The protobuf types that the build generates from `proto/fanfare/v1`.

#![allow(
    clippy::doc_markdown,
    unreachable_pub,
    reason = "generated code follows its generator's style"
)]

include!(concat!(env!("OUT_DIR"), "/fanfare.v1.rs"));
