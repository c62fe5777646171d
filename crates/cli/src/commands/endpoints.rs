//! `fanfare endpoints`: manages endpoints, directly in the registry that the configuration names.

mod options;

use std::time::Duration;

use anyhow::{Context, bail};
use fanfare_broker::Broker;
use fanfare_egress::EgressSettings;
use fanfare_model::{
    EgressPolicy, Endpoint, EndpointId, EndpointState, EventTypePattern, Secret, StateChange,
    TargetUrl, TenantId, Timestamp,
};
use fanfare_registry::{EndpointPage, NewEndpoint, Registry, Rotation};
use fanfare_wire::ControlMessage;
use jiff::fmt::friendly::{Spacing, SpanPrinter};
use serde::Serialize;
use serde_json::Value;
use tokio::time;

use super::broker::place;
use crate::{
    Config, EndpointsAddArgs, EndpointsCommand, EndpointsListArgs, EndpointsUpdateArgs,
    OneEndpointArgs, OutputFormat, RotateSecretArgs, Sources, clock,
    output::{self, Column, Row},
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
            let updated = Shown(update(&registry, egress, args, now).await?);
            output::print_one(format, &updated)?;
            announce().await?;
        }
        EndpointsCommand::RotateSecret(args) => {
            print_secret(rotate_secret(&registry, args, now).await?).await?;
        }
        EndpointsCommand::List(args) => {
            let (endpoints, more) = list(&registry, args).await?;
            output::print_rows(format, &endpoints)?;
            if more {
                output::note("there are more: raise --limit")?;
            }
        }
        EndpointsCommand::Show(args) => {
            let endpoint = registry.endpoint(&args.tenant, args.id).await?;
            let endpoint = endpoint.with_context(|| nobody(&args.tenant, args.id))?;
            output::print_one(format, &Shown(endpoint))?;
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
    let updated = registry.update_endpoint(tenant, *id, change, ACTOR, now);
    updated.await?.with_context(|| nobody(tenant, *id))
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
        after: None,
        limit: args.limit + 1,
    };
    let mut endpoints = registry.endpoints(&page).await?;
    let more = endpoints.len() > args.limit as usize;
    endpoints.truncate(args.limit as usize);
    Ok((endpoints.into_iter().map(Listed).collect(), more))
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

/// An endpoint as one of many.
struct Listed(Endpoint);

impl Row for Listed {
    const COLUMNS: &'static [Column<Self>] = &[
        Column {
            name: "id",
            value: |Self(endpoint)| endpoint.id.to_string().into(),
        },
        Column {
            name: "tenant",
            value: |Self(endpoint)| endpoint.tenant.as_str().into(),
        },
        Column {
            name: "url",
            value: |Self(endpoint)| endpoint.url.to_string().into(),
        },
        Column {
            name: "event_types",
            value: |Self(endpoint)| event_types(endpoint),
        },
        Column {
            name: "rate",
            value: |Self(endpoint)| rate(endpoint),
        },
        Column {
            name: "state",
            value: |Self(endpoint)| endpoint.state.name().into(),
        },
    ];
}

/// An endpoint with everything but its secrets and the values of its headers.
struct Shown(Endpoint);

