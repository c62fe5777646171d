//! What every store of the history must do, as functions over [`History`].

#![allow(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

mod support;

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use fanfare_journal::{
    AttemptFilter, DeliveryFilter, EventFilter, FeedCursor, GapKind, History, HistoryFault,
    LetterFilter, LetterKey, MissingOffsets, OutcomeFilter, Page, Portion, Recorded, Settings,
    StateFilter, migrate, migrations,
};
use fanfare_model::{
    AttributeValue, DeadLetter, DeadLetterReason, Delivery, DeliveryAction, DeliveryState, Event,
    EventKey, Failure, FailureClass, JournalEntry, RoutedEvent, TraceContext,
};
use fanfare_testkit::TestDatabase;
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::support::{
    Journal, acted, at, dead, delivered, endpoint, event, handled, id_of, key, numbered, page,
    retried, routed, tenant,
};

/// Runs each named check against a fresh history of each kind.
macro_rules! conformance {
    ($($check:ident),* $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test]
                async fn $check() {
                    let folder = tempfile::tempdir().unwrap();
                    let settings = fanfare_journal::Settings {
                        database: folder.path().join("history.db").into(),
                        ..fanfare_journal::Settings::default()
                    };
                    let history = fanfare_journal::History::open(&settings).await.unwrap();
                    super::$check(&history).await;
                    history.close().await;
                }
            )*
        }

        mod postgres {
            $(
                #[tokio::test]
                async fn $check() {
                    let database = fanfare_testkit::TestDatabase::new();
                    let settings = fanfare_journal::Settings {
                        database: database.location(),
                        ..fanfare_journal::Settings::default()
                    };
                    let history = fanfare_journal::History::open(&settings).await.unwrap();
                    super::$check(&history).await;
                    history.close().await;
                }
            )*
        }
    };
}

conformance![
    an_event_reads_back_with_everything_that_became_of_it,
    the_order_of_writers_does_not_matter,
    what_was_recorded_is_not_recorded_again,
    of_two_that_record_at_once_one_does,
    what_is_missing_is_reported_and_its_outcomes_are_unknown,
    an_outcome_that_is_not_told_is_unknown,
    attempts_are_found_by_what_they_are,
    events_are_found_by_what_they_are,
    pages_follow_each_other,
    a_feed_misses_nothing_that_is_recorded_later,
    an_event_without_its_routing_comes_into_the_feed_later,
    what_an_endpoint_missed_is_found,
    dead_letters_are_grouped_until_they_are_replayed_or_discarded,
    dead_letters_are_found_by_what_they_are,
    the_index_is_set_right_by_what_the_queue_holds,
    what_is_old_is_forgotten,
    what_is_too_much_is_forgotten,
    strange_texts_are_kept,
];

/// An event that has everything an event can have.
fn full_event() -> Event {
    let mut full = event("1", "a.b");
    full.subject = Some("who".to_owned());
    full.time = Some("2026-11-23T16:04:05.5+01:00".parse().unwrap());
    full.data_schema = Some("https://example.com/schema".to_owned());
    let bytes = AttributeValue::Binary(vec![0, 255].into());
    for (name, value) in [
        ("flag", AttributeValue::Boolean(true)),
        ("number", AttributeValue::Integer(-7)),
        ("text", AttributeValue::Text("[\"x\"]".to_owned())),
        ("bytes", bytes),
    ] {
        full.extensions.insert(name.to_owned(), value);
    }
    full
}

