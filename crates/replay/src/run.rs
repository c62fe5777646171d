//! Runs one operation: reads the history from where it stands, publishes at its pace, notes how far it has come.
//!
//! The order for each portion: publish, wait for the confirms, tell the journal, note the deliveries together
//! with the place in the history. A process that dies in between leaves the operation where it was noted
//! last, and the next one goes on there.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use fanfare_broker::{Lock, Place};
use fanfare_deadletters as deadletters;
use fanfare_journal::{Cursor, DeliveryFilter, OwedEvent, Page};
use fanfare_model::{
    ActedDelivery, DeliveryAction, DeliveryId, DeliveryState, Endpoint, EndpointState, Event,
    OwedDelivery, Timestamp, TraceContext,
};
use fanfare_registry::{Operation, OperationId, OperationItem, OperationState};
use futures_util::future::{join_all, try_join_all};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    Action, Desk, Filter, PLACE, ReplayFault,
    decide::{self, Ahead, Portion, Sending, WINDOW, decide, portions},
};

/// How often it is looked whether somebody has stopped the operation or changed the endpoint.
const LOOKING: Duration = Duration::from_secs(1);

/// How often the history is asked what was attempted, while more may not be published.
const ASKING: Duration = Duration::from_millis(300);

/// How long a portion waits for RabbitMQ's confirms.
const CONFIRM_WITHIN: Duration = Duration::from_secs(30);

/// How far an operation has come in the history.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The last place that it has dealt with; none before the first.
    after: Option<String>,
    /// How many deliveries were meant and could not be sent, because the history does not have their data.
    pub left_out: u64,
}

impl Checkpoint {
    /// How far an operation has come; at the beginning, if it is none of a history.
    pub fn of(operation: &Operation) -> Self {
        serde_json::from_str(&operation.checkpoint).unwrap_or_default()
    }
}

/// How far an operation is.
#[derive(Debug, Clone)]
pub struct Progress {
    /// The operation, as it is now.
    pub operation: Operation,
    /// How many of its deliveries are published and not yet attempted, as far as the history knows; none while
    /// another process runs it.
    pub ahead: Option<usize>,
}

/// How running an operation ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Nothing is left to do.
    Over,
    /// This process stops.
    Stopped,
    /// Another process runs it.
    Elsewhere(Box<Operation>),
}

/// Whether the next portion may be published.
enum Turn {
    Ours,
    Stopped,
    Over,
}

struct Run<'r> {
    desk: &'r Desk,
    lock: &'r Lock,
    operation: Operation,
    action: Action,
    filter: Filter,
    after: Option<Cursor>,
    left_out: u64,
    /// Whether it was begun before: what was published then may not have been noted.
    was_interrupted: bool,
    endpoint: Endpoint,
    registry_version: u64,
    ahead: HashMap<DeliveryId, Ahead>,
    /// When the next delivery may be published.
    next_at: Instant,
    look_at: Instant,
}

/// Runs an operation, unless it is over or another process does.
pub(crate) async fn run(
    desk: &Desk,
    id: OperationId,
    stop: &CancellationToken,
    tell: &mut (dyn FnMut(&Progress) + Send),
) -> Result<Ended, ReplayFault> {
    let is_open = |operation: &Operation| operation.state.is_open();
    let read = async || desk.registry.operation(id).await.map(|o| o.filter(is_open));
    let Some(operation) = read().await? else {
        return Ok(Ended::Over);
    };
    let Some(lock) = desk.broker.lock(&format!("{PLACE}.{id}")).await? else {
        return Ok(Ended::Elsewhere(operation.into()));
    };
    let ended = async {
        // Once more: while the lock was not ours, it may have come further.
        let Some(operation) = read().await? else {
            return Ok(Ended::Over);
        };
        match Run::begin(desk, &lock, operation).await? {
            Some(mut run) => run.go(stop, tell).await,
            None => Ok(Ended::Over),
        }
    };
    let ended = ended.await;
    lock.release().await;
    ended
}

