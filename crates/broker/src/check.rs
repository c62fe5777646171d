//! Compares the topology with a live broker, over AMQP, without changing anything that differs.
//!
//! AMQP shows whether a thing exists and whether its arguments are the expected ones. It does not show
//! bindings, policies and replica counts.

use lapin::{
    Channel, Connection,
    options::{ExchangeDeclareOptions, QueueDeclareOptions},
    protocol::AMQPSoftError,
    types::FieldTable,
};

use crate::{
    Broker, BrokerFault, Settings, Topology,
    broker::{declare_exchange, declare_queue, is_soft_error, open_channel},
};

/// What was found out about one exchange or queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `exchange` or `queue`.
    pub kind: &'static str,
    /// Its full name.
    pub name: String,
    /// How it compares.
    pub verdict: Verdict,
}

/// How a thing compares with what is expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It exists as listed.
    AsListed,
    /// It does not exist. A role that starts declares it.
    Missing,
    /// It exists with other arguments; a role refuses to start. What the broker said.
    Differs(String),
}

impl Topology {
    /// Compares every exchange and queue with the broker that the settings name.
    pub async fn check(settings: &Settings) -> Result<Vec<Finding>, BrokerFault> {
        let topology = Self::new(settings);
        let connection = Broker::probe(settings).await?;
        let mut findings = Vec::new();
        for spec in topology.exchanges() {
            let verdict = if exchange_exists(&connection, &spec.name).await? {
                let channel = open_channel(&connection).await?;
                let declared = declare_exchange(&channel, spec).await;
                finish(channel).await?;
                compared(declared)?
            } else {
                Verdict::Missing
            };
            findings.push(Finding {
                kind: "exchange",
                name: spec.name.clone(),
                verdict,
            });
        }
        for spec in topology.queues() {
            let verdict = if queue_exists(&connection, &spec.name).await? {
                let channel = open_channel(&connection).await?;
                let declared = declare_queue(&channel, spec).await;
                finish(channel).await?;
                compared(declared)?
            } else {
                Verdict::Missing
            };
            findings.push(Finding {
                kind: "queue",
                name: spec.name.clone(),
                verdict,
            });
        }
        let closed = connection.close(200, "checked".into()).await;
        closed.map_err(BrokerFault::operation("closing the connection"))?;
        Ok(findings)
    }
}

/// A declaration of something that exists only compares.
fn compared(declared: Result<(), BrokerFault>) -> Result<Verdict, BrokerFault> {
    match declared {
        Ok(()) => Ok(Verdict::AsListed),
        Err(BrokerFault::Differs { source, .. }) => Ok(Verdict::Differs(source.to_string())),
        Err(fault) => Err(fault),
    }
}

/// Closes the channel of one question, unless the answer did. A connection does not close in order
/// over one that is being dropped.
async fn finish(channel: Channel) -> Result<(), BrokerFault> {
    if !channel.status().connected() {
        return Ok(());
    }
    let closed = channel.close(200, "answered".into()).await;
    closed.map_err(BrokerFault::operation("closing a channel"))
}

async fn exchange_exists(connection: &Connection, name: &str) -> Result<bool, BrokerFault> {
    let options = ExchangeDeclareOptions {
        passive: true,
        ..ExchangeDeclareOptions::default()
    };
    // A passive declaration compares nothing, not even the kind.
    let kind = lapin::ExchangeKind::Direct;
    let channel = open_channel(connection).await?;
    let asked = channel
        .exchange_declare(name.into(), kind, options, FieldTable::default())
        .await;
    finish(channel).await?;
    found(asked, name)
}

async fn queue_exists(connection: &Connection, name: &str) -> Result<bool, BrokerFault> {
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let channel = open_channel(connection).await?;
    let asked = channel
        .queue_declare(name.into(), options, FieldTable::default())
        .await;
    finish(channel).await?;
    found(asked.map(|_| ()), name)
}

fn found(asked: lapin::Result<()>, name: &str) -> Result<bool, BrokerFault> {
    match asked {
        Ok(()) => Ok(true),
        Err(error) if is_soft_error(&error, &AMQPSoftError::NOTFOUND) => Ok(false),
        Err(error) => Err(BrokerFault::operation(format!("looking for `{name}`"))(
            error,
        )),
    }
}