async fn an_event_reads_back_with_everything_that_became_of_it(history: &History) {
    let full = full_event();
    let mut journal = Journal::new("router a");
    let owed = routed(&full, &[1, 2], at(10));
    let entries = vec![
        JournalEntry::Routed(RoutedEvent {
            trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned()),
            ..owed
        }),
        retried(&full, 1, 1, at(11)),
        delivered(&full, 1, 2, at(20)),
        dead(&full, 2, 1, at(12)),
    ];
    journal.record(history, entries).await;

    let found = history.event(&key(&full)).await.unwrap().unwrap();
    assert_eq!(found.event.event, full);
    assert!(found.event.is_complete && !found.event.data_left_out);
    assert_eq!(found.event.at, at(10));
    let [first, second] = &found.deliveries[..] else {
        panic!("{found:?}")
    };
    assert_eq!((first.id, first.endpoint), (id_of(&full, 1), endpoint(1)));
    assert_eq!(first.state, DeliveryState::Delivered);
    assert_eq!((first.failed_attempts, first.changed_at), (1, at(20)));
    assert_eq!(first.first_failed_at, Some(at(11)));
    let failure = first.last_failure.as_ref().unwrap();
    assert_eq!(
        (failure.class, failure.status),
        (FailureClass::Status5xx, Some(503))
    );
    let reason = DeadLetterReason::Exhausted;
    assert_eq!(second.state, DeliveryState::DeadLettered { reason });
    let attempts = found.attempts.iter();
    let attempts: Vec<_> = attempts
        .map(|a| (a.endpoint, a.number, a.failure))
        .collect();
    let failed = Some(FailureClass::Status5xx);
    let expected = [
        (endpoint(1), 1, failed),
        (endpoint(2), 1, failed),
        (endpoint(1), 2, None),
    ];
    assert_eq!(attempts, expected);
    assert_eq!(found.attempts[2].settled, "delivered");

    let unknown = EventKey {
        id: "2".to_owned(),
        ..key(&full)
    };
    assert_eq!(history.event(&unknown).await.unwrap(), None);
}

async fn the_order_of_writers_does_not_matter(history: &History) {
    let (event, mut journal) = (event("1", "a"), Journal::new("dispatcher a"));
    journal
        .record(history, vec![delivered(&event, 1, 2, at(30))])
        .await;
    journal
        .record(history, vec![retried(&event, 1, 1, at(20))])
        .await;
    let found = history.event(&key(&event)).await.unwrap().unwrap();
    assert!(!found.event.is_complete);
    assert_eq!(found.event.event.data, None);
    journal
        .record(
            history,
            vec![JournalEntry::Routed(routed(&event, &[1], at(10)))],
        )
        .await;
    let found = history.event(&key(&event)).await.unwrap().unwrap();
    assert_eq!((found.event.event, found.event.at), (event.clone(), at(10)));
    assert_eq!(found.deliveries.len(), 1);
    assert_eq!(found.deliveries[0].state, DeliveryState::Delivered);
    assert_eq!(found.attempts.len(), 2);
    // A repeat of the event by another router adds whom it is owed to besides.
    journal
        .record(
            history,
            vec![JournalEntry::Routed(routed(&event, &[1, 2], at(40)))],
        )
        .await;
    let found = history.event(&key(&event)).await.unwrap().unwrap();
    assert_eq!((found.deliveries.len(), found.event.at), (2, at(10)));
    assert_eq!(found.deliveries[0].state, DeliveryState::Delivered);
    assert_eq!(found.deliveries[1].state, DeliveryState::Owed);
    // By its clock the dispatcher was done before the router told, whoever of them is recorded first.
    let done = dead(&event, 2, 1, at(35));
    journal.record(history, vec![done]).await;
    let found = history.event(&key(&event)).await.unwrap().unwrap();
    assert_eq!(found.deliveries[1].state.name(), "dead_lettered");
}

async fn what_was_recorded_is_not_recorded_again(history: &History) {
    let event = event("1", "a");
    let mut journal = Journal::new("dispatcher a");
    let portion = journal.portion(vec![delivered(&event, 1, 1, at(10))]);
    let done = history.record(&portion).await.unwrap();
    assert!(matches!(done, Recorded::Done(counts) if counts.batches == 1 && counts.rows == 3));
    let again = history.record(&portion).await.unwrap();
    assert_eq!(again, Recorded::Elsewhere { next_offset: 1 });
    // The writer published it twice, because it heard of no confirm.
    let repeated = Portion {
        from: 1,
        next: 2,
        ..portion.clone()
    };
    let done = history.record(&repeated).await.unwrap();
    assert!(matches!(done, Recorded::Done(counts) if counts.batches == 0));
    // The journal begins anew.
    history.start_over().await.unwrap();
    let done = history.record(&portion).await.unwrap();
    assert!(matches!(done, Recorded::Done(counts) if counts.batches == 0));
    let found = history.event(&key(&event)).await.unwrap().unwrap();
    assert_eq!(found.attempts.len(), 1);
    assert_eq!(history.gaps(10).await.unwrap(), []);
}

