//! Serves health and metrics of a process that has no API.

use std::sync::Arc;

use axum::{Router, routing::get};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    ApiFault, Health,
    health::{self, Vitals},
};

/// Serves `/healthz`, `/readyz` and `/metrics` until `shutdown`.
pub async fn monitor(
    listener: TcpListener,
    health: Health,
    metrics: Arc<dyn Fn() -> String + Send + Sync>,
    shutdown: CancellationToken,
) -> Result<(), ApiFault> {
    let serving = shutdown.clone();
    let health = health.with("serving", move || !serving.is_cancelled());
    let app = Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .with_state(Vitals { health, metrics });
    // Nothing is worth finishing here, so a connection that stays open holds nobody up.
    let ended = shutdown.run_until_cancelled(async { axum::serve(listener, app).await });
    ended.await.unwrap_or(Ok(())).map_err(ApiFault::Serving)
}
