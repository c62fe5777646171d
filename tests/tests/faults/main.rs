//! Nothing accepted is lost at any cut point, and what is repeated stays within its bound.

mod broker_outage;
mod kills;
mod restart;
mod support;