async fn of_two_that_record_at_once_one_does(history: &History) {
    let mut journal = Journal::new("dispatcher a");
    for number in 0..20 {
        let event = event(&number.to_string(), "a");
        let portion = journal.portion(vec![delivered(&event, 1, 1, at(10))]);
        let (one, other) = tokio::join!(history.record(&portion), history.record(&portion));
        let is_done = |recorded: Recorded| matches!(recorded, Recorded::Done(_));
        let done = [is_done(one.unwrap()), is_done(other.unwrap())];
        assert!(done[0] != done[1], "{done:?}");
    }
    let found = history
        .attempts(&AttemptFilter::default(), page(100))
        .await
        .unwrap();
    assert_eq!(found.len(), 20);
}

async fn what_is_missing_is_reported_and_its_outcomes_are_unknown(history: &History) {
    let (one, two, three) = (event("1", "a"), event("2", "a"), event("3", "a"));
    let mut router = Journal::new("router a");
    let owed = |event, moment| JournalEntry::Routed(routed(event, &[1], moment));
    router
        .record(history, vec![owed(&one, at(10)), owed(&two, at(11))])
        .await;
    let mut dispatcher = Journal::new("dispatcher a").after(&router);
    dispatcher
        .record(history, vec![delivered(&two, 1, 1, at(12))])
        .await;
    assert_eq!(history.gaps(10).await.unwrap(), []);
    let state_of = async |event| {
        let found = history.event(&key(event)).await.unwrap().unwrap();
        found.deliveries[0].state
    };
    assert_eq!(state_of(&one).await, DeliveryState::Owed);

    // It starts anew at second 50, without having closed its journal.
    let mut reborn = Journal::new("dispatcher a")
        .started(at(50))
        .after(&dispatcher);
    reborn.record(history, vec![]).await;
    let gaps = history.gaps(10).await.unwrap();
    assert_eq!(gaps.len(), 1);
    assert_eq!((gaps[0].kind, gaps[0].to), (GapKind::Killed, at(50)));
    assert_eq!(state_of(&one).await, DeliveryState::Unknown);
    assert_eq!(state_of(&two).await, DeliveryState::Delivered);
    let unknown = DeliveryFilter {
        states: vec![StateFilter::Unknown],
        ..DeliveryFilter::default()
    };
    assert_eq!(history.count(&unknown).await.unwrap(), 1);

    // What is routed later is no mystery, and what is heard later is believed.
    let mut router = router.after(&reborn);
    router.record(history, vec![owed(&three, at(60))]).await;
    assert_eq!(state_of(&three).await, DeliveryState::Owed);
    let mut reborn = reborn.after(&router);
    reborn
        .record(history, vec![retried(&one, 1, 1, at(61))])
        .await;
    assert!(matches!(
        state_of(&one).await,
        DeliveryState::Retrying { .. }
    ));

    let portion = Portion {
        missing: vec![MissingOffsets {
            kind: GapKind::Removed,
            count: 7,
        }],
        ..reborn.portion(vec![])
    };
    history.record(&portion).await.unwrap();
    let gaps = history.gaps(1).await.unwrap();
    assert_eq!((gaps[0].kind, gaps[0].missing), (GapKind::Removed, Some(7)));
}

async fn an_outcome_that_is_not_told_is_unknown(history: &History) {
    let event = event("1", "a");
    let mut owed = routed(&event, &[1, 2], at(10));
    owed.owed[0].is_told = false;
    let mut journal = Journal::new("router a");
    journal
        .record(
            history,
            vec![JournalEntry::Routed(owed), dead(&event, 2, 1, at(11))],
        )
        .await;
    let found = history.event(&key(&event)).await.unwrap().unwrap();
    assert_eq!(found.deliveries[0].state, DeliveryState::Unknown);
    assert_eq!(found.deliveries[1].state.name(), "dead_lettered");
}

