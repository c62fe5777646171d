//! One attempt: one signed request, and what the receiver did with it.

use std::{error::Error as _, time::Duration};

use fanfare_model::{Delivery, Endpoint, Outcome, Timestamp};

use crate::{
    egress::Egress,
    request::{self, BuildFault},
};

/// Sends `delivery` to `endpoint` once, signed as of `now`, and waits at most `timeout` for the answer.
///
/// A delivery that no request can be built from is an outcome too: it fails the same way every time.
pub async fn attempt(
    egress: &Egress,
    endpoint: &Endpoint,
    delivery: &Delivery,
    now: Timestamp,
    timeout: Duration,
) -> Outcome {
    match request::build(endpoint, delivery, now) {
        Ok(request) => egress.post(endpoint, request, now, timeout).await,
        Err(fault) => unbuildable(&fault),
    }
}

/// The outcome of a delivery that no request can be built from.
pub(crate) fn unbuildable(fault: &BuildFault) -> Outcome {
    Outcome::Unbuildable {
        detail: match fault.source() {
            Some(cause) => format!("{fault}: {cause}"),
            None => fault.to_string(),
        },
    }
}
