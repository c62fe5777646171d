//! What the tests of this crate have in common.

use std::sync::Arc;

use fanfare_model::{Delivery, Endpoint, Event, Timestamp, TraceContext};

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// An endpoint at this URL, with one secret and nothing else out of the ordinary.
pub(crate) fn endpoint(url: &str) -> Endpoint {
    Endpoint::for_tests(1, "t", url)
}

/// A delivery of the event to that endpoint.
pub(crate) fn delivery(event: Event) -> Delivery {
    let id = endpoint("https://example.com/").id;
    Delivery::new(Arc::new(event), id, 1, TraceContext::default(), at(100))
}