async fn attempts_are_found_by_what_they_are(history: &History) {
    let (one, two) = (event("1", "a"), event("2", "b.c"));
    let entries = vec![
        retried(&one, 1, 1, at(10)),
        delivered(&one, 1, 2, at(11)),
        delivered(&one, 2, 1, at(12)),
        dead(&two, 1, 1, at(13)),
    ];
    Journal::new("dispatcher a").record(history, entries).await;
    let filter = |narrow: fn(&mut AttemptFilter)| {
        let mut filter = AttemptFilter::default();
        narrow(&mut filter);
        filter
    };
    let of_delivery = AttemptFilter {
        delivery: Some(id_of(&one, 1)),
        ..AttemptFilter::default()
    };
    let of_outcome = |outcome| AttemptFilter {
        outcome: Some(outcome),
        ..AttemptFilter::default()
    };
    for (filter, expected) in [
        (AttemptFilter::default(), &[13, 12, 11, 10][..]),
        (filter(|f| f.tenant = Some(tenant("t"))), &[13, 12, 11, 10]),
        (filter(|f| f.tenant = Some(tenant("u"))), &[]),
        (filter(|f| f.endpoint = Some(endpoint(1))), &[13, 11, 10]),
        (
            filter(|f| (f.tenant, f.endpoint) = (Some(tenant("u")), Some(endpoint(1)))),
            &[],
        ),
        (
            filter(|f| f.event_type = Some("b.c".parse().unwrap())),
            &[13],
        ),
        (of_outcome(OutcomeFilter::Succeeded), &[12, 11]),
        (of_outcome(OutcomeFilter::Failed), &[13, 10]),
        (
            of_outcome(OutcomeFilter::FailedWith(FailureClass::Timeout)),
            &[],
        ),
        (of_delivery, &[11, 10]),
        (filter(|f| f.event_id = Some("1".to_owned())), &[12, 11, 10]),
        (
            filter(|f| (f.event_id, f.tenant) = (Some("1".to_owned()), Some(tenant("u")))),
            &[],
        ),
        (
            filter(|f| (f.from, f.to) = (Some(at(11)), Some(at(13)))),
            &[12, 11],
        ),
    ] {
        let found = history.attempts(&filter, page(10)).await.unwrap();
        let seconds: Vec<_> = found.iter().map(|attempt| attempt.at.as_second()).collect();
        let base = at(0).as_second();
        let expected: Vec<_> = expected.iter().map(|second| base + second).collect();
        assert_eq!(seconds, expected, "{filter:?}");
    }
}

async fn events_are_found_by_what_they_are(history: &History) {
    let entries = [("1", "a", 10), ("2", "b.c", 11), ("3", "a", 12)]
        .map(|(id, kind, second)| JournalEntry::Routed(routed(&event(id, kind), &[1], at(second))));
    Journal::new("router a")
        .record(history, entries.to_vec())
        .await;
    let all = EventFilter::default;
    for (filter, expected) in [
        (all(), &["3", "2", "1"][..]),
        (
            EventFilter {
                tenant: Some(tenant("t")),
                ..all()
            },
            &["3", "2", "1"],
        ),
        (
            EventFilter {
                tenant: Some(tenant("u")),
                ..all()
            },
            &[],
        ),
        (
            EventFilter {
                tenant: Some(tenant("t")),
                event_type: Some("a".parse().unwrap()),
                ..all()
            },
            &["3", "1"],
        ),
        (
            EventFilter {
                id: Some("2".to_owned()),
                ..all()
            },
            &["2"],
        ),
        (
            EventFilter {
                source: Some("x".to_owned()),
                ..all()
            },
            &[],
        ),
        (
            EventFilter {
                from: Some(at(11)),
                to: Some(at(12)),
                ..all()
            },
            &["2"],
        ),
    ] {
        let found = history.events(&filter, page(10)).await.unwrap();
        let ids: Vec<_> = found.iter().map(|event| event.event.id.as_str()).collect();
        assert_eq!(ids, expected, "{filter:?}");
        assert!(found.iter().all(|event| event.event.data.is_none()));
    }
}

async fn pages_follow_each_other(history: &History) {
    let mut journal = Journal::new("dispatcher a");
    for chunk in 0..5 {
        let entries = (0..9).map(|number| {
            let number = chunk * 9 + number;
            // Three of a moment, so that pages end between equals.
            delivered(&numbered(number), 1, 1, at(number / 3))
        });
        journal.record(history, entries.collect()).await;
    }
    let fan_out = [2, 3, 4, 5, 6, 7, 8, 9];
    let routed = routed(&numbered(44), &fan_out, at(14));
    let routed = vec![JournalEntry::Routed(routed)];
    journal.record(history, routed).await;
    let filter = AttemptFilter {
        endpoint: Some(endpoint(1)),
        ..AttemptFilter::default()
    };
    let (mut after, mut seen) = (None, Vec::new());
    loop {
        let page = Page { after, limit: 7 };
        let found = history.attempts(&filter, page).await.unwrap();
        let Some(last) = found.last() else { break };
        after = Some(last.cursor.to_string().parse().unwrap());
        seen.extend(found);
    }
    assert_eq!(seen.len(), 45);
    assert!(seen.is_sorted_by(|a, b| a.cursor > b.cursor));

    let filter = DeliveryFilter::default();
    let (mut after, mut seen) = (None, BTreeSet::new());
    loop {
        let page = Page { after, limit: 7 };
        let found = history.deliveries(&filter, page).await.unwrap();
        let Some(last) = found.last() else { break };
        after = last.delivery.as_ref().map(|delivery| delivery.cursor);
        let ids = found.iter().map(|owed| owed.delivery.as_ref().unwrap().id);
        assert_eq!(ids.filter(|id| !seen.insert(*id)).count(), 0);
    }
    // A page ends between the deliveries of an event.
    assert_eq!(seen.len(), 45 + 8);
}

