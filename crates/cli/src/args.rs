//! The command line: every command and its arguments, parsed into typed values.

use std::{path::PathBuf, time::Duration};

use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use fanfare_model::{DatabaseLocation, TenantId};
use jiff::fmt::friendly::SpanParser;

use crate::{Moment, commands::bench::EVENTS};

mod content;
mod endpoints;
mod event_types;
mod history;
mod listen;
mod outbox;
mod publish;
#[cfg(test)]
mod refusals;
mod replay;
mod resting;

pub use self::{
    content::{
        FilterCommand, FilterTestArgs, Parameter, SampleEventArgs, TemplateArgs, TemplateCommand,
        TemplateRenderArgs,
    },
    endpoints::{
        EndpointOptions, EndpointsAddArgs, EndpointsCommand, EndpointsListArgs, EndpointsTestArgs,
        EndpointsUpdateArgs, OneEndpointArgs, Resettable, RotateSecretArgs,
    },
    event_types::{EventTypesCommand, LoadEventTypesArgs, OneEventTypeArgs, PutEventTypeArgs},
    history::{
        AttemptsArgs, EventsCommand, EventsFeedArgs, EventsListArgs, EventsShowArgs, States,
    },
    listen::{ListenArgs, LocalUrl, Share},
    outbox::{OutboxArgs, OutboxCommand, OutboxRelayArgs},
    publish::{DataSource, PublishArgs, PublishMode},
    replay::{BackfillArgs, EventsResendArgs, PastArgs, ReplayArgs, ReplayCommand, SendingArgs},
    resting::{
        DeadLettersCommand, OneRestingArgs, OperationsCommand, RestingActArgs, RestingCommand,
        RestingFilterArgs, RestingGroupArgs, RestingListArgs,
    },
};

/// Turns events published to RabbitMQ into signed webhooks.
#[derive(Debug, Clone, Parser)]
#[command(name = "fanfare", version)]
pub struct Args {
    /// The configuration file [default: ./fanfare.toml, if it exists]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How results are printed
    #[arg(long, global = true, value_enum, default_value_t)]
    pub output: OutputFormat,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// A table, for people
    #[default]
    Table,
    /// JSON, for scripts
    Json,
}

/// The commands.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Run everything on this machine, with a sample receiver
    Dev(DevArgs),
    /// Run one or more roles
    Serve(ServeArgs),
    /// Publish one event, or many from files
    Publish(PublishArgs),
    /// Publish what services keep in an outbox table of PostgreSQL
    #[command(subcommand)]
    Outbox(OutboxCommand),
    /// Manage the endpoints of a tenant
    #[command(subcommand)]
    Endpoints(EndpointsCommand),
    /// Try filters on the content of events
    #[command(subcommand)]
    Filter(FilterCommand),
    /// Try payload templates, and list those that come with Fanfare
    #[command(subcommand)]
    Template(TemplateCommand),
    /// Manage the catalogue of event types
    #[command(subcommand)]
    EventTypes(EventTypesCommand),
    /// Make keys for the HTTP API
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Receive webhooks on this machine, verify them, and print them
    Listen(ListenArgs),
    /// Look at the deliveries that were given up on, replay and discard them
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// Look at what happened: search, show one event, read a tenant's feed
    #[command(subcommand)]
    Events(EventsCommand),
    /// Send an endpoint again what it missed, or what a new one is to have from the past
    Replay(ReplayArgs),
    /// Search requests to receivers, newest first
    Attempts(AttemptsArgs),
    /// Show who changed what
    Audit(AuditArgs),
    /// Bring the databases up to the schema of this release
    Migrate(MigrateArgs),
    /// Show who owns which partition, what is in hand, and what waits
    Dispatchers,
    /// Look at what was published and is no acceptable event, publish it again or discard it
    #[command(subcommand)]
    Rejected(RestingCommand),
    /// Look at what found a hole in the topology, publish it again or discard it
    #[command(subcommand)]
    Unroutable(RestingCommand),
    /// Look at what ended processes, publish it again or discard it
    #[command(subcommand)]
    Crashed(RestingCommand),
    /// Print everything that Fanfare declares in RabbitMQ
    #[command(args_conflicts_with_subcommands = true)]
    Topology {
        /// What to do instead of printing.
        #[command(subcommand)]
        command: Option<TopologyCommand>,
        /// Print the page `docs/topology.md`, which shows the default settings
        #[arg(long)]
        markdown: bool,
    },
    /// Print the effective settings, and where each comes from
    Config,
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Measure this installation
    #[command(hide = true)]
    Bench(BenchArgs),
    /// Receive what `bench` sends
    #[command(hide = true)]
    BenchSink,
}

