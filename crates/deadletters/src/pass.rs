//! One pass over a queue in which messages rest, carrying out everything that is asked for there.
//!
//! One process at a time, guarded by an exclusive queue on the very connection over which the messages
//! are in hand. Up to a settable length everything is taken in hand, what is meant is dealt with, and the
//! rest is given back where it was: nothing else is published. A longer queue is turned round: what
//! stays is published to the tail, marked with the pass, and acknowledged; the pass ends at the first mark.
//!
//! The order for each message: publish what follows, wait for the confirms, note it in the store,
//! acknowledge. A process that dies in between leaves the operation open, and the next pass goes on.

use std::{collections::HashSet, time::Duration};

use fanfare_broker::{Held, HeldTag, Holder, Place};
use fanfare_registry::{Operation, OperationId, OperationState};
use futures_util::future::try_join_all;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    Action, DeadLettersFault, Desk, Entry, Filter, Progress,
    plan::{Order, Plan, Verdict},
    settings::{CONFIRM_WITHIN, LONGEST_PASS, WINDOW},
};

mod act;

/// The header by which a pass recognises what it has put to the tail.
const MARK: &str = "x-fanfare-pass";

/// For how long a batch is gathered before it is dealt with.
const GATHERING: Duration = Duration::from_millis(250);

/// How long the last messages are waited for, such as those that somebody looks at in this moment.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// How often it is looked whether somebody has stopped an operation.
const ASKING: Duration = Duration::from_secs(1);

/// How a pass ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passed {
    /// Nothing was asked for.
    Nothing,
    /// Another process passes over the queue.
    Busy,
    /// It was stopped before it had seen everything.
    Partly,
    /// It has seen everything: what was asked for when it began is done.
    Whole,
}

struct Pass<'p> {
    desk: &'p Desk,
    place: Place,
    holder: Holder,
    plan: Plan,
    jobs: Vec<Job>,
    /// Whether what stays remains in hand.
    holds: bool,
    /// By what this pass recognises its own marks.
    mark: String,
    began: fanfare_model::Timestamp,
    deadline: Instant,
    ask_at: Instant,
    seen: u64,
    ready: u64,
}

/// An operation that the pass carries out.
struct Job {
    operation: Operation,
    action: Action,
    /// The time between two messages.
    interval: Duration,
    /// When the next message may be published.
    next_at: Instant,
    /// How many messages this pass has acknowledged for it.
    acknowledged: usize,
}

/// Messages that are dealt with together.
#[derive(Default)]
struct Batch {
    /// By the number of the job.
    acts: Vec<(usize, Entry, Held)>,
    /// To be put to the tail.
    moves: Vec<Held>,
    drops: Vec<HeldTag>,
    /// Whether the pass has seen everything.
    is_last: bool,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.acts.len() + self.moves.len() + self.drops.len() >= WINDOW
    }

    fn is_empty(&self) -> bool {
        self.acts.is_empty() && self.moves.is_empty() && self.drops.is_empty()
    }
}

/// Passes over the queue once, if anything is asked for and nobody else does.
///
/// An operation that has dealt with fewer messages than expected is not over before a second pass:
/// `doubtful` has those that had their first.
pub(crate) async fn run(
    desk: &Desk,
    place: Place,
    doubtful: &mut HashSet<OperationId>,
    stop: &CancellationToken,
    tell: &mut (dyn FnMut(&Progress) + Send),
) -> Result<Passed, DeadLettersFault> {
    if jobs(desk, place).await?.is_empty() {
        return Ok(Passed::Nothing);
    }
    let fault = DeadLettersFault::broker(place);
    let Some(holder) = desk.broker.pass_over(place).await.map_err(&fault)? else {
        return Ok(Passed::Busy);
    };
    // Once more: while the lock was not ours, another pass may have carried them out.
    let (jobs, orders): (Vec<_>, Vec<_>) = jobs(desk, place).await?.into_iter().unzip();
    if jobs.is_empty() {
        holder.close().await.map_err(&fault)?;
        return Ok(Passed::Nothing);
    }
    let ready = holder.ready().await.map_err(&fault)?;
    let holds = ready <= desk.settings.hold_at_most;
    let now = Instant::now();
    let mut pass = Pass {
        desk,
        place,
        holder,
        plan: Plan::new(orders, holds),
        jobs,
        holds,
        mark: format!("{:032x}", rand::random::<u128>()),
        began: desk.clock.now(),
        deadline: now + LONGEST_PASS,
        ask_at: now,
        seen: 0,
        ready: ready.into(),
    };
    info!(place = %place, ready, holds, operations = pass.jobs.len(), "a pass over a queue begins");
    let passed = pass.go(stop, tell).await;
    if let Some(metrics) = &desk.metrics {
        metrics.passed(place, matches!(passed, Ok(Passed::Whole)));
    }
    pass.end(passed, doubtful, tell).await
}

