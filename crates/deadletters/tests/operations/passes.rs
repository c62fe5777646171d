//! A pass deals with what is meant, once, and leaves everything else.

use fanfare_broker::Place;
use fanfare_deadletters::{Action, Filter, Progress};
use fanfare_model::DeadLetterReason;
use fanfare_registry::{AuditPage, OperationState};
use fanfare_testkit::Version;
use fanfare_wire::encode_dead_letter;
use tokio_util::sync::CancellationToken;

use crate::support::{Office, endpoint, letter, letters, on_every_version, request};

on_every_version!(
    a_replay_takes_what_is_meant_and_nothing_else,
    operations_are_the_same_in_postgres,
    a_long_queue_is_turned_round,
    a_discard_remembers_what_was_discarded,
    copies_of_a_dead_letter_are_dropped,
    two_processes_that_pass_at_once_do_everything_once,
    an_operation_that_is_cancelled_leaves_the_rest,
    a_pass_that_is_stopped_goes_on_later,
);

const PLACE: Place = Place::DeadLetters;

fn of_endpoint(number: u128) -> Filter {
    Filter {
        endpoint: Some(endpoint(number)),
        ..Filter::default()
    }
}

async fn replay_one_of_three(office: &Office) {
    office.bury(letters(1500, 3)).await;
    let operation = office
        .carry_out(PLACE, Action::Replay, of_endpoint(1))
        .await;
    assert_eq!(operation.state, OperationState::Done);
    assert_eq!((operation.request.expected, operation.resolved), (500, 500));
    office.expect_depth(PLACE, 1000).await;
    let owed = office.owed().await;
    assert_eq!(owed.len(), 500);
    assert!(
        owed.iter()
            .all(|((_, replay), count)| (*replay, *count) == (1, 1))
    );

    // Asked for again, it finds nothing.
    let again = office
        .carry_out(PLACE, Action::Replay, of_endpoint(1))
        .await;
    assert_eq!((again.state, again.resolved), (OperationState::Done, 0));
    office.expect_depth(PLACE, 1000).await;

    let all = office.carry_out(PLACE, Action::Replay, Filter::default());
    assert_eq!(all.await.resolved, 1000);
    office.expect_depth(PLACE, 0).await;
    assert_eq!(office.owed().await.len(), 1500);

    let audit = office.registry.audit(&AuditPage::latest(20)).await.unwrap();
    let about = audit
        .iter()
        .filter(|entry| entry.subject == operation.id.to_string());
    let actions: Vec<_> = about
        .map(|e| (e.action.as_str(), e.actor.as_str()))
        .collect();
    let done = ("dead-letters.replay.done", "tester");
    assert_eq!(actions, [done, ("dead-letters.replay", "tester")]);
}

async fn a_replay_takes_what_is_meant_and_nothing_else(version: Version) {
    let office = Office::open(version).await;
    replay_one_of_three(&office).await;
    office.broker.close().await;
}

async fn operations_are_the_same_in_postgres(version: Version) {
    let office = Office::open_with_postgres(version).await;
    replay_one_of_three(&office).await;
    copies_are_dropped(&office).await;
    office.broker.close().await;
}

async fn a_long_queue_is_turned_round(version: Version) {
    let mut office = Office::open(version).await;
    office.settings.hold_at_most = 0;
    replay_one_of_three(&office).await;
    office.broker.close().await;
}

async fn a_discard_remembers_what_was_discarded(version: Version) {
    let office = Office::open(version).await;
    office.bury(letters(20, 2)).await;
    let gone = letter(99, endpoint(0), DeadLetterReason::Gone);
    office.bury([gone.clone()]).await;
    let filter = Filter {
        reason: Some("gone".to_owned()),
        ..Filter::default()
    };
    let operation = office.carry_out(PLACE, Action::Discard, filter).await;
    assert_eq!(operation.resolved, 1);
    office.expect_depth(PLACE, 20).await;
    assert!(office.owed().await.is_empty());
    let items = office.registry.operation_items(operation.id, "", 10).await;
    let [item] = &items.unwrap()[..] else {
        panic!("one message was discarded")
    };
    assert_eq!(item.summary["event_id"], "event-99");
    assert_eq!(item.summary["id"], gone.delivery.id.to_string());
    office.broker.close().await;
}

async fn copies_of_a_dead_letter_are_dropped(version: Version) {
    let mut office = Office::open(version).await;
    for hold_at_most in [1000, 0] {
        office.settings.hold_at_most = hold_at_most;
        copies_are_dropped(&office).await;
    }
    office.broker.close().await;
}