async fn a_feed_misses_nothing_that_is_recorded_later(history: &History) {
    let mut journal = Journal::new("router a");
    let (mut after, mut seen): (Option<FeedCursor>, _) = (None, Vec::new());
    for chunk in 0..6 {
        // Each portion happened before the one before it.
        let entries = (0..4).map(|number| {
            let routed = routed(&numbered(chunk * 4 + number), &[1], at(100 - chunk));
            JournalEntry::Routed(routed)
        });
        journal.record(history, entries.collect()).await;
        let page = Page { after, limit: 3 };
        let found = history.feed(&tenant("t"), page).await.unwrap();
        after = found.last().map(|entry| entry.cursor).or(after);
        seen.extend(found.into_iter().map(|entry| entry.event.event.id));
    }
    loop {
        let page = Page { after, limit: 5 };
        let found = history.feed(&tenant("t"), page).await.unwrap();
        if found.is_empty() {
            break;
        }
        after = found.last().map(|entry| entry.cursor);
        assert!(found.iter().all(|entry| entry.deliveries.len() == 1));
        assert!(found.iter().all(|entry| entry.event.event.data.is_some()));
        seen.extend(found.into_iter().map(|entry| entry.event.event.id));
    }
    let expected: Vec<_> = (0..24).map(|number| numbered(number).id).collect();
    assert_eq!(seen, expected);
    let (other, page) = (
        tenant("u"),
        Page {
            after: None,
            limit: 5,
        },
    );
    assert_eq!(history.feed(&other, page).await.unwrap(), []);
}

async fn an_event_without_its_routing_comes_into_the_feed_later(history: &History) {
    let (lost, late) = (event("lost", "a"), event("late", "a"));
    let mut journal = Journal::new("dispatcher a");
    let entries = vec![
        delivered(&lost, 1, 1, at(10)),
        delivered(&late, 1, 1, at(10)),
    ];
    journal.record(history, entries).await;
    let feed = async || {
        let page = Page {
            after: None,
            limit: 5,
        };
        let found = history.feed(&tenant("t"), page).await.unwrap();
        let entries = found.into_iter();
        let entries = entries.map(|entry| (entry.event.event.id.clone(), entry.event.is_complete));
        entries.collect::<Vec<_>>()
    };
    assert_eq!(feed().await, []);
    journal
        .record(
            history,
            vec![JournalEntry::Routed(routed(&late, &[1], at(11)))],
        )
        .await;
    assert_eq!(feed().await, [("late".to_owned(), true)]);
    let mut journal = journal.at(at(200));
    journal.record(history, vec![]).await;
    let expected = [("late".to_owned(), true), ("lost".to_owned(), false)];
    assert_eq!(feed().await, expected);
}

