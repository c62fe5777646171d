//! Where operations are asked for and carried out.

use std::{collections::HashSet, time::Duration};

use fanfare_broker::{Broker, JournalWriter, Place, Publisher};
use fanfare_journal::History;
use fanfare_model::{Clock, Rate};
use fanfare_registry::{
    NewOperation, Operation, OperationId, OperationPage, OperationState, Registry,
};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    Action, DeadLettersFault, Filter, Looked, Seen, Settings, View,
    pass::{self, Passed},
    settings::WINDOW,
};

/// How long to wait for another process that passes over the queue before asking again.
const WHILE_BUSY: Duration = Duration::from_millis(500);

/// How many open operations there may be at once; more are dealt with by later passes.
const MOST_OPEN: u32 = 1000;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Where the messages are.
    pub place: Place,
    /// What to do with them.
    pub action: Action,
    /// Which of them.
    pub filter: Filter,
    /// Whether all of them are meant, which an empty filter alone does not say.
    pub all: bool,
    /// How fast; the installation's own pace unless given.
    pub pace: Option<Rate>,
    /// Why, for those who read the audit.
    pub why: String,
    /// A second request under the same key is the first one.
    pub request_key: Option<String>,
}

/// The answer to a request.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The operation, which is carried out from now on.
    pub operation: Operation,
}

/// How far an operation is.
#[derive(Debug, Clone)]
pub struct Progress {
    /// The operation, as it is now.
    pub operation: Operation,
    /// How many messages this pass has looked at; 0 while another process passes over the queue.
    pub looked_at: u64,
    /// How many it will look at.
    pub of: u64,
}

/// Where operations are asked for and carried out. Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    pub(crate) broker: Broker,
    pub(crate) publisher: Publisher,
    pub(crate) registry: Registry,
    pub(crate) journal: JournalWriter,
    pub(crate) clock: Clock,
    pub(crate) settings: Settings,
    view: View,
    pub(crate) metrics: Option<crate::Metrics>,
}

impl Desk {
    /// A desk on a connection and a store that the caller has and closes.
    pub fn new(broker: &Broker, registry: Registry, clock: Clock, settings: Settings) -> Self {
        Self {
            publisher: broker.publisher(),
            view: View::of_queues(broker, &settings),
            broker: broker.clone(),
            registry,
            journal: JournalWriter::off(),
            clock,
            settings,
            metrics: None,
        }
    }

    /// The desk, counting what it does.
    #[must_use]
    pub fn counting(self, metrics: crate::Metrics) -> Self {
        Self {
            metrics: Some(metrics),
            ..self
        }
    }

    /// The desk, telling a journal what was done with which delivery.
    #[must_use]
    pub fn journalling(self, journal: JournalWriter) -> Self {
        Self { journal, ..self }
    }

    /// The desk with an index of dead letters, to look at them by.
    #[must_use]
    pub fn indexed_by(self, history: History) -> Self {
        Self {
            view: self.view.indexed_by(history),
            ..self
        }
    }

    /// Looks at what rests.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Where operations are kept.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The most messages that a process which dies in the middle of a pass repeats.
    pub fn repeats_at_most() -> usize {
        WINDOW
    }

    /// How many messages a request is for now. Nothing is done.
    ///
    /// The index may be behind, so where it has none the queue is asked.
    pub async fn dry_run(&self, request: &Request) -> Result<Looked<u64>, DeadLettersFault> {
        check(request)?;
        let counted = self.view.count(request.place, &request.filter).await?;
        match counted.seen {
            Seen::Index { .. } if counted.found == 0 => {
                let queue = self.view.past_the_index();
                queue.count(request.place, &request.filter).await
            }
            Seen::Index { .. } | Seen::Queue { .. } => Ok(counted),
        }
    }

    /// Writes down what is to be done. From now on it is carried out, by this process or another.
    ///
    /// Only what rests by now is meant. Asked for again, it finds nothing left to do.
    pub async fn request(
        &self,
        request: Request,
        expected: u64,
        actor: &str,
    ) -> Result<Asked, DeadLettersFault> {
        check(&request)?;
        let filter = serde_json::to_value(&request.filter).map_err(|fault| {
            let why = format!("the filter cannot be written down: {fault}");
            DeadLettersFault::Refused { why }
        })?;
        let new = NewOperation {
            place: request.place.name().to_owned(),
            action: request.action.name().to_owned(),
            filter,
            pace: request
                .pace
                .map(|pace| pace.to_string())
                .unwrap_or_default(),
            why: request.why,
            expected,
            request_key: request.request_key,
        };
        let now = self.clock.now();
        let operation = self.registry.request_operation(new, actor, now).await?;
        Ok(Asked { operation })
    }

    /// Stops an operation; `None` when there is none of this id. What it has dealt with stays so.
    pub async fn cancel(
        &self,
        id: OperationId,
        actor: &str,
    ) -> Result<Option<Operation>, DeadLettersFault> {
        let (state, now) = (OperationState::Cancelled, self.clock.now());
        Ok(self.registry.end_operation(id, state, actor, now).await?)
    }

    /// What is asked for in a place and not over, oldest first.
    pub async fn open_operations(&self, place: Place) -> Result<Vec<Operation>, DeadLettersFault> {
        let page = OperationPage {
            open_only: true,
            before: None,
            limit: MOST_OPEN,
        };
        let mut open = self.registry.operations(&page).await?;
        open.retain(|operation| operation.request.place == place.name());
        open.reverse();
        Ok(open)
    }

    /// Passes over a queue until nothing that is asked for there is left to do, or `stop`.
    ///
    /// While another process passes over it, this one waits. `tell` hears how far the operations are.
    pub async fn run(
        &self,
        place: Place,
        stop: &CancellationToken,
        tell: &mut (dyn FnMut(&Progress) + Send),
    ) -> Result<(), DeadLettersFault> {
        let mut doubtful = HashSet::new();
        while !stop.is_cancelled() {
            match pass::run(self, place, &mut doubtful, stop, tell).await? {
                Passed::Nothing => return Ok(()),
                Passed::Whole | Passed::Partly => {}
                Passed::Busy => {
                    for operation in self.open_operations(place).await? {
                        tell(&Progress {
                            operation,
                            looked_at: 0,
                            of: 0,
                        });
                    }
                    let waited = stop.run_until_cancelled(time::sleep(WHILE_BUSY)).await;
                    if waited.is_none() {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// The pace of an operation.
    pub(crate) fn pace_of(&self, operation: &Operation) -> Rate {
        let asked = operation.request.pace.as_str();
        if asked.is_empty() {
            return self.settings.replay_pace;
        }
        asked.parse().unwrap_or_else(|fault| {
            warn!(operation = %operation.id, %fault, "an operation keeps the installation's pace");
            self.settings.replay_pace
        })
    }
}

fn check(request: &Request) -> Result<(), DeadLettersFault> {
    let (action, place) = (request.action, request.place);
    if !action.fits(place) {
        let why = format!("`{place}` has no `{action}`");
        return Err(DeadLettersFault::Refused { why });
    }
    request.filter.check(request.all).map_err(|fault| {
        let why = fault.to_string();
        DeadLettersFault::Refused { why }
    })
}
