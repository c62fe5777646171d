//! What messages look like: old bytes still decode, new bytes are unchanged, and nothing makes a decoder panic.

mod batches;
mod bundles;
mod dead_letters;
mod events;
mod generators;
mod golden;
mod protobuf;
mod rejected;
mod rejections;