async fn what_an_endpoint_missed_is_found(history: &History) {
    let mut entries = Vec::new();
    for number in 0..10 {
        let kind = if number % 2 == 0 { "a.x" } else { "b" };
        let event = event(&format!("{number:02}"), kind);
        let second = 10 + number;
        entries.push(JournalEntry::Routed(routed(&event, &[1, 2], at(second))));
        entries.push(match number {
            3..=7 => dead(&event, 1, 1, at(second)),
            _ => delivered(&event, 1, 1, at(second)),
        });
        entries.push(delivered(&event, 2, 1, at(second)));
    }
    Journal::new("all a").record(history, entries).await;
    let missed = |kinds: &[&str], from, to| DeliveryFilter {
        tenant: Some(tenant("t")),
        endpoint: Some(endpoint(1)),
        event_types: kinds.iter().map(|kind| kind.parse().unwrap()).collect(),
        states: StateFilter::MISSED.to_vec(),
        from: Some(at(from)),
        to: Some(at(to)),
        ..DeliveryFilter::default()
    };
    for (filter, expected) in [
        (missed(&[], 0, 99), &["03", "04", "05", "06", "07"][..]),
        (missed(&["*"], 15, 17), &["05", "06"]),
        (missed(&["a.*"], 0, 99), &["04", "06"]),
        (missed(&["a.*", "b"], 0, 15), &["03", "04"]),
        (missed(&["c"], 0, 99), &[]),
    ] {
        let found = history.missed(&filter, page(10)).await.unwrap();
        let ids: Vec<_> = found
            .iter()
            .map(|owed| owed.event.event.id.as_str())
            .collect();
        assert_eq!(ids, expected, "{filter:?}");
        assert!(found.iter().all(|owed| owed.event.event.data.is_some()));
        let count = history.count(&filter).await.unwrap();
        assert_eq!(count, expected.len() as u64);
    }
    let filter = missed(&["a.*"], 12, 99);
    let new = history
        .events_for(endpoint(3), &filter, page(10))
        .await
        .unwrap();
    let ids: Vec<_> = new
        .iter()
        .map(|owed| owed.event.event.id.as_str())
        .collect();
    assert_eq!(ids, ["02", "04", "06", "08"]);
    assert!(new.iter().all(|owed| owed.delivery.is_none()));
    let known = history.events_for(endpoint(2), &filter, page(1)).await;
    assert!(known.unwrap()[0].delivery.is_some());
}

async fn dead_letters_are_grouped_until_they_are_replayed_or_discarded(history: &History) {
    let mut journal = Journal::new("all a");
    let letters = (0..6).map(|number| dead(&numbered(number), 1 + number as u8 % 2, 1, at(number)));
    journal.record(history, letters.collect()).await;
    let counts = async || {
        let of_tenant = LetterFilter {
            tenant: Some(tenant("t")),
            ..LetterFilter::default()
        };
        let by = [LetterKey::Endpoint];
        let groups = history.letter_groups(&of_tenant, &by).await.unwrap();
        let counts = groups
            .iter()
            .map(|group| (group.endpoint.unwrap(), group.count));
        let mut counts: Vec<_> = counts.collect();
        counts.sort_by_key(|(endpoint, count)| (Reverse(*count), *endpoint));
        counts
    };
    assert_eq!(counts().await, [(endpoint(1), 3), (endpoint(2), 3)]);
    let entries = vec![
        acted(&numbered(0), 1, 1, DeliveryAction::Replayed, at(20)),
        acted(&numbered(1), 2, 0, DeliveryAction::Discarded, at(20)),
        acted(&numbered(2), 1, 1, DeliveryAction::Replayed, at(20)),
    ];
    journal.record(history, entries).await;
    assert_eq!(counts().await, [(endpoint(2), 2), (endpoint(1), 1)]);
    let replayed = history.event(&key(&numbered(0))).await.unwrap().unwrap();
    let delivery = &replayed.deliveries[0];
    assert_eq!((delivery.replay, delivery.state), (1, DeliveryState::Owed));
    assert_eq!(
        (delivery.failed_attempts, &delivery.last_failure),
        (0, &None)
    );
    let again = handled(&numbered(2), 1, 1, at(30), 1, |one| one.replay = 1);
    journal.record(history, vec![again]).await;
    let replayed = history.event(&key(&numbered(2))).await.unwrap().unwrap();
    assert_eq!(replayed.deliveries[0].state, DeliveryState::Delivered);
    let left = history.count_letters(&LetterFilter::default()).await;
    assert_eq!(left.unwrap(), 3);
}

