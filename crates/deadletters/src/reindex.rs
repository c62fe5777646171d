//! Sets the index of dead letters right by what their queue holds.

use std::{collections::HashSet, time::Duration};

use fanfare_broker::{Broker, Place};
use fanfare_journal::History;
use fanfare_model::Clock;
use fanfare_wire::decode_dead_letter;

use crate::DeadLettersFault;

/// How many dead letters are entered at once.
const AT_ONCE: usize = 1000;

/// After how long without a message RabbitMQ is asked whether there are more, and how often, so that what
/// somebody looks at in this moment is seen too.
const SILENCE: Duration = Duration::from_millis(500);
const PATIENCE: u32 = 4;

/// What the index tells of the last minute stays: a dead letter may be on its way into the queue.
const SETTLING: Duration = Duration::from_secs(60);

/// What was set right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reindexed {
    /// How many dead letters the queue held.
    pub in_queue: u64,
    /// How many messages it held besides, which are none of ours.
    pub others: u64,
    /// How many were missing from the index.
    pub entered: u64,
    /// How many were in the index alone.
    pub dropped: u64,
}

/// Looks at the whole queue of dead letters and changes the index to match; `None` while another process
/// passes over the queue. `tell` hears how many messages were looked at.
pub async fn reindex(
    broker: &Broker,
    index: &History,
    clock: &Clock,
    tell: &mut (dyn FnMut(u64) + Send),
) -> Result<Option<Reindexed>, DeadLettersFault> {
    let fault = DeadLettersFault::broker(Place::DeadLetters);
    // Nobody replays or discards meanwhile.
    let held = broker.pass_over(Place::DeadLetters).await;
    let Some(mut holder) = held.map_err(&fault)? else {
        return Ok(None);
    };
    let as_of = clock.now();
    let (mut done, mut letters) = (Reindexed::default(), Vec::new());
    let (mut seen, mut silences) = (HashSet::new(), 0);
    while silences < PATIENCE {
        let Some(held) = holder.next(SILENCE).await.map_err(&fault)? else {
            silences += 1;
            continue;
        };
        match decode_dead_letter(&held.envelope) {
            Ok(letter) => {
                seen.insert(letter.delivery.id);
                letters.push(letter);
            }
            Err(_) => done.others += 1,
        }
        if letters.len() == AT_ONCE {
            done.entered += index.enter_letters(&letters, as_of).await?;
            letters.clear();
        }
        tell(seen.len() as u64 + done.others);
    }
    done.entered += index.enter_letters(&letters, as_of).await?;
    let settled = as_of.checked_sub(SETTLING).unwrap_or(as_of);
    done.dropped = index.drop_letters(&seen, settled).await?;
    done.in_queue = seen.len() as u64;
    holder.close().await.map_err(&fault)?;
    Ok(Some(done))
}
