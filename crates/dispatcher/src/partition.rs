//! One partition as this dispatcher has it: what is in hand, and whether requests may start.
//!
//! A *term* lasts from one hand-over to the next. Within it requests start; when it ends, what runs
//! finishes, and what has not started is held until it may go back.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use fanfare_broker::Subscribed;
use fanfare_model::{EndpointId, PartitionKey, Timestamp};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::lane::Lane;

/// One of the partitions that this dispatcher consumes, owned or not.
pub(crate) struct Partition {
    pub(crate) key: PartitionKey,
    /// Whether this dispatcher consumes it.
    pub(crate) subscribed: Subscribed,
    shutdown: CancellationToken,
    state: Mutex<State>,
    /// Told when the last request under way has ended.
    calmed: Notify,
}

struct State {
    /// Messages received and not settled yet.
    in_hand: usize,
    /// Requests under way.
    in_flight: usize,
    /// What is held up by something else than a receiver.
    held_up: usize,
    /// When something last went well, or nothing was to be done.
    progressed: Instant,
    term: Term,
    tenure: u64,
    /// Whether anything was received in this tenure. Until then another may go on starting requests.
    begun: bool,
    /// Whether this dispatcher takes itself for the owner.
    owned: bool,
    /// No hand-over before.
    rests_until: Instant,
    past: Past,
}

/// What is known of the starts of whoever owned the partition before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Past {
    /// The last starts that are known.
    pub(crate) starts: HashMap<EndpointId, Timestamp>,
    /// Any other endpoint may have had one as late as this.
    pub(crate) others_until: Option<Timestamp>,
    /// The owner who told so when it let go.
    pub(crate) told_by: Option<String>,
}

/// The time until the next hand-over.
#[derive(Clone)]
pub(crate) struct Term {
    /// No request starts any more.
    pub(crate) over: CancellationToken,
    /// What was not started goes back.
    pub(crate) released: CancellationToken,
}

/// What the dispatcher tells of one of its partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Glance {
    pub(crate) owned: bool,
    pub(crate) handing_over: bool,
    pub(crate) in_hand: usize,
    pub(crate) in_flight: usize,
}

/// A message of the partition in hand.
pub(crate) struct InHand {
    pub(crate) partition: Arc<Partition>,
    pub(crate) term: Term,
}

/// A request under way.
pub(crate) struct UnderWay<'h>(&'h Partition);

/// Something that is held up by something else than a receiver.
pub(crate) struct HeldUp<'h>(&'h Partition);

impl Partition {
    /// A partition of which another may have been the owner until `others_until`.
    pub(crate) fn new(
        key: PartitionKey,
        others_until: Timestamp,
        shutdown: &CancellationToken,
    ) -> Self {
        let now = Instant::now();
        let state = State {
            in_hand: 0,
            in_flight: 0,
            held_up: 0,
            progressed: now,
            term: Term::begin(shutdown),
            tenure: 1,
            begun: false,
            owned: false,
            rests_until: now,
            past: Past {
                others_until: Some(others_until),
                ..Past::default()
            },
        };
        Self {
            key,
            subscribed: Subscribed::default(),
            shutdown: shutdown.clone(),
            state: Mutex::new(state),
            calmed: Notify::new(),
        }
    }

    /// Counts a message as in hand until the guard is dropped. To have one is to be the owner.
    pub(crate) fn take_in(self: &Arc<Self>) -> InHand {
        let mut state = self.state();
        if state.in_hand == 0 {
            state.progressed = Instant::now();
        }
        state.in_hand += 1;
        state.owned = true;
        if !state.begun {
            // A lane may have begun too early, with what was received over a connection that is lost.
            state.begun = true;
            state.tenure += 1;
        }
        InHand {
            partition: Arc::clone(self),
            term: state.term.clone(),
        }
    }

    /// Has a lane forget its pace if the partition may have been another's since it was asked last.
    pub(crate) fn refresh(&self, lane: &Lane, endpoint: EndpointId, now: Timestamp) {
        let tenure = self.state().tenure;
        lane.begin_tenure(tenure, || self.inherited(endpoint, now));
    }

