//! Carries what the command line says about an endpoint over to what it is to be.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, ensure};
use fanfare_model::{ClientCertificate, EventTypePattern, Profile, Secret};
use fanfare_registry::NewEndpoint;

use crate::{EndpointOptions, Resettable, commands::content};

/// Makes one thing as it is by default.
pub(super) fn reset(what: Resettable, new: &mut NewEndpoint) {
    let (tenant, url) = (new.tenant.clone(), new.url.clone());
    let default = NewEndpoint::new(tenant, url, vec![EventTypePattern::Any]);
    match what {
        Resettable::Auth => new.auth = default.auth,
        Resettable::ConnectTimeout => new.connect_timeout = default.connect_timeout,
        Resettable::Description => new.description = default.description,
        Resettable::DisableAfter => new.disable_after = default.disable_after,
        Resettable::Filter => new.filter = default.filter,
        Resettable::Format => new.format = default.format,
        Resettable::Headers => new.headers = default.headers,
        Resettable::HttpVersion => new.http_version = default.http_version,
        Resettable::MaxInFlight => new.max_in_flight = default.max_in_flight,
        Resettable::Permanent => new.permanent = default.permanent,
        Resettable::Rate => new.rate = default.rate,
        Resettable::RequestOrigin => new.request_origin = default.request_origin,
        Resettable::Schedule => new.schedule = default.schedule,
        Resettable::Signature => new.signature = default.signature,
        Resettable::Success => new.success = default.success,
        Resettable::Template => new.template = default.template,
        Resettable::Timeout => new.timeout = default.timeout,
        Resettable::Tls => new.tls = default.tls,
        Resettable::Types => new.event_types = default.event_types,
    }
}

/// Sets what is named, and leaves the rest as it is.
pub(super) fn apply(options: &EndpointOptions, new: &mut NewEndpoint) -> anyhow::Result<()> {
    let options = options.clone();
    if let Some(profile) = options.profile {
        let says_how = profile != Profile::Custom || options.signature.is_some();
        ensure!(says_how, "--profile custom needs --signature");
        new.prefill(profile);
    }
    set(&mut new.event_types, options.types);
    if let Some(filter) = &options.filter {
        new.filter = Some(content::filter(filter)?);
    }
    new.template = content::template(&options.template)?.or(new.template.take());
    set(&mut new.description, options.description);
    set(&mut new.max_in_flight, options.max_in_flight);
    set(&mut new.timeout, options.timeout);
    set(&mut new.schedule, options.schedule);
    set(&mut new.success, options.success);
    set(&mut new.permanent, options.permanent);
    set(&mut new.disable_after, options.disable_after);
    set(&mut new.format, options.format);
    set(&mut new.signature, options.signature);
    set(&mut new.http_version, options.http_version);
    new.rate = options.rate.or(new.rate);
    new.request_origin = options.request_origin.or(new.request_origin.take());
    new.connect_timeout = options.connect_timeout.or(new.connect_timeout);
    new.auth = options.auth.or(new.auth.take());
    if let (Some(chain), Some(key)) = (&options.client_cert, &options.client_key) {
        let (chain, key) = (read(chain)?, Secret::new(read(key)?));
        new.tls.client = Some(Box::new(ClientCertificate { chain, key }));
    }
    if let Some(ca) = &options.ca {
        new.tls.ca = Some(read(ca)?.into());
    }
    fanfare_egress::check_tls(&new.tls)?;
    let mut names = BTreeSet::new();
    for header in options.headers {
        let name = header.name().to_owned();
        new.headers.retain(|known| known.name() != name);
        new.headers.push(header);
        ensure!(names.insert(name.clone()), "header `{name}` is given twice");
    }
    Ok(())
}

fn set<T>(member: &mut T, asked: Option<T>) {
    if let Some(asked) = asked {
        *member = asked;
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading `{}`", path.display()))
}
