//! What tests need: a private virtual host or database, a node or server to crash, a receiver, a ledger.
//!
//! A development dependency only. With no broker or database server at hand a test fails and says which
//! command starts one; nothing is skipped.

mod amqp;
mod authority;
mod broker;
mod database;
mod database_server;
mod eventually;
mod ledger;
mod node;
mod receiver;

pub use amqp::{PlainAmqp, Taken};
pub use authority::{Authority, Identity};
pub use broker::{TestBroker, Version};
pub use database::TestDatabase;
pub use database_server::DatabaseServer;
pub use eventually::eventually;
pub use ledger::{Ledger, LedgerReport};
pub use node::Node;
pub use receiver::{Behaviour, ReceivedRequest, Receiver};

use fanfare_model::Clock;

/// The wall clock, for tests that do not choose the time themselves.
#[expect(clippy::disallowed_methods, reason = "a test has no wiring")]
pub fn wall_clock() -> Clock {
    Clock::new(fanfare_model::Timestamp::now)
}