    /// The latest start that another owner may have made for an endpoint.
    fn inherited(&self, endpoint: EndpointId, now: Timestamp) -> Option<Timestamp> {
        let state = self.state();
        let known = state.past.starts.get(&endpoint).copied();
        known.or_else(|| state.past.others_until.map(|until| until.min(now)))
    }

    /// When anyone else may have started requests for the last time.
    pub(crate) fn others_until(&self) -> Option<Timestamp> {
        self.state().past.others_until
    }

    /// Who let the partition go, if it told.
    pub(crate) fn told_by(&self) -> Option<String> {
        self.state().past.told_by.clone()
    }

    /// The owner before tells what it knows.
    pub(crate) fn learn(&self, past: Past) {
        self.state().past = past;
    }

    /// Another is, or may be, the owner now: whatever is known of the past is void.
    pub(crate) fn belongs_to_others(&self, until: Timestamp) {
        let mut state = self.state();
        state.owned = false;
        state.begin_tenure(until);
    }

    /// What is known of the starts of others does not hold: they may have started requests until `until`.
    pub(crate) fn doubt(&self, until: Timestamp) {
        self.state().begin_tenure(until);
    }

    /// It has come to be this dispatcher's, unless it was before.
    pub(crate) fn claim(&self) {
        self.state().owned = true;
    }

    /// Whether a hand-over makes sense: this dispatcher has been the owner, and did not try just now.
    pub(crate) fn may_hand_over(&self) -> bool {
        let state = self.state();
        let is_due = Instant::now() >= state.rests_until;
        state.owned && is_due && !state.term.over.is_cancelled()
    }

    /// Ends the term: no request starts any more. Returns when none is under way.
    pub(crate) async fn come_to_rest(&self) {
        self.state().term.over.cancel();
        loop {
            let calmed = self.calmed.notified();
            tokio::pin!(calmed);
            // Registered before the look, so that no notice is missed in between.
            calmed.as_mut().enable();
            if self.state().in_flight == 0 {
                return;
            }
            calmed.await;
        }
    }

    /// Lets go what has not started, and begins a new term for what the broker gives out here all the same.
    /// Another may start requests until `others_until`, as far as can be known now.
    pub(crate) fn release(&self, others_until: Timestamp, rest: Duration) {
        let mut state = self.state();
        state.term.released.cancel();
        state.owned = false;
        state.rests_until = Instant::now() + rest;
        // At a shutdown the term stays over and released, also for messages that are looked at only now.
        if !self.shutdown.is_cancelled() {
            state.term = Term::begin(&self.shutdown);
            state.begin_tenure(others_until);
        }
    }

    pub(crate) fn glance(&self) -> Glance {
        let state = self.state();
        Glance {
            owned: state.owned,
            handing_over: state.term.over.is_cancelled(),
            in_hand: state.in_hand,
            in_flight: state.in_flight,
        }
    }

    /// Whether messages are in hand of which none was settled for this long.
    pub(crate) fn is_stuck(&self, longest: Duration) -> bool {
        let state = self.state();
        state.in_hand > 0 && state.held_up == 0 && state.progressed.elapsed() > longest
    }

    /// What holds everything up is not to be found here.
    pub(crate) fn excuse(&self) {
        self.state().progressed = Instant::now();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nobody panics while holding a partition")
    }
}

impl State {
    fn begin_tenure(&mut self, others_until: Timestamp) {
        self.tenure += 1;
        self.begun = false;
        self.past = Past {
            others_until: Some(others_until),
            ..Past::default()
        };
    }
}

impl Term {
    fn begin(shutdown: &CancellationToken) -> Self {
        Self {
            over: shutdown.child_token(),
            released: CancellationToken::new(),
        }
    }
}

