//! The program `fanfare`: its arguments, its configuration, and the commands.
//!
//! The binary only calls [`run`]; system tests call the same functions in process.

mod args;
mod clock;
mod commands;
mod config;
mod moment;
mod output;
mod pretty;
mod receiver;
mod run;
mod signals;
mod wiring;

pub use args::{
    Args, AttemptsArgs, AuditArgs, BackfillArgs, BenchArgs, Command, CompletionsArgs, DataSource,
    DeadLettersCommand, DevArgs, EndpointOptions, EndpointsAddArgs, EndpointsCommand,
    EndpointsListArgs, EndpointsTestArgs, EndpointsUpdateArgs, EventTypesCommand, EventsCommand,
    EventsFeedArgs, EventsListArgs, EventsResendArgs, EventsShowArgs, FilterCommand,
    FilterTestArgs, KeysCommand, ListenArgs, LoadEventTypesArgs, LocalUrl, MigrateArgs,
    OneEndpointArgs, OneEventTypeArgs, OneRestingArgs, OperationsCommand, OutboxArgs,
    OutboxCommand, OutboxRelayArgs, OutputFormat, Parameter, PastArgs, PublishArgs, PublishMode,
    PutEventTypeArgs, ReplayArgs, ReplayCommand, Resettable, RestingActArgs, RestingCommand,
    RestingFilterArgs, RestingGroupArgs, RestingListArgs, Role, RotateSecretArgs, SampleEventArgs,
    Scenario, SendingArgs, ServeArgs, Share, States, TemplateArgs, TemplateCommand,
    TemplateRenderArgs, TopologyCommand,
};
pub use config::{Config, ConfigFault, Loaded, Origin, Sources};
pub use moment::Moment;
pub use run::run;
pub use wiring::{Ending, Fanfare, Stop};
