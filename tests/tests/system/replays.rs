//! What the history holds is sent again: what a receiver missed, what a new one is to have, one event.

use std::collections::{BTreeMap, BTreeSet};

use fanfare_model::{Endpoint, TenantId};
use fanfare_producer::{EventBuilder, Producer};
use fanfare_registry::NewEndpoint;
use fanfare_testkit::{
    Behaviour, PlainAmqp, Receiver, TestBroker, Version, eventually, wall_clock,
};
use fanfare_tests::{PATIENCE, Program, answer_of, long_proof, on_each_rabbitmq, open_registry};
use futures_util::{StreamExt as _, stream};
use serde_json::Value;
use tempfile::TempDir;

on_each_rabbitmq!(
    a_receiver_that_was_down_finds_what_it_missed_and_gets_it,
    a_new_endpoint_gets_what_it_would_have_been_owed_and_one_event_again,
);

const ROLES: &str = "api,router,dispatcher,recorder";

/// An installation in processes of its own.
struct Installation {
    broker: TestBroker,
    receiver: Receiver,
    home: TempDir,
    producer: Producer,
}

impl Installation {
    async fn new(version: Version) -> Self {
        let broker = TestBroker::new(version);
        let producer = Producer::connect(&broker.settings(), "replays").await;
        Self {
            producer: producer.unwrap(),
            receiver: Receiver::start().await,
            home: TempDir::new().unwrap(),
            broker,
        }
    }

    fn serve(&self) -> Program {
        Program::serve(ROLES, self.broker.url(), &self.home, &[])
    }

    async fn register(&self, path: &str, adjust: impl FnOnce(&mut NewEndpoint)) -> Endpoint {
        let registry = open_registry(&self.home).await;
        let tenant: TenantId = "t".parse().unwrap();
        let url = self.receiver.url(path).parse().unwrap();
        let mut new = NewEndpoint::new(tenant, url, vec!["*".parse().unwrap()]);
        adjust(&mut new);
        let created = registry.create_endpoint(new, "test", wall_clock().now());
        let created = created.await.unwrap();
        registry.close().await;
        created
    }

