//! The arguments of the commands that read the history.

use std::str::FromStr;

use clap::Subcommand;
use fanfare_journal::{Cursor, FeedCursor, InvalidState, OutcomeFilter, StateFilter};
use fanfare_model::{DeliveryId, EndpointId, EventType, EventTypePattern, TenantId};

use super::replay::EventsResendArgs;
use crate::Moment;

/// The commands of `fanfare events`.
#[derive(Debug, Clone, Subcommand)]
pub enum EventsCommand {
    /// Search events, newest first
    List(EventsListArgs),
    /// Show one event with its deliveries and their attempts
    Show(EventsShowArgs),
    /// Read a tenant's events in the order in which they were recorded, to reconcile
    Feed(EventsFeedArgs),
    /// Send one event to one endpoint again
    Resend(EventsResendArgs),
}

/// Arguments of `fanfare events list`.
#[derive(Debug, Clone, clap::Args)]
pub struct EventsListArgs {
    /// Only those of this tenant
    #[arg(long)]
    pub tenant: Option<TenantId>,
    /// Only what was owed to this endpoint
    #[arg(long)]
    pub endpoint: Option<EndpointId>,
    /// Only deliveries that stand so, separated by commas, such as `dead_lettered,unknown`; `missed` for all that the
    /// receiver does not have
    #[arg(long, value_name = "STATES")]
    pub state: Option<States>,
    /// Only of this type; with --endpoint or --state also a family, `reward.*`
    #[arg(long = "type", value_name = "TYPE")]
    pub event_type: Option<EventTypePattern>,
    /// Only from this source
    #[arg(long, conflicts_with_all = ["endpoint", "state"])]
    pub source: Option<String>,
    /// Only with this id
    #[arg(long, conflicts_with_all = ["endpoint", "state"])]
    pub id: Option<String>,
    /// Only what was routed since then: a time, a day, or how long ago (`3d`)
    #[arg(long, value_name = "MOMENT")]
    pub since: Option<Moment>,
    /// Only what was routed before then
    #[arg(long, value_name = "MOMENT")]
    pub until: Option<Moment>,
    /// Go on from an earlier page
    #[arg(long, value_name = "CURSOR")]
    pub after: Option<Cursor>,
    /// How many at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
}

/// Arguments of `fanfare events show`.
#[derive(Debug, Clone, clap::Args)]
pub struct EventsShowArgs {
    /// The tenant in which it happened
    #[arg(long)]
    pub tenant: TenantId,
    /// Where it happened, when several sources use the id
    #[arg(long)]
    pub source: Option<String>,
    /// Its id
    pub id: String,
}

/// Arguments of `fanfare events feed`.
#[derive(Debug, Clone, clap::Args)]
pub struct EventsFeedArgs {
    /// Whose events
    #[arg(long)]
    pub tenant: TenantId,
    /// Only those owed to this endpoint
    #[arg(long)]
    pub endpoint: Option<EndpointId>,
    /// Only those with a delivery that stands so, separated by commas; `missed` for all that the receiver does not have
    #[arg(long, value_name = "STATES")]
    pub state: Option<States>,
    /// Go on from where an earlier reading ended
    #[arg(long, value_name = "CURSOR")]
    pub after: Option<FeedCursor>,
    /// How many at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
}

/// How deliveries stand, to be looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct States(pub Vec<StateFilter>);

impl FromStr for States {
    type Err = InvalidState;

    fn from_str(text: &str) -> Result<Self, InvalidState> {
        StateFilter::parse_list(text).map(Self)
    }
}

/// Arguments of `fanfare attempts`.
#[derive(Debug, Clone, clap::Args)]
pub struct AttemptsArgs {
    /// Only those of this tenant
    #[arg(long)]
    pub tenant: Option<TenantId>,
    /// Only those at this endpoint
    #[arg(long)]
    pub endpoint: Option<EndpointId>,
    /// Only of events of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub event_type: Option<EventType>,
    /// Only those that `succeeded`, `failed`, or failed so: `timeout`, `status_5xx`
    #[arg(long)]
    pub outcome: Option<OutcomeFilter>,
    /// Only of this delivery: the `webhook-id` that the receiver saw
    #[arg(long, value_name = "ID")]
    pub delivery: Option<DeliveryId>,
    /// Only of events with this id
    #[arg(long, value_name = "ID")]
    pub event: Option<String>,
    /// Only what started since then: a time, a day, or how long ago (`3d`)
    #[arg(long, value_name = "MOMENT")]
    pub since: Option<Moment>,
    /// Only what started before then
    #[arg(long, value_name = "MOMENT")]
    pub until: Option<Moment>,
    /// Go on from an earlier page
    #[arg(long, value_name = "CURSOR")]
    pub after: Option<Cursor>,
    /// How many at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
}
