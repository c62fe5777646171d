//! The arguments of the commands that send again what the history holds.

use clap::Subcommand;
use fanfare_model::{EndpointId, EventTypePattern, Rate, TenantId};
use fanfare_registry::OperationId;
use fanfare_replay::Outcome;

use crate::Moment;

/// Arguments of `fanfare replay`.
#[derive(Debug, Clone, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct ReplayArgs {
    /// What to do instead of replaying.
    #[command(subcommand)]
    pub command: Option<ReplayCommand>,
    /// Whom it goes to, and what of the past.
    #[command(flatten)]
    pub past: Option<PastArgs>,
    /// `missed`: what the receiver does not have, as far as is known; `failed`: dead letters alone; `all`: also what
    /// it has
    #[arg(long, default_value = "missed")]
    pub outcome: Outcome,
    /// How it is sent.
    #[command(flatten)]
    pub sending: Option<SendingArgs>,
}

/// The commands of `fanfare replay`.
#[derive(Debug, Clone, Subcommand)]
pub enum ReplayCommand {
    /// Send an endpoint the events of the past that it wants and was not owed
    Backfill(BackfillArgs),
    /// List replays, backfills and resends, newest first
    Operations {
        /// Only those that are not over
        #[arg(long)]
        open: bool,
        /// How many at most
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Show how far one of them is
    Show {
        /// Its id
        id: OperationId,
    },
    /// Stop one of them; what it has sent stays sent
    Cancel {
        /// Its id
        id: OperationId,
    },
    /// Go on with one of them
    Resume {
        /// Its id
        id: OperationId,
    },
}

/// Arguments of `fanfare replay backfill`.
#[derive(Debug, Clone, clap::Args)]
pub struct BackfillArgs {
    /// Whom it goes to, and what of the past.
    #[command(flatten)]
    pub past: PastArgs,
    /// How it is sent.
    #[command(flatten)]
    pub sending: SendingArgs,
}

/// A part of the past, for an endpoint.
#[derive(Debug, Clone, clap::Args)]
pub struct PastArgs {
    /// The owner of the endpoint
    #[arg(long)]
    pub tenant: TenantId,
    /// The endpoint
    #[arg(long)]
    pub endpoint: EndpointId,
    /// Only what was routed since then: a time, a day, or how long ago (`3d`)
    #[arg(long, value_name = "MOMENT")]
    pub since: Option<Moment>,
    /// Only what was routed before then
    #[arg(long, value_name = "MOMENT")]
    pub until: Option<Moment>,
    /// Only these types or families of types, separated by commas, such as `reward.*`
    #[arg(long, value_name = "TYPES", value_delimiter = ',')]
    pub types: Vec<EventTypePattern>,
}

/// How something is sent again.
#[derive(Debug, Clone, clap::Args)]
pub struct SendingArgs {
    /// Why, for the audit
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run")]
    pub why: Option<String>,
    /// Say how many deliveries it would be, and send nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask whether it is meant
    #[arg(long)]
    pub yes: bool,
    /// How fast at most, such as `100/s` [default: `dead_letters.replay_pace`]; the endpoint's rate holds besides
    #[arg(long)]
    pub pace: Option<Rate>,
    /// Leave it to a running `fanfare serve` with the role `api`
    #[arg(long)]
    pub no_wait: bool,
}

/// Arguments of `fanfare events resend`.
#[derive(Debug, Clone, clap::Args)]
pub struct EventsResendArgs {
    /// The id of the event
    pub id: String,
    /// The tenant in which it happened
    #[arg(long)]
    pub tenant: TenantId,
    /// Where it happened, when several sources use the id
    #[arg(long)]
    pub source: Option<String>,
    /// Whom it goes to
    #[arg(long)]
    pub endpoint: EndpointId,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT")]
    pub why: String,
    /// Leave it to a running `fanfare serve` with the role `api`
    #[arg(long)]
    pub no_wait: bool,
}
