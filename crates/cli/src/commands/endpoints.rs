//! `fanfare endpoints`: manages endpoints, directly in the registry that the configuration names.

mod options;
mod rows;

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use fanfare_api::{Announcer, TriedOut, endpoint_status, try_endpoint};
use fanfare_broker::Broker;
use fanfare_egress::{Egress, EgressSettings};
use fanfare_journal::History;
use fanfare_model::{
    EgressPolicy, Endpoint, EndpointId, EventTypePattern, Secret, StateChange, TargetUrl, TenantId,
    Timestamp,
};
use fanfare_registry::{EndpointFilter, EndpointPage, NewEndpoint, Registry, Rotation};
use fanfare_wire::ControlMessage;
use serde_json::Value;
use tokio::time;

use self::rows::{Created, Listed, Shown, Tried, json};
use super::{broker::place, content};
use crate::{
    Config, EndpointsAddArgs, EndpointsCommand, EndpointsListArgs, EndpointsTestArgs,
    EndpointsUpdateArgs, OneEndpointArgs, OutputFormat, RotateSecretArgs, Sources, clock, output,
};

/// Who the audit log says it was.
const ACTOR: &str = "cli";
/// An announcement is worth no more: the others look by themselves every few seconds.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
const ANNOUNCE_WITHIN: Duration = Duration::from_secs(4);

pub(crate) async fn run(
    format: OutputFormat,
    command: &EndpointsCommand,
    sources: &Sources,
) -> anyhow::Result<()> {
    let settings = Config::load(sources)?.settings;
    let registry = Registry::open(&settings.registry).await?;
    let now = clock::system_clock().now();
    let egress = &settings.dispatcher.egress;
    let announce = async || announce(&registry, &settings, now).await;
    let change = async |args: &OneEndpointArgs, change| {
        let changed = change_state(&registry, args, change, now).await?;
        output::note(&format!("{} is {}", changed.id, changed.state.name()))?;
        announce().await
    };
    let print_secret = async |endpoint| {
        output::print_one(format, &Created(endpoint))?;
        output::note("the secret is not shown again")?;
        announce().await
    };
    match command {
        EndpointsCommand::Add(args) => {
            print_secret(add(&registry, egress, args, now).await?).await?;
        }
        EndpointsCommand::Update(args) => {
            let updated = update(&registry, egress, args, now).await?;
            output::print_one(format, &Listed(updated))?;
            announce().await?;
        }
        EndpointsCommand::RotateSecret(args) => {
            print_secret(rotate_secret(&registry, args, now).await?).await?;
        }
        EndpointsCommand::List(args) => {
            let (endpoints, more) = list(&registry, args).await?;
            output::print_rows(format, &endpoints)?;
            if let Some(Listed(last)) = endpoints.last().filter(|_| more) {
                output::note(&format!("there are more: --after {}", last.id))?;
            }
        }
        EndpointsCommand::Show(args) => {
            let endpoint = one(&registry, args).await?;
            let status = status(&registry, &settings, &endpoint).await?;
            output::print_one(format, &Shown(endpoint, status))?;
        }
        EndpointsCommand::Test(args) => {
            let tried = test(&registry, egress, args, now).await?;
            output::print_one(format, &Tried(json(&tried)))?;
            ensure!(tried.succeeded(), "the endpoint did not accept the event");
        }
        EndpointsCommand::Pause(args) => change(args, StateChange::Pause).await?,
        EndpointsCommand::Resume(args) => change(args, StateChange::Resume).await?,
        EndpointsCommand::Enable(args) => change(args, StateChange::Enable).await?,
        EndpointsCommand::Disable(args) => change(args, StateChange::Disable).await?,
        EndpointsCommand::Remove(args) => {
            remove(&registry, &args.tenant, args.id, now).await?;
            output::note(&format!("removed {}", args.id))?;
            announce().await?;
        }
    }
    registry.close().await;
    Ok(())
}

