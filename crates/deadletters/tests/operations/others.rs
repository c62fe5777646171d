//! What was rejected, found no way or ended processes is published again or discarded.

use fanfare_broker::Place;
use fanfare_deadletters::{Action, Filter};
use fanfare_testkit::{PlainAmqp, Version, wall_clock};
use fanfare_wire::encode_bundle;

use crate::support::{Office, letters, on_every_version};

on_every_version!(
    a_rejected_event_is_published_again_as_it_was,
    a_bundle_that_found_no_way_reaches_the_partitions_of_today,
    what_is_published_again_and_comes_back_is_not_published_for_ever,
);

async fn reason_of_the_only_one(office: &Office, place: Place) -> (String, String) {
    let view = office.view(1000);
    let all = view.list(place, &Filter::default(), None, 10).await;
    let [entry] = &all.unwrap().found[..] else {
        panic!("one message rests in {place}")
    };
    (entry.id.clone(), entry.reason.clone())
}

async fn a_rejected_event_is_published_again_as_it_was(version: Version) {
    let office = Office::open(version).await;
    let plain = PlainAmqp::connect(office.host.url()).await;
    let headers = [
        ("x-fanfare-reason", "malformed"),
        ("x-fanfare-routing-key", "t.a.b"),
        ("x-fanfare-rejected-at", "2026-11-23T12:00:00Z"),
        ("x-mine", "kept"),
    ];
    let json = "application/cloudevents+json";
    plain
        .publish(("fanfare.rejected", ""), json, &headers, b"{}")
        .await;
    let (id, reason) = reason_of_the_only_one(&office, Place::Rejected).await;
    assert_eq!(reason, "malformed");
    let filter = Filter {
        ids: vec![id],
        ..Filter::default()
    };
    let operation = office.carry_out(Place::Rejected, Action::Publish, filter);
    assert_eq!(operation.await.resolved, 1);
    office.expect_depth(Place::Rejected, 0).await;
    let again = plain.get("fanfare.events").await.unwrap();
    assert_eq!(again.body, b"{}");
    assert_eq!(again.content_type.as_deref(), Some(json));
    assert_eq!(
        again.headers.get("x-mine").map(String::as_str),
        Some("kept")
    );
    assert!(
        !again
            .headers
            .keys()
            .any(|name| name.starts_with("x-fanfare-"))
    );
    office.broker.close().await;
}

async fn a_bundle_that_found_no_way_reaches_the_partitions_of_today(version: Version) {
    let office = Office::open(version).await;
    let deliveries: Vec<_> = letters(5, 5)
        .into_iter()
        .map(|letter| letter.delivery.replayed(letter.since))
        .collect();
    for place in [Place::Unroutable, Place::Crashed] {
        let bundle = encode_bundle(&deliveries, wall_clock().now());
        let address = office
            .broker
            .topology()
            .address_of(place, "g7.p99".to_owned());
        let publisher = office.broker.publisher();
        publisher.publish(&address, bundle).await.unwrap();
        let operation = office.carry_out(place, Action::Publish, Filter::default());
        assert_eq!(operation.await.resolved, 1);
        office.expect_depth(place, 0).await;
    }
    let owed = office.owed().await;
    assert_eq!(owed.len(), 5);
    assert!(owed.values().all(|count| *count == 2));
    office.broker.close().await;
}

async fn what_is_published_again_and_comes_back_is_not_published_for_ever(version: Version) {
    let office = Office::open(version).await;
    let plain = PlainAmqp::connect(office.host.url()).await;
    // The hole is still there.
    plain.delete_queue("fanfare.events").await;
    for body in [&b"1"[..], b"2", b"3"] {
        plain
            .publish(("fanfare.unroutable", "t.a.b"), "text/plain", &[], body)
            .await;
    }
    let operation = office
        .carry_out(Place::Unroutable, Action::Publish, Filter::default())
        .await;
    assert_eq!(operation.resolved, 3);
    office.expect_depth(Place::Unroutable, 3).await;

    let discard = office.carry_out(Place::Unroutable, Action::Discard, Filter::default());
    assert_eq!(discard.await.resolved, 3);
    office.expect_depth(Place::Unroutable, 0).await;
    office.broker.close().await;
}
