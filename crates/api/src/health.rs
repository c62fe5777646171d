//! Says whether the process lives, whether it can do its work, and what it counts.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{FromRef, State},
    http::{StatusCode, header},
    response::IntoResponse,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::run::Shared;

/// What every process tells about itself, whatever its roles.
#[derive(Clone)]
pub(crate) struct Vitals {
    pub(crate) health: Health,
    pub(crate) metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

impl FromRef<Arc<Shared>> for Vitals {
    fn from_ref(shared: &Arc<Shared>) -> Self {
        Self {
            health: shared.api.health.clone(),
            metrics: Arc::clone(&shared.api.metrics),
        }
    }
}

/// What must hold for a process to be ready, by name. Names and verdicts are public.
#[derive(Clone, Default)]
pub struct Health {
    checks: BTreeMap<&'static str, Check>,
}

type Check = Arc<dyn Fn() -> bool + Send + Sync>;

impl Health {
    /// Nothing need hold.
    pub fn new() -> Self {
        Self::default()
    }

    /// Also `check` must hold. It is asked with every request, so it must answer at once.
    #[must_use]
    pub fn with(
        mut self,
        name: &'static str,
        check: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        self.checks.insert(name, Arc::new(check));
        self
    }

    fn readiness(&self) -> Readiness {
        let checks: BTreeMap<_, _> = self
            .checks
            .iter()
            .map(|(name, check)| (*name, check()))
            .collect();
        Readiness {
            ready: checks.values().all(|holds| *holds),
            checks,
        }
    }
}

/// Whether the process can do its work.
#[derive(Serialize, ToSchema)]
#[schema(example = json!({"ready": true, "checks": {"broker": true, "registry": true}}))]
pub(crate) struct Readiness {
    /// Whether every check holds.
    ready: bool,
    /// Whether each holds.
    #[schema(value_type = BTreeMap<String, bool>)]
    checks: BTreeMap<&'static str, bool>,
}

/// Whether the process lives.
///
/// It answers for as long as it does.
#[utoipa::path(get, path = "/healthz", tag = "process", security(()),
    responses((status = OK, description = "The process lives.", body = str, content_type = "text/plain")))]
pub(crate) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether the process can do its work.
#[utoipa::path(get, path = "/readyz", tag = "process", security(()),
    responses(
        (status = OK, description = "It can.", body = Readiness),
        (status = SERVICE_UNAVAILABLE, description = "It cannot: a check does not hold.", body = Readiness),
    ))]
pub(crate) async fn readyz(State(vitals): State<Vitals>) -> impl IntoResponse {
    let readiness = vitals.health.readiness();
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(readiness))
}

/// The numbers of the process, in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", tag = "process", security(()),
    responses((status = OK, description = "The numbers.", body = str, content_type = "text/plain")))]
pub(crate) async fn metrics(State(vitals): State<Vitals>) -> impl IntoResponse {
    let format = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, format)], (vitals.metrics)())
}