impl<'r> Run<'r> {
    async fn begin(
        desk: &'r Desk,
        lock: &'r Lock,
        operation: Operation,
    ) -> Result<Option<Self>, ReplayFault> {
        let unreadable = |why: String| ReplayFault::Unreadable {
            id: operation.id,
            why,
        };
        let request = &operation.request;
        let action = Action::named(&request.action)
            .ok_or_else(|| unreadable(format!("`{}` is not known", request.action)))?;
        let filter: Filter = serde_json::from_value(request.filter.clone())
            .map_err(|fault| unreadable(fault.to_string()))?;
        let checkpoint = Checkpoint::of(&operation);
        let after = checkpoint
            .after
            .as_deref()
            .map(str::parse::<Cursor>)
            .transpose();
        let Some(endpoint) = endpoint_of(desk, &filter).await? else {
            give_up(desk, &operation).await?;
            return Ok(None);
        };
        Ok(Some(Self {
            after: after.map_err(|fault| unreadable(fault.to_string()))?,
            registry_version: desk.registry.version().await?,
            left_out: checkpoint.left_out,
            was_interrupted: operation.state == OperationState::Running,
            action,
            filter,
            endpoint,
            ahead: HashMap::new(),
            next_at: Instant::now(),
            look_at: Instant::now() + LOOKING,
            desk,
            lock,
            operation,
        }))
    }

    async fn go(
        &mut self,
        stop: &CancellationToken,
        tell: &mut (dyn FnMut(&Progress) + Send),
    ) -> Result<Ended, ReplayFault> {
        info!(operation = %self.operation.id, action = %self.action, "an operation on the history begins");
        self.note(Vec::new()).await?;
        loop {
            let found = self
                .desk
                .read(self.action, &self.filter, &self.endpoint, self.after)
                .await?;
            if found.is_empty() {
                self.finish(OperationState::Done).await?;
                self.tell(tell);
                return Ok(Ended::Over);
            }
            let (action, version, now) =
                (self.action, self.registry_version, self.desk.clock.now());
            let endpoint = &self.endpoint;
            let verdicts = found
                .into_iter()
                .map(|(place, owed)| (place, decide(action, owed, endpoint, version, now)));
            for portion in portions(verdicts, decide::at_once(self.interval())) {
                match self.wait_for_turn(portion.send.len(), stop, tell).await? {
                    Turn::Ours => self.deal_with(portion).await?,
                    Turn::Stopped => return Ok(Ended::Stopped),
                    Turn::Over => {
                        self.finish(OperationState::Cancelled).await?;
                        return Ok(Ended::Over);
                    }
                }
                self.tell(tell);
            }
        }
    }

    fn interval(&self) -> Duration {
        decide::interval(self.desk.pace_of(&self.operation), &self.endpoint)
    }

    /// Waits until so many deliveries may be published.
    async fn wait_for_turn(
        &mut self,
        deliveries: usize,
        stop: &CancellationToken,
        tell: &mut (dyn FnMut(&Progress) + Send),
    ) -> Result<Turn, ReplayFault> {
        loop {
            if Instant::now() >= self.look_at {
                self.look_again().await?;
                self.tell(tell);
            }
            if !self.operation.state.is_open() {
                return Ok(Turn::Over);
            }
            if !self.lock.is_held() {
                return Err(ReplayFault::LockLost(self.operation.id));
            }
            let interval = self.interval();
            let most_ahead = decide::most_ahead(interval);
            let has_room = self.ahead.is_empty() || self.ahead.len() + deliveries <= most_ahead;
            let is_callable = !matches!(self.endpoint.state, EndpointState::Disabled { .. });
            let now = Instant::now();
            if deliveries == 0 || (has_room && is_callable && self.next_at <= now) {
                let deliveries = u32::try_from(deliveries).unwrap_or(u32::MAX);
                self.next_at = now + interval.saturating_mul(deliveries);
                return Ok(Turn::Ours);
            }
            let until = match has_room && is_callable {
                true => self.next_at,
                false => now + ASKING,
            };
            let waiting = time::sleep_until(until.min(self.look_at));
            if stop.run_until_cancelled(waiting).await.is_none() {
                return Ok(Turn::Stopped);
            }
            if !has_room {
                self.ask_what_was_attempted().await?;
            }
        }
    }

    /// Finds out whether somebody has stopped the operation or changed the endpoint meanwhile.
    async fn look_again(&mut self) -> Result<(), ReplayFault> {
        self.look_at = Instant::now() + LOOKING;
        if let Some(operation) = self.desk.registry.operation(self.operation.id).await? {
            self.operation = operation;
        }
        match endpoint_of(self.desk, &self.filter).await? {
            Some(endpoint) => self.endpoint = endpoint,
            None => {
                if let Some(operation) = give_up(self.desk, &self.operation).await? {
                    self.operation = operation;
                }
            }
        }
        Ok(())
    }