async fn dead_letters_are_found_by_what_they_are(history: &History) {
    let mut journal = Journal::new("all a");
    let letters = (0..6).map(|number| dead(&numbered(number), 1 + number as u8 % 2, 1, at(number)));
    journal.record(history, letters.collect()).await;
    let check = async |narrow: &dyn Fn(&mut LetterFilter), expected: &[&str]| {
        let mut filter = LetterFilter::default();
        narrow(&mut filter);
        let mut found = history.letters(&filter, None, 4).await.unwrap();
        if let Some(last) = found.last().filter(|_| found.len() == 4) {
            let after = Some((last.delivery.changed_at, last.delivery.id));
            found.extend(history.letters(&filter, after, 4).await.unwrap());
        }
        let ids = found.iter().map(|letter| &letter.event_id[4..]);
        assert_eq!(ids.collect::<Vec<_>>(), expected, "{filter:?}");
        let count = history.count_letters(&filter).await.unwrap();
        assert_eq!(count, expected.len() as u64);
    };
    check(&|_| {}, &["0", "1", "2", "3", "4", "5"]).await;
    let ids = vec![id_of(&numbered(1), 2), id_of(&numbered(9), 2)];
    check(&|f| f.ids = ids.clone(), &["1"]).await;
    check(&|f| f.endpoint = Some(endpoint(2)), &["1", "3", "5"]).await;
    check(
        &|f| f.event_type = "a".parse().ok(),
        &["0", "1", "2", "3", "4", "5"],
    )
    .await;
    check(&|f| f.status = Some(500), &[]).await;
    check(&|f| f.not_reasons = vec!["exhausted".to_owned()], &[]).await;
    let between = |f: &mut LetterFilter| (f.after, f.before) = (Some(at(2)), Some(at(4)));
    check(&between, &["2", "3"]).await;

    let (all, by) = (
        LetterFilter::default(),
        [LetterKey::Type, LetterKey::Age(vec![at(3), at(0)])],
    );
    let groups = history.letter_groups(&all, &by).await.unwrap();
    let counts: BTreeSet<_> = groups
        .iter()
        .map(|group| (group.age, group.count))
        .collect();
    assert_eq!(counts, [(Some(0), 2), (Some(1), 3), (Some(2), 1)].into());
    assert!(groups.iter().all(|group| group.tenant.is_none()));
    assert_eq!(history.letter_groups(&all, &[]).await.unwrap()[0].count, 6);
}

async fn the_index_is_set_right_by_what_the_queue_holds(history: &History) {
    let mut journal = Journal::new("all a");
    let known = (0..3).map(|number| dead(&numbered(number), 1, 1, at(number)));
    let late = dead(&numbered(7), 1, 1, at(50));
    let replayed = acted(&numbered(2), 1, 1, DeliveryAction::Replayed, at(60));
    let entries = known.chain([late, replayed]).collect();
    journal.record(history, entries).await;

    // The queue held 1 and 2, and one that the journal did not tell of.
    let letter = |number| DeadLetter {
        delivery: Delivery::new(
            Arc::new(numbered(number)),
            endpoint(1),
            1,
            TraceContext::default(),
            at(0),
        )
        .after_failure(
            Failure {
                class: FailureClass::Status5xx,
                status: Some(503),
                error: "the receiver answered 503".to_owned(),
            },
            at(number),
            None,
        ),
        reason: DeadLetterReason::Exhausted,
        since: at(number),
    };
    let in_queue = [letter(1), letter(2), letter(4)];
    let entered = history.enter_letters(&in_queue, at(40)).await.unwrap();
    assert_eq!(entered, 1);
    let ids: HashSet<_> = in_queue.iter().map(|letter| letter.delivery.id).collect();
    let dropped = history.drop_letters(&ids, at(40)).await.unwrap();
    assert_eq!(dropped, 1);

    let all = LetterFilter::default();
    let letters = history.letters(&all, None, 10).await.unwrap();
    let ids: Vec<_> = letters
        .iter()
        .map(|letter| letter.event_id.as_str())
        .collect();
    // What happened after the look, such as the replay of 2, counts more.
    assert_eq!(ids, ["00001", "00004", "00007"]);
    let entered = &letters[1].delivery;
    assert_eq!(entered.failed_attempts, 1);
    assert_eq!(entered.last_failure.as_ref().unwrap().status, Some(503));
    let gone = history.event(&key(&numbered(0))).await.unwrap().unwrap();
    assert_eq!(gone.deliveries[0].state, DeliveryState::Unknown);
    // A second time there is nothing to do.
    let again = history.enter_letters(&in_queue, at(40)).await.unwrap();
    assert_eq!(again, 0);
}

