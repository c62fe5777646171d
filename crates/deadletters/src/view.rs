//! Looks at what rests, and changes nothing: in the index of dead letters where that will do, else in the queue.

use std::time::Duration;

use bytes::Bytes;
use fanfare_broker::{Broker, Place};
use fanfare_journal::{
    AttemptEntry, AttemptFilter, History, HistoryFault, Letter, LetterFilter, LetterKey, Page,
};
use fanfare_model::{DeliveryId, EventKey, Timestamp};
use fanfare_wire::Headers;
use tokio::time;
use tracing::warn;

use crate::{
    DeadLettersFault, Entry, Filter, Group, GroupBy, Settings,
    group::{self, Grouping},
    look::{self, Saw},
};

/// How long the depth of the queue is waited for, to be shown beside what the index has.
const DEPTH_WITHIN: Duration = Duration::from_secs(2);

/// How many attempts of a dead letter are shown.
const MOST_ATTEMPTS: u32 = 200;

/// What was found, and where.
#[derive(Debug)]
pub struct Looked<T> {
    /// What was asked for.
    pub found: T,
    /// Where it was found.
    pub seen: Seen,
}

/// Where somebody looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Into the queue.
    Queue {
        /// How many messages were looked at.
        messages: u64,
        /// Whether those were all.
        complete: bool,
    },
    /// Into the index.
    Index {
        /// How many dead letters it has.
        letters: u64,
        /// Until when it knows what happened.
        as_of: Timestamp,
        /// How many messages the queue held at the moment of looking, if RabbitMQ said so.
        in_queue: Option<u32>,
    },
}

/// One message, with its payload as far as it was asked for and kept.
#[derive(Debug)]
pub struct Found {
    /// What it says of itself.
    pub entry: Entry,
    /// Its headers, if it was read from the queue.
    pub headers: Option<Headers>,
    /// The payload.
    pub data: Bytes,
    /// The attempts that are recorded, oldest first.
    pub attempts: Vec<AttemptEntry>,
}

/// Looks at what rests. Cheap to clone.
#[derive(Clone)]
pub struct View {
    broker: Broker,
    index: Option<History>,
    look_at_most: u32,
}

impl View {
    /// A view of the queues themselves.
    pub fn of_queues(broker: &Broker, settings: &Settings) -> Self {
        Self {
            broker: broker.clone(),
            index: None,
            look_at_most: settings.look_at_most,
        }
    }

    /// The view through an index, for dead letters.
    #[must_use]
    pub fn indexed_by(self, history: History) -> Self {
        Self {
            index: Some(history),
            ..self
        }
    }

    /// The view without an index.
    #[must_use]
    pub fn past_the_index(&self) -> Self {
        Self {
            index: None,
            ..self.clone()
        }
    }

    /// The messages that a filter means, those that rest longest first, after the one that `after` names.
    pub async fn list(
        &self,
        place: Place,
        filter: &Filter,
        after: Option<(Timestamp, String)>,
        limit: u32,
    ) -> Result<Looked<Vec<Entry>>, DeadLettersFault> {
        let place_in_index = after.as_ref().map(|(since, id)| {
            let id = id.parse::<DeliveryId>();
            id.map(|id| (*since, id))
        });
        if let (Some((index, filter)), Ok(after)) =
            (self.index(place, filter), place_in_index.transpose())
        {
            let letters = index.letters(&filter, after, limit).await;
            if let Some(looked) = self.indexed(index, letters).await {
                return Ok(looked.map(|letters| letters.into_iter().map(Entry::from).collect()));
            }
        }
        let limit = limit as usize;
        let saw = look::list(&self.broker, place, filter, after, limit, self.look_at_most);
        Ok(saw.await?.into())
    }

    /// How many messages a filter means.
    pub async fn count(
        &self,
        place: Place,
        filter: &Filter,
    ) -> Result<Looked<u64>, DeadLettersFault> {
        if let Some((index, filter)) = self.index(place, filter) {
            let count = index.count_letters(&filter).await;
            if let Some(looked) = self.indexed(index, count).await {
                return Ok(looked);
            }
        }
        let saw = look::count(&self.broker, place, filter, self.look_at_most);
        Ok(saw.await?.into())
    }

    /// The messages that a filter means, counted by what they have in common; the largest group first.
    pub async fn group(
        &self,
        place: Place,
        filter: &Filter,
        by: &[GroupBy],
        now: Timestamp,
    ) -> Result<Looked<Vec<Group>>, DeadLettersFault> {
        if let Some((index, filter)) = self.index(place, filter) {
            let keys: Vec<_> = by.iter().map(|by| key(*by, now)).collect();
            let groups = index.letter_groups(&filter, &keys).await;
            if let Some(looked) = self.indexed(index, groups).await {
                let of = |group| Group::of_letters(by, group);
                return Ok(looked.map(|groups| groups.into_iter().map(of).collect()));
            }
        }
        let mut grouping = Grouping::new(by, now);
        let add = |entry: &Entry| {
            if filter.matches(entry) {
                grouping.add(entry);
            }
        };
        let saw = look::each(&self.broker, place, self.look_at_most, add).await?;
        Ok(saw.with(grouping.finish()).into())
    }