    async fn ask_what_was_attempted(&mut self) -> Result<(), ReplayFault> {
        let ids: Vec<DeliveryId> = self.ahead.keys().copied().collect();
        let standing = self.desk.history.standing(&ids).await?;
        let recorded_until = self.desk.history.progress().await?.written_at;
        decide::keep_unattempted(&mut self.ahead, &standing, recorded_until);
        Ok(())
    }

    /// Publishes a portion, and notes that it is and where it ends.
    async fn deal_with(&mut self, portion: Portion) -> Result<(), ReplayFault> {
        let now = self.desk.clock.now();
        self.publish(&portion.send).await?;
        self.tell_journal(&portion.send, now).await;
        self.after = portion.after.or(self.after);
        self.left_out += portion.left_out;
        let items = portion.send.iter().map(|Sending { delivery, was }| {
            let (id, replay) = (delivery.id, delivery.replay);
            item(
                (id, replay),
                &delivery.event,
                was.map(DeliveryState::name),
                now,
            )
        });
        self.note(items.collect()).await?;
        self.ahead.extend(portion.send.iter().map(|one| {
            let replay = one.delivery.replay;
            (one.delivery.id, Ahead { replay, since: now })
        }));
        Ok(())
    }

    /// Notes deliveries, and how far the operation has come.
    async fn note(&mut self, items: Vec<OperationItem>) -> Result<(), ReplayFault> {
        let checkpoint = json!(Checkpoint {
            after: self.after.map(|cursor| cursor.to_string()),
            left_out: self.left_out,
        })
        .to_string();
        let (id, now) = (self.operation.id, self.desk.clock.now());
        let noted = self
            .desk
            .registry
            .advance_operation(id, &checkpoint, &items, now);
        if let Some(operation) = noted.await? {
            self.operation = operation;
        }
        Ok(())
    }

    /// Notes what was published by a process that died before it could note it. The history has heard of it
    /// as a replay, so it is not missed any more.
    async fn note_what_was_forgotten(&mut self) -> Result<(), ReplayFault> {
        let filter = DeliveryFilter {
            states: Vec::new(),
            replayed_since: Some(self.operation.requested_at),
            ..self.filter.of_history()
        };
        let mut after = None;
        loop {
            let page = Page {
                after,
                limit: u32::try_from(WINDOW).unwrap_or(u32::MAX),
            };
            let found = self.desk.history.missed(&filter, page).await?;
            let Some(last) = found.last().and_then(|owed| owed.delivery.as_ref()) else {
                return Ok(());
            };
            after = Some(last.cursor);
            let now = self.desk.clock.now();
            let items = found.iter().filter_map(|OwedEvent { event, delivery }| {
                let known = delivery.as_ref()?;
                let name = (known.id, known.replay);
                Some(item(name, &event.event, Some(MISSED), now))
            });
            self.note(items.collect()).await?;
        }
    }

    async fn publish(&self, sent: &[Sending]) -> Result<(), ReplayFault> {
        let topology = self.desk.broker.topology();
        let published = sent.iter().map(|Sending { delivery, .. }| {
            let partition = topology.partition_of(delivery.endpoint);
            let address = topology.delivery_address(partition);
            self.desk.bundler.publish(address, delivery.clone())
        });
        let published = time::timeout(CONFIRM_WITHIN, try_join_all(published)).await;
        published.map_err(|_| ReplayFault::Unconfirmed(CONFIRM_WITHIN))??;
        Ok(())
    }

    /// Tells what is owed from now on: once more, or for the first time.
    async fn tell_journal(&self, sent: &[Sending], now: Timestamp) {
        let journal = &self.desk.journal;
        let first_times = sent.iter().filter(|one| one.was.is_none());
        join_all(first_times.map(|Sending { delivery, .. }| {
            let owed = OwedDelivery {
                id: delivery.id,
                endpoint: delivery.endpoint,
                not_before: delivery.wait.map(|wait| wait.until),
                is_told: journal.tells_of_success(),
            };
            async move {
                let trace = TraceContext::default();
                journal.routed(&delivery.event, &trace, vec![owed]).await;
            }
        }))
        .await;
        let once_more = sent.iter().filter(|one| one.was.is_some());
        let acted = once_more.map(|Sending { delivery, .. }| ActedDelivery {
            delivery: delivery.id,
            endpoint: delivery.endpoint,
            event: (&*delivery.event).into(),
            replay: delivery.replay,
            at: now,
            action: DeliveryAction::Replayed,
            actor: self.operation.actor.clone(),
            operation: self.operation.id.to_string(),
        });
        journal.acted(acted.collect()).await;
    }

