//! What a caller is told when a request is not carried out: problem details (RFC 9457).
//!
//! The texts are for callers: nothing internal is in them. `error.rs` says which fault becomes which.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use fanfare_wire::{EventRejection, RejectionCode};
use serde::Serialize;
use utoipa::ToSchema;

use crate::events::Accepted;

/// The media type of problem details.
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
/// How much of what may quote the caller's own text is sent back.
const LONGEST_DETAIL: usize = 500;
const LONGEST_FIELD: usize = 64;

/// What went wrong, in the sense of what the caller will do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// The body is no event that Fanfare accepts.
    Event(RejectionCode),
    MalformedJson,
    InvalidRequest,
    IdempotencyKeyMismatch,
    /// Some events of a batch were not stored, and publishing them again will not help.
    BatchRejected,
    /// Some events of a batch were not stored, and should be published again.
    BatchUnfinished,
    Unauthorized,
    NoSuchRoute,
    NoSuchEndpoint,
    NoSuchEventType,
    UnknownEventType,
    SchemaMismatch,
    NoSuchEvent,
    NoSuchMessage,
    NoSuchOperation,
    EndpointDisabled,
    MethodNotAllowed,
    TooLarge,
    UnsupportedMediaType,
    Overloaded,
    Unconfirmed,
    BrokerUnavailable,
    QueueUnavailable,
    StoreUnavailable,
    HistoryUnavailable,
    TimedOut,
    Internal,
}

