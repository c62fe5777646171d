//! Serves the API until it is told to stop.

use std::{any::Any, sync::Arc};

use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::header,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use fanfare_deadletters::Desk;
use fanfare_egress::Egress;
use fanfare_journal::History;
use fanfare_model::{Clock, EndpointId};
use fanfare_producer::Producer;
use fanfare_registry::{NewEndpoint, Registry, RegistryFault, Snapshots};
use tokio::{
    net::TcpListener,
    time::{self, Instant},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi as _;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    Announcer, ApiFault, Health, Settings, audit,
    auth::{KnownKeys, require_key},
    endpoint_states, endpoints, event_types, events, health, history,
    openapi::Document,
    operations,
    problem::{Code, Problem},
    replays, resting, trials,
};

/// What the API works with.
pub struct Api {
    /// How much it takes at once.
    pub settings: Settings,
    /// Where endpoints and keys are kept.
    pub registry: Registry,
    /// Where it is read back what happened.
    pub history: History,
    /// Where messages that rest are looked at, and dealt with.
    pub desk: Desk,
    /// Where it is asked for to be sent again.
    pub replays: fanfare_replay::Desk,
    /// What this process routes and delivers by; nudged when the registry was changed here.
    pub snapshots: Snapshots,
    /// Tells other processes that the registry was changed here.
    pub announcer: Announcer,
    /// Publishes events. How long it waits for confirms is decided here.
    pub producer: Producer,
    /// Which URLs may be registered, and how they are tried out.
    pub egress: Egress,
    /// Wall time.
    pub clock: Clock,
    /// What must hold for the process to be ready.
    pub health: Health,
    /// The numbers of the process, in Prometheus' text format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

/// What requests share.
pub(crate) struct Shared {
    pub(crate) api: Api,
    /// As patient as a request may be.
    pub(crate) producer: Producer,
    pub(crate) keys: KnownKeys,
    pub(crate) event_types: event_types::KnownEventTypes,
    announcements: TaskTracker,
}

impl Shared {
    fn new(api: Api) -> Arc<Self> {
        let confirm_within = api.settings.confirm_within();
        Arc::new(Self {
            producer: api.producer.clone().confirm_within(confirm_within),
            api,
            keys: KnownKeys::default(),
            event_types: event_types::KnownEventTypes::default(),
            announcements: TaskTracker::new(),
        })
    }

    /// Asks the receiver of an endpoint that is to be so whether it wants to be called, if that is asked for.
    pub(crate) async fn ask_for_permission(
        &self,
        new: NewEndpoint,
        id: EndpointId,
    ) -> Result<(), Problem> {
        if new.request_origin.is_none() {
            return Ok(());
        }
        new.validate().map_err(RegistryFault::from)?;
        let endpoint = new.registered(id, self.api.clock.now());
        let within = self.api.settings.trial_within();
        let asked = fanfare_egress::ask_for_permission(&self.api.egress, &endpoint, within);
        asked.await.map_err(|refused| {
            let code = Code::InvalidRequest;
            Problem::at(refused.field(), code, &refused.to_string())
        })
    }

