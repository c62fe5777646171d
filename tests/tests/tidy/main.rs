//! The rules of this repository that neither the compiler nor a lint checks.

mod checkout;
mod code;

mod documents;
mod packages;
mod packaging;
mod sources;