async fn copies_are_dropped(office: &Office) {
    // What a process leaves that died between a confirm and an acknowledgement.
    for _ in 0..2 {
        office.bury(letters(10, 2)).await;
    }
    let operation = office
        .carry_out(PLACE, Action::Replay, of_endpoint(1))
        .await;
    assert_eq!(operation.resolved, 5);
    office.expect_depth(PLACE, 5).await;
    let all = office.carry_out(PLACE, Action::Discard, Filter::default());
    assert_eq!(all.await.resolved, 5);
    office.expect_depth(PLACE, 0).await;
}

async fn two_processes_that_pass_at_once_do_everything_once(version: Version) {
    let office = Office::open(version).await;
    office.bury(letters(1200, 3)).await;
    let desk = office.desk();
    let mut asked = Vec::new();
    for number in [0, 1] {
        let request = request(PLACE, Action::Replay, of_endpoint(number));
        let operation = desk.request(request, 400, "tester").await.unwrap();
        asked.push(operation.operation.id);
    }
    tokio::join!(office.run(PLACE), office.run(PLACE), office.run(PLACE));
    for id in asked {
        let operation = office.registry.operation(id).await.unwrap().unwrap();
        assert_eq!(operation.state, OperationState::Done);
        assert_eq!(operation.resolved, 400);
    }
    office.expect_depth(PLACE, 400).await;
    let owed = office.owed().await;
    assert_eq!(owed.len(), 800);
    assert!(owed.values().all(|count| *count == 1));
    office.broker.close().await;
}

async fn an_operation_that_is_cancelled_leaves_the_rest(version: Version) {
    let mut office = Office::open(version).await;
    office.settings.replay_pace = "200/s".parse().unwrap();
    office.bury(letters(1000, 1)).await;
    let desk = office.desk();
    let request = request(PLACE, Action::Replay, Filter::default());
    let id = desk
        .request(request, 1000, "tester")
        .await
        .unwrap()
        .operation
        .id;
    let (begun, stop) = (CancellationToken::new(), CancellationToken::new());
    let mut tell = |progress: &Progress| {
        if progress.operation.resolved > 0 {
            begun.cancel();
        }
    };
    let cancel = async {
        begun.cancelled().await;
        desk.cancel(id, "somebody").await.unwrap().unwrap()
    };
    let (ran, _) = tokio::join!(desk.run(PLACE, &stop, &mut tell), cancel);
    ran.unwrap();
    let operation = office.registry.operation(id).await.unwrap().unwrap();
    assert_eq!(operation.state, OperationState::Cancelled);
    let resolved = u32::try_from(operation.resolved).unwrap();
    assert!((1..1000).contains(&resolved), "{resolved}");
    office.expect_depth(PLACE, 1000 - resolved).await;
    assert_eq!(office.owed().await.len(), resolved as usize);
    office.broker.close().await;
}

async fn a_pass_that_is_stopped_goes_on_later(version: Version) {
    let mut office = Office::open(version).await;
    office.settings.replay_pace = "400/s".parse().unwrap();
    office.bury(letters(600, 1)).await;
    let desk = office.desk();
    let asked = request(PLACE, Action::Replay, Filter::default());
    let id = desk
        .request(asked, 600, "tester")
        .await
        .unwrap()
        .operation
        .id;
    let stop = CancellationToken::new();
    let mut tell = |progress: &Progress| {
        if progress.operation.resolved > 100 {
            stop.cancel();
        }
    };
    desk.run(PLACE, &stop, &mut tell).await.unwrap();
    let operation = office.registry.operation(id).await.unwrap().unwrap();
    assert_eq!(operation.state, OperationState::Running);
    let rest = 600 - u32::try_from(operation.resolved).unwrap();
    office.expect_depth(PLACE, rest).await;

    // A replay that failed meanwhile is not replayed by the same operation.
    let again = letter(5, endpoint(0), DeadLetterReason::Disabled);
    let failed = fanfare_model::DeadLetter {
        delivery: again.delivery.replayed(again.since),
        since: fanfare_testkit::wall_clock().now(),
        ..again
    };
    let address = office.broker.topology().dead_address();
    let publisher = office.broker.publisher();
    publisher
        .publish(&address, encode_dead_letter(&failed))
        .await
        .unwrap();
    office.run(PLACE).await;
    let operation = office.registry.operation(id).await.unwrap().unwrap();
    assert_eq!(operation.state, OperationState::Done);
    assert_eq!(operation.resolved, 600);
    office.expect_depth(PLACE, 1).await;
    assert_eq!(office.owed().await.len(), 600);
    office.broker.close().await;
}