    /// Lets everyone know of a change that the registry holds now. The caller need not wait for it.
    pub(crate) fn registry_changed(&self) {
        self.api.snapshots.nudge();
        let (registry, announcer) = (self.api.registry.clone(), self.api.announcer.clone());
        self.announcements.spawn(async move {
            match registry.version().await {
                Ok(version) => announcer.registry_changed(version).await,
                Err(fault) => {
                    let error = &fault as &dyn std::error::Error;
                    tracing::warn!(error, "a change of the registry could not be announced");
                }
            }
        });
    }
}

/// Serves `listener` until `shutdown`, then finishes the requests in flight.
///
/// A connection that has not finished its request by the request timeout is left behind.
pub async fn run(
    listener: TcpListener,
    mut api: Api,
    shutdown: CancellationToken,
) -> Result<(), ApiFault> {
    let patience = api.settings.request_timeout;
    let serving = shutdown.clone();
    api.health = api.health.with("serving", move || !serving.is_cancelled());
    let shared = Shared::new(api);

    let server = axum::serve(listener, router(&shared))
        .with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let overdue = async {
        shutdown.cancelled().await;
        time::sleep(patience).await;
    };
    let ending = tokio::select! {
        ending = server.into_future() => ending.map_err(ApiFault::Serving),
        () = overdue => {
            tracing::warn!("connections with unfinished requests are left behind");
            Ok(())
        }
    };
    shared.announcements.close();
    shared.announcements.wait().await;
    ending
}

fn router(shared: &Arc<Shared>) -> Router {
    let check_key = middleware::from_fn_with_state(Arc::clone(shared), require_key);
    let with_key = OpenApiRouter::new()
        .routes(routes!(events::publish, history::events))
        .routes(routes!(history::event))
        .routes(routes!(history::attempts))
        .routes(routes!(history::feed))
        .routes(routes!(replays::replay))
        .routes(routes!(replays::backfill))
        .routes(routes!(replays::resend))
        .routes(routes!(replays::list))
        .routes(routes!(replays::show))
        .routes(routes!(replays::cancel))
        .routes(routes!(endpoints::create, endpoints::list))
        .routes(routes!(
            endpoints::show,
            endpoints::changes::update,
            endpoints::delete
        ))
        .routes(routes!(endpoints::changes::rotate_secret))
        .routes(routes!(endpoints::status::status))
        .routes(routes!(endpoints::trial::test))
        .routes(routes!(endpoint_states::pause))
        .routes(routes!(endpoint_states::resume))
        .routes(routes!(endpoint_states::disable))
        .routes(routes!(endpoint_states::enable))
        .routes(routes!(event_types::list))
        .routes(routes!(
            event_types::show,
            event_types::put,
            event_types::delete
        ))
        .routes(routes!(resting::list))
        .routes(routes!(resting::groups))
        .routes(routes!(resting::show))
        .routes(routes!(resting::act))
        .routes(routes!(operations::list))
        .routes(routes!(operations::show))
        .routes(routes!(operations::messages))
        .routes(routes!(operations::cancel))
        .routes(routes!(audit::list))
        .routes(routes!(trials::test_filter))
        .routes(routes!(trials::render_template))
        .route_layer(check_key);
    let (router, document) = OpenApiRouter::with_openapi(Document::openapi())
        .merge(with_key)
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
        .split_for_parts();
    let document = document
        .to_pretty_json()
        .expect("a document of strings serializes");
    let document = ([(header::CONTENT_TYPE, "application/json")], document);
    let router = router
        .route("/v1/openapi.json", get(async || document))
        .with_state(Arc::clone(shared));
    guarded(router, &shared.api.settings)
}

/// Adds what every request meets, whatever its route.
fn guarded(router: Router, settings: &Settings) -> Router {
    router
        .fallback(async || Problem::new(Code::NoSuchRoute, "`/v1/openapi.json` lists the routes"))
        .method_not_allowed_fallback(async || {
            let detail = "the header `Allow` names the methods that are";
            Problem::new(Code::MethodNotAllowed, detail)
        })
        .layer(DefaultBodyLimit::max(settings.max_body_bytes))
        .layer(middleware::from_fn_with_state(
            settings.request_timeout,
            limit_time,
        ))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(log))
}

async fn limit_time(
    State(limit): State<time::Duration>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    time::timeout(limit, next.run(request)).await.map_err(|_| {
        let detail = format!("it was stopped after {limit:?}, and may have been carried out");
        Problem::new(Code::TimedOut, &detail)
    })
}

/// The panic itself was told by the process' hook; its message may hold anything.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    tracing::error!("a request ended in a panic");
    Problem::internal().into_response()
}

/// One line for each request. Never its body, its headers or its query.
async fn log(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    tracing::info!(
        http.method = %method,
        http.route = route.as_ref().map_or("unmatched", MatchedPath::as_str),
        http.status = response.status().as_u16(),
        elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "answered a request"
    );
    response
}

#[cfg(test)]
mod tests {
    use std::{future, time::Duration};

    use axum::{
        body::{Body, to_bytes},
        http::StatusCode,
    };
    use tower::ServiceExt as _;

    use super::*;

    async fn check(path: &str, status: StatusCode, code: &str) {
        let settings = Settings {
            request_timeout: Duration::from_millis(10),
            ..Settings::default()
        };
        let router = Router::new()
            .route("/panics", get(async || panic_with("hush-hush")))
            .route("/hangs", get(future::pending::<()>));
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = guarded(router, &settings).oneshot(request).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        let body = to_bytes(response.into_body(), 10_000).await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(body.contains(&format!(r#""code":"{code}""#)), "{body}");
        assert!(!body.contains("hush-hush"), "{body}");
    }

    fn panic_with(text: &str) {
        panic!("{text}");
    }

    #[tokio::test]
    async fn a_request_that_panics_or_hangs_is_answered_with_a_problem() {
        check("/panics", StatusCode::INTERNAL_SERVER_ERROR, "internal").await;
        check("/hangs", StatusCode::SERVICE_UNAVAILABLE, "timed_out").await;
    }
}
