//! The arguments of `fanfare endpoints`.

use std::{fs, path::PathBuf, time::Duration};

use clap::{Subcommand, ValueEnum};
use fanfare_model::{
    Auth, BodyFormat, DisableAfter, EndpointId, EventType, EventTypePattern, HeaderField,
    HttpVersion, Profile, Rate, RequestOrigin, Schedule, Secret, SignatureScheme, StateName,
    StatusSet, TargetUrl, TenantId,
};

use super::{DataSource, TemplateArgs, duration};

/// The commands of `fanfare endpoints`.
#[derive(Debug, Clone, Subcommand)]
pub enum EndpointsCommand {
    /// Register a URL
    Add(Box<EndpointsAddArgs>),
    /// List endpoints
    List(EndpointsListArgs),
    /// Show one endpoint, what state it is in, and why
    Show(OneEndpointArgs),
    /// Send one endpoint the sample of an event type, and show what was said; exits with 1 when it fails
    Test(EndpointsTestArgs),
    /// Change what is named of one endpoint, and nothing else
    Update(Box<EndpointsUpdateArgs>),
    /// Give one endpoint a new secret, and print it; the old one signs beside it for a while
    RotateSecret(RotateSecretArgs),
    /// Let the deliveries of one endpoint wait
    Pause(OneEndpointArgs),
    /// End the pause of one endpoint
    Resume(OneEndpointArgs),
    /// Call one endpoint again after it was disabled
    Enable(OneEndpointArgs),
    /// Make dead letters of what one endpoint is owed
    Disable(OneEndpointArgs),
    /// Remove one endpoint
    Remove(OneEndpointArgs),
}

/// Arguments of `fanfare endpoints add`.
#[derive(Debug, Clone, clap::Args)]
pub struct EndpointsAddArgs {
    /// Whose endpoint it is
    #[arg(long)]
    pub tenant: TenantId,
    /// Where requests go
    #[arg(long)]
    pub url: TargetUrl,
    /// The secret that signs: `whsec_…` or `whsk_…`, or a text for another signature than `standard`
    /// [default: a new one]
    #[arg(long, value_name = "SECRET", value_parser = secret)]
    pub secret: Option<Secret>,
    /// Everything else.
    #[command(flatten)]
    pub options: EndpointOptions,
}

/// Arguments of `fanfare endpoints update`.
#[derive(Debug, Clone, clap::Args)]
pub struct EndpointsUpdateArgs {
    /// Which one.
    #[command(flatten)]
    pub endpoint: OneEndpointArgs,
    /// Where requests go from now on
    #[arg(long)]
    pub url: Option<TargetUrl>,
    /// The secret that signs instead of all others at once; `rotate-secret` lets the old one sign on for a while
    #[arg(long, value_name = "SECRET", value_parser = secret)]
    pub secret: Option<Secret>,
    /// What is to be as it is by default, separated by commas
    #[arg(long, value_name = "FIELDS", value_enum, value_delimiter = ',')]
    pub reset: Vec<Resettable>,
    /// Everything else; a header replaces the one of its name.
    #[command(flatten)]
    pub options: EndpointOptions,
}

/// What of an endpoint has a default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Resettable {
    /// No authentication
    Auth,
    /// As configured
    ConnectTimeout,
    /// None
    Description,
    /// After five days of failures
    DisableAfter,
    /// Any content
    Filter,
    /// `standard`
    Format,
    /// No headers
    Headers,
    /// Any version
    HttpVersion,
    /// 16
    MaxInFlight,
    /// None
    Permanent,
    /// Unlimited
    Rate,
    /// Nobody is asked
    RequestOrigin,
    /// Ten attempts in three days
    Schedule,
    /// `standard`, which needs another secret than the others
    Signature,
    /// 200-299
    Success,
    /// The event itself
    Template,
    /// 15 s
    Timeout,
    /// No certificate of its own, and no extra roots
    Tls,
    /// All event types
    Types,
}

/// Arguments of `fanfare endpoints test`.
#[derive(Debug, Clone, clap::Args)]
pub struct EndpointsTestArgs {
    /// Which one.
    #[command(flatten)]
    pub endpoint: OneEndpointArgs,
    /// The type of the event [default: one that it wants and that a sample is known of]
    #[arg(long = "type", value_name = "TYPE")]
    pub event_type: Option<EventType>,
    /// The data of the event, in JSON: itself, `@file`, or `-` for stdin [default: the sample of its type]
    #[arg(long)]
    pub data: Option<DataSource>,
}

/// Arguments of `fanfare endpoints rotate-secret`.
#[derive(Debug, Clone, clap::Args)]
pub struct RotateSecretArgs {
    /// Which one.
    #[command(flatten)]
    pub endpoint: OneEndpointArgs,
    /// How long the present secret signs beside the new one: at most 30 days; none with `0s`
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "24h")]
    pub overlap: Duration,
    /// The new secret [default: one of the present kind is made]
    #[arg(long, value_name = "SECRET", value_parser = secret)]
    pub secret: Option<Secret>,
}

