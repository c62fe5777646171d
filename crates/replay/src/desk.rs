//! Where replays of history are asked for, counted and run.

use std::time::Duration;

use fanfare_broker::{Broker, Bundler, JournalWriter};
use fanfare_journal::{Cursor, EventFilter, History, OwedEvent, Page};
use fanfare_model::{Clock, Endpoint, EndpointState, EventKey, EventTypePattern, Rate, TenantId};
use fanfare_registry::{
    NewOperation, Operation, OperationId, OperationPage, OperationState, Registry,
};
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::{
    Action, Filter, PLACE, Progress, ReplayFault, Request,
    decide::{Verdict, WINDOW, decide},
    run::{self, Ended},
};

/// How long to wait for another process that runs an operation before looking again.
const WHILE_ELSEWHERE: Duration = Duration::from_millis(500);

/// How many open operations there may be at once; more are run later.
const MOST_OPEN: u32 = 1000;

/// How many deliveries one message of the broker holds at most.
const BUNDLE: usize = 16;

/// How much of the history is read at once.
const PAGE: u32 = 250;

/// Where replays of history are asked for and run. Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    pub(crate) broker: Broker,
    pub(crate) bundler: Bundler,
    pub(crate) registry: Registry,
    pub(crate) history: History,
    pub(crate) journal: JournalWriter,
    pub(crate) dead_letters: fanfare_deadletters::Desk,
    pub(crate) clock: Clock,
    /// How fast deliveries are sent, unless whoever asks or the endpoint wants it slower.
    pace: Rate,
}

impl Desk {
    /// A desk on a connection and a history that the caller has and closes, beside the one for dead letters.
    ///
    /// What is sent is told to the journal, so that the history knows.
    pub fn new(
        broker: &Broker,
        history: History,
        journal: JournalWriter,
        dead_letters: fanfare_deadletters::Desk,
        clock: Clock,
        pace: Rate,
    ) -> Self {
        Self {
            bundler: Bundler::new(broker.publisher(), clock.clone(), BUNDLE),
            broker: broker.clone(),
            registry: dead_letters.registry().clone(),
            history,
            journal,
            dead_letters,
            clock,
            pace,
        }
    }

    /// The most deliveries that a process which dies in the middle of an operation repeats.
    pub fn repeats_at_most() -> usize {
        WINDOW
    }

    /// How many deliveries a request is for, as far as the history knows now. Nothing is sent.
    pub async fn dry_run(&self, request: &Request) -> Result<u64, ReplayFault> {
        let endpoint = self.check(request).await?;
        match request.action {
            Action::Replay => Ok(self.history.count(&request.filter.of_history()).await?),
            Action::Backfill | Action::Resend => self.count(request, &endpoint).await,
        }
    }

    /// Writes down what is to be sent. From now on it is sent, by this process or another.
    ///
    /// Only what was routed by now is meant.
    pub async fn request(
        &self,
        request: Request,
        expected: u64,
        actor: &str,
    ) -> Result<Operation, ReplayFault> {
        self.check(&request).await?;
        let (mut filter, now) = (request.filter, self.clock.now());
        if request.action == Action::Resend {
            filter.source = Some(self.find(&filter).await?.source);
        } else {
            filter.until = Some(filter.until.unwrap_or(now).min(now));
        }
        let filter = serde_json::to_value(&filter).map_err(|fault| {
            ReplayFault::refused("filter", &format!("it cannot be written down: {fault}"))
        })?;
        let new = NewOperation {
            place: PLACE.to_owned(),
            action: request.action.name().to_owned(),
            filter,
            pace: request
                .pace
                .map(|pace| pace.to_string())
                .unwrap_or_default(),
            why: request.why,
            expected,
            request_key: None,
        };
        Ok(self.registry.request_operation(new, actor, now).await?)
    }

    /// Stops an operation; `None` when there is none of this id. What it has sent stays sent.
    pub async fn cancel(
        &self,
        id: OperationId,
        actor: &str,
    ) -> Result<Option<Operation>, ReplayFault> {
        let (state, now) = (OperationState::Cancelled, self.clock.now());
        Ok(self.registry.end_operation(id, state, actor, now).await?)
    }

    /// What is asked for and not over, oldest first.
    pub async fn open_operations(&self) -> Result<Vec<Operation>, ReplayFault> {
        let page = OperationPage {
            open_only: true,
            before: None,
            limit: MOST_OPEN,
        };
        let mut open = self.registry.operations(&page).await?;
        open.retain(|operation| operation.request.place == PLACE);
        open.reverse();
        Ok(open)
    }