async fn add(
    registry: &Registry,
    egress: &EgressSettings,
    args: &EndpointsAddArgs,
    now: Timestamp,
) -> anyhow::Result<Endpoint> {
    check_url(egress, &args.url)?;
    let mut new = NewEndpoint::new(
        args.tenant.clone(),
        args.url.clone(),
        vec![EventTypePattern::Any],
    );
    options::apply(&args.options, &mut new)?;
    set_secret(args.secret.as_ref(), &mut new)?;
    let nobody_yet = EndpointId::from_bytes([0; 16]);
    ask_for_permission(egress, new.clone(), nobody_yet, now).await?;
    Ok(registry.create_endpoint(new, ACTOR, now).await?)
}

async fn update(
    registry: &Registry,
    egress: &EgressSettings,
    args: &EndpointsUpdateArgs,
    now: Timestamp,
) -> anyhow::Result<Endpoint> {
    let OneEndpointArgs { tenant, id } = &args.endpoint;
    let change = |endpoint| {
        let mut new = NewEndpoint::from(endpoint);
        for what in &args.reset {
            options::reset(*what, &mut new);
        }
        if let Some(url) = &args.url {
            check_url(egress, url)?;
            new.url = url.clone();
        }
        options::apply(&args.options, &mut new)?;
        set_secret(args.secret.as_ref(), &mut new)?;
        anyhow::Ok(new)
    };
    let present = one(registry, &args.endpoint).await?;
    ask_for_permission(egress, change(present)?, *id, now).await?;
    let updated = registry.update_endpoint(tenant, *id, change, ACTOR, now);
    updated.await?.with_context(|| nobody(tenant, *id))
}

/// Asks the receiver of an endpoint that is to be so whether it wants to be called, if that is asked for.
async fn ask_for_permission(
    egress: &EgressSettings,
    new: NewEndpoint,
    id: EndpointId,
    now: Timestamp,
) -> anyhow::Result<()> {
    if new.request_origin.is_none() {
        return Ok(());
    }
    new.validate()?;
    let egress = Egress::new(egress).context("setting up calls to receivers")?;
    let endpoint = new.registered(id, now);
    let (_, longest) = Endpoint::TIMEOUTS;
    Ok(fanfare_egress::ask_for_permission(&egress, &endpoint, longest).await?)
}

async fn rotate_secret(
    registry: &Registry,
    args: &RotateSecretArgs,
    now: Timestamp,
) -> anyhow::Result<Endpoint> {
    let OneEndpointArgs { tenant, id } = &args.endpoint;
    let rotation = Rotation {
        secret: args.secret.clone(),
        overlap: args.overlap,
    };
    let rotated = registry.rotate_secret(tenant, *id, &rotation, ACTOR, now);
    rotated.await?.with_context(|| nobody(tenant, *id))
}

fn check_url(egress: &EgressSettings, url: &TargetUrl) -> anyhow::Result<()> {
    EgressPolicy::allowing(egress.allow_networks.clone())
        .check_url(url)
        .context("--url is not accepted (`dispatcher.egress.allow_networks` opens networks)")
}

/// Has a secret sign instead of all others.
fn set_secret(secret: Option<&Secret>, new: &mut NewEndpoint) -> anyhow::Result<()> {
    if let Some(secret) = secret {
        let secret = new.signature.read_secret(secret.expose());
        new.secrets = vec![secret.context("--secret is not accepted")?];
        new.retiring.clear();
    }
    Ok(())
}

/// The endpoints asked for, and whether there are more.
async fn list(
    registry: &Registry,
    args: &EndpointsListArgs,
) -> anyhow::Result<(Vec<Listed>, bool)> {
    let page = EndpointPage {
        tenant: args.tenant.clone(),
        filter: EndpointFilter {
            state: args.state,
            event_type: args.event_type.clone(),
            url: args.url.clone(),
            format: args.format,
        },
        after: args.after,
        limit: args.limit + 1,
    };
    let mut endpoints = registry.endpoints(&page).await?;
    let more = endpoints.len() > args.limit as usize;
    endpoints.truncate(args.limit as usize);
    Ok((endpoints.into_iter().map(Listed).collect(), more))
}

