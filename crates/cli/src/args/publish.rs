//! The arguments of `fanfare publish`.

use std::{num::NonZeroU16, path::PathBuf, str::FromStr};

use clap::ValueEnum;
use fanfare_model::{EventType, TenantId, Timestamp};
use fanfare_producer::Mode;

/// Arguments of `fanfare publish`.
#[derive(Debug, Clone, clap::Args)]
pub struct PublishArgs {
    /// The tenant in which it happened; with `--events`, that of events that name none
    #[arg(long, required_unless_present = "events")]
    pub tenant: Option<TenantId>,
    /// What happened, such as `reward.granted`
    #[arg(long = "type", value_name = "TYPE", required_unless_present = "events")]
    pub event_type: Option<EventType>,
    /// The system in which it happened
    #[arg(long, default_value = "fanfare-cli")]
    pub source: String,
    /// The id of the event; a repeat of tenant, source and id is the same event [default: a new one]
    #[arg(long, conflicts_with = "events")]
    pub id: Option<String>,
    /// What it is about
    #[arg(long, conflicts_with = "events")]
    pub subject: Option<String>,
    /// When it happened, such as `2026-11-23T12:00:00Z`
    #[arg(long, conflicts_with = "events")]
    pub time: Option<Timestamp>,
    /// The media type of the data
    #[arg(long, value_name = "TYPE", default_value = "application/json")]
    pub content_type: String,
    /// Publish many: files with an event as JSON on each line, or with one JSON list of events; `-` for stdin
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub events: Vec<PathBuf>,
    /// Each line of `--events` is the data of an event, and the other arguments say the rest
    #[arg(long, requires_all = ["events", "tenant", "event_type"])]
    pub data_lines: bool,
    /// How many events may be unconfirmed at once
    #[arg(long, value_name = "EVENTS", default_value = "256")]
    pub in_flight: NonZeroU16,
    /// The form in which events are published
    #[arg(long, value_enum, default_value_t)]
    pub mode: PublishMode,
    /// Only say what is wrong with the events, and publish none
    #[arg(long, requires = "events")]
    pub check: bool,
    /// The data of the event: the data itself, `@file`, or `-` for stdin
    #[arg(conflicts_with = "events")]
    pub data: Option<DataSource>,
}

/// The form in which events are published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum PublishMode {
    /// Attributes as headers, the data as body
    Binary,
    /// The event as one JSON document
    Structured,
    /// The event as one protobuf message
    #[default]
    Protobuf,
}

impl From<PublishMode> for Mode {
    fn from(mode: PublishMode) -> Self {
        match mode {
            PublishMode::Binary => Self::Binary,
            PublishMode::Structured => Self::Structured,
            PublishMode::Protobuf => Self::Protobuf,
        }
    }
}

/// Where the data of an event comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataSource {
    /// The argument itself.
    Inline(String),
    /// A file: `@path`.
    File(PathBuf),
    /// Standard input: `-`.
    Stdin,
}

impl FromStr for DataSource {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match (text, text.strip_prefix('@')) {
            ("-", _) => Self::Stdin,
            (_, Some(path)) => Self::File(path.into()),
            (_, None) => Self::Inline(text.to_owned()),
        })
    }
}
