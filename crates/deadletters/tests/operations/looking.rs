//! A look shows everything and changes nothing.

use fanfare_broker::Place;
use fanfare_deadletters::{Filter, GroupBy, count, find, group, list};
use fanfare_model::DeadLetterReason;
use fanfare_testkit::{PlainAmqp, Version, wall_clock};
use fanfare_wire::decode_dead_letter;

use crate::support::{Office, endpoint, letter, letters, on_every_version};

on_every_version!(
    looking_shows_everything_and_changes_nothing,
    a_list_goes_on_where_it_ended,
);

const ALL: u32 = 100_000;

async fn looking_shows_everything_and_changes_nothing(version: Version) {
    let office = Office::open(version).await;
    let (broker, place) = (&office.broker, Place::DeadLetters);
    let nothing = list(broker, place, &Filter::default(), None, (10, ALL)).await;
    assert!(nothing.unwrap().found.is_empty());

    // More than one channel takes in hand.
    office.bury(letters(2500, 3)).await;
    let gone = letter(9999, endpoint(1), DeadLetterReason::Gone);
    office.bury([gone.clone()]).await;
    let plain = PlainAmqp::connect(office.host.url()).await;
    let dead = broker.topology().dead_address().exchange;
    let headers = [("x-by", "somebody else")];
    plain
        .publish((&dead, ""), "text/plain", &headers, b"?")
        .await;

    for _ in 0..3 {
        let by = (
            &[GroupBy::Endpoint, GroupBy::Reason][..],
            wall_clock().now(),
        );
        let groups = group(broker, place, &Filter::default(), by, ALL).await;
        let groups = groups.unwrap();
        assert!(groups.complete);
        assert_eq!(groups.looked_at, 2502);
        let counts: Vec<u64> = groups.found.iter().map(|group| group.count).collect();
        assert_eq!(counts, [834, 833, 833, 1, 1]);
        office.expect_depth(place, 2502).await;
    }

    let id = gone.delivery.id.to_string();
    let found = find(broker, place, &id, ALL).await.unwrap().found.unwrap();
    assert_eq!(found.entry.reason, "gone");
    assert_eq!(decode_dead_letter(&found.envelope).unwrap(), gone);
    let unreadable = Filter {
        reason: Some("unreadable".to_owned()),
        ..Filter::default()
    };
    let other = list(broker, place, &unreadable, None, (10, ALL)).await;
    let other = other.unwrap().found;
    let found = find(broker, place, &other[0].id, ALL).await.unwrap();
    let envelope = found.found.unwrap().envelope;
    assert_eq!(envelope.headers.text("x-by"), Some("somebody else"));
    assert_eq!(&*envelope.body, b"?");

    let some = count(broker, place, &Filter::default(), 100).await.unwrap();
    assert_eq!((some.found, some.complete), (100, false));
    broker.close().await;
}

async fn a_list_goes_on_where_it_ended(version: Version) {
    let office = Office::open(version).await;
    office.bury(letters(25, 1)).await;
    let mut after = None;
    let mut seen = Vec::new();
    loop {
        let (all, place) = (Filter::default(), Place::DeadLetters);
        let page = list(&office.broker, place, &all, after, (10, ALL)).await;
        let page = page.unwrap().found;
        let Some(last) = page.last() else { break };
        after = Some((last.since.unwrap(), last.id.clone()));
        seen.extend(page.iter().map(|entry| (entry.since, entry.id.clone())));
    }
    assert_eq!(seen.len(), 25);
    assert!(seen.is_sorted());
    office.broker.close().await;
}