/// What is asked for in a place, as far as it can be read here.
async fn jobs(desk: &Desk, place: Place) -> Result<Vec<(Job, Order)>, DeadLettersFault> {
    let open = desk.open_operations(place).await?;
    let read = open.into_iter().filter_map(|operation| {
        let filter = serde_json::from_value::<Filter>(operation.request.filter.clone());
        let action = operation.request.action.parse::<Action>();
        let (Ok(filter), Ok(action)) = (filter, action) else {
            warn!(operation = %operation.id, "an operation of a newer release is left to it");
            return None;
        };
        let order = Order {
            filter,
            until: operation.requested_at,
            hands_on: action != Action::Discard,
            is_open: true,
        };
        let interval = match action {
            Action::Discard => Duration::ZERO,
            Action::Replay | Action::Publish => desk.pace_of(&operation).interval(),
        };
        let job = Job {
            operation,
            action,
            interval,
            next_at: Instant::now(),
            acknowledged: 0,
        };
        Some((job, order))
    });
    Ok(read.collect())
}

impl Pass<'_> {
    async fn go(
        &mut self,
        stop: &CancellationToken,
        tell: &mut (dyn FnMut(&Progress) + Send),
    ) -> Result<Passed, DeadLettersFault> {
        loop {
            if stop.is_cancelled() || Instant::now() >= self.deadline {
                return Ok(Passed::Partly);
            }
            self.ask_whether_open(tell).await?;
            if !self.plan.is_open() {
                return Ok(Passed::Whole);
            }
            let batch = self.gather().await?;
            let is_last = batch.is_last;
            if !self.deal_with(batch, stop, tell).await? {
                return Ok(Passed::Partly);
            }
            if is_last {
                return Ok(Passed::Whole);
            }
        }
    }

    /// Gives back what is in hand, and ends the operations if the pass has seen everything.
    async fn end(
        self,
        passed: Result<Passed, DeadLettersFault>,
        doubtful: &mut HashSet<OperationId>,
        tell: &mut (dyn FnMut(&Progress) + Send),
    ) -> Result<Passed, DeadLettersFault> {
        // First, so that the depth is true by the time that an operation is told to be done.
        let closed = self.holder.close().await;
        let passed = passed?;
        closed.map_err(DeadLettersFault::broker(self.place))?;
        if passed == Passed::Whole {
            for (job, order) in self.jobs.iter().zip(&self.plan.orders) {
                if !order.is_open {
                    continue;
                }
                let (id, now) = (job.operation.id, self.desk.clock.now());
                // RabbitMQ may not have carried out an acknowledgement that it was sent, and somebody who
                // looks at a message keeps it from the pass. Once more, then: what was noted as dealt with
                // is only acknowledged.
                let is_short = job.operation.resolved < job.operation.request.expected;
                let may_be_left = job.acknowledged > 0 && self.place == Place::DeadLetters;
                if may_be_left || (is_short && doubtful.insert(id)) {
                    continue;
                }
                let state = OperationState::Done;
                let actor = &job.operation.actor;
                let ended = self.desk.registry.end_operation(id, state, actor, now);
                if let Some(operation) = ended.await? {
                    let (looked_at, of) = (self.seen, self.ready);
                    tell(&Progress {
                        operation,
                        looked_at,
                        of,
                    });
                }
            }
        }
        info!(place = %self.place, seen = self.seen, ?passed, "a pass over a queue ended");
        Ok(passed)
    }

    /// Takes messages in hand until there are enough to deal with.
    async fn gather(&mut self) -> Result<Batch, DeadLettersFault> {
        let mut batch = Batch::default();
        let until = Instant::now() + GATHERING;
        while !batch.is_full() {
            let late = Instant::now() >= until;
            if late && (!batch.is_empty() || Instant::now() >= self.ask_at) {
                break;
            }
            let fault = DeadLettersFault::broker(self.place);
            let Some(held) = self.holder.next(LAST_WAIT).await.map_err(&fault)? else {
                batch.is_last = self.has_seen_all().await?;
                break;
            };
            self.seen += 1;
            let entry = Entry::of(self.place, &held);
            // A queue that keeps growing is not passed over for ever. What this pass has put to the tail, or
            // has published and came back, stands behind all that was there.
            let is_marked = held.envelope.headers.text(MARK) == Some(&self.mark);
            let came_since = entry.since.is_some_and(|since| since > self.began);
            if is_marked || came_since || self.plan.has_come_back(&entry) {
                batch.is_last = true;
                break;
            }
            self.sort(entry, held, &mut batch);
        }
        Ok(batch)
    }

    fn sort(&mut self, entry: Entry, held: Held, batch: &mut Batch) {
        match self.plan.decide(&entry, held.tag) {
            Verdict::Act(job) => batch.acts.push((job, entry, held)),
            Verdict::Drop => batch.drops.push(held.tag),
            Verdict::KeepInstead(superfluous) => batch.drops.push(superfluous),
            Verdict::Keep if self.holds => {}
            Verdict::Keep => batch.moves.push(held),
        }
    }

    /// Nothing came for a while: because nothing is there, or because RabbitMQ is slow?
    async fn has_seen_all(&self) -> Result<bool, DeadLettersFault> {
        let ready = self.holder.ready().await;
        Ok(ready.map_err(DeadLettersFault::broker(self.place))? == 0)
    }

    /// Deals with a batch; `false` when it was stopped in the middle.
    async fn deal_with(
        &mut self,
        batch: Batch,
        stop: &CancellationToken,
        tell: &mut (dyn FnMut(&Progress) + Send),
    ) -> Result<bool, DeadLettersFault> {
        let mut by_job: Vec<Vec<(Entry, Held)>> = self.jobs.iter().map(|_| Vec::new()).collect();
        for (job, entry, held) in batch.acts {
            by_job[job].push((entry, held));
        }
        for (job, mut messages) in by_job.into_iter().enumerate() {
            while !messages.is_empty() {
                let rest = messages.split_off(messages.len().min(self.at_once(job)));
                let chunk = std::mem::replace(&mut messages, rest);
                if !self.wait_for_turn(job, chunk.len(), stop).await {
                    return Ok(false);
                }
                if !self.plan.orders[job].is_open {
                    // Stopped by somebody. What is left of it stays, and is given back with the rest.
                    break;
                }
                self.act(job, chunk).await?;
                self.tell_of(job, tell);
            }
        }
        self.move_to_tail(batch.moves).await?;
        // Last: the messages that these are copies of are dealt with by now, or stay.
        self.acknowledge(&batch.drops).await?;
        Ok(true)
    }

    /// How many messages of a job may be published at once: a quarter of a second's worth.
    fn at_once(&self, job: usize) -> usize {
        let interval = self.jobs[job].interval;
        if interval.is_zero() {
            return WINDOW;
        }
        let fit = GATHERING.as_nanos() / interval.as_nanos().max(1);
        usize::try_from(fit).unwrap_or(WINDOW).clamp(1, WINDOW)
    }

    /// Waits until a job may publish again; `false` when the pass is stopped or its time is over.
    async fn wait_for_turn(
        &mut self,
        job: usize,
        messages: usize,
        stop: &CancellationToken,
    ) -> bool {
        let turn = self.jobs[job].next_at;
        if turn > self.deadline {
            return false;
        }
        if stop
            .run_until_cancelled(time::sleep_until(turn))
            .await
            .is_none()
        {
            return false;
        }
        let job = &mut self.jobs[job];
        let messages = u32::try_from(messages).unwrap_or(u32::MAX);
        job.next_at = turn.max(Instant::now()) + job.interval.saturating_mul(messages);
        true
    }

    async fn move_to_tail(&mut self, messages: Vec<Held>) -> Result<(), DeadLettersFault> {
        let tags: Vec<HeldTag> = messages.iter().map(|held| held.tag).collect();
        let (topology, publisher) = (self.desk.broker.topology(), &self.desk.publisher);
        let moved = messages.into_iter().map(|held| {
            let mut envelope = held.envelope;
            envelope.headers.remove_prefix("x-delivery-count");
            envelope.headers.remove_prefix("x-acquired-count");
            envelope.headers.insert(MARK, self.mark.as_str());
            let address = topology.address_of(self.place, held.routing_key);
            async move { publisher.publish(&address, envelope).await }
        });
        time::timeout(CONFIRM_WITHIN, try_join_all(moved))
            .await
            .map_err(|_| DeadLettersFault::Unconfirmed(CONFIRM_WITHIN))?
            .map_err(DeadLettersFault::Publish)?;
        self.acknowledge(&tags).await
    }

    async fn acknowledge(&mut self, tags: &[HeldTag]) -> Result<(), DeadLettersFault> {
        let acknowledged = self.holder.acknowledge(tags).await;
        acknowledged.map_err(DeadLettersFault::broker(self.place))
    }

    /// Finds out whether somebody has stopped an operation meanwhile.
    async fn ask_whether_open(
        &mut self,
        tell: &mut (dyn FnMut(&Progress) + Send),
    ) -> Result<(), DeadLettersFault> {
        if Instant::now() < self.ask_at {
            return Ok(());
        }
        self.ask_at = Instant::now() + ASKING;
        for number in 0..self.jobs.len() {
            let id = self.jobs[number].operation.id;
            if let Some(operation) = self.desk.registry.operation(id).await? {
                self.note(number, operation);
                self.tell_of(number, tell);
            }
        }
        Ok(())
    }

    fn note(&mut self, number: usize, operation: Operation) {
        self.plan.orders[number].is_open &= operation.state.is_open();
        self.jobs[number].operation = operation;
    }

    fn tell_of(&self, number: usize, tell: &mut (dyn FnMut(&Progress) + Send)) {
        tell(&Progress {
            operation: self.jobs[number].operation.clone(),
            looked_at: self.seen,
            of: self.ready,
        });
    }
}
