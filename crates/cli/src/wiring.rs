//! Builds everything in flow order, starts the roles, and ends them in order.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use fanfare_api::{Announcer, Api, Health};
use fanfare_broker::{Broker, JournalWriter};
use fanfare_deadletters::Desk;
use fanfare_dispatcher::Dispatcher;
use fanfare_egress::Egress;
use fanfare_journal::{History, Recorder, record_journal};
use fanfare_model::Clock;
use fanfare_producer::Producer;
use fanfare_registry::{Registry, Snapshots, keep_fresh};
use fanfare_router::{Diversion, Diversions, Router};
use fanfare_telemetry::Metrics;
use fanfare_wire::ControlMessage;
use tokio::{net::TcpListener, task::JoinSet, time};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{Config, Role};

/// How long a start waits for RabbitMQ. A process that started waits for as long as it takes.
const CONNECT_WITHIN: Duration = Duration::from_secs(60);

/// How long the ends of the journals are waited for. What is lost with them is noticed, and is no delivery.
const JOURNALS_END_WITHIN: Duration = Duration::from_secs(5);

/// The role in which people and rules tell the journal what they did with deliveries.
pub(crate) const OPERATOR: &str = "operator";

/// How a process is told to end.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Finish what is in hand, then end.
    pub terminate: CancellationToken,
    /// End now; what is unsettled is handed back to the broker.
    pub abort: CancellationToken,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Everything in hand was settled.
    Orderly,
    /// This many messages were handed back unfinished; they will be repeated.
    Aborted(usize),
}

/// The roles of one process, wired and not yet running.
pub struct Fanfare {
    config: Config,
    roles: Vec<Role>,
    clock: Clock,
    stop: Stop,
    broker: Broker,
    registry: Registry,
    history: History,
    snapshots: Snapshots,
    metrics: Metrics,
    listener: TcpListener,
}