/// Arguments of `fanfare dev`.
#[derive(Debug, Clone, clap::Args)]
pub struct DevArgs {
    /// End after the first event was published, delivered and verified
    #[arg(long)]
    pub exit: bool,
    /// Where data is kept [default: a temporary directory]
    #[arg(long, value_name = "DIRECTORY")]
    pub data_dir: Option<PathBuf>,
    /// Keep what was made when the command ends
    #[arg(long)]
    pub keep: bool,
}

/// Arguments of `fanfare serve`.
#[derive(Debug, Clone, clap::Args)]
pub struct ServeArgs {
    /// The roles of this process, separated by commas
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        num_args = 1..,
        default_values_t = [Role::Api, Role::Router, Role::Dispatcher, Role::Recorder],
    )]
    pub roles: Vec<Role>,
}

/// A part of the work that scales alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Accepts events and manages endpoints over HTTP
    Api,
    /// Finds out which endpoints an event is owed to
    Router,
    /// Calls the endpoints
    Dispatcher,
    /// Writes what happened to the history
    Recorder,
}

impl Role {
    /// The name as the command line has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Router => "router",
            Self::Dispatcher => "dispatcher",
            Self::Recorder => "recorder",
        }
    }
}

/// The commands of `fanfare keys`.
#[derive(Debug, Clone, Subcommand)]
pub enum KeysCommand {
    /// Make a key and print it, this once
    Create {
        /// What the key is for
        name: String,
    },
}

/// Arguments of `fanfare audit`.
#[derive(Debug, Clone, clap::Args)]
pub struct AuditArgs {
    /// Only what concerns this tenant
    #[arg(long)]
    pub tenant: Option<TenantId>,
    /// Only what this caller did, such as `cli` or the id of an API key
    #[arg(long)]
    pub actor: Option<String>,
    /// Only this action, such as `endpoint.create`, or all that begin so: `endpoint`
    #[arg(long)]
    pub action: Option<String>,
    /// Only what was done to this id
    #[arg(long, value_name = "ID")]
    pub subject: Option<String>,
    /// Only what was done since then: a time, a day, or how long ago (`3d`)
    #[arg(long, value_name = "MOMENT")]
    pub since: Option<Moment>,
    /// Only what was done before then
    #[arg(long, value_name = "MOMENT")]
    pub until: Option<Moment>,
    /// Only what came before the entry with this number
    #[arg(long, value_name = "NUMBER")]
    pub before: Option<i64>,
    /// How many at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
}

/// Arguments of `fanfare migrate`.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct MigrateArgs {
    /// Show what is pending, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// The commands of `fanfare topology`.
#[derive(Debug, Clone, Subcommand)]
pub enum TopologyCommand {
    /// Compare it with what exists in the broker
    Check,
}

/// Arguments of `fanfare completions`.
#[derive(Debug, Clone, clap::Args)]
pub struct CompletionsArgs {
    /// The shell to complete in
    pub shell: Shell,
}

