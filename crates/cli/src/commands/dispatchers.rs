//! `fanfare dispatchers`: who owns which partition, what is in hand, and what waits.

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use fanfare_broker::{Broker, Inbox};
use fanfare_model::PartitionKey;
use fanfare_wire::{ControlMessage, DispatcherPresence, PartitionRole};
use serde_json::Value;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;

use super::broker::connected;
use crate::{
    Config, OutputFormat, Sources, clock,
    output::{self, Column, Row},
};

/// Dispatchers announce themselves within two seconds, and at once when asked; this leaves a busy one time.
const LISTEN_AT_MOST: Duration = Duration::from_secs(5);

/// Once one has answered, the others have about as soon.
const LISTEN_ON: Duration = Duration::from_millis(1500);

/// The first question may come before this command hears anything.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// One partition, and who says to have it.
struct Share {
    partition: PartitionKey,
    dispatcher: Option<String>,
    role: Option<PartitionRole>,
    in_hand: usize,
    in_flight: usize,
    backlog: u32,
}

pub(crate) async fn run(format: OutputFormat, sources: &Sources) -> anyhow::Result<()> {
    let settings = Config::load(sources)?.settings;
    let broker = connected(&settings.broker, "fanfare dispatchers").await?;
    let present = gather(&broker).await?;
    let mut shares = Vec::new();
    for partition in broker.topology().partitions() {
        let queue = broker.topology().delivery_queue(partition);
        let backlog = broker.depth(&queue).await?;
        shares.extend(shares_of(partition, backlog, &present));
    }
    broker.close().await;
    output::print_rows(format, &shares)?;
    let names: Vec<_> = present.values().map(|one| one.id.as_str()).collect();
    output::note(&format!(
        "{} dispatchers: {}",
        names.len(),
        names.join(", ")
    ))?;
    if present.values().any(|one| !one.follows_priority) {
        output::note("RabbitMQ is older than 4.0: one dispatcher is active, the others stand by")?;
    }
    Ok(())
}

/// Asks who is there, and listens for as long as answers may come.
async fn gather(broker: &Broker) -> anyhow::Result<BTreeMap<u64, DispatcherPresence>> {
    let (mut inbox, mut present) = (broker.control_inbox(), BTreeMap::new());
    let mut until = Instant::now() + LISTEN_AT_MOST;
    while Instant::now() < until {
        ask(broker).await?;
        let asked_again = (Instant::now() + ASK_EVERY).min(until);
        while let Ok(Some(presence)) = time::timeout_at(asked_again, next(&mut inbox)).await {
            if present.is_empty() {
                until = until.min(Instant::now() + LISTEN_ON);
            }
            if presence.leaving {
                present.remove(&presence.incarnation);
            } else {
                present.insert(presence.incarnation, presence);
            }
        }
    }
    inbox.close().await;
    Ok(present)
}

async fn ask(broker: &Broker) -> anyhow::Result<()> {
    let question = ControlMessage::DispatchersAsked.encode(clock::system_clock().now());
    let address = broker.topology().control_address();
    let asked = broker.publisher().publish(&address, question).await;
    asked.context("asking which dispatchers are there")
}

async fn next(inbox: &mut Inbox) -> Option<DispatcherPresence> {
    loop {
        let message = inbox.next_until(&CancellationToken::new()).await?;
        let told = ControlMessage::decode(&message.envelope);
        message.receipt.settle();
        if let Some(ControlMessage::DispatcherPresent(presence)) = told {
            return Some(presence);
        }
    }
}

/// A row for each dispatcher that has the partition; one without a dispatcher when none has.
fn shares_of(
    partition: PartitionKey,
    backlog: u32,
    present: &BTreeMap<u64, DispatcherPresence>,
) -> Vec<Share> {
    let mut shares: Vec<Share> = present
        .values()
        .flat_map(|one| one.partitions.iter().map(move |part| (one, part)))
        .filter(|(_, part)| part.partition == partition && part.role != PartitionRole::Standby)
        .map(|(one, part)| Share {
            partition,
            dispatcher: Some(one.id.clone()),
            role: Some(part.role),
            in_hand: part.in_hand,
            in_flight: part.in_flight,
            backlog,
        })
        .collect();
    if shares.is_empty() {
        shares.push(Share {
            partition,
            dispatcher: None,
            role: None,
            in_hand: 0,
            in_flight: 0,
            backlog,
        });
    }
    shares
}

impl Row for Share {
    const COLUMNS: &'static [Column<Self>] = &[
        Column {
            name: "partition",
            value: |share| share.partition.to_string().into(),
        },
        Column {
            name: "dispatcher",
            value: |share| share.dispatcher.clone().into(),
        },
        Column {
            name: "role",
            value: |share| match share.role {
                Some(PartitionRole::Owner) => "owner".into(),
                Some(PartitionRole::HandingOver) => "handing_over".into(),
                Some(PartitionRole::Standby) => "standby".into(),
                None => Value::Null,
            },
        },
        Column {
            name: "in_hand",
            value: |share| share.in_hand.into(),
        },
        Column {
            name: "in_flight",
            value: |share| share.in_flight.into(),
        },
        Column {
            name: "backlog",
            value: |share| share.backlog.into(),
        },
    ];
}

#[cfg(test)]
mod tests {
    use fanfare_wire::PartitionPresence;

    use super::*;

    #[test]
    fn a_partition_shows_everyone_who_has_it_and_that_nobody_has() {
        let key = |text: &str| text.parse::<PartitionKey>().unwrap();
        let one = |id: &str, role| DispatcherPresence {
            id: id.to_owned(),
            incarnation: 1,
            leaving: false,
            follows_priority: true,
            partitions: vec![PartitionPresence {
                partition: key("g1.p00"),
                role,
                in_hand: 2,
                in_flight: 1,
            }],
        };
        let present = [
            (1, one("a", PartitionRole::HandingOver)),
            (2, one("b", PartitionRole::Owner)),
            (3, one("c", PartitionRole::Standby)),
        ];
        let present = present.into();
        let names = |partition| -> Vec<Option<String>> {
            let shares = shares_of(key(partition), 7, &present);
            shares.into_iter().map(|share| share.dispatcher).collect()
        };
        assert_eq!(
            names("g1.p00"),
            [Some("a".to_owned()), Some("b".to_owned())]
        );
        assert_eq!(names("g1.p01"), [None]);
    }
}