impl Code {
    /// The stable name.
    fn name(self) -> &'static str {
        match self {
            Self::Event(code) => code.name(),
            Self::MalformedJson => "malformed_json",
            Self::InvalidRequest => "invalid_request",
            Self::IdempotencyKeyMismatch => "idempotency_key_mismatch",
            Self::BatchRejected => "batch_rejected",
            Self::BatchUnfinished => "batch_unfinished",
            Self::Unauthorized => "unauthorized",
            Self::NoSuchRoute => "no_such_route",
            Self::NoSuchEndpoint => "no_such_endpoint",
            Self::NoSuchEventType => "no_such_event_type",
            Self::UnknownEventType => "unknown_event_type",
            Self::SchemaMismatch => "schema_mismatch",
            Self::NoSuchEvent => "no_such_event",
            Self::NoSuchMessage => "no_such_message",
            Self::NoSuchOperation => "no_such_operation",
            Self::EndpointDisabled => "endpoint_disabled",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::TooLarge => "too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Overloaded => "overloaded",
            Self::Unconfirmed => "unconfirmed",
            Self::BrokerUnavailable => "broker_unavailable",
            Self::QueueUnavailable => "queue_unavailable",
            Self::StoreUnavailable => "store_unavailable",
            Self::HistoryUnavailable => "history_unavailable",
            Self::TimedOut => "timed_out",
            Self::Internal => "internal",
        }
    }

    /// What all problems of this kind have in common.
    fn title(self) -> &'static str {
        match self {
            Self::Event(_) => "the event is not accepted",
            Self::MalformedJson => "the body is not JSON",
            Self::InvalidRequest => "the request is not accepted",
            Self::IdempotencyKeyMismatch => "the idempotency key is not the event's id",
            Self::BatchRejected => "some events of the batch are not accepted",
            Self::BatchUnfinished => "some events of the batch were not stored",
            Self::Unauthorized => "a valid API key is needed",
            Self::NoSuchRoute => "there is nothing at this path",
            Self::NoSuchEndpoint => "there is no such endpoint",
            Self::NoSuchEventType => "there is no such event type",
            Self::UnknownEventType | Self::SchemaMismatch => {
                "the catalogue of event types does not accept the event"
            }
            Self::NoSuchEvent => "there is no such event",
            Self::NoSuchMessage => "there is no such message",
            Self::NoSuchOperation => "there is no such operation",
            Self::EndpointDisabled => "the endpoint is disabled",
            Self::MethodNotAllowed => "the method is not allowed at this path",
            Self::TooLarge => "the body is too large",
            Self::UnsupportedMediaType => "the media type of the body is not accepted",
            Self::Overloaded => "there is no room for more events now",
            Self::Unconfirmed => "it is not known whether the event was stored",
            Self::BrokerUnavailable => "events cannot be stored now",
            Self::QueueUnavailable => "the queue cannot be looked into now",
            Self::StoreUnavailable => "the store of endpoints and keys cannot be asked now",
            Self::HistoryUnavailable => "the history cannot be asked now",
            Self::TimedOut => "the request took too long",
            Self::Internal => "something went wrong inside Fanfare",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::Event(RejectionCode::TooLarge) | Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Event(_)
            | Self::MalformedJson
            | Self::InvalidRequest
            | Self::IdempotencyKeyMismatch
            | Self::BatchRejected
            | Self::UnknownEventType
            | Self::SchemaMismatch => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::NoSuchRoute
            | Self::NoSuchEndpoint
            | Self::NoSuchEventType
            | Self::NoSuchEvent
            | Self::NoSuchMessage
            | Self::NoSuchOperation => StatusCode::NOT_FOUND,
            Self::EndpointDisabled => StatusCode::CONFLICT,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            Self::Unconfirmed
            | Self::BatchUnfinished
            | Self::BrokerUnavailable
            | Self::QueueUnavailable
            | Self::StoreUnavailable
            | Self::HistoryUnavailable
            | Self::TimedOut => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// One answer to a request that is not carried out.
#[derive(Debug)]
pub(crate) struct Problem {
    code: Code,
    detail: String,
    errors: Vec<FieldError>,
    event_id: Option<String>,
    events: Vec<BatchItem>,
}

impl Problem {
    /// A problem with the request as a whole.
    pub(crate) fn new(code: Code, detail: &str) -> Self {
        Self {
            code,
            detail: detail.chars().take(LONGEST_DETAIL).collect(),
            errors: Vec::new(),
            event_id: None,
            events: Vec::new(),
        }
    }

    /// A problem with one member, parameter or header of the request.
    pub(crate) fn at(field: &str, code: Code, detail: &str) -> Self {
        let mut problem = Self::new(code, detail);
        problem.errors.push(FieldError {
            field: field.chars().take(LONGEST_FIELD).collect(),
            detail: problem.detail.clone(),
        });
        problem
    }

    /// A fault of ours, which was logged where it was met.
    pub(crate) fn internal() -> Self {
        let detail = "the request was not completed: the log of the server says why";
        Self::new(Code::Internal, detail)
    }

    /// A batch of which not every event was stored, with what became of each.
    pub(crate) fn of_batch(events: Vec<BatchItem>) -> Self {
        let missing = events.iter().filter(|item| item.event.is_none());
        let (missing, all) = (missing.count(), events.len());
        let again = |item: &BatchItem| item.status == 429 || item.status >= 500;
        let (code, advice) = if events.iter().any(again) {
            let advice = "publish those with status 429 or 5xx again, with the same ids";
            (Code::BatchUnfinished, advice)
        } else {
            let advice = "mend them and publish them again; the others are not needed again";
            (Code::BatchRejected, advice)
        };
        let detail = format!("{missing} of {all} events were not stored: {advice}");
        Self {
            events,
            ..Self::new(code, &detail)
        }
    }

    /// Names the event, so that a caller whose event got a generated id can repeat it.
    #[must_use]
    pub(crate) fn for_event(mut self, id: String) -> Self {
        self.event_id = Some(id);
        self
    }
}

impl From<EventRejection> for Problem {
    fn from(rejection: EventRejection) -> Self {
        let code = Code::Event(rejection.code);
        match rejection.field {
            Some(field) => Self::at(&field, code, &rejection.detail),
            None => Self::new(code, &rejection.detail),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.code.status();
        let body = ProblemBody {
            problem_type: format!("urn:fanfare:problem:{}", self.code.name()),
            title: self.code.title(),
            status: status.as_u16(),
            code: self.code.name(),
            detail: self.detail,
            errors: self.errors,
            event_id: self.event_id,
            events: self.events,
        };
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, PROBLEM_JSON);
        match status {
            StatusCode::UNAUTHORIZED => {
                let scheme = HeaderValue::from_static(r#"Bearer realm="fanfare""#);
                headers.insert(header::WWW_AUTHENTICATE, scheme);
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

/// Problem details (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem, example = json!({
    "type": "urn:fanfare:problem:invalid_request",
    "title": "the request is not accepted",
    "status": 400,
    "code": "invalid_request",
    "detail": "not a URL: accepted is an absolute URL such as https://example.com/hooks",
    "errors": [{
        "field": "url",
        "detail": "not a URL: accepted is an absolute URL such as https://example.com/hooks",
    }],
}))]
pub(crate) struct ProblemBody {
    /// Names the kind of problem: `urn:fanfare:problem:` and the code.
    #[serde(rename = "type")]
    problem_type: String,
    /// What all problems of this kind have in common.
    title: &'static str,
    /// The status of the response.
    status: u16,
    /// The kind of problem, stable across releases.
    code: &'static str,
    /// What is wrong with this request, and what would be accepted.
    detail: String,
    /// The members, parameters or headers at fault.
    errors: Vec<FieldError>,
    /// The id of the event that may have been stored: publish it again with this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
    /// What became of each event of a batch, in its order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    events: Vec<BatchItem>,
}

/// What became of one event of a batch.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BatchItem {
    /// The status that it would have been answered with alone: 202 when it was stored.
    status: u16,
    /// What was stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<Accepted>,
    /// The kind of problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// What is wrong with it, and what would be accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// The members at fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
    /// The id of the event that may have been stored: publish it again with this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
}

impl From<Result<Accepted, Problem>> for BatchItem {
    fn from(outcome: Result<Accepted, Problem>) -> Self {
        match outcome {
            Ok(accepted) => Self {
                status: StatusCode::ACCEPTED.as_u16(),
                event: Some(accepted),
                code: None,
                detail: None,
                errors: Vec::new(),
                event_id: None,
            },
            Err(problem) => Self {
                status: problem.code.status().as_u16(),
                event: None,
                code: Some(problem.code.name()),
                detail: Some(problem.detail),
                errors: problem.errors,
                event_id: problem.event_id,
            },
        }
    }
}

/// What is wrong with one member, parameter or header.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FieldError {
    /// The name; members inside members are separated by dots.
    field: String,
    /// What is wrong with it, and what would be accepted.
    detail: String,
}