    /// Ends the operation in its order: the dead letters that it replayed leave their queue too.
    async fn finish(&mut self, state: OperationState) -> Result<(), ReplayFault> {
        if self.was_interrupted && self.action == Action::Replay {
            self.note_what_was_forgotten().await?;
        }
        self.discard_dead_letters().await?;
        let (id, actor) = (self.operation.id, &self.operation.actor);
        let now = self.desk.clock.now();
        let ended = self.desk.registry.end_operation(id, state, actor, now);
        if let Some(operation) = ended.await? {
            self.operation = operation;
        }
        info!(operation = %id, resolved = self.operation.resolved, "an operation on the history ended");
        Ok(())
    }

    /// Asks for the dead letters to be discarded that were replayed: their debt goes on as the replay. One that
    /// became a dead letter again since is another one, and stays.
    async fn discard_dead_letters(&self) -> Result<(), ReplayFault> {
        let id = self.operation.id;
        let mut after = String::new();
        loop {
            let most = u32::try_from(deadletters::Filter::MOST_IDS).unwrap_or(u32::MAX);
            let items = self.desk.registry.operation_items(id, &after, most).await?;
            let Some(last) = items.last() else {
                return Ok(());
            };
            let mut by_replay: BTreeMap<u32, Vec<String>> = BTreeMap::new();
            for item in &items {
                if let Some((delivery, replay)) = replayed_dead_letter(item) {
                    by_replay.entry(replay).or_default().push(delivery);
                }
            }
            for (replay, ids) in by_replay {
                let expected = u64::try_from(ids.len()).unwrap_or(u64::MAX);
                let request = deadletters::Request {
                    place: Place::DeadLetters,
                    action: deadletters::Action::Discard,
                    filter: deadletters::Filter {
                        ids,
                        before_replay: Some(replay),
                        ..deadletters::Filter::default()
                    },
                    all: false,
                    pace: None,
                    why: format!("replayed from the history by {id}"),
                    request_key: Some(format!("{id}:{replay}:{after}")),
                };
                let actor = &self.operation.actor;
                self.desk
                    .dead_letters
                    .request(request, expected, actor)
                    .await?;
            }
            after = last.message.clone();
        }
    }

    fn tell(&self, tell: &mut (dyn FnMut(&Progress) + Send)) {
        tell(&Progress {
            operation: self.operation.clone(),
            ahead: Some(self.ahead.len()),
        });
    }
}

async fn endpoint_of(desk: &Desk, filter: &Filter) -> Result<Option<Endpoint>, ReplayFault> {
    let endpoint = desk.registry.endpoint(&filter.tenant, filter.endpoint);
    Ok(endpoint.await?)
}

/// Ends an operation whose endpoint was deleted.
async fn give_up(desk: &Desk, operation: &Operation) -> Result<Option<Operation>, ReplayFault> {
    warn!(operation = %operation.id, "an operation on the history ends, because its endpoint was deleted");
    desk.cancel(operation.id, &operation.actor).await
}

/// What is noted of a delivery that was published.
fn item(
    (id, replay): (DeliveryId, u32),
    event: &Event,
    was: Option<&str>,
    now: Timestamp,
) -> OperationItem {
    OperationItem {
        message: format!("{id}/{replay}"),
        at: now,
        summary: json!({
            "id": id,
            "replay": replay,
            "tenant": event.tenant,
            "event_type": event.event_type,
            "event_id": event.id,
            "event_source": event.source,
            "was": was,
        }),
    }
}

/// How a delivery stood of which only that is known.
const MISSED: &str = "missed";

/// The delivery and its replay, if what was replayed may have been a dead letter.
fn replayed_dead_letter(item: &OperationItem) -> Option<(String, u32)> {
    let summary = &item.summary;
    if summary["was"] != "dead_lettered" && summary["was"] != MISSED {
        return None;
    }
    let replay = summary["replay"].as_u64()?.try_into().ok()?;
    Some((summary["id"].as_str()?.to_owned(), replay))
}
