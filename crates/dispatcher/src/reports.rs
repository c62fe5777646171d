//! What the dispatcher reports beside its deliveries: endpoints to be disabled, and events for operators.
//!
//! Off the path of a delivery: nothing here is waited for by one. Endpoints to be disabled are tried until
//! the store took them; events are told as well as can be, and what could not be told is counted.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use fanfare_broker::{Publisher, Topology};
use fanfare_model::{
    Clock, DisabledReason, Endpoint, EndpointId, EndpointState, Event, TenantId, Timestamp,
    TraceContext,
};
use fanfare_registry::{Registry, RegistryFault, Snapshots};
use fanfare_wire::{ControlMessage, event_envelope_binary};
use futures_util::future::join_all;
use tokio::{sync::Notify, time};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{metrics::Metrics, operational};

/// Who the audit log says it was.
const ACTOR: &str = "dispatcher";
/// How many events wait to be told; more than that are counted and not told.
const MOST_UNTOLD: usize = 1024;
/// How many events are told at once.
const AT_ONCE: usize = 64;
/// How long an event is tried.
const TELL_WITHIN: Duration = Duration::from_secs(30);
/// An announcement that comes later than the others' own period tells them nothing.
const ANNOUNCE_WITHIN: Duration = Duration::from_secs(5);
/// How long what is left is tried when everything else has ended.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// The waits between two tries of the store.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What is to be reported, and the means to do so.
pub(crate) struct Reports {
    registry: Registry,
    snapshots: Snapshots,
    publisher: Publisher,
    topology: Arc<Topology>,
    clock: Clock,
    metrics: Arc<Metrics>,
    waiting: Mutex<Waiting>,
    event_added: Notify,
    disabling_added: Notify,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<Event>,
    /// Bounded by the number of lanes, each of which gives its endpoint up once.
    disabling: VecDeque<Disabling>,
}

/// An endpoint to be disabled, unless its owner changes it first.
#[derive(Debug, Clone)]
struct Disabling {
    tenant: TenantId,
    id: EndpointId,
    reason: DisabledReason,
    since: Timestamp,
    /// When the endpoint that failed was changed last.
    as_of: Timestamp,
}

