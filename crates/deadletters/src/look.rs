//! Looks into the queues in which messages rest. Nothing is taken out and nothing is published.
//!
//! What is shown is what there is. A look holds what it sees until it ends: another look or a pass at the
//! same moment sees the rest.

use std::{ops::ControlFlow, time::Duration};

use fanfare_broker::{Broker, Held, Place};
use fanfare_model::Timestamp;
use fanfare_wire::Envelope;

use crate::{DeadLettersFault, Entry, Filter};

/// After how long without a message RabbitMQ is asked whether there are more. What another look or a
/// lost connection gives back takes a moment to be there again.
const SILENCE: Duration = Duration::from_millis(200);

/// How often that is asked before the look ends without having seen everything.
const PATIENCE: u32 = 25;

/// What a look saw.
#[derive(Debug)]
pub(crate) struct Saw<T> {
    /// What was asked for.
    pub(crate) found: T,
    /// How many messages were looked at.
    pub(crate) looked_at: u64,
    /// Whether that was all there were.
    pub(crate) complete: bool,
}

impl<T> Saw<T> {
    pub(crate) fn with<U>(self, found: U) -> Saw<U> {
        Saw {
            found,
            looked_at: self.looked_at,
            complete: self.complete,
        }
    }
}

/// The messages that a filter means, those that rest longest first, after the one that `after` names.
pub(crate) async fn list(
    broker: &Broker,
    place: Place,
    filter: &Filter,
    after: Option<(Timestamp, String)>,
    limit: usize,
    look_at_most: u32,
) -> Result<Saw<Vec<Entry>>, DeadLettersFault> {
    let mut found: Vec<Entry> = Vec::new();
    let saw = look(broker, place, look_at_most, |entry, _| {
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
    Ok(saw.with(found))
}

/// How many messages a filter means.
pub(crate) async fn count(
    broker: &Broker,
    place: Place,
    filter: &Filter,
    look_at_most: u32,
) -> Result<Saw<u64>, DeadLettersFault> {
    let mut found = 0;
    let saw = each(broker, place, look_at_most, |entry| {
        found += u64::from(filter.matches(entry));
    })
    .await?;
    Ok(saw.with(found))
}

/// The message of this id.
pub(crate) async fn find(
    broker: &Broker,
    place: Place,
    id: &str,
    look_at_most: u32,
) -> Result<Saw<Option<(Entry, Envelope)>>, DeadLettersFault> {
    let mut found = None;
    let saw = look(broker, place, look_at_most, |entry, held| {
        if entry.id != id {
            return ControlFlow::Continue(());
        }
        found = Some((entry, held.envelope.clone()));
        ControlFlow::Break(())
    })
    .await?;
    Ok(saw.with(found))
}

/// Shows every message that is there now, at most so many.
pub(crate) async fn each(
    broker: &Broker,
    place: Place,
    at_most: u32,
    mut see: impl FnMut(&Entry),
) -> Result<Saw<()>, DeadLettersFault> {
    look(broker, place, at_most, |entry, _| {
        see(&entry);
        ControlFlow::Continue(())
    })
    .await
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

/// Shows every message that is there now, at most so many, until `see` has seen enough.
async fn look(
    broker: &Broker,
    place: Place,
    at_most: u32,
    mut see: impl FnMut(Entry, &Held) -> ControlFlow<()>,
) -> Result<Saw<()>, DeadLettersFault> {
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
    Ok(Saw {
        found: (),
        looked_at: seen,
        complete,
    })
}
