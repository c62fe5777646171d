//! Deals with a handful of messages for one operation: publish, confirm, note, acknowledge.

use fanfare_broker::{Address, Held, HeldTag, Place};
use fanfare_registry::OperationItem;
use fanfare_wire::Envelope;
use futures_util::future::{join_all, try_join_all};
use serde_json::json;
use tokio::time;
use tracing::warn;

use super::Pass;
use crate::{
    DeadLettersFault, Entry,
    consequence::{consequence, told},
    settings::CONFIRM_WITHIN,
};

impl Pass<'_> {
    /// Deals with at most a window of messages.
    ///
    /// What cannot be dealt with stays where it is; the log says why.
    pub(super) async fn act(
        &mut self,
        job: usize,
        messages: Vec<(Entry, Held)>,
    ) -> Result<(), DeadLettersFault> {
        let id = self.jobs[job].operation.id;
        let keys: Vec<String> = messages.iter().map(|(entry, _)| entry.key()).collect();
        let known = match self.place {
            // What was noted had been confirmed, and a replay that fails comes back under another key.
            Place::DeadLetters => self.desk.registry.resolved_items(id, &keys).await?,
            // Here a message may come back as it was, so a note says nothing about this one.
            Place::Rejected | Place::Unroutable | Place::Crashed => Default::default(),
        };
        let (done, fresh): (Vec<_>, Vec<_>) = messages
            .into_iter()
            .partition(|(entry, _)| known.contains(&entry.key()));
        let fresh = self.publish(job, fresh).await?;
        if !fresh.is_empty() {
            self.write_down(job, &fresh).await?;
        }
        let done = done.into_iter().map(|(entry, held)| (entry, held.tag));
        let dealt_with: Vec<(Entry, HeldTag)> = done.chain(fresh).collect();
        self.tell_journal(job, &dealt_with).await;
        let tags: Vec<HeldTag> = dealt_with.iter().map(|(_, tag)| *tag).collect();
        self.acknowledge(&tags).await?;
        self.jobs[job].acknowledged += tags.len();
        Ok(())
    }

    async fn write_down(
        &mut self,
        job: usize,
        dealt_with: &[(Entry, HeldTag)],
    ) -> Result<(), DeadLettersFault> {
        let (id, now) = (self.jobs[job].operation.id, self.desk.clock.now());
        let items = dealt_with.iter().map(|(entry, _)| OperationItem {
            message: entry.key(),
            at: now,
            summary: json!(entry),
        });
        let items: Vec<_> = items.collect();
        let noted = self.desk.registry.note_items(id, &items, now).await?;
        if let Some(operation) = noted {
            self.note(job, operation);
        }
        if let Some(metrics) = &self.desk.metrics {
            metrics.resolved(self.place, self.jobs[job].action, items.len());
        }
        Ok(())
    }

    /// Before the acknowledgements, so that the index of dead letters misses none of them: what was noted
    /// by a process that died then is told again.
    async fn tell_journal(&self, job: usize, dealt_with: &[(Entry, HeldTag)]) {
        let (job, now) = (&self.jobs[job], self.desk.clock.now());
        let told = dealt_with
            .iter()
            .filter_map(|(entry, _)| told(job.action, entry, &job.operation, now));
        self.desk.journal.acted(told.collect()).await;
    }

    /// Publishes what follows from each message, and returns those for which all of it is confirmed.
    async fn publish(
        &self,
        job: usize,
        messages: Vec<(Entry, Held)>,
    ) -> Result<Vec<(Entry, HeldTag)>, DeadLettersFault> {
        let (action, now) = (self.jobs[job].action, self.desk.clock.now());
        let topology = self.desk.broker.topology();
        let mut ready = Vec::new();
        for (entry, held) in messages {
            match consequence(action, &held, topology, now) {
                Ok(following) => ready.push((entry, held.tag, following)),
                Err(why) => self.leave(&entry, &why),
            }
        }
        let published = ready.into_iter().map(async |(entry, tag, following)| {
            let confirmed = self.publish_all(following).await;
            (entry, tag, confirmed)
        });
        let published = time::timeout(CONFIRM_WITHIN, join_all(published))
            .await
            .map_err(|_| DeadLettersFault::Unconfirmed(CONFIRM_WITHIN))?;
        let mut dealt_with = Vec::new();
        for (entry, tag, confirmed) in published {
            match confirmed {
                Ok(()) => dealt_with.push((entry, tag)),
                Err(fanfare_broker::PublishFault::Closed) => {
                    return Err(DeadLettersFault::Publish(
                        fanfare_broker::PublishFault::Closed,
                    ));
                }
                Err(fault) => self.leave(&entry, &fault.to_string()),
            }
        }
        Ok(dealt_with)
    }

    async fn publish_all(
        &self,
        following: Vec<(Address, Envelope)>,
    ) -> Result<(), fanfare_broker::PublishFault> {
        let publisher = &self.desk.publisher;
        let all = following.into_iter();
        try_join_all(
            all.map(async |(address, envelope)| publisher.publish(&address, envelope).await),
        )
        .await
        .map(drop)
    }

    fn leave(&self, entry: &Entry, why: &str) {
        warn!(place = %self.place, message = entry.id, why, "a message cannot be dealt with and stays");
    }
}
