//! The protobuf types that the build generates from `proto`.

#![allow(
    clippy::doc_markdown,
    clippy::enum_variant_names,
    dead_code,
    unreachable_pub,
    reason = "generated code follows its generator's style, and batches are split without being read"
)]

include!(concat!(env!("OUT_DIR"), "/fanfare.v1.rs"));

/// CloudEvents as others publish them.
pub(crate) mod cloudevents {
    include!(concat!(env!("OUT_DIR"), "/io.cloudevents.v1.rs"));
}