impl Row for Shown {
    const COLUMNS: &'static [Column<Self>] = &[
        Column {
            name: "id",
            value: |Self(endpoint)| endpoint.id.to_string().into(),
        },
        Column {
            name: "tenant",
            value: |Self(endpoint)| endpoint.tenant.as_str().into(),
        },
        Column {
            name: "url",
            value: |Self(endpoint)| endpoint.url.to_string().into(),
        },
        Column {
            name: "description",
            value: |Self(endpoint)| endpoint.description.as_str().into(),
        },
        Column {
            name: "event_types",
            value: |Self(endpoint)| event_types(endpoint),
        },
        Column {
            name: "filter",
            value: |Self(endpoint)| json(&endpoint.filter),
        },
        Column {
            name: "template",
            value: |Self(endpoint)| json(&endpoint.template),
        },
        Column {
            name: "state",
            value: |Self(endpoint)| endpoint.state.name().into(),
        },
        Column {
            name: "disabled_reason",
            value: |Self(endpoint)| disabled(endpoint).map(|(reason, _)| reason).into(),
        },
        Column {
            name: "disabled_since",
            value: |Self(endpoint)| {
                disabled(endpoint)
                    .map(|(_, since)| since.to_string())
                    .into()
            },
        },
        Column {
            name: "rate",
            value: |Self(endpoint)| rate(endpoint),
        },
        Column {
            name: "max_in_flight",
            value: |Self(endpoint)| endpoint.max_in_flight.into(),
        },
        Column {
            name: "timeout",
            value: |Self(endpoint)| friendly(endpoint.timeout).into(),
        },
        Column {
            name: "schedule",
            value: |Self(endpoint)| endpoint.schedule.to_string().into(),
        },
        Column {
            name: "success",
            value: |Self(endpoint)| endpoint.success.to_string().into(),
        },
        Column {
            name: "permanent",
            value: |Self(endpoint)| endpoint.permanent.to_string().into(),
        },
        Column {
            name: "disable_after",
            value: |Self(endpoint)| endpoint.disable_after.to_string().into(),
        },
        Column {
            name: "format",
            value: |Self(endpoint)| endpoint.format.to_string().into(),
        },
        Column {
            name: "signature",
            value: |Self(endpoint)| endpoint.signature.to_string().into(),
        },
        Column {
            name: "public_keys",
            value: |Self(endpoint)| {
                let keys = endpoint
                    .secrets
                    .iter()
                    .filter_map(|secret| secret.public_key());
                keys.map(|key| key.to_string()).collect()
            },
        },
        Column {
            name: "retiring_until",
            value: |Self(endpoint)| {
                let retiring = endpoint.retiring.iter();
                retiring.map(|old| old.until.to_string()).collect()
            },
        },
        Column {
            name: "auth",
            value: |Self(endpoint)| endpoint.auth.as_ref().map(|auth| auth.kind()).into(),
        },
        Column {
            name: "client_certificate",
            value: |Self(endpoint)| endpoint.tls.client.is_some().into(),
        },
        Column {
            name: "extra_ca",
            value: |Self(endpoint)| endpoint.tls.ca.is_some().into(),
        },
        Column {
            name: "http_version",
            value: |Self(endpoint)| endpoint.http_version.to_string().into(),
        },
        Column {
            name: "connect_timeout",
            value: |Self(endpoint)| endpoint.connect_timeout.map(friendly).into(),
        },
        Column {
            name: "header_names",
            value: |Self(endpoint)| {
                endpoint
                    .headers
                    .iter()
                    .map(|header| header.name())
                    .collect()
            },
        },
        Column {
            name: "created_at",
            value: |Self(endpoint)| endpoint.created_at.to_string().into(),
        },
        Column {
            name: "updated_at",
            value: |Self(endpoint)| endpoint.updated_at.to_string().into(),
        },
    ];
}

/// An endpoint that just got its secret.
struct Created(Endpoint);

impl Row for Created {
    const COLUMNS: &'static [Column<Self>] = &[
        Column {
            name: "id",
            value: |Self(endpoint)| endpoint.id.to_string().into(),
        },
        Column {
            name: "tenant",
            value: |Self(endpoint)| endpoint.tenant.as_str().into(),
        },
        Column {
            name: "url",
            value: |Self(endpoint)| endpoint.url.to_string().into(),
        },
        Column {
            name: "event_types",
            value: |Self(endpoint)| event_types(endpoint),
        },
        Column {
            name: "secret",
            value: |Self(endpoint)| {
                endpoint
                    .secrets
                    .first()
                    .map(|secret| secret.reveal())
                    .into()
            },
        },
    ];
}

fn event_types(endpoint: &Endpoint) -> Value {
    endpoint
        .event_types
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("filters and templates are JSON")
}

fn rate(endpoint: &Endpoint) -> Value {
    endpoint.rate.map(|rate| rate.to_string()).into()
}

fn disabled(endpoint: &Endpoint) -> Option<(Value, Timestamp)> {
    match &endpoint.state {
        EndpointState::Active | EndpointState::Paused => None,
        EndpointState::Disabled { reason, since } => {
            let reason = serde_json::to_value(reason).expect("a reason has a name");
            Some((reason, *since))
        }
    }
}

fn friendly(duration: Duration) -> String {
    SpanPrinter::new()
        .spacing(Spacing::None)
        .unsigned_duration_to_string(&duration)
}

#[cfg(test)]
mod tests;
