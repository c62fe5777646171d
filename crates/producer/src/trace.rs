//! The trace that the caller is in, if it uses OpenTelemetry.

use fanfare_model::TraceContext;
use opentelemetry::{Context, trace::TraceContextExt as _};

/// The caller's current OpenTelemetry span as headers have it; nothing outside of any span.
pub(crate) fn current() -> TraceContext {
    let context = Context::current();
    let span = context.span().span_context().clone();
    if !span.is_valid() {
        return TraceContext::default();
    }
    let traceparent = format!(
        "00-{}-{}-{:02x}",
        span.trace_id(),
        span.span_id(),
        span.trace_flags().to_u8()
    );
    TraceContext::from_headers(Some(&traceparent), Some(&span.trace_state().header()))
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

    use super::*;

    #[test]
    fn the_callers_span_is_the_parent() {
        assert_eq!(current(), TraceContext::default());
        let span = SpanContext::new(
            TraceId::from(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c),
            SpanId::from(0xb7ad_6b71_6920_3331),
            TraceFlags::SAMPLED,
            true,
            TraceState::from_key_value([("vendor", "1")]).unwrap(),
        );
        let entered = Context::new().with_remote_span_context(span).attach();
        let expected = TraceContext {
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
            tracestate: Some("vendor=1".into()),
        };
        assert_eq!(current(), expected);
        drop(entered);
        assert_eq!(current(), TraceContext::default());
    }
}
