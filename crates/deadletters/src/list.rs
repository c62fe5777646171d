//! Shows what the dead-letter queue holds.

use fanfare_broker::{Broker, BrokerFault};
use fanfare_model::DeadLetter;
use fanfare_wire::{DecodeFault, Envelope, decode_dead_letter};

/// A message of the dead-letter queue.
#[derive(Debug)]
pub enum Listed {
    /// A delivery that was given up on.
    DeadLetter(DeadLetter),
    /// Something else that somebody published there, or that a newer release wrote.
    Unreadable(Unreadable),
}

/// A message that is no dead letter as far as this program can tell.
#[derive(Debug)]
pub struct Unreadable {
    /// The message as it is in the queue.
    pub envelope: Envelope,
    /// What keeps it from being read.
    pub why: DecodeFault,
}

/// Looks at the first messages of the dead-letter queue, at most `limit`; all of them stay in it.
///
/// They are held while the look lasts, so another look at the same moment does not see them. `Err`
/// means that the queue could not be looked into; a message that cannot be read is listed as such.
pub async fn list(broker: &Broker, limit: usize) -> Result<Vec<Listed>, BrokerFault> {
    let queue = broker.topology().dead_letters_queue();
    let envelopes = broker.peek(&queue, limit).await?;
    Ok(envelopes.into_iter().map(Listed::from).collect())
}

impl From<Envelope> for Listed {
    fn from(envelope: Envelope) -> Self {
        match decode_dead_letter(&envelope) {
            Ok(dead_letter) => Self::DeadLetter(dead_letter),
            Err(why) => Self::Unreadable(Unreadable { envelope, why }),
        }
    }
}
