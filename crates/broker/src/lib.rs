//! RabbitMQ as Fanfare uses it: the only crate that speaks AMQP.
//!
//! - [`Topology`] lists every exchange, queue and binding; [`Broker::connect`] makes it so.
//! - [`Publisher`] returns from a publish when the broker has the message; it reconnects and publishes
//!   again what was unconfirmed.
//! - [`Bundler`] puts deliveries that go to the same place at the same time into one message.
//! - [`Inbox`] hands out messages; each is acknowledged when its consequences are confirmed.
//! - [`JournalWriter`] tells the history what happened, off the path of any delivery; [`StreamReader`]
//!   reads it back.
//! - [`Holder`] takes a whole queue in hand, to look at it or to take some of it out.
//! - [`DelayLine`] says in which queue a delivery waits.
//!
//! Publishing and consuming use a connection each: RabbitMQ blocks connections that publish when it
//! runs out of memory or disk (`docs/connection-blocked`), and ours must then still acknowledge.

mod broker;
mod bundler;
mod check;
mod confirmed;
mod connection;
mod convert;
mod delay;
mod error;
mod holder;
mod inbox;
mod journal;
mod lock;
mod patience;
mod place;
mod plain;
mod publisher;
mod pulse;
mod settings;
mod settlement;
mod skeleton;
mod stream;
mod topology;

pub use broker::Broker;
pub use bundler::Bundler;
pub use check::{Finding, Verdict};
pub use delay::{DelayLine, Tier};
pub use error::{BrokerFault, PublishFault};
pub use holder::{Held, HeldTag, Holder, QueueCounts};
pub use inbox::{Inbox, Message, Subscribed, Subscription, finish};
pub use journal::{JournalSettings, JournalWriter};
pub use lock::Lock;
pub use place::Place;
pub use plain::publish_plainly;
pub use publisher::{Publisher, PublisherStatus};
pub use pulse::Pulse;
pub use settings::{InvalidPrefix, Prefix, Settings};
pub use settlement::Receipt;
pub use skeleton::Skeleton;
pub use stream::{StreamMessage, StreamReader};
pub use topology::{
    Address, Argument, BindingSpec, ExchangeKind, ExchangeSpec, QueueKind, QueueSpec, Topology,
};