    /// The message of this id, with its payload.
    pub async fn find(
        &self,
        place: Place,
        id: &str,
    ) -> Result<Looked<Option<Found>>, DeadLettersFault> {
        let filter = Filter {
            ids: vec![id.to_owned()],
            ..Filter::default()
        };
        let mut attempts = Vec::new();
        if let Some((index, filter)) = self.index(place, &filter) {
            let found = find_indexed(index, &filter).await;
            if let Some(looked) = self.indexed(index, found).await
                && let Some((entry, data, known)) = looked.found
            {
                attempts = known;
                if let Some(data) = data {
                    let found = Found {
                        entry,
                        headers: None,
                        data,
                        attempts,
                    };
                    return Ok(Looked {
                        found: Some(found),
                        seen: looked.seen,
                    });
                }
            }
        }
        // In the queue there is everything, and somebody else's messages too.
        let saw = look::find(&self.broker, place, id, self.look_at_most).await?;
        let looked: Looked<Option<(Entry, fanfare_wire::Envelope)>> = saw.into();
        Ok(looked.map(|found| {
            found.map(|(entry, envelope)| Found {
                entry,
                headers: Some(envelope.headers),
                data: envelope.body,
                attempts,
            })
        }))
    }

    /// The index and what to look for in it, where it can know about that.
    fn index(&self, place: Place, filter: &Filter) -> Option<(&History, LetterFilter)> {
        let index = self.index.as_ref();
        let index = index.filter(|_| place == Place::DeadLetters)?;
        Some((index, filter.in_index()?))
    }

    /// What the index answered; nothing when it cannot be relied on, and the queue has to be looked into.
    async fn indexed<T>(
        &self,
        index: &History,
        found: Result<T, HistoryFault>,
    ) -> Option<Looked<T>> {
        let answered = async {
            let found = found?;
            let letters = index.count_letters(&LetterFilter::default()).await?;
            Ok::<_, HistoryFault>((found, letters, index.progress().await?.written_at))
        };
        match answered.await {
            Ok((found, letters, Some(as_of))) => {
                let queue = self.broker.topology().queue_of(Place::DeadLetters);
                let depth = time::timeout(DEPTH_WITHIN, self.broker.depth(&queue)).await;
                let in_queue = depth.ok().and_then(Result::ok);
                let seen = Seen::Index {
                    letters,
                    as_of,
                    in_queue,
                };
                Some(Looked { found, seen })
            }
            // Nothing was ever recorded.
            Ok((_, _, None)) => None,
            Err(fault) => {
                let error = &fault as &dyn std::error::Error;
                warn!(
                    error,
                    "the index of dead letters does not answer; looking into their queue"
                );
                None
            }
        }
    }
}

impl<T> Looked<T> {
    fn map<U>(self, change: impl FnOnce(T) -> U) -> Looked<U> {
        Looked {
            found: change(self.found),
            seen: self.seen,
        }
    }
}

impl<T> From<Saw<T>> for Looked<T> {
    fn from(saw: Saw<T>) -> Self {
        Self {
            found: saw.found,
            seen: Seen::Queue {
                messages: saw.looked_at,
                complete: saw.complete,
            },
        }
    }
}

type Indexed = (Entry, Option<Bytes>, Vec<AttemptEntry>);

/// The dead letter that a filter names, with its data if the history has that, and its attempts.
async fn find_indexed(
    index: &History,
    filter: &LetterFilter,
) -> Result<Option<Indexed>, HistoryFault> {
    let letters = index.letters(filter, None, 1).await?;
    let Some(letter) = letters.into_iter().next() else {
        return Ok(None);
    };
    let key = EventKey {
        tenant: letter.delivery.tenant.clone(),
        source: letter.event_source.clone(),
        id: letter.event_id.clone(),
        event_type: letter.delivery.event_type.clone(),
    };
    let event = index.event(&key).await?.map(|history| history.event);
    let kept = event.filter(|event| event.is_complete && !event.data_left_out);
    let data = kept.map(|event| event.event.data.unwrap_or_default());
    let attempts = AttemptFilter {
        delivery: Some(letter.delivery.id),
        ..AttemptFilter::default()
    };
    let page = Page {
        after: None,
        limit: MOST_ATTEMPTS,
    };
    let mut attempts = index.attempts(&attempts, page).await?;
    attempts.reverse();
    let mut entry = Entry::from(letter);
    entry.bytes = data.as_ref().map(Bytes::len);
    Ok(Some((entry, data, attempts)))
}

fn key(by: GroupBy, now: Timestamp) -> LetterKey {
    match by {
        GroupBy::Endpoint => LetterKey::Endpoint,
        GroupBy::Tenant => LetterKey::Tenant,
        GroupBy::Type => LetterKey::Type,
        GroupBy::Reason => LetterKey::Reason,
        GroupBy::Age => LetterKey::Age(group::moments(now)),
    }
}

impl From<Letter> for Entry {
    fn from(letter: Letter) -> Self {
        let delivery = letter.delivery;
        let failure = delivery.last_failure;
        Self {
            id: delivery.id.to_string(),
            since: Some(delivery.changed_at),
            tenant: Some(delivery.tenant.to_string()),
            endpoint: Some(delivery.endpoint.to_string()),
            event_type: Some(delivery.event_type.to_string()),
            event_id: Some(letter.event_id),
            event_source: Some(letter.event_source),
            reason: letter.reason.name().to_owned(),
            attempts: Some(delivery.failed_attempts.into()),
            replay: delivery.replay,
            first_failed_at: delivery.first_failed_at,
            last_class: failure
                .as_ref()
                .map(|failure| failure.class.name().to_owned()),
            last_status: failure
                .as_ref()
                .and_then(|failure| failure.status.map(i64::from)),
            last_error: failure.map(|failure| failure.error),
            trace_id: letter.trace_id,
            content_type: letter.content_type,
            ..Self::default()
        }
    }
}