impl Fanfare {
    /// Connects, declares, and takes the port, so that what is wrong shows before anything runs.
    pub async fn start(
        config: Config,
        roles: Vec<Role>,
        clock: Clock,
        stop: Stop,
    ) -> anyhow::Result<Self> {
        let listen = config.api.listen;
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("listening at {listen} (`api.listen`)"))?;
        let registry = Registry::connect(&config.registry).context("opening the registry")?;
        let name = connection_name(&roles);
        let connecting = Broker::connect(&config.broker, &name, CONNECT_WITHIN);
        let broker = stop
            .terminate
            .run_until_cancelled(connecting)
            .await
            .context("stopped while waiting for RabbitMQ")?
            .context("connecting to RabbitMQ")?;
        Ok(Self {
            history: History::connect(&config.history),
            config,
            roles,
            clock,
            stop,
            broker,
            registry,
            snapshots: Snapshots::new(),
            metrics: Metrics::new(),
            listener,
        })
    }

    /// Where the API, health and metrics are served.
    pub fn address(&self) -> SocketAddr {
        self.listener
            .local_addr()
            .expect("a bound listener has an address")
    }

    /// The connection to RabbitMQ, for whoever drives the process from within.
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// The store of endpoints, for whoever drives the process from within.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What happened, for whoever drives the process from within.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// What the roles decide by, for whoever drives the process from within.
    pub fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// Runs the roles until they are told to stop, or one of them ends by a fault of ours.
    pub async fn run(self) -> anyhow::Result<Ending> {
        let Self {
            broker,
            registry,
            stop,
            ..
        } = &self;
        let (broker, registry, stop) = (broker.clone(), registry.clone(), stop.clone());
        let grace = self.config.shutdown_grace;
        let background = CancellationToken::new();
        let mut behind = JoinSet::new();
        behind.spawn(keep_fresh(
            registry.clone(),
            self.snapshots.clone(),
            self.clock.clone(),
            background.clone(),
        ));
        self.spawn_recorder(&mut behind, background.clone());
        let (history, journals) = (self.history.clone(), self.journals());
        self.keep_dead_letters(&mut behind, &journals, &background);
        self.keep_replays(&mut behind, &journals, &background);
        let mut roles = JoinSet::new();
        let (snapshots, clock) = (self.snapshots.clone(), self.clock.clone());
        let diversions = self.spawn_roles(&mut roles, &journals)?;
        behind.spawn(hear_announcements(
            broker.clone(),
            snapshots,
            diversions,
            clock,
            background.clone(),
        ));
        let ended = supervise(roles, &stop, grace).await;

        // What the roles needed ends after them: first who listens, then the broker, then the stores.
        journals.close_roles().await;
        background.cancel();
        while behind.join_next().await.is_some() {}
        journals.operator.close(JOURNALS_END_WITHIN).await;
        broker.close().await;
        registry.close().await;
        history.close().await;
        ended
    }

    fn spawn_recorder(&self, behind: &mut JoinSet<()>, until: CancellationToken) {
        if self.roles.contains(&Role::Recorder) {
            let recorder = Recorder::new(
                &self.broker,
                self.history.clone(),
                self.config.history.clone(),
                self.clock.clone(),
                &self.metrics.meter("fanfare.recorder"),
            );
            behind.spawn(record_journal(recorder, until));
        }
    }

    /// A journal for each role that has something to tell.
    fn journals(&self) -> Journals {
        let process = named(self.config.dispatcher.clone()).id;
        let meter = self.metrics.meter("fanfare.journal");
        let start = |role: Role, name: &str| {
            if !self.roles.contains(&role) {
                return JournalWriter::off();
            }
            let (settings, clock) = (&self.config.journal, self.clock.clone());
            JournalWriter::start(&self.broker, settings, name, &process, clock, &meter)
        };
        Journals {
            router: start(Role::Router, Role::Router.name()),
            dispatcher: start(Role::Dispatcher, Role::Dispatcher.name()),
            operator: start(Role::Api, OPERATOR),
        }
    }

    /// Where operations on what rests are asked for and carried out.
    fn desk(&self, journals: &Journals) -> Desk {
        let (registry, clock) = (self.registry.clone(), self.clock.clone());
        let settings = self.config.dead_letters.clone();
        let desk = Desk::new(&self.broker, registry, clock, settings)
            .journalling(journals.operator.clone());
        match self.index() {
            Some(index) => desk.indexed_by(index),
            None => desk,
        }
    }

    /// The history, as far as it knows of dead letters: without journals, none.
    fn index(&self) -> Option<History> {
        self.config.journal.enabled.then(|| self.history.clone())
    }

    /// With the role `api`, a process carries out what is asked for there, and counts what rests.
    fn keep_dead_letters(
        &self,
        behind: &mut JoinSet<()>,
        journals: &Journals,
        shutdown: &CancellationToken,
    ) {
        if !self.roles.contains(&Role::Api) {
            return;
        }
        let metrics = fanfare_deadletters::Metrics::new(&self.metrics.meter("fanfare.deadletters"));
        behind.spawn(fanfare_deadletters::watch(
            self.broker.clone(),
            self.index(),
            metrics.clone(),
            self.clock.clone(),
            shutdown.clone(),
        ));
        behind.spawn(fanfare_deadletters::keep(
            self.desk(journals).counting(metrics),
            self.snapshots.clone(),
            shutdown.clone(),
        ));
    }

    /// Where replays of history are asked for and run.
    fn replays(&self, journals: &Journals) -> fanfare_replay::Desk {
        fanfare_replay::Desk::new(
            &self.broker,
            self.history.clone(),
            journals.operator.clone(),
            self.desk(journals),
            self.clock.clone(),
            self.config.dead_letters.replay_pace,
        )
    }

    /// With the role `api`, a process runs the replays that are asked for.
    fn keep_replays(
        &self,
        behind: &mut JoinSet<()>,
        journals: &Journals,
        shutdown: &CancellationToken,
    ) {
        if self.roles.contains(&Role::Api) {
            let desk = self.replays(journals);
            behind.spawn(fanfare_replay::keep(desk, shutdown.clone()));
        }
    }

    /// Starts the roles. Returns where to tell a router which endpoints are flooded.
    fn spawn_roles(
        self,
        roles: &mut JoinSet<anyhow::Result<usize>>,
        journals: &Journals,
    ) -> anyhow::Result<Option<Diversions>> {
        let Stop { terminate, abort } = self.stop.clone();
        let mut diversions = None;
        // Shared, so that an endpoint is tried out over the connections that deliveries use.
        let egress = Egress::new(&self.config.dispatcher.egress);
        let egress = egress.context("setting up calls to receivers")?;
        if self.roles.contains(&Role::Router) {
            let settings = self.config.router.clone();
            let router = Router::new(
                &self.broker,
                &settings,
                self.snapshots.clone(),
                self.clock.clone(),
                &self.metrics.meter("fanfare.router"),
            )
            .journalling(journals.router.clone());
            diversions = Some(router.diversions());
            let (broker, terminate, abort) =
                (self.broker.clone(), terminate.clone(), abort.clone());
            roles.spawn(async move {
                Ok(fanfare_router::run(broker, router, settings, terminate, abort).await)
            });
        }
        if self.roles.contains(&Role::Dispatcher) {
            let dispatcher = Dispatcher::new(
                &self.broker,
                named(self.config.dispatcher.clone()),
                self.registry.clone(),
                self.snapshots.clone(),
                egress.clone(),
                self.clock.clone(),
                &self.metrics.meter("fanfare.dispatcher"),
            )
            .journalling(journals.dispatcher.clone());
            let terminate = terminate.clone();
            roles.spawn(
                async move { Ok(fanfare_dispatcher::run(dispatcher, terminate, abort).await?) },
            );
        }
        let (desk, replays) = (self.desk(journals), self.replays(journals));
        roles.spawn(self.serve_http(desk, replays, egress, terminate));
        Ok(diversions)
    }

    /// Every process serves health and metrics; with the role `api` also the API.
    async fn serve_http(
        self,
        desk: Desk,
        replays: fanfare_replay::Desk,
        egress: Egress,
        terminate: CancellationToken,
    ) -> anyhow::Result<usize> {
        let (broker, snapshots) = (self.broker.clone(), self.snapshots.clone());
        let health = Health::new()
            .with("broker", move || broker.is_ready())
            .with("registry", move || snapshots.current().is_some());
        let metrics = self.metrics.clone();
        let render = Arc::new(move || metrics.render());
        if !self.roles.contains(&Role::Api) {
            fanfare_api::monitor(self.listener, health, render, terminate).await?;
            return Ok(0);
        }
        let announcer = Announcer::on(&self.broker, self.clock.clone());
        let api = Api {
            settings: self.config.api.clone(),
            registry: self.registry,
            history: self.history,
            desk,
            replays,
            snapshots: self.snapshots,
            announcer,
            producer: Producer::on(&self.broker, self.clock.clone())
                .measured_by(&self.metrics.meter("fanfare.producer")),
            egress,
            clock: self.clock,
            health,
            metrics: render,
        };
        fanfare_api::run(self.listener, api, terminate).await?;
        Ok(0)
    }
}