/// Arguments of `fanfare bench`.
#[derive(Debug, Clone, clap::Args)]
pub struct BenchArgs {
    /// The RabbitMQ to measure on [default: `broker.url`]
    #[arg(long, value_name = "URL")]
    pub amqp: Option<String>,
    /// The process of that RabbitMQ, to measure its processor time too
    #[arg(long, value_name = "PID")]
    pub broker_pid: Option<u32>,
    /// An empty PostgreSQL database, to measure the history in it beside SQLite
    #[arg(long, value_name = "URL")]
    pub postgres: Option<DatabaseLocation>,
    /// What to measure, separated by commas
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        num_args = 1..,
        default_values_t = Scenario::value_variants().iter().copied(),
    )]
    pub scenarios: Vec<Scenario>,
    /// How many events a run has; the sizes of the larger scenarios grow and shrink with it
    #[arg(long, default_value_t = EVENTS, value_parser = clap::value_parser!(u64).range(10..=10_000_000))]
    pub events: u64,
    /// How often everything is measured
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: u32,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// One endpoint, ten for each event, and a thousand in turn, beside the skeleton
    Throughput,
    /// From publish to arrival, at 100 and at 1,000 events per second
    Latency,
    /// A hundred thousand deliveries that a dispatcher finds when it starts
    Backlog,
    /// Twenty thousand deliveries whose first attempt fails
    RetryStorm,
    /// Five thousand deliveries at once to an endpoint that takes 250 per second
    Flood,
    /// Processor time and memory of each process, with 10 to 100,000 endpoints
    Processes,
    /// What each way to keep a journal costs a delivery
    Journal,
    /// How fast a million attempts are recorded, and how long searches among them take
    History,
}

