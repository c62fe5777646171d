//! Bundles read back, share their events, and refuse what they cannot be.

use std::sync::Arc;

use bytes::Bytes;
use fanfare_model::{Delivery, EndpointId, Event, Failure, FailureClass, Timestamp, TraceContext};
use fanfare_wire::{DecodeFault, Envelope, decode_bundle, encode_bundle};
use proptest::prelude::*;

use crate::generators;

fn now() -> Timestamp {
    Timestamp::from_second(1_700_000_000).expect("in range")
}

fn deliveries(events: &[&Arc<Event>]) -> Vec<Delivery> {
    let trace = TraceContext::default();
    let endpoint = |n: usize| EndpointId::from_bytes([u8::try_from(n).expect("few"); 16]);
    let events = events.iter().enumerate();
    events
        .map(|(n, event)| Delivery::new(Arc::clone(event), endpoint(n), 1, trace.clone(), now()))
        .collect()
}

fn envelope(body: &[u8]) -> Envelope {
    Envelope {
        body: Bytes::copy_from_slice(body),
        ..Envelope::default()
    }
}

#[test]
fn deliveries_of_one_event_share_it_and_its_bytes() {
    let data = vec![b'7'; 10_000];
    let one = Arc::new(Event::for_tests("t", "/s", "1", "a.b", &data));
    let other = Arc::new(Event::for_tests("t", "/s", "2", "a.b", b"{}"));
    let sent = deliveries(&[&one, &other, &one, &one]);
    let envelope = encode_bundle(&sent, now());
    assert!(
        envelope.body.len() < 11_000,
        "{} bytes",
        envelope.body.len()
    );

    let received = decode_bundle(&envelope).unwrap();
    assert_eq!(received, sent);
    assert!(Arc::ptr_eq(&received[0].event, &received[3].event));
    let shared = received[0].event.data.as_ref().unwrap().as_ptr_range();
    let whole = envelope.body.as_ptr_range();
    assert!(
        whole.start <= shared.start && shared.end <= whole.end,
        "copied"
    );
}

#[test]
fn a_bundle_is_named_after_its_deliveries() {
    let one = Arc::new(Event::for_tests("t", "/s", "1", "a.b", b"{}"));
    let other = Arc::new(Event::for_tests("t", "/s", "2", "a.b", b"{}"));
    for (events, suffix, correlation) in [
        (&[&one][..], "", Some("1")),
        (&[&one, &one, &one], "+2", Some("1")),
        (&[&one, &other], "+1", None),
    ] {
        let sent = deliveries(events);
        let properties = encode_bundle(&sent, now()).properties;
        let id = format!("{}{suffix}", sent[0].id);
        let correlation = correlation.map_or(id.clone(), str::to_owned);
        assert_eq!(properties.message_id, Some(id));
        assert_eq!(properties.correlation_id, Some(correlation));
        assert_eq!(
            properties.message_type.as_deref(),
            Some("fanfare.bundle.v1")
        );
    }
}

#[test]
fn a_long_error_is_cut_where_it_would_burden_every_hop() {
    let event = Arc::new(Event::for_tests("t", "/s", "1", "a.b", b"{}"));
    let failure = Failure {
        class: FailureClass::Tls,
        status: None,
        error: "ä".repeat(501),
    };
    let failed = deliveries(&[&event])
        .remove(0)
        .after_failure(failure, now(), None);
    let received = decode_bundle(&encode_bundle(&[failed], now()))
        .unwrap()
        .remove(0);
    assert_eq!(received.failures.unwrap().last.error, "ä".repeat(500));
}

#[test]
fn what_is_no_bundle_is_refused_by_name() {
    let future = [0x08, 2];
    let empty = [0x08, 1];
    let no_event = [0x08, 1, 0x1a, 2, 0x18, 9];
    let short_id = [0x08, 1, 0x12, 6, 0x0a, 1, b't', 0x22, 1, b'a', 0x1a, 0];
    let bad_tenant = [0x08, 1, 0x12, 0, 0x1a, 0];
    for (body, expected) in [
        (&b"\xff"[..], "the bundle is not readable"),
        (
            &[],
            "the bundle has version 0, and only version 1 is known here",
        ),
        (
            &future,
            "the bundle has version 2, and only version 1 is known here",
        ),
        (&empty, "the bundle holds no delivery"),
        (
            &no_event,
            "a delivery refers to event 9, which the message does not hold",
        ),
        (&short_id, "field `id` must be 16 bytes"),
        (&bad_tenant, "field `tenant` must be a tenant's id"),
    ] {
        let fault = decode_bundle(&envelope(body)).unwrap_err();
        assert_eq!(fault.to_string(), expected);
    }
    let huge = decode_bundle(&envelope(&vec![0; 16_777_217]));
    assert!(matches!(huge, Err(DecodeFault::TooLarge { .. })));
}

#[test]
fn fields_of_newer_versions_are_ignored() {
    let event = Arc::new(Event::for_tests("t", "/s", "1", "a.b", b"{}"));
    let sent = deliveries(&[&event]);
    let mut body = encode_bundle(&sent, now()).body.to_vec();
    // Field 1000, a string of two bytes.
    body.extend([0xc2, 0x3e, 2, b'h', b'i']);
    assert_eq!(decode_bundle(&envelope(&body)).unwrap(), sent);
}

proptest! {
    #[test]
    fn a_bundle_reads_back(sent in generators::deliveries(), now in generators::moment()) {
        let received = decode_bundle(&encode_bundle(&sent, now));
        prop_assert_eq!(received.map_err(|fault| TestCaseError::fail(fault.to_string()))?, sent);
    }

    #[test]
    fn any_bytes_are_a_bundle_or_a_fault(body in generators::body()) {
        let verdict = decode_bundle(&envelope(&body));
        prop_assert!(verdict.is_err() || !body.is_empty());
    }

    #[test]
    fn a_damaged_bundle_is_read_or_refused(
        sent in generators::deliveries(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut body = encode_bundle(&sent, now()).body.to_vec();
        let at = at.index(body.len());
        body[at] = byte;
        if let Ok(received) = decode_bundle(&envelope(&body)) {
            prop_assert!(!received.is_empty());
        }
    }
}