/// What the roles of this process tell.
struct Journals {
    router: JournalWriter,
    dispatcher: JournalWriter,
    operator: JournalWriter,
}

impl Journals {
    /// Ends what roles tell. Who deals with dead letters tells something until it has ended.
    async fn close_roles(&self) {
        tokio::join!(
            self.router.close(JOURNALS_END_WITHIN),
            self.dispatcher.close(JOURNALS_END_WITHIN),
            self.operator.close(JOURNALS_END_WITHIN),
        );
    }
}

/// Waits for the roles. If one ends by a fault, all stop: a half-alive process is harder to reason about.
async fn supervise(
    mut roles: JoinSet<anyhow::Result<usize>>,
    stop: &Stop,
    grace: Duration,
) -> anyhow::Result<Ending> {
    let mut fault = None;
    let mut unfinished = 0;
    let deadline = async {
        stop.terminate.cancelled().await;
        info!("stopping: attempts in flight finish, everything else is handed back");
        time::sleep(grace).await;
        warn!(?grace, "the grace period is over");
        stop.abort.cancel();
        std::future::pending::<()>().await;
    };
    tokio::pin!(deadline);
    loop {
        let ended = tokio::select! {
            () = &mut deadline => continue,
            ended = roles.join_next() => ended,
        };
        let Some(ended) = ended else { break };
        match ended.context("a role panicked").and_then(|ended| ended) {
            Ok(handed_back) => unfinished += handed_back,
            Err(error) => {
                error!(
                    error = format!("{error:#}"),
                    "a role ended by a fault; stopping"
                );
                fault.get_or_insert(error);
            }
        }
        if !stop.terminate.is_cancelled() {
            stop.terminate.cancel();
        }
    }
    if let Some(fault) = fault {
        return Err(fault);
    }
    if stop.abort.is_cancelled() {
        warn!(
            unfinished,
            "stopped without finishing; what was in hand will be repeated"
        );
        return Ok(Ending::Aborted(unfinished));
    }
    info!("stopped; everything in hand was settled");
    Ok(Ending::Orderly)
}

/// Refreshes the snapshot as soon as another process says that the registry has changed, and hands on
/// which endpoints are flooded.
async fn hear_announcements(
    broker: Broker,
    snapshots: Snapshots,
    diversions: Option<Diversions>,
    clock: Clock,
    shutdown: CancellationToken,
) {
    let mut inbox = broker.control_inbox();
    while let Some(message) = inbox.next_until(&shutdown).await {
        match ControlMessage::decode(&message.envelope) {
            Some(ControlMessage::RegistryChanged { version })
                if snapshots.version() != Some(version) =>
            {
                snapshots.nudge();
            }
            Some(ControlMessage::EndpointFlooded {
                endpoint,
                as_of,
                from,
                spacing_us,
                until,
                latest,
                expires,
            }) => {
                let diversion = Diversion {
                    as_of,
                    from,
                    spacing: Duration::from_micros(spacing_us),
                    until,
                    latest,
                    expires,
                };
                if let Some(diversions) = &diversions {
                    diversions.add(endpoint, diversion, clock.now());
                }
            }
            // Ours, for dispatchers, or a kind that only newer processes know.
            Some(
                ControlMessage::RegistryChanged { .. }
                | ControlMessage::DispatcherPresent(_)
                | ControlMessage::DispatchersAsked
                | ControlMessage::EndpointAsked { .. }
                | ControlMessage::EndpointStands(_)
                | ControlMessage::StartsHandedOver(_),
            )
            | None => {}
        }
        message.receipt.settle();
    }
    inbox.close().await;
}

/// What RabbitMQ's management pages show.
fn connection_name(roles: &[Role]) -> String {
    let names: Vec<_> = roles.iter().map(|role| role.name()).collect();
    format!("fanfare {} on {}", names.join("+"), host_name())
}

fn named(mut settings: fanfare_dispatcher::Settings) -> fanfare_dispatcher::Settings {
    if settings.id.is_empty() {
        settings.id = host_name();
    }
    settings
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_else(|_| "this host".to_owned())
}
