//! Looks into the queues in which messages rest. Nothing is taken out and nothing is published.
//!
//! The queue is read, not an index of it, so what is shown is what there is. A look holds what it sees
//! until it ends: another look or a pass at the same moment sees the rest.

use std::{ops::ControlFlow, time::Duration};

use fanfare_broker::{Broker, Held, Place};
use fanfare_model::Timestamp;
use fanfare_wire::Envelope;

use crate::{DeadLettersFault, Entry, Filter, Group, GroupBy, group::Grouping};

/// After how long without a message RabbitMQ is asked whether there are more. What another look or a
/// lost connection gives back takes a moment to be there again.
const SILENCE: Duration = Duration::from_millis(200);

/// How often that is asked before the look ends without having seen everything.
const PATIENCE: u32 = 25;

/// What a look saw.
#[derive(Debug)]
pub struct Looked<T> {
    /// What was asked for.
    pub found: T,
    /// How many messages were looked at.
    pub looked_at: u64,
    /// Whether that was all there were.
    pub complete: bool,
}

/// One message, with its payload.
#[derive(Debug)]
pub struct Found {
    /// What it says of itself.
    pub entry: Entry,
    /// The message.
    pub envelope: Envelope,
}

/// The messages that a filter means, those that rest longest first, after the one that `after` names.
pub async fn list(
    broker: &Broker,
    place: Place,
    filter: &Filter,
    after: Option<(Timestamp, String)>,
    (limit, look_at_most): (usize, u32),
) -> Result<Looked<Vec<Entry>>, DeadLettersFault> {
    let mut found: Vec<Entry> = Vec::new();
    let (looked_at, complete) = look(broker, place, look_at_most, |entry, _| {
        let is_next = after.as_ref().is_none_or(|after| position(&entry) > *after);
        if is_next && filter.matches(&entry) {
            found.push(entry);
            if found.len() >= limit.saturating_mul(2).max(1000) {
                keep_first(&mut found, limit);
            }
        }
        ControlFlow::Continue(())
    })
    .await?;
    keep_first(&mut found, limit);
    Ok(Looked {
        found,
        looked_at,
        complete,
    })
}

/// How many messages a filter means.
pub async fn count(
    broker: &Broker,
    place: Place,
    filter: &Filter,
    look_at_most: u32,
) -> Result<Looked<u64>, DeadLettersFault> {
    let mut found = 0;
    let (looked_at, complete) = look(broker, place, look_at_most, |entry, _| {
        found += u64::from(filter.matches(&entry));
        ControlFlow::Continue(())
    })
    .await?;
    Ok(Looked {
        found,
        looked_at,
        complete,
    })
}

/// The messages that a filter means, counted by what they have in common; the largest group first.
pub async fn group(
    broker: &Broker,
    place: Place,
    filter: &Filter,
    (by, now): (&[GroupBy], Timestamp),
    look_at_most: u32,
) -> Result<Looked<Vec<Group>>, DeadLettersFault> {
    let mut grouping = Grouping::new(by, now);
    let (looked_at, complete) = look(broker, place, look_at_most, |entry, _| {
        if filter.matches(&entry) {
            grouping.add(&entry);
        }
        ControlFlow::Continue(())
    })
    .await?;
    Ok(Looked {
        found: grouping.finish(),
        looked_at,
        complete,
    })
}

/// The message of this id, with its payload.
pub async fn find(
    broker: &Broker,
    place: Place,
    id: &str,
    look_at_most: u32,
) -> Result<Looked<Option<Found>>, DeadLettersFault> {
    let mut found = None;
    let (looked_at, complete) = look(broker, place, look_at_most, |entry, held| {
        if entry.id != id {
            return ControlFlow::Continue(());
        }
        let envelope = held.envelope.clone();
        found = Some(Found { entry, envelope });
        ControlFlow::Break(())
    })
    .await?;
    Ok(Looked {
        found,
        looked_at,
        complete,
    })
}

/// Where an entry stands in a list.
fn position(entry: &Entry) -> (Timestamp, String) {
    let since = entry.since.unwrap_or(Timestamp::UNIX_EPOCH);
    (since, entry.id.clone())
}

fn keep_first(entries: &mut Vec<Entry>, limit: usize) {
    entries.sort_by_cached_key(position);
    entries.truncate(limit);
}

/// Shows every message that is there now, at most so many, and says how many it saw and whether that is all.
pub(crate) async fn look(
    broker: &Broker,
    place: Place,
    at_most: u32,
    mut see: impl FnMut(Entry, &Held) -> ControlFlow<()>,
) -> Result<(u64, bool), DeadLettersFault> {
    let fault = DeadLettersFault::broker(place);
    let mut holder = broker.look_into(place).await.map_err(&fault)?;
    let (mut seen, mut silences) = (0, 0);
    let complete = loop {
        if seen >= u64::from(at_most) || silences > PATIENCE {
            break holder.ready().await.map_err(&fault)? == 0;
        }
        let Some(held) = holder.next(SILENCE).await.map_err(&fault)? else {
            silences += 1;
            if holder.ready().await.map_err(&fault)? == 0 {
                break true;
            }
            continue;
        };
        seen += 1;
        if see(Entry::of(place, &held), &held).is_break() {
            break true;
        }
    };
    holder.close().await.map_err(&fault)?;
    Ok((seen, complete))
}
