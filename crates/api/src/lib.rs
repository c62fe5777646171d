//! The HTTP API: takes events in, administers endpoints, reads history back, and deals with
//! dead letters.
//!
//! Everything under `/v1` asks for an API key, but for the description of the API itself. Errors are
//! problem details (RFC 9457) with a stable `code`.
//!
//! A publish is answered once RabbitMQ has stored the event; routing and delivering it is others' work.
//! Publishing survives an outage of the store for as long as a key was verified shortly before.

mod settings;

mod run;

mod audit;
mod endpoint_states;
mod endpoints;
mod event_types;
mod events;
mod health;
mod history;
mod monitor;
mod openapi;
mod operations;
mod replays;
mod resting;
mod trials;

mod announce;
mod auth;
mod extract;

mod error;
mod problem;

pub use announce::Announcer;
pub use endpoints::{
    status::{EndpointStatus, endpoint_status},
    trial::{TriedOut, try_endpoint},
};
pub use error::ApiFault;
pub use health::Health;
pub use monitor::monitor;
pub use run::{Api, run};
pub use settings::Settings;
