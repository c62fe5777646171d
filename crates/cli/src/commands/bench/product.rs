//! A run of Fanfare itself: router and dispatcher in this process, one endpoint, the SDK as producer.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use fanfare_broker::Settings as BrokerSettings;
use fanfare_model::{Clock, Event, Secret, TenantId};
use fanfare_producer::{EventBuilder, Producer};
use fanfare_registry::{NewEndpoint, Registry, Snapshots};
use tempfile::TempDir;
use tokio::time::{self, MissedTickBehavior};
use uuid::Uuid;

use super::{
    WARM_UP,
    arrivals::Arrivals,
    load::{self, Run},
    sink::TIMED,
};
use crate::{
    Config, Role,
    wiring::{Fanfare, Stop},
};

/// How many requests may be in flight to the endpoint: enough that its cap is not what is measured.
pub(super) const MAX_IN_FLIGHT: u16 = 64;

const TENANT: &str = "bench";
const LOAD: &str = "bench.load";
const PACED: &str = "bench.paced";

/// Measures `events` deliveries of Fanfare.
pub(super) async fn run(
    broker: &BrokerSettings,
    events: u64,
    arrivals: &mut Arrivals,
    clock: &Clock,
) -> anyhow::Result<Run> {
    let measure = async |subject: &Subject, arrivals: &mut Arrivals| {
        let publish = async |number| subject.publish(LOAD, number).await;
        load::run(WARM_UP, arrivals, publish).await?;
        load::run(events, arrivals, publish).await
    };
    with_fanfare(broker, arrivals, clock, measure).await
}

/// How long events take from publish to arrival, in microseconds, at `rate` events per second.
pub(super) async fn latencies(
    broker: &BrokerSettings,
    rate: u32,
    lasting: Duration,
    arrivals: &mut Arrivals,
    clock: &Clock,
) -> anyhow::Result<Vec<u64>> {
    let measure = async |subject: &Subject, arrivals: &mut Arrivals| {
        let publish = async |number| subject.publish(PACED, number).await;
        load::run(u64::from(rate), arrivals, publish).await?;
        arrivals.take_latencies();
        let mut ticks = time::interval(Duration::from_secs(1) / rate);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let (before, events) = (arrivals.count, u64::from(rate) * lasting.as_secs());
        let publishing = async {
            for number in 0..events {
                ticks.tick().await;
                publish(number).await?;
            }
            anyhow::Ok(())
        };
        let arriving = async {
            while arrivals.count < before + events {
                arrivals.next().await?;
            }
            Ok(())
        };
        tokio::try_join!(publishing, arriving)?;
        Ok(arrivals.take_latencies())
    };
    with_fanfare(broker, arrivals, clock, measure).await
}

/// Fanfare, as a producer sees it.
struct Subject {
    producer: Producer,
    clock: Clock,
    source: String,
}

impl Subject {
    async fn publish(&self, event_type: &str, number: u64) -> anyhow::Result<()> {
        let event = self.event(event_type, number)?;
        Ok(self.producer.publish(&event).await?)
    }

    fn event(&self, event_type: &str, number: u64) -> anyhow::Result<Event> {
        let now = self.clock.now();
        // Warm-up and measurement count from zero each, so the number alone would make repeats.
        let id = format!("{}-{number}", Uuid::now_v7());
        let event = EventBuilder::new(TENANT, event_type, &self.source)
            .id(&id)
            .json(&load::data(now.as_microsecond()))
            .build();
        Ok(event?)
    }
}

/// Runs Fanfare with its defaults and an endpoint for each kind of event, and ends it after `measure`.
async fn with_fanfare<T>(
    broker: &BrokerSettings,
    arrivals: &mut Arrivals,
    clock: &Clock,
    measure: impl AsyncFnOnce(&Subject, &mut Arrivals) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let home = tempfile::tempdir().context("making a temporary directory")?;
    let stop = Stop::default();
    let roles = vec![Role::Router, Role::Dispatcher];
    let config = config(broker.clone(), &home)?;
    let fanfare = Fanfare::start(config, roles, clock.clone(), stop.clone()).await?;
    let (registry, snapshots) = (fanfare.registry().clone(), fanfare.snapshots().clone());
    let subject = Subject {
        producer: Producer::on(fanfare.broker(), clock.clone()),
        clock: clock.clone(),
        source: format!("bench-{}", Uuid::now_v7()),
    };
    let measuring = async {
        let measured = async {
            register(&registry, &snapshots, arrivals, clock).await?;
            measure(&subject, arrivals).await
        };
        let measured = measured.await;
        stop.terminate.cancel();
        measured
    };
    let (measured, ended) = tokio::join!(measuring, fanfare.run());
    ended?;
    measured
}

async fn register(
    registry: &Registry,
    snapshots: &Snapshots,
    arrivals: &Arrivals,
    clock: &Clock,
) -> anyhow::Result<()> {
    let tenant: TenantId = TENANT.parse()?;
    for (event_type, path) in [(LOAD, "/"), (PACED, TIMED)] {
        let url = arrivals.url(path).parse()?;
        let mut new = NewEndpoint::new(tenant.clone(), url, vec![event_type.parse()?]);
        new.max_in_flight = MAX_IN_FLIGHT;
        registry.create_endpoint(new, "bench", clock.now()).await?;
    }
    let version = registry.version().await?;
    snapshots.nudge();
    snapshots.wait_for_version(version).await;
    Ok(())
}

fn config(broker: BrokerSettings, home: &TempDir) -> anyhow::Result<Config> {
    let mut config = Config {
        broker,
        ..Config::default()
    };
    config.registry.database = home.path().join("fanfare.db").into();
    config.registry.encryption_key = Some(Secret::new("07".repeat(32)));
    config.api.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    config.dispatcher.egress.allow_networks = vec!["127.0.0.0/8".parse()?];
    Ok(config)
}