/// What an endpoint can be asked to be.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct EndpointOptions {
    /// The kind of receiver, which fills in what is not named: `standard`, `cloudevents`, `raw`,
    /// `referralhero`, `github`, `shopify`, `stripe` or `custom`
    #[arg(long)]
    pub profile: Option<Profile>,
    /// The event types it wants, separated by commas: `reward.granted`, `reward.*`, `*` [default: *]
    #[arg(long, value_delimiter = ',')]
    pub types: Option<Vec<EventTypePattern>>,
    /// What it wants of their content: a filter in JSON, `@file`, or `-` for stdin [default: anything]
    #[arg(long)]
    pub filter: Option<DataSource>,
    /// What makes the body of its requests.
    #[command(flatten)]
    pub template: TemplateArgs,
    /// How fast it may be called, such as `50/s` or `20/h` [default: unlimited]
    #[arg(long)]
    pub rate: Option<Rate>,
    /// What it is for
    #[arg(long)]
    pub description: Option<String>,
    /// The waits before each attempt, such as `0,5s,5m`, or waits that grow, such as
    /// `exponential(base=5s,factor=2,cap=1h,attempts=12,window=3d)` [default: ten attempts in three days]
    #[arg(long, value_name = "WAITS")]
    pub schedule: Option<Schedule>,
    /// How long one attempt may take: 1 s to 30 s [default: 15s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// The statuses that mean success, such as `200,202` [default: 200-299]
    #[arg(long, value_name = "STATUSES")]
    pub success: Option<StatusSet>,
    /// The statuses that mean that trying again is useless, such as `400,422` [default: none]
    #[arg(long, value_name = "STATUSES")]
    pub permanent: Option<StatusSet>,
    /// When failures in a row disable it: `never`, `10 failures`, `5d`, or `10 failures or 5d` [default: 5d]
    #[arg(long, value_name = "RULES")]
    pub disable_after: Option<DisableAfter>,
    /// What the body of a request is: `standard`, `cloudevents`, `cloudevents-binary` or `raw`
    #[arg(long)]
    pub format: Option<BodyFormat>,
    /// How requests are signed: `standard`, `github`, `shopify`, `stripe`, `referralhero` or
    /// `custom(header=X-Signature,prefix=sha256=,encoding=hex,timestamp=none)`
    #[arg(long)]
    pub signature: Option<SignatureScheme>,
    /// A header that every request gets; may be given several times
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    pub headers: Vec<HeaderField>,
    /// What proves who calls it, as JSON or `@file`: `{"kind":"bearer","token":"…"}`, `{"kind":"basic",
    /// "username":"…","password":"…"}` or `{"kind":"oauth2","token_url":"…","client_id":"…","client_secret":"…"}`
    #[arg(long, value_name = "JSON", value_parser = auth)]
    pub auth: Option<Auth>,
    /// The certificate to show, in PEM
    #[arg(long, value_name = "FILE", requires = "client_key")]
    pub client_cert: Option<PathBuf>,
    /// The private key of that certificate, in PEM
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    pub client_key: Option<PathBuf>,
    /// Certificates to trust as roots for this endpoint alone, in PEM
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The version of HTTP: `auto`, `1.1` or `2` [default: auto]
    #[arg(long, value_name = "VERSION")]
    pub http_version: Option<HttpVersion>,
    /// As whom a receiver of CloudEvents is asked whether it wants to be called, such as `events.example.com`; it
    /// has to agree [default: it is not asked]
    #[arg(long, value_name = "NAME")]
    pub request_origin: Option<RequestOrigin>,
    /// How long connecting may take [default: as configured]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub connect_timeout: Option<Duration>,
    /// How many requests may be in flight at once [default: 16]
    #[arg(long, value_name = "REQUESTS")]
    pub max_in_flight: Option<u16>,
}

/// Arguments of `fanfare endpoints list`.
#[derive(Debug, Clone, clap::Args)]
pub struct EndpointsListArgs {
    /// Only those of this tenant
    #[arg(long)]
    pub tenant: Option<TenantId>,
    /// Only those in this state: `active`, `paused` or `disabled`
    #[arg(long)]
    pub state: Option<StateName>,
    /// Only those that want events of this type, whatever their content
    #[arg(long = "type", value_name = "TYPE")]
    pub event_type: Option<EventType>,
    /// Only those with this text in their URL
    #[arg(long, value_name = "TEXT")]
    pub url: Option<String>,
    /// Only those that get bodies in this format
    #[arg(long)]
    pub format: Option<BodyFormat>,
    /// Only those after this one: the last of the page before
    #[arg(long, value_name = "ID")]
    pub after: Option<EndpointId>,
    /// How many at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
}

/// Which endpoint is meant.
#[derive(Debug, Clone, clap::Args)]
pub struct OneEndpointArgs {
    /// Whose endpoint it is
    #[arg(long)]
    pub tenant: TenantId,
    /// Its id
    pub id: EndpointId,
}

pub(super) fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text.to_owned()))
}

fn header(text: &str) -> Result<HeaderField, String> {
    let (name, value) = text
        .split_once(':')
        .ok_or("accepted is a name and a value, such as `Authorization: Bearer x`")?;
    HeaderField::new(name.trim(), value).map_err(|fault| fault.to_string())
}

fn auth(text: &str) -> Result<Auth, String> {
    let read = |text: &str| serde_json::from_str(text).map_err(|fault| fault.to_string());
    match text.strip_prefix('@') {
        None => read(text),
        Some(path) => {
            let text =
                fs::read_to_string(path).map_err(|fault| format!("reading `{path}`: {fault}"));
            read(&text?)
        }
    }
}