async fn what_is_old_is_forgotten(history: &History) {
    const DAY: i64 = 86_400;
    let mut entries = Vec::new();
    for day in 0..6 {
        let event = numbered(day);
        let moment = at(day * DAY);
        entries.push(JournalEntry::Routed(routed(&event, &[1, 2], moment)));
        entries.push(delivered(&event, 1, 1, moment));
        entries.push(match day {
            0 => dead(&event, 2, 1, moment),
            _ => delivered(&event, 2, 1, moment),
        });
    }
    Journal::new("all a").record(history, entries).await;
    let settings = Settings {
        keep_for: Duration::from_secs(3 * DAY as u64),
        ..Settings::default()
    };
    let removed = history.forget(&settings, at(5 * DAY + 1)).await.unwrap();
    assert!(removed > 0);
    let left = history
        .events(&EventFilter::default(), page(10))
        .await
        .unwrap();
    // The first one is a dead letter still.
    let ids: Vec<_> = left.iter().map(|event| event.event.id.clone()).collect();
    assert_eq!(ids, [5, 4, 3, 0].map(|day| numbered(day).id));
    let attempts = history
        .attempts(&AttemptFilter::default(), page(100))
        .await
        .unwrap();
    assert!(attempts.iter().all(|attempt| attempt.at >= at(2 * DAY)));
    assert!(attempts.len() >= 6);
    let letters = history.count_letters(&LetterFilter::default()).await;
    assert_eq!(letters.unwrap(), 1);
    let again = history.forget(&settings, at(5 * DAY + 1)).await.unwrap();
    assert_eq!(again, 0);
}

async fn what_is_too_much_is_forgotten(history: &History) {
    const DAY: i64 = 86_400;
    let mut journal = Journal::new("all a");
    for day in 0..4 {
        let entries = (0..50).map(|number| {
            let event = numbered(day * 50 + number);
            JournalEntry::Routed(routed(&event, &[1], at(day * DAY + number)))
        });
        journal.record(history, entries.collect()).await;
    }
    let settings = Settings {
        keep_bytes: 150_000,
        ..Settings::default()
    };
    history.forget(&settings, at(4 * DAY)).await.unwrap();
    let left = history.count(&DeliveryFilter::default()).await.unwrap();
    assert!((50..=150).contains(&left) && left % 50 == 0, "{left}");
}

async fn strange_texts_are_kept(history: &History) {
    let strange = "a\tb\\c\r\nd\\N\u{1F600}'\"";
    let mut event = event("1", "a");
    event.subject = Some(strange.to_owned());
    let entry = handled(&event, 1, 1, at(10), 0, |one| {
        let attempt = one.attempt.as_mut().unwrap();
        attempt.failure = Some(FailureClass::Connect);
        attempt.error = strange.to_owned();
    });
    let entries = vec![JournalEntry::Routed(routed(&event, &[1], at(9))), entry];
    Journal::new("all a").record(history, entries).await;
    let found = history.event(&key(&event)).await.unwrap().unwrap();
    assert_eq!(found.event.event.subject.as_deref(), Some(strange));
    assert_eq!(found.attempts[0].error, strange);
}

async fn check_schema(settings: &Settings, execute: impl AsyncFn(&str)) {
    let applied = async || {
        let steps = migrations(settings).await.unwrap();
        assert!(!steps.is_empty());
        steps.iter().filter(|step| step.applied).count()
    };
    assert_eq!(applied().await, 0);
    let all = tokio::join!(migrate(settings), migrate(settings), migrate(settings));
    assert!(all.0.is_ok() && all.1.is_ok() && all.2.is_ok());
    assert_eq!(applied().await, migrations(settings).await.unwrap().len());

    execute(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9001, 'later', TRUE, '', 0)",
    )
    .await;
    for fault in [
        History::open(settings).await.err().unwrap(),
        migrate(settings).await.unwrap_err(),
        migrations(settings).await.unwrap_err(),
    ] {
        let newer = matches!(fault, HistoryFault::NewerSchema { found: 9001, .. });
        assert!(newer && !fault.is_transient(), "{fault:?}");
        assert!(fault.to_string().contains("newer release"), "{fault}");
    }
}

#[tokio::test]
async fn a_schema_is_brought_up_to_date_once_and_a_newer_one_refused_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history.db");
    let settings = Settings {
        database: path.clone().into(),
        ..Settings::default()
    };
    let execute = async |statement: &str| {
        let options = SqliteConnectOptions::new().filename(&path);
        let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
        let statement = sqlx::AssertSqlSafe(statement.to_owned());
        sqlx::query(statement)
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
    };
    check_schema(&settings, execute).await;
}

#[tokio::test]
async fn a_schema_is_brought_up_to_date_once_and_a_newer_one_refused_on_postgres() {
    let database = TestDatabase::new();
    let settings = Settings {
        database: database.location(),
        ..Settings::default()
    };
    let execute = async |statement: &str| {
        database.execute(&format!("SET search_path TO fanfare_history; {statement}"));
    };
    check_schema(&settings, execute).await;
}
