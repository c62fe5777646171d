//! What messages look like: old bytes still decode, new bytes are unchanged, and nothing makes a decoder panic.

mod bundles;
mod dead_letters;
mod events;
mod generators;
mod golden;
mod rejected;
mod rejections;