impl InHand {
    /// Counts a request as under way; `None` when no request starts any more.
    pub(crate) fn start(&self) -> Option<UnderWay<'_>> {
        let mut state = self.partition.state();
        if self.term.over.is_cancelled() {
            return None;
        }
        state.in_flight += 1;
        Some(UnderWay(&self.partition))
    }

    /// Counts something as held up by something else than a receiver.
    pub(crate) fn held_up(&self) -> HeldUp<'_> {
        self.partition.state().held_up += 1;
        HeldUp(&self.partition)
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        let mut state = self.partition.state();
        state.in_hand -= 1;
        state.progressed = Instant::now();
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.in_flight -= 1;
        if state.in_flight == 0 {
            self.0.calmed.notify_waiters();
        }
    }
}

impl Drop for HeldUp<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.held_up -= 1;
        state.progressed = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use fanfare_model::Partition as Number;
    use uuid::Uuid;

    use super::*;
    use crate::samples::at;

    fn partition(shutdown: &CancellationToken) -> Arc<Partition> {
        let (generation, partition) = (1, Number(3));
        let key = PartitionKey {
            generation,
            partition,
        };
        Arc::new(Partition::new(key, at(10), shutdown))
    }

    #[tokio::test]
    async fn a_hand_over_waits_for_requests_under_way_and_holds_the_rest() {
        let partition = partition(&CancellationToken::new());
        let (first, second) = (partition.take_in(), partition.take_in());
        assert!(partition.may_hand_over());
        let request = first.start().unwrap();
        let handing_over = partition.come_to_rest();
        tokio::pin!(handing_over);
        assert!(futures_util::poll!(&mut handing_over).is_pending());
        assert!(second.start().is_none());
        assert!(!second.term.released.is_cancelled());
        drop(request);
        handing_over.await;
        partition.release(at(20), Duration::from_secs(10));
        assert!(second.term.released.is_cancelled());
        // What comes all the same is handled, and no second hand-over follows at once.
        let third = partition.take_in();
        assert!(third.start().is_some());
        // One begins with the release, and anew with what comes.
        assert_eq!(partition.state().tenure, 4);
        assert!(!partition.may_hand_over());
    }

    #[tokio::test]
    async fn at_a_shutdown_nothing_starts_any_more() {
        let shutdown = CancellationToken::new();
        let partition = partition(&shutdown);
        let early = partition.take_in();
        shutdown.cancel();
        assert!(early.start().is_none());
        partition.come_to_rest().await;
        partition.release(at(20), Duration::ZERO);
        let late = partition.take_in();
        assert!(late.start().is_none() && late.term.released.is_cancelled());
    }

    #[test]
    fn what_others_started_is_known_or_assumed() {
        let partition = partition(&CancellationToken::new());
        let [listed, other] = [1, 2].map(|n| EndpointId::from_uuid(Uuid::from_u128(n)));
        let inherited = |now| [listed, other].map(|id| partition.inherited(id, at(now)));
        assert_eq!(inherited(5), [Some(at(5)), Some(at(5))]);
        assert_eq!(inherited(50), [Some(at(10)), Some(at(10))]);
        partition.learn(Past {
            starts: [(listed, at(30))].into(),
            others_until: Some(at(2)),
            told_by: Some("b".to_owned()),
        });
        assert_eq!(inherited(50), [Some(at(30)), Some(at(2))]);
        partition.belongs_to_others(at(60));
        assert_eq!(inherited(50), [Some(at(50)), Some(at(50))]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_partition_is_stuck_when_nothing_is_settled() {
        let partition = partition(&CancellationToken::new());
        let long = Duration::from_secs(60);
        let wait = || tokio::time::sleep(long * 2);
        wait().await;
        assert!(!partition.is_stuck(long), "nothing is in hand");
        let (first, second) = (partition.take_in(), partition.take_in());
        wait().await;
        assert!(partition.is_stuck(long));
        let waiting = first.held_up();
        assert!(!partition.is_stuck(long), "the broker holds it up");
        drop(waiting);
        assert!(!partition.is_stuck(long));
        wait().await;
        drop(second);
        assert!(!partition.is_stuck(long));
        wait().await;
        partition.excuse();
        assert!(!partition.is_stuck(long));
    }
}
