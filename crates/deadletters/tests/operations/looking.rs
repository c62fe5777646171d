//! A look shows everything and changes nothing.

use fanfare_broker::Place;
use fanfare_deadletters::{Filter, GroupBy, Seen};
use fanfare_model::DeadLetterReason;
use fanfare_testkit::{PlainAmqp, Version, wall_clock};
use fanfare_wire::{Envelope, decode_dead_letter};

use crate::support::{Office, endpoint, letter, letters, on_every_version};

on_every_version!(
    looking_shows_everything_and_changes_nothing,
    a_list_goes_on_where_it_ended,
);

const ALL: u32 = 100_000;

fn seen(messages: u64, complete: bool) -> Seen {
    Seen::Queue { messages, complete }
}

async fn looking_shows_everything_and_changes_nothing(version: Version) {
    let office = Office::open(version).await;
    let (broker, place) = (&office.broker, Place::DeadLetters);
    let view = office.view(ALL);
    let nothing = view.list(place, &Filter::default(), None, 10).await;
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
        let (by, now) = ([GroupBy::Endpoint, GroupBy::Reason], wall_clock().now());
        let groups = view.group(place, &Filter::default(), &by, now).await;
        let groups = groups.unwrap();
        assert_eq!(groups.seen, seen(2502, true));
        let counts: Vec<u64> = groups.found.iter().map(|group| group.count).collect();
        assert_eq!(counts, [834, 833, 833, 1, 1]);
        office.expect_depth(place, 2502).await;
    }

    let id = gone.delivery.id.to_string();
    let found = view.find(place, &id).await.unwrap().found.unwrap();
    assert_eq!(found.entry.reason, "gone");
    let letter = Envelope {
        headers: found.headers.unwrap(),
        body: found.data,
        ..Envelope::default()
    };
    assert_eq!(decode_dead_letter(&letter).unwrap(), gone);
    let unreadable = Filter {
        reason: Some("unreadable".to_owned()),
        ..Filter::default()
    };
    let other = view.list(place, &unreadable, None, 10).await;
    let other = other.unwrap().found;
    let found = view.find(place, &other[0].id).await.unwrap();
    let found = found.found.unwrap();
    assert_eq!(found.headers.unwrap().text("x-by"), Some("somebody else"));
    assert_eq!(&*found.data, b"?");

    let some = office.view(100).count(place, &Filter::default()).await;
    let some = some.unwrap();
    assert_eq!((some.found, some.seen), (100, seen(100, false)));
    broker.close().await;
}

async fn a_list_goes_on_where_it_ended(version: Version) {
    let office = Office::open(version).await;
    office.bury(letters(25, 1)).await;
    let mut after = None;
    let mut seen = Vec::new();
    loop {
        let (all, place) = (Filter::default(), Place::DeadLetters);
        let page = office.view(ALL).list(place, &all, after, 10).await;
        let page = page.unwrap().found;
        let Some(last) = page.last() else { break };
        after = Some((last.since.unwrap(), last.id.clone()));
        seen.extend(page.iter().map(|entry| (entry.since, entry.id.clone())));
    }
    assert_eq!(seen.len(), 25);
    assert!(seen.is_sorted());
    office.broker.close().await;
}