    async fn publish(&self, numbers: std::ops::Range<usize>) {
        let publishing = stream::iter(numbers).for_each_concurrent(200, async |number| {
            let event_type = if number % 2 == 0 { "even" } else { "odd" };
            let event = EventBuilder::new("t", event_type, "/replays")
                .id(&number.to_string())
                .json(format!(r#"{{"number":{number},"decade":{}}}"#, number / 10).as_bytes())
                .build()
                .unwrap();
            self.producer.publish(&event).await.unwrap();
        });
        publishing.await;
    }

    /// What a command answers in JSON.
    async fn ask(&self, line: &str) -> Value {
        let arguments: Vec<&str> = line.split(' ').collect();
        answer_of(self.broker.url(), &self.home, &arguments).await
    }

    /// The numbers of the events that the feed says an endpoint missed, read page by page.
    async fn missed(&self, endpoint: &Endpoint) -> BTreeSet<usize> {
        let mut found = BTreeSet::new();
        let mut after = String::new();
        loop {
            let line = format!(
                "events feed --tenant t --endpoint {} --state missed --limit 100{after}",
                endpoint.id
            );
            let page = self.ask(&line).await;
            let entries = page.as_array().unwrap();
            let Some(last) = entries.last() else {
                return found;
            };
            after = format!(" --after {}", last["cursor"].as_str().unwrap());
            found.extend(entries.iter().map(|entry| number(&entry["id"])));
        }
    }

    async fn expect_no_dead_letter(&self) {
        let amqp = PlainAmqp::connect(self.broker.url()).await;
        eventually(PATIENCE, "no dead letter left", async || {
            (amqp.depth("fanfare.dead-letters").await == Some(0)).then_some(())
        })
        .await;
    }

    /// The ids under which each event came to a path, one for each request.
    fn arrivals(&self, path: &str) -> BTreeMap<usize, Vec<String>> {
        let mut arrivals: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        let requests = self.receiver.requests();
        for request in requests.iter().filter(|request| request.path == path) {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            let number = usize::try_from(body["data"]["number"].as_u64().unwrap()).unwrap();
            arrivals
                .entry(number)
                .or_default()
                .push(request.id().to_owned());
        }
        arrivals
    }
}

fn number(text: &Value) -> usize {
    text.as_str().unwrap().parse().unwrap()
}

async fn a_receiver_that_was_down_finds_what_it_missed_and_gets_it(version: Version) {
    let third = if long_proof() { 1667 } else { 100 };
    let all = 3 * third;
    let installation = Installation::new(version).await;
    let endpoint = installation
        .register("/hook", |new| new.permanent = "404".parse().unwrap())
        .await;
    let mut program = installation.serve();
    let receiver = &installation.receiver;
    for (part, status) in [(0, 200), (1, 404), (2, 200)] {
        receiver.behave("/hook", Behaviour::status(status));
        installation.publish(part * third..(part + 1) * third).await;
        receiver.expect_requests((part + 1) * third, PATIENCE).await;
    }
    let down: BTreeSet<usize> = (third..2 * third).collect();
    eventually(
        PATIENCE,
        "exactly what it missed, by the feed",
        async || (installation.missed(&endpoint).await == down).then_some(()),
    )
    .await;

    let replay = format!("replay --tenant t --endpoint {} --since 1h", endpoint.id);
    let dry_run = installation.ask(&format!("{replay} --dry-run")).await;
    assert_eq!(dry_run["expected"], third);
    let done = installation
        .ask(&format!("{replay} --why down --yes"))
        .await;
    assert_eq!(
        (&done["state"], &done["resolved"]),
        (&"done".into(), &third.into())
    );
    receiver.expect_requests(all + third, PATIENCE).await;

    let arrivals = installation.arrivals("/hook");
    assert_eq!(arrivals.len(), all);
    for (number, ids) in arrivals {
        let expected = if down.contains(&number) { 2 } else { 1 };
        assert_eq!(ids.len(), expected, "requests for event {number}");
        assert!(
            ids.iter().all(|id| *id == ids[0]),
            "one id for event {number}"
        );
    }
    eventually(PATIENCE, "nothing missed any more", async || {
        installation
            .missed(&endpoint)
            .await
            .is_empty()
            .then_some(())
    })
    .await;
    installation.expect_no_dead_letter().await;
    let again = installation.ask(&format!("{replay} --dry-run")).await;
    assert_eq!(again["expected"], 0);
    let audit = installation.ask("audit --action history.replay").await;
    assert_eq!(audit[0]["detail"]["resolved"], third);
    assert_eq!(program.terminate(), Some(0));
}

async fn a_new_endpoint_gets_what_it_would_have_been_owed_and_one_event_again(version: Version) {
    let installation = Installation::new(version).await;
    let first = installation.register("/first", |_| {}).await;
    let mut program = installation.serve();
    installation.publish(0..40).await;
    installation.receiver.expect_requests(40, PATIENCE).await;
    let second = installation
        .register("/second", |new| {
            new.event_types = vec!["even".parse().unwrap()];
            new.filter = Some(r#"{"data": {"decade": [1, 3]}}"#.parse().unwrap());
        })
        .await;
    let expected: BTreeSet<usize> = [10, 12, 14, 16, 18, 30, 32, 34, 36, 38].into();
    let backfill = format!("replay backfill --tenant t --endpoint {}", second.id);
    let counted =
        async || installation.ask(&format!("{backfill} --dry-run")).await["expected"].clone();
    eventually(PATIENCE, "all that it would have been owed", async || {
        (counted().await == expected.len()).then_some(())
    })
    .await;
    let done = installation
        .ask(&format!("{backfill} --why new --yes"))
        .await;
    assert_eq!(done["resolved"], expected.len());
    installation.receiver.expect_requests(50, PATIENCE).await;
    let came: BTreeSet<usize> = installation.arrivals("/second").into_keys().collect();
    assert_eq!(came, expected);
    eventually(PATIENCE, "nothing left to fill in", async || {
        (counted().await == 0).then_some(())
    })
    .await;

    // One that it never wanted, and one that another endpoint has already.
    for (endpoint, path, number) in [(second, "/second", 7), (first, "/first", 8)] {
        let before = installation.arrivals(path).remove(&number);
        let line = format!(
            "events resend {number} --tenant t --endpoint {} --why asked",
            endpoint.id
        );
        let done = installation.ask(&line).await;
        assert_eq!(
            (&done["state"], &done["resolved"]),
            (&"done".into(), &1.into())
        );
        let came = async || {
            let ids = installation.arrivals(path).remove(&number)?;
            (ids.len() > before.as_ref().map_or(0, Vec::len)).then_some(ids)
        };
        let ids = eventually(PATIENCE, "the event once more", came).await;
        assert!(ids.iter().all(|id| *id == ids[0]));
    }
    assert_eq!(program.terminate(), Some(0));
}