    /// Runs an operation until it is over, or `stop`. While another process runs it, this one watches.
    ///
    /// `tell` hears how far it is.
    pub async fn run(
        &self,
        id: OperationId,
        stop: &CancellationToken,
        tell: &mut (dyn FnMut(&Progress) + Send),
    ) -> Result<(), ReplayFault> {
        loop {
            match run::run(self, id, stop, tell).await? {
                Ended::Over | Ended::Stopped => return Ok(()),
                Ended::Elsewhere(operation) => tell(&Progress {
                    operation: *operation,
                    ahead: None,
                }),
            }
            let waited = stop.run_until_cancelled(time::sleep(WHILE_ELSEWHERE)).await;
            if waited.is_none() {
                return Ok(());
            }
        }
    }

    /// The next part of what an operation may be for, oldest first.
    pub(crate) async fn read(
        &self,
        action: Action,
        filter: &Filter,
        endpoint: &Endpoint,
        after: Option<Cursor>,
    ) -> Result<Vec<(Cursor, OwedEvent)>, ReplayFault> {
        let page = Page { after, limit: PAGE };
        let found = match action {
            Action::Replay => self.history.missed(&filter.of_history(), page).await?,
            Action::Backfill => {
                let mut filter = filter.of_history();
                if filter.event_types.is_empty() {
                    filter.event_types = narrowing(&endpoint.event_types);
                }
                self.history.events_for(endpoint.id, &filter, page).await?
            }
            Action::Resend if after.is_some() => Vec::new(),
            Action::Resend => {
                let event = self.history.event(&self.find(filter).await?).await?;
                let owed = event.map(|history| OwedEvent {
                    delivery: history
                        .deliveries
                        .into_iter()
                        .find(|one| one.endpoint == endpoint.id),
                    event: history.event,
                });
                owed.into_iter().collect()
            }
        };
        let place = |owed: &OwedEvent| match (&owed.delivery, action) {
            (Some(delivery), Action::Replay) => delivery.cursor,
            (Some(_) | None, _) => owed.event.cursor,
        };
        Ok(found.into_iter().map(|owed| (place(&owed), owed)).collect())
    }

    /// The pace that was asked for, or the installation's.
    pub(crate) fn pace_of(&self, operation: &Operation) -> Rate {
        let asked = operation.request.pace.parse();
        asked.unwrap_or(self.pace)
    }

    /// The event that a resend is for.
    async fn find(&self, filter: &Filter) -> Result<EventKey, ReplayFault> {
        let id = filter.event.clone().unwrap_or_default();
        let looked_for = EventFilter {
            tenant: Some(filter.tenant.clone()),
            source: filter.source.clone(),
            id: Some(id.clone()),
            ..EventFilter::default()
        };
        let page = Page {
            after: None,
            limit: 2,
        };
        let found = self.history.events(&looked_for, page).await?;
        match found.as_slice() {
            [event] => Ok(event.key()),
            [] => Err(ReplayFault::NoSuchEvent {
                tenant: filter.tenant.clone(),
                id,
            }),
            _ => Err(ReplayFault::refused(
                "source",
                "several sources use this id: say which one is meant",
            )),
        }
    }

    async fn check(&self, request: &Request) -> Result<Endpoint, ReplayFault> {
        let Filter {
            tenant, endpoint, ..
        } = &request.filter;
        request.filter.check(request.action)?;
        let found = self.registry.endpoint(tenant, *endpoint).await?;
        let found = found.ok_or_else(|| no_such_endpoint(tenant, &request.filter))?;
        match found.state {
            EndpointState::Active | EndpointState::Paused => Ok(found),
            EndpointState::Disabled { .. } => Err(ReplayFault::EndpointDisabled {
                endpoint: *endpoint,
            }),
        }
    }

    async fn count(&self, request: &Request, endpoint: &Endpoint) -> Result<u64, ReplayFault> {
        let (action, now) = (request.action, self.clock.now());
        let (mut count, mut after) = (0, None);
        loop {
            let page = self.read(action, &request.filter, endpoint, after).await?;
            let Some((last, _)) = page.last() else {
                return Ok(count);
            };
            after = Some(*last);
            let verdicts = page
                .into_iter()
                .map(|(_, found)| decide(action, found, endpoint, 0, now));
            let sent = verdicts.filter(|verdict| matches!(verdict, Verdict::Send(_)));
            count += u64::try_from(sent.count()).unwrap_or(u64::MAX);
        }
    }
}

fn no_such_endpoint(tenant: &TenantId, filter: &Filter) -> ReplayFault {
    ReplayFault::NoSuchEndpoint {
        tenant: tenant.clone(),
        endpoint: filter.endpoint,
    }
}

/// The patterns, unless one of them matches everything.
fn narrowing(patterns: &[EventTypePattern]) -> Vec<EventTypePattern> {
    match patterns.contains(&EventTypePattern::Any) {
        true => Vec::new(),
        false => patterns.to_vec(),
    }
}