impl Reports {
    pub(crate) fn new(
        registry: Registry,
        snapshots: Snapshots,
        publisher: Publisher,
        topology: Arc<Topology>,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            registry,
            snapshots,
            publisher,
            topology,
            clock,
            metrics,
            waiting: Mutex::default(),
            event_added: Notify::new(),
            disabling_added: Notify::new(),
        }
    }

    /// Has an endpoint disabled in the registry. Its lane keeps it disabled until then.
    pub(crate) fn disable(&self, endpoint: &Endpoint, reason: DisabledReason) {
        self.waiting().disabling.push_back(Disabling {
            tenant: endpoint.tenant.clone(),
            id: endpoint.id,
            reason,
            since: self.clock.now(),
            as_of: endpoint.updated_at,
        });
        self.disabling_added.notify_one();
    }

    /// Has an event told to the tenant's endpoints that ask for its type.
    pub(crate) fn tell(&self, event: Event) {
        let mut waiting = self.waiting();
        if waiting.events.len() < MOST_UNTOLD {
            waiting.events.push_back(event);
            self.event_added.notify_one();
        } else {
            drop(waiting);
            self.untold(&event, "too many wait to be told");
        }
    }

    /// Reports until `done`, and then for a few seconds what is left.
    pub(crate) async fn run(&self, done: &CancellationToken) {
        let working = async { tokio::join!(self.disable_all(done), self.tell_all(done)) };
        let overdue = async {
            done.cancelled().await;
            time::sleep(LAST_WORDS).await;
        };
        tokio::select! {
            ((), ()) = working => {}
            () = overdue => {}
        }
        let waiting = std::mem::take(&mut *self.waiting());
        for event in &waiting.events {
            self.untold(event, "the dispatcher stops");
        }
        for left in &waiting.disabling {
            warn!(endpoint.id = %left.id, "an endpoint was not disabled before the dispatcher stopped");
        }
    }

    async fn tell_all(&self, done: &CancellationToken) {
        loop {
            let batch: Vec<_> = {
                let mut waiting = self.waiting();
                let many = waiting.events.len().min(AT_ONCE);
                waiting.events.drain(..many).collect()
            };
            if !batch.is_empty() {
                join_all(batch.iter().map(|event| self.publish(event))).await;
            } else if done.is_cancelled() {
                return;
            } else {
                done.run_until_cancelled(self.event_added.notified()).await;
            }
        }
    }

    async fn publish(&self, event: &Event) {
        let (tenant, event_type) = (&event.tenant, &event.event_type);
        let address = self.topology.event_address(tenant, event_type);
        let envelope = event_envelope_binary(event, &TraceContext::default(), self.clock.now());
        let published = self.publisher.publish_patiently(&address, envelope);
        match time::timeout(TELL_WITHIN, published).await {
            Ok(Ok(())) => {}
            Ok(Err(fault)) => self.untold(event, &fault.to_string()),
            Err(_) => self.untold(event, "RabbitMQ did not take it in time"),
        }
    }

    fn untold(&self, event: &Event, why: &str) {
        self.metrics.untold();
        let (id, event_type) = (&event.id, &event.event_type);
        warn!(event.id = id, event.r#type = %event_type, why, "an operational event was not told");
    }

    async fn disable_all(&self, done: &CancellationToken) {
        let (shortest, longest) = PAUSES;
        let mut pause = shortest;
        loop {
            let next = self.waiting().disabling.front().cloned();
            match next {
                Some(next) => match self.carry_out(&next).await {
                    Ok(changed) => {
                        self.waiting().disabling.pop_front();
                        pause = shortest;
                        if changed {
                            self.announce().await;
                        }
                    }
                    Err(fault) => {
                        log_failure(next.id, &fault);
                        // One that cannot be read must not keep the others waiting.
                        self.waiting().disabling.rotate_left(1);
                        time::sleep(pause).await;
                        pause = (pause * 2).min(longest);
                    }
                },
                None if done.is_cancelled() => return,
                None => {
                    done.run_until_cancelled(self.disabling_added.notified())
                        .await;
                }
            }
        }
    }

    /// Disables one endpoint, and says whether it did. One that its owner changed or deleted in the meantime begins anew.
    async fn carry_out(&self, disabling: &Disabling) -> Result<bool, RegistryFault> {
        let Disabling {
            tenant,
            id,
            reason,
            since,
            as_of,
        } = disabling;
        let (id, reason, since) = (*id, *reason, *since);
        let wanted = EndpointState::Disabled { reason, since };
        match self.registry.endpoint(tenant, id).await? {
            // An earlier try was carried out and its answer lost.
            Some(stored) if stored.state == wanted => {}
            Some(_) => {
                let now = self.clock.now();
                let changed = self
                    .registry
                    .replace_state(tenant, id, *as_of, wanted, ACTOR, now);
                if changed.await?.is_none() {
                    return Ok(false);
                }
            }
            None => return Ok(false),
        }
        self.snapshots.nudge();
        self.metrics.disabled(reason);
        info!(endpoint.id = %id, %tenant, reason = reason.name(), "disabled an endpoint");
        self.tell(operational::disabled(tenant, id, reason, since));
        Ok(true)
    }

    /// Tells the other processes. They look by themselves every few seconds, so a lost announcement costs
    /// time, nothing else.
    async fn announce(&self) {
        let Ok(version) = self.registry.version().await else {
            return;
        };
        let message = ControlMessage::RegistryChanged { version }.encode(self.clock.now());
        let address = self.topology.control_address();
        let published = self.publisher.publish(&address, message);
        if !matches!(time::timeout(ANNOUNCE_WITHIN, published).await, Ok(Ok(()))) {
            warn!("a change of the registry could not be announced");
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting
            .lock()
            .expect("nobody panics while holding what is to be reported")
    }
}

fn log_failure(id: EndpointId, fault: &RegistryFault) {
    let error = fault as &dyn std::error::Error;
    warn!(endpoint.id = %id, error, "an endpoint could not be disabled; trying again");
}

#[cfg(test)]
mod tests {
    use std::fs;

    use fanfare_broker::Broker;
    use fanfare_model::Secret;
    use fanfare_registry::NewEndpoint;
    use fanfare_testkit::{eventually, wall_clock};
    use tokio::task::JoinSet;

    use super::*;

    /// Reports to this registry, and to a RabbitMQ that is not there: nothing listens on the first port.
    fn reports(registry: &Registry) -> Arc<Reports> {
        let settings = fanfare_broker::Settings {
            url: Secret::new("amqp://127.0.0.1:1/%2f".to_owned()),
            ..fanfare_broker::Settings::default()
        };
        let broker = Broker::start(&settings, "tests").unwrap();
        let metrics = Metrics::new(&opentelemetry::global::meter("tests"));
        Arc::new(Reports::new(
            registry.clone(),
            Snapshots::new(),
            broker.publisher(),
            Arc::clone(broker.topology()),
            wall_clock(),
            Arc::new(metrics),
        ))
    }

    #[tokio::test]
    async fn an_endpoint_is_disabled_as_soon_as_the_store_is_back() {
        let home = tempfile::tempdir().unwrap();
        let (here, away) = (home.path().join("here"), home.path().join("away"));
        fs::create_dir(&here).unwrap();
        let settings = fanfare_registry::Settings {
            database: here.join("fanfare.db").into(),
            encryption_key: Some(Secret::new("a".repeat(64))),
            ..fanfare_registry::Settings::default()
        };
        let registry = Registry::open(&settings).await.unwrap();
        let url = "https://example.com/".parse().unwrap();
        let new = NewEndpoint::new("t".parse().unwrap(), url, vec!["*".parse().unwrap()]);
        let (failing, changed) = (new.clone(), new);
        let create = async |new| {
            registry
                .create_endpoint(new, "tester", wall_clock().now())
                .await
        };
        let (failing, changed) = (
            create(failing).await.unwrap(),
            create(changed).await.unwrap(),
        );
        registry.close().await;
        fs::rename(&here, &away).unwrap();
        // A file in the place of its folder: no new store can be made there.
        fs::write(&here, "").unwrap();

        let registry = Registry::connect(&settings).unwrap();
        let reports = reports(&registry);
        let before = Endpoint {
            updated_at: changed.updated_at - Duration::from_secs(1),
            ..changed.clone()
        };
        // One that its owner changed after it failed keeps its state.
        reports.disable(&before, DisabledReason::Gone);
        reports.disable(&failing, DisabledReason::Failing);
        let mut running = JoinSet::new();
        let (reporter, done) = (Arc::clone(&reports), CancellationToken::new());
        let until = done.clone();
        running.spawn(async move { reporter.run(&until).await });
        assert!(registry.version().await.unwrap_err().is_transient());
        fs::remove_file(&here).unwrap();
        fs::rename(&away, &here).unwrap();

        eventually(Duration::from_secs(60), "both to be done", async || {
            reports.waiting().disabling.is_empty().then_some(())
        })
        .await;
        for (endpoint, expected) in [(&failing, "disabled"), (&changed, "active")] {
            let stored = registry.endpoint(&endpoint.tenant, endpoint.id).await;
            assert_eq!(stored.unwrap().unwrap().state.name(), expected);
        }
        running.shutdown().await;
    }

    #[tokio::test]
    async fn more_events_than_can_wait_are_not_kept() {
        let home = tempfile::tempdir().unwrap();
        let settings = fanfare_registry::Settings {
            database: home.path().join("fanfare.db").into(),
            encryption_key: Some(Secret::new("a".repeat(64))),
            ..fanfare_registry::Settings::default()
        };
        let reports = reports(&Registry::connect(&settings).unwrap());
        for id in 0..=MOST_UNTOLD {
            reports.tell(Event::for_tests(
                "t",
                "/fanfare",
                &id.to_string(),
                "a",
                b"{}",
            ));
        }
        assert_eq!(reports.waiting().events.len(), MOST_UNTOLD);
    }
}