async fn one(
    registry: &Registry,
    OneEndpointArgs { tenant, id }: &OneEndpointArgs,
) -> anyhow::Result<Endpoint> {
    let endpoint = registry.endpoint(tenant, *id).await?;
    endpoint.with_context(|| nobody(tenant, *id))
}

/// What state an endpoint is in, as far as RabbitMQ and the history can be asked.
async fn status(
    registry: &Registry,
    settings: &Config,
    endpoint: &Endpoint,
) -> anyhow::Result<Value> {
    let broker = Broker::connect(&settings.broker, "fanfare endpoints", CONNECT_WITHIN).await;
    let broker = broker.ok();
    let clock = clock::system_clock();
    let announcer = broker.as_ref().map(|broker| Announcer::on(broker, clock));
    let history = History::connect(&settings.history);
    let status = endpoint_status(registry, &history, announcer.as_ref(), endpoint).await?;
    history.close().await;
    if let Some(broker) = broker {
        broker.close().await;
    }
    Ok(json(&status))
}

/// Sends an endpoint an event as an attempt would.
async fn test(
    registry: &Registry,
    egress: &EgressSettings,
    args: &EndpointsTestArgs,
    now: Timestamp,
) -> anyhow::Result<TriedOut> {
    let endpoint = one(registry, &args.endpoint).await?;
    let egress = Egress::new(egress).context("setting up calls to receivers")?;
    let data = args.data.as_ref().map(content::read).transpose()?;
    let (what, longest) = ((args.event_type.clone(), data), endpoint.timeout);
    let tried = try_endpoint(registry, &egress, &endpoint, what, longest, now);
    Ok(tried.await?)
}

async fn change_state(
    registry: &Registry,
    OneEndpointArgs { tenant, id }: &OneEndpointArgs,
    change: StateChange,
    now: Timestamp,
) -> anyhow::Result<Endpoint> {
    let changed = registry
        .change_state(tenant, *id, change, ACTOR, now)
        .await?;
    changed.with_context(|| nobody(tenant, *id))
}

async fn remove(
    registry: &Registry,
    tenant: &TenantId,
    id: EndpointId,
    now: Timestamp,
) -> anyhow::Result<()> {
    if !registry.delete_endpoint(tenant, id, ACTOR, now).await? {
        bail!(nobody(tenant, id));
    }
    Ok(())
}

fn nobody(tenant: &TenantId, id: EndpointId) -> String {
    format!("tenant `{tenant}` has no endpoint {id}")
}

/// Tells the running processes that the registry changed. They would notice by themselves, only later.
async fn announce(registry: &Registry, settings: &Config, now: Timestamp) -> anyhow::Result<()> {
    let version = registry.version().await?;
    let told = time::timeout(ANNOUNCE_WITHIN, tell(&settings.broker, version, now)).await;
    if !matches!(told, Ok(Ok(()))) {
        let (place, period) = (place(&settings.broker), settings.registry.refresh_every);
        output::note(&format!(
            "RabbitMQ at {place} could not be told: takes effect within {period:?}"
        ))?;
    }
    Ok(())
}

async fn tell(
    settings: &fanfare_broker::Settings,
    version: u64,
    now: Timestamp,
) -> anyhow::Result<()> {
    let broker = Broker::connect(settings, "fanfare endpoints", CONNECT_WITHIN).await?;
    let message = ControlMessage::RegistryChanged { version }.encode(now);
    let address = broker.topology().control_address();
    broker.publisher().publish(&address, message).await?;
    broker.close().await;
    Ok(())
}

#[cfg(test)]
mod tests;
