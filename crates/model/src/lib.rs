//! The nouns of Fanfare and the rules about them.
//!
//! Pure: no I/O, no clock, no async. Whoever needs the time or chance passes it in. Everything here
//! may be used by every other crate; nothing here knows the broker, HTTP, or a database.
//!
//! Reading order: an [`Event`] happens in a tenant; it is owed to each matching [`Endpoint`] as a
//! [`Delivery`]; an attempt has an [`Outcome`]; the outcome leads to a [`Settlement`].

mod auth;
mod clock;
mod database;
mod dead_letter;
mod delivery;
mod disable;
mod egress;
mod endpoint;
mod event;
mod event_view;
mod filter;
mod ids;
mod journal;
mod outcome;
mod partition;
mod pattern;
mod profile;
mod rate;
mod request_origin;
mod schedule;
mod scheme;
mod secret;
mod settlement;
mod signature;
mod state_change;
mod statuses;
mod template;

pub use auth::{
    Auth, AuthForm, ClientAuth, ClientCertificate, ClientCredentials, HttpVersion, InvalidAuth,
    InvalidHttpVersion, TlsIdentity,
};
pub use clock::Clock;
pub use database::{DatabaseLocation, InvalidDatabaseLocation, MigrationStep, PostgresUrl};
pub use dead_letter::DeadLetter;
pub use delivery::{Delivery, Failure, FailureHistory, TraceContext, Wait};
pub use disable::{DisableAfter, InvalidDisableAfter};
pub use egress::{BlockedAddress, BlockedTarget, EgressPolicy, TargetUrl, TargetUrlError};
pub use endpoint::{
    DisabledReason, Endpoint, EndpointState, HeaderField, HeaderFieldError, InvalidStateName,
    RetiringSecret, StateName,
};
pub use event::{AttributeValue, Event, EventTime, EventType, InvalidAttribute};
pub use event_view::EventView;
pub use filter::{Filter, InvalidFilter, Mismatch};
pub use ids::{DeliveryId, EndpointId, InvalidId, TenantId};
pub use journal::{
    ActedDelivery, AttemptRecord, DeliveryAction, DeliveryState, EventKey, HandledDelivery,
    JournalBatch, JournalEntry, JournalWriterId, JournalledAttempts, OwedDelivery, RoutedEvent,
};
pub use outcome::{FailureClass, Outcome};
pub use partition::{Partition, PartitionCount, PartitionKey};
pub use pattern::{EventTypePattern, InvalidPattern};
pub use profile::{BodyFormat, InvalidBodyFormat, InvalidProfile, Preset, Profile};
pub use rate::{InvalidRate, Rate};
pub use request_origin::{InvalidRequestOrigin, RequestOrigin};
pub use schedule::{InvalidSchedule, InvalidScheduleText, Jitter, Schedule};
pub use scheme::{CustomSignature, InvalidScheme, SignatureEncoding, SignatureScheme};
pub use secret::{
    InvalidSigningSecret, PrivateKey, PublicKey, Secret, SharedKey, SigningSecret, TextKey,
};
pub use settlement::{DeadLetterReason, DeferReason, DiscardReason, Settlement};
pub use signature::{SignatureFault, sign_standard, verify_standard};
pub use state_change::{InvalidStateChange, StateChange};
pub use statuses::{InvalidStatusSet, StatusSet};
pub use template::{
    InvalidTemplate, PayloadTemplate, Rendered, TemplateFault, TemplateForm, TemplatePreset,
};

pub use jiff::Timestamp;
