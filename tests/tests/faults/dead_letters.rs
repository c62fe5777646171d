//! `kill -9` of two operators who replay and discard at once.

use std::{collections::BTreeSet, time::Duration};

use fanfare_broker::{Broker, Place};
use fanfare_deadletters::{Desk, Filter, Settings, View};
use fanfare_journal::{History, LetterFilter};
use fanfare_registry::{AuditPage, Operation, OperationPage, OperationState, Registry};
use fanfare_testkit::{TestBroker, Version, eventually};
use fanfare_tests::{
    PATIENCE, Program, bury, command, letter, on_each_rabbitmq, open_history, open_registry, owed,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tempfile::TempDir;

on_each_rabbitmq!(killing_operators_loses_nothing_and_leaves_the_depth_true);

/// Dead letters of each of three endpoints: one is replayed, one discarded, one left alone.
const EACH: usize = 1000;
const KILLS: u64 = 5;
const SEED: u64 = 20_261_127;

async fn killing_operators_loses_nothing_and_leaves_the_depth_true(version: Version) {
    let bound = KILLS * Desk::repeats_at_most() as u64;
    let name = version.name();
    eprintln!("RabbitMQ {name}: at most {bound} duplicates after {KILLS} kills of both operators");

    let (host, home) = (
        TestBroker::new(version),
        TempDir::new().expect("a directory"),
    );
    let broker = Broker::connect(&host.settings(), "letters", PATIENCE).await;
    let broker = broker.expect("it connects");
    let letters = (0..3 * EACH).map(|number| letter(number, (number % 3) as u8));
    bury(&broker, letters).await;
    let mut recorder = Program::serve("recorder", host.url(), &home, &[]);
    let history = indexed(&host, &home).await;
    let registry = open_registry(&home).await;
    for (action, endpoint) in [("replay", 1_u8), ("discard", 2)] {
        ask(&host, &home, action, endpoint);
    }
    kill_at_seeded_moments(&host, &home, &registry).await;

    expect_depth(&broker, EACH as u64).await;
    let operations = operations(&registry).await;
    for operation in &operations {
        assert_eq!(operation.state, OperationState::Done);
        assert_eq!(operation.resolved, EACH as u64);
    }
    let rest = left_in_queue(&broker).await;
    let alone = (0..3 * EACH)
        .step_by(3)
        .map(|number| letter(number, 0).delivery.id.to_string());
    assert_eq!(
        rest,
        alone.collect(),
        "exactly those that nobody asked about"
    );
    assert_audited(&registry, &operations).await;
    let replayed = owed(&broker).await;
    let expected = (1..3 * EACH)
        .step_by(3)
        .map(|number| (letter(number, 1).delivery.id, 1));
    let found: BTreeSet<_> = replayed.keys().copied().collect();
    assert_eq!(
        found,
        expected.collect(),
        "every replay is owed, and nothing else"
    );
    let duplicates = replayed.values().sum::<u64>() - EACH as u64;
    assert!(duplicates <= bound, "{duplicates} duplicates");
    eventually(PATIENCE, "the index to be as the queue is", async || {
        let counted = history.count_letters(&LetterFilter::default()).await.ok()?;
        (counted == EACH as u64).then_some(())
    })
    .await;
    eprintln!("RabbitMQ {name}: {EACH} replayed, {EACH} discarded, {duplicates} duplicates");
    assert_eq!(recorder.terminate(), Some(0));
    registry.close().await;
    history.close().await;
    broker.close().await;
}

/// The history, with everything that the queue holds in its index.
async fn indexed(host: &TestBroker, home: &TempDir) -> History {
    let history = open_history(home).await;
    let arguments = ["dead-letters", "reindex"];
    let mut reindex = Program::operator(&arguments, host.url(), home);
    assert_eq!(reindex.wait(), Some(0));
    let all = LetterFilter::default();
    let counted = history.count_letters(&all).await.expect("it answers");
    assert_eq!(counted, 3 * EACH as u64);
    history
}

/// Asks for something and leaves it to whoever passes over the queue.
fn ask(host: &TestBroker, home: &TempDir, action: &str, endpoint: u8) {
    let endpoint = letter(0, endpoint).delivery.endpoint.to_string();
    let mut asking = command(host.url(), home.path());
    asking.args(["dead-letters", action, "--endpoint", &endpoint, "--yes"]);
    asking.args(["--why", "a test", "--no-wait", "--pace", "1000/s"]);
    let asked = asking.output().expect("the program runs");
    assert!(asked.status.success(), "{asked:?}");
}

/// Two operators pass over the queue at once; both are killed each time that so many messages are dealt with.
async fn kill_at_seeded_moments(host: &TestBroker, home: &TempDir, registry: &Registry) {
    let mut random = StdRng::seed_from_u64(SEED);
    let latest = EACH as u64 * 2 * 8 / 10;
    let mut moments: Vec<u64> = (0..KILLS).map(|_| random.random_range(1..latest)).collect();
    moments.sort_unstable();
    let start = || {
        let arguments = ["dead-letters", "operations", "resume"];
        [0, 1].map(|_| Program::operator(&arguments, host.url(), home))
    };
    let mut operators = start();
    for moment in moments {
        let what = format!("{moment} messages dealt with");
        eventually(Duration::from_secs(120), &what, async || {
            let resolved: u64 = operations(registry)
                .await
                .iter()
                .map(|one| one.resolved)
                .sum();
            (resolved >= moment).then_some(())
        })
        .await;
        operators.iter_mut().for_each(Program::kill);
        operators = start();
    }
    let ended = tokio::task::spawn_blocking(move || operators.map(|mut one| one.wait()));
    assert_eq!(ended.await.expect("it ends"), [Some(0), Some(0)]);
}

async fn operations(registry: &Registry) -> Vec<Operation> {
    let page = OperationPage {
        limit: 10,
        ..OperationPage::default()
    };
    registry.operations(&page).await.expect("the store answers")
}

async fn expect_depth(broker: &Broker, depth: u64) {
    let queue = broker.topology().queue_of(Place::DeadLetters);
    let what = format!("{depth} dead letters");
    eventually(PATIENCE, &what, async || {
        (u64::from(broker.depth(&queue).await.ok()?) == depth).then_some(())
    })
    .await;
}

async fn left_in_queue(broker: &Broker) -> BTreeSet<String> {
    let view = View::of_queues(broker, &Settings::default());
    let listed = view
        .list(Place::DeadLetters, &Filter::default(), None, 10_000)
        .await;
    let listed = listed.expect("the broker is there").found;
    listed.into_iter().map(|entry| entry.id).collect()
}

/// Each operation was asked for once and done once, with the count that is true.
async fn assert_audited(registry: &Registry, operations: &[Operation]) {
    let audit = registry.audit(&AuditPage::latest(100)).await;
    let audit = audit.expect("the store answers");
    for operation in operations {
        let id = operation.id.to_string();
        let about = audit.iter().rev().filter(|entry| entry.subject == id);
        let about: Vec<_> = about.collect();
        let asked = format!("dead-letters.{}", operation.request.action);
        let actions: Vec<_> = about.iter().map(|entry| entry.action.clone()).collect();
        assert_eq!(actions, [asked.clone(), format!("{asked}.done")]);
        assert_eq!(about[0].detail["expected"], EACH);
        assert_eq!(about[1].detail["resolved"], EACH);
    }
}
