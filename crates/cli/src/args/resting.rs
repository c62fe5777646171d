//! The arguments of the commands about messages that rest until somebody deals with them.

use std::time::Duration;

use clap::Subcommand;
use fanfare_deadletters::{Filter, GroupBy};
use fanfare_model::{EndpointId, EventTypePattern, Rate, TenantId, Timestamp};
use fanfare_registry::OperationId;

use super::duration;

/// The commands of `fanfare dead-letters`.
#[derive(Debug, Clone, Subcommand)]
pub enum DeadLettersCommand {
    /// List dead letters, those that rest longest first
    List(RestingListArgs),
    /// Count dead letters by what they have in common
    Group(RestingGroupArgs),
    /// Show one dead letter, with the event's data
    Show(OneRestingArgs),
    /// Try dead letters again, with fresh attempts and under the same webhook-id
    Replay(RestingActArgs),
    /// Take dead letters out for good; what they were is remembered for 90 days
    Discard(RestingActArgs),
    /// See what was asked for, and stop it or go on with it
    #[command(subcommand)]
    Operations(OperationsCommand),
    /// Set the index of dead letters in the history right by what their queue holds
    Reindex,
}

/// The commands of `fanfare rejected`, `fanfare unroutable` and `fanfare crashed`.
#[derive(Debug, Clone, Subcommand)]
pub enum RestingCommand {
    /// List the messages, those that rest longest first
    List(RestingListArgs),
    /// Count the messages by what they have in common
    Group(RestingGroupArgs),
    /// Show one message, with its payload
    Show(OneRestingArgs),
    /// Publish messages again, as they were
    Publish(RestingActArgs),
    /// Take messages out for good; what they were is remembered for 90 days
    Discard(RestingActArgs),
}

/// The commands of `fanfare dead-letters operations`.
#[derive(Debug, Clone, Subcommand)]
pub enum OperationsCommand {
    /// List operations on dead letters and on other messages, newest first
    List {
        /// Only those that are not over
        #[arg(long)]
        open: bool,
        /// How many at most
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Show one operation
    Show {
        /// Its id
        id: OperationId,
        /// Print the messages that it has dealt with instead
        #[arg(long)]
        messages: bool,
    },
    /// Stop one operation; what it has dealt with stays so
    Cancel {
        /// Its id
        id: OperationId,
    },
    /// Go on with everything that is not over
    Resume,
}

/// Which messages are meant: those that fulfil all that is given.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct RestingFilterArgs {
    /// Those of this tenant
    #[arg(long)]
    pub tenant: Option<TenantId>,
    /// Those for this endpoint
    #[arg(long)]
    pub endpoint: Option<EndpointId>,
    /// Those of this type or family of types, such as `reward.*`
    #[arg(long = "type", value_name = "TYPE")]
    pub event_type: Option<EventTypePattern>,
    /// Those that rest for this reason
    #[arg(long)]
    pub reason: Option<String>,
    /// Those whose last answer had this status
    #[arg(long)]
    pub status: Option<u16>,
    /// Those that rest for longer than this, such as `2d`
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "before")]
    pub older_than: Option<Duration>,
    /// Those that rest for less than this, such as `1h`
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "after")]
    pub younger_than: Option<Duration>,
    /// Those that rest since before this moment
    #[arg(long, value_name = "TIME")]
    pub before: Option<Timestamp>,
    /// Those that rest since this moment or later
    #[arg(long, value_name = "TIME")]
    pub after: Option<Timestamp>,
}

impl RestingFilterArgs {
    /// The filter, as of now.
    pub(crate) fn filter(&self, ids: &[String], now: Timestamp) -> Filter {
        let ago = |age: Duration| now.checked_sub(age).unwrap_or(Timestamp::MIN);
        Filter {
            ids: ids.to_vec(),
            tenant: self.tenant.clone(),
            endpoint: self.endpoint,
            event_type: self.event_type.clone(),
            reason: self.reason.clone(),
            status: self.status,
            before: self.before.or(self.older_than.map(ago)),
            after: self.after.or(self.younger_than.map(ago)),
            ..Filter::default()
        }
    }
}

/// Arguments of the `list` commands.
#[derive(Debug, Clone, clap::Args)]
pub struct RestingListArgs {
    /// Which of them.
    #[command(flatten)]
    pub filter: RestingFilterArgs,
    /// How many at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
    /// Look into the queue itself rather than into the index of dead letters
    #[arg(long)]
    pub from_queue: bool,
}

/// Arguments of the `group` commands.
#[derive(Debug, Clone, clap::Args)]
pub struct RestingGroupArgs {
    /// Which of them.
    #[command(flatten)]
    pub filter: RestingFilterArgs,
    /// By what, separated by commas: endpoint, tenant, type, reason, age
    #[arg(long, value_delimiter = ',', default_value = "tenant,endpoint,reason")]
    pub by: Vec<GroupBy>,
    /// How many groups at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
    /// Look into the queue itself rather than into the index of dead letters
    #[arg(long)]
    pub from_queue: bool,
}

/// Which message is meant.
#[derive(Debug, Clone, clap::Args)]
pub struct OneRestingArgs {
    /// Its id, as `list` shows it
    pub id: String,
    /// Look into the queue itself rather than into the index of dead letters
    #[arg(long)]
    pub from_queue: bool,
}

/// Arguments of the commands that deal with messages.
#[derive(Debug, Clone, clap::Args)]
pub struct RestingActArgs {
    /// Those with these ids, as `list` shows them
    pub ids: Vec<String>,
    /// Which of them.
    #[command(flatten)]
    pub filter: RestingFilterArgs,
    /// All of them
    #[arg(long)]
    pub all: bool,
    /// Why, for the audit
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run")]
    pub why: Option<String>,
    /// Say how many there are, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask whether it is meant
    #[arg(long)]
    pub yes: bool,
    /// How fast, such as `100/s` [default: `dead_letters.replay_pace`]
    #[arg(long)]
    pub pace: Option<Rate>,
    /// Leave it to a running `fanfare serve` with the role `api`
    #[arg(long)]
    pub no_wait: bool,
}