fn duration(text: &str) -> Result<Duration, jiff::Error> {
    SpanParser::new().parse_unsigned_duration(text)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn verify_cli() {
        Args::command().debug_assert();
    }

    fn parsed(line: &str) -> Command {
        Args::try_parse_from(line.split(' ')).unwrap().command
    }

    #[test]
    fn roles_are_all_unless_named() {
        for (line, expected) in [
            (
                "fanfare serve",
                vec![Role::Api, Role::Router, Role::Dispatcher, Role::Recorder],
            ),
            ("fanfare serve --roles router", vec![Role::Router]),
            (
                "fanfare serve --roles dispatcher,api",
                vec![Role::Dispatcher, Role::Api],
            ),
        ] {
            let Command::Serve(ServeArgs { roles }) = parsed(line) else {
                panic!("{line}");
            };
            assert_eq!(roles, expected, "{line}");
        }
    }

    #[test]
    fn a_replay_says_what_or_names_a_command() {
        let line = "fanfare replay --tenant t --endpoint ep_00000000000000000000000000000001 \
                    --since 3d --types a,b.* --outcome all --dry-run";
        let Command::Replay(ReplayArgs {
            command: None,
            past: Some(past),
            outcome,
            sending: Some(sending),
        }) = parsed(line)
        else {
            panic!("{line}");
        };
        assert_eq!((past.types.len(), sending.dry_run), (2, true));
        assert_eq!(outcome, fanfare_replay::Outcome::All);
        let Command::Replay(ReplayArgs {
            command: Some(ReplayCommand::Operations { open, limit }),
            past: None,
            ..
        }) = parsed("fanfare replay operations --open")
        else {
            panic!("operations");
        };
        assert_eq!((open, limit), (true, 50));
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        let Command::Listen(listen) = parsed("fanfare listen --delay 1m30s --status 500") else {
            panic!("listen");
        };
        assert_eq!(listen.delay, Duration::from_secs(90));
        assert_eq!(listen.status, 500);
    }

    #[test]
    fn nonsense_is_refused() {
        for line in [
            "fanfare",
            "fanfare serve --roles cook",
            "fanfare listen --delay soon",
            "fanfare listen --delay -2s",
            "fanfare listen --status 99",
            "fanfare listen --signature smoke",
            "fanfare listen --fail-rate 101%",
            "fanfare listen --forward http://example.com/",
            "fanfare listen --forward 3000 --status 201",
            "fanfare listen --replay requests.jsonl",
            "fanfare publish --tenant a.b --type x",
            "fanfare publish --type x",
            "fanfare publish --tenant t",
            "fanfare publish --events a --id 1",
            "fanfare publish --events a --in-flight 0",
            "fanfare publish --events a --data-lines",
            "fanfare publish --tenant t --type x --check",
            "fanfare outbox relay",
            "fanfare outbox relay --database mysql://host/database",
            "fanfare outbox status --database postgresql://h/d --database-file f",
            "fanfare endpoints add --tenant t --url ftp://example.com",
            "fanfare publish --tenant t --type x --time yesterday",
            "fanfare endpoints add --tenant t --url https://example.com --rate fast",
            "fanfare endpoints add --tenant t --url https://example.com --schedule 5ms",
            "fanfare endpoints add --tenant t --url https://example.com --schedule 0,,5s",
            "fanfare endpoints add --tenant t --url https://example.com --schedule exponential(base=5s)",
            "fanfare endpoints add --tenant t --url https://example.com --disable-after soon",
            "fanfare endpoints pause ep_00000000000000000000000000000001",
            "fanfare endpoints add --tenant t --url https://example.com --header x",
            "fanfare endpoints add --tenant t --url https://example.com --header Host:x",
            "fanfare endpoints add --tenant t --url https://example.com --success 20x",
            "fanfare endpoints add --tenant t --url https://example.com --profile gitlab",
            "fanfare endpoints add --tenant t --url https://example.com --format xml",
            "fanfare endpoints add --tenant t --url https://example.com --signature custom()",
            "fanfare endpoints add --tenant t --url https://example.com --auth {}",
            "fanfare endpoints add --tenant t --url https://example.com --client-cert a.pem",
            "fanfare endpoints add --tenant t --url https://example.com --http-version 3",
            "fanfare endpoints list --limit 0",
            "fanfare dead-letters list --limit 1001",
            "fanfare audit --since tuesday",
            "fanfare dead-letters group --by colour",
            "fanfare dead-letters replay --all",
            "fanfare dead-letters replay --all --why x --pace fast",
            "fanfare dead-letters discard --all --why x --older-than 2d --before 2026-11-23T12:00:00Z",
            "fanfare dead-letters operations cancel dlv_1",
            "fanfare rejected replay --all --why x",
            "fanfare replay --why x",
            "fanfare replay --tenant t --endpoint ep_00000000000000000000000000000001",
            "fanfare replay --tenant t --endpoint ep_00000000000000000000000000000001 --outcome lost --dry-run",
            "fanfare replay operations --tenant t",
            "fanfare events resend 1 --tenant t --why x",
            "fanfare topology --markdown check",
        ] {
            assert!(Args::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
    }

    #[test]
    fn an_endpoint_is_described_as_people_write_it() {
        let line = "fanfare endpoints add --tenant t --url https://example.com --types a,b.* \
                    --schedule 0,5s,2h30m --timeout 5s --success 200,202 --permanent 400-499 \
                    --header Authorization:secret --header x-team:a:b --max-in-flight 3";
        let Command::Endpoints(EndpointsCommand::Add(add)) = parsed(line) else {
            panic!("endpoints add");
        };
        let add = add.options;
        assert_eq!(add.types.unwrap().len(), 2);
        assert_eq!(add.schedule.unwrap().to_string(), "0s,5s,2h30m");
        assert_eq!(add.timeout, Some(Duration::from_secs(5)));
        assert_eq!(add.success.unwrap().to_string(), "200,202");
        assert_eq!(add.permanent.unwrap().to_string(), "400-499");
        assert_eq!(add.max_in_flight, Some(3));
        let headers = add.headers.iter().map(|h| (h.name(), h.value()));
        let expected = [("authorization", "secret"), ("x-team", "a:b")];
        assert_eq!(headers.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn data_is_inline_or_a_file_or_stdin() {
        for (text, expected) in [
            ("-", DataSource::Stdin),
            ("@a/b.json", DataSource::File("a/b.json".into())),
            (r#"{"a":1}"#, DataSource::Inline(r#"{"a":1}"#.to_owned())),
        ] {
            assert_eq!(text.parse(), Ok(expected));
        }
    }
}
