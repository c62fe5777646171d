//! The description of the API (OpenAPI 3.1), made from the routes themselves.

use utoipa::{
    Modify, OpenApi,
    openapi::{
        Components,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

const API_KEY: &str = "api_key";

/// What is said about the API as a whole; the routes add themselves.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Fanfare",
        version = "1",
        description = "Turns events into signed webhooks.\n\nErrors are problem details (RFC 9457) \
                       with a stable `code`. Answers may gain members; ignore those you do not know.",
    ),
    tags(
        (name = "events", description = "Events in."),
        (name = "endpoints", description = "The URLs that events are delivered to."),
        (name = "event types", description = "The optional catalogue of what events mean and look like."),
        (name = "history", description = "What happened to events, as far as it was recorded."),
        (name = "resting messages", description = "Dead letters and whatever else waits for somebody to deal with it."),
        (name = "audit", description = "Who changed what."),
        (name = "process", description = "For operators; asks for no key."),
    ),
    security(("api_key" = [])),
    modifiers(&ApiKey),
)]
pub(crate) struct Document;

struct ApiKey;

impl Modify for ApiKey {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("An API key: `ffk_…`. `fanfare` makes them."))
            .build();
        document
            .components
            .get_or_insert_with(Components::new)
            .add_security_scheme(API_KEY, SecurityScheme::Http(scheme));
    }
}
