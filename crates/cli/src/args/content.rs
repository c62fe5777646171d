//! Arguments of the commands about the content of events: filters and templates.

use std::str::FromStr;

use clap::Subcommand;
use fanfare_model::{EventType, TenantId};

use super::DataSource;

/// The commands of `fanfare filter`.
#[derive(Debug, Clone, Subcommand)]
pub enum FilterCommand {
    /// Say whether an event matches a filter, and why not; exits with 1 when it does not
    Test(FilterTestArgs),
}

/// Arguments of `fanfare filter test`.
#[derive(Debug, Clone, clap::Args)]
pub struct FilterTestArgs {
    /// The filter: JSON itself, `@file`, or `-` for stdin
    #[arg(long, value_name = "FILTER")]
    pub filter: DataSource,
    /// The event to hold against it.
    #[command(flatten)]
    pub event: SampleEventArgs,
}

/// The commands of `fanfare template`.
#[derive(Debug, Clone, Subcommand)]
pub enum TemplateCommand {
    /// Print what a template makes of an event
    Render(Box<TemplateRenderArgs>),
    /// List the templates that come with Fanfare
    Presets,
}

/// Arguments of `fanfare template render`.
#[derive(Debug, Clone, clap::Args)]
pub struct TemplateRenderArgs {
    /// The template.
    #[command(flatten)]
    pub template: TemplateArgs,
    /// The event to render.
    #[command(flatten)]
    pub event: SampleEventArgs,
}

/// A template, as several commands take it.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TemplateArgs {
    /// A template for the bodies of requests: itself, `@file`, or `-` for stdin
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "preset")]
    pub template: Option<DataSource>,
    /// A template that comes with Fanfare; `fanfare template presets` lists them
    #[arg(long)]
    pub preset: Option<String>,
    /// The media type of what the template renders [default: application/json]
    #[arg(long, value_name = "TYPE", requires = "template")]
    pub media_type: Option<String>,
    /// What the template reads as `parameters.<name>`; may be given several times
    #[arg(long = "parameter", value_name = "NAME=VALUE")]
    pub parameters: Vec<Parameter>,
}

/// `name=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// What stands before the first `=`.
    pub name: String,
    /// What stands behind it.
    pub value: String,
}

impl FromStr for Parameter {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text
            .split_once('=')
            .ok_or("accepted is a name and a value, such as `chat_id=-100123`")?;
        Ok(Self {
            name: name.to_owned(),
            value: value.to_owned(),
        })
    }
}

/// An event to try something with, which is published nowhere.
#[derive(Debug, Clone, clap::Args)]
pub struct SampleEventArgs {
    /// A CloudEvent in structured JSON mode: itself, `@file`, or `-` for stdin
    #[arg(long, conflicts_with_all = ["data", "event_type", "subject"])]
    pub event: Option<DataSource>,
    /// The data of an event, in JSON: itself, `@file`, or `-` for stdin [default: the sample of its type]
    #[arg(long)]
    pub data: Option<DataSource>,
    /// The type of the event
    #[arg(long = "type", value_name = "TYPE", default_value = "new_registration")]
    pub event_type: EventType,
    /// The tenant of the event
    #[arg(
        long = "event-tenant",
        value_name = "TENANT",
        default_value = "example"
    )]
    pub tenant: TenantId,
    /// What the event is about
    #[arg(long)]
    pub subject: Option<String>,
}
