//! The examples of producers and receivers, in four languages, on a live pipeline.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use fanfare_model::{SigningSecret, sign_standard};
use fanfare_testkit::{Receiver, TestBroker, Version, eventually, wall_clock};
use fanfare_tests::{Language, PATIENCE, Pipeline};
use serde_json::Value;

use crate::delivery::event;

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const EVENTS: usize = 25;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_example_of_a_producer_publishes_what_arrives_with_its_trace() {
    let (broker, receiver) = (TestBroker::new(Version::V4_3), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    let url = receiver.url("/a");
    pipeline.register("t", &url, &["reward.*"], |_| {}).await;

    let publishing = Language::ALL.map(|language| {
        let mut command = language.producer();
        command.args([broker.url(), "t", &EVENTS.to_string()]);
        command.env("TRACEPARENT", TRACE);
        tokio::task::spawn_blocking(move || command.output().expect("the example runs"))
    });
    for (language, publishing) in Language::ALL.into_iter().zip(publishing) {
        let output = publishing.await.unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{language:?}: {told}");
        let printed = String::from_utf8_lossy(&output.stdout);
        assert_eq!(printed, format!("RabbitMQ has stored {EVENTS} events\n"));
    }

    let requests = receiver.expect_requests(4 * EVENTS, PATIENCE).await;
    assert_eq!(requests.len(), 4 * EVENTS, "each event arrived once");
    let mut arrived: BTreeMap<String, usize> = BTreeMap::new();
    for request in requests {
        assert_eq!(request.header("traceparent"), TRACE);
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let language = body["data"]["language"].as_str().unwrap().to_owned();
        *arrived.entry(language).or_default() += 1;
    }
    let expected = Language::ALL.map(|language| (language.name().to_owned(), EVENTS));
    assert_eq!(arrived, expected.into());
    pipeline.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_example_of_a_producer_tells_that_a_full_queue_refused_it() {
    let broker = TestBroker::new(Version::V4_3);
    let settings = fanfare_broker::Settings {
        events_max_bytes: 1,
        ..broker.settings()
    };
    // Declares the queues, and nobody takes from them.
    let idle = fanfare_broker::Broker::connect(&settings, "idle", PATIENCE).await;
    let idle = idle.unwrap();
    let producer = fanfare_producer::Producer::on(&idle, wall_clock());
    let filling = fanfare_model::Event::for_tests("t", "/s", "1", "a", b"{}");
    eventually(PATIENCE, "a refusal", async || {
        producer.publish(&filling).await.is_err().then_some(())
    })
    .await;
    // The SDK is patient for longer than this test is, and declares the queue with its own limit.
    let languages = [Language::Python, Language::Node, Language::Go];
    let publishing = languages.map(|language| {
        let mut command = language.producer();
        command.args([broker.url(), "t", "2"]);
        tokio::task::spawn_blocking(move || command.output().expect("the example runs"))
    });
    for (language, publishing) in languages.into_iter().zip(publishing) {
        let output = publishing.await.unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{language:?}");
        for words in ["refused", "try 1 of 5", "not stored"] {
            assert!(told.contains(words), "{language:?}: {told}");
        }
    }
    idle.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_example_of_a_receiver_verifies_and_works_once() {
    let broker = TestBroker::new(Version::V4_3);
    let pipeline = Pipeline::start(broker.settings()).await;
    let secret = SigningSecret::generate();
    let mut running = Vec::new();
    for language in Language::ALL {
        let receiver = Running::start(language.receiver(), &secret).await;
        let signing = secret.clone();
        let url = receiver.url.clone();
        let adjust = |new: &mut fanfare_registry::NewEndpoint| new.secrets = vec![signing];
        pipeline.register("t", &url, &["*"], adjust).await;
        running.push(receiver);
    }
    let address = ("fanfare.events", "t.a");
    let headers = [("traceparent", TRACE)];
    let json = event("1", "a");
    let amqp = pipeline.plain_amqp().await;
    amqp.publish(
        address,
        "application/cloudevents+json",
        &headers,
        json.as_bytes(),
    )
    .await;

    for (language, receiver) in Language::ALL.into_iter().zip(&running) {
        let told = receiver.expect_lines(1).await.remove(0);
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["type"], "a", "{language:?}");
        assert_eq!(told["traceparent"], TRACE, "{language:?}");
        assert_eq!(told["data"]["n"], 1, "{language:?}");

        // A repeat, as it comes when we do not learn of the answer; then forgeries; then something new.
        let id = told["id"].as_str().unwrap();
        let other = SigningSecret::generate();
        for (id, signed_by, body, status) in [
            (id, &secret, BODY, 204),
            ("msg_2", &other, BODY, 401),
            ("msg_3", &secret, "{\"type\":\"forged\"", 401),
            ("msg_4", &secret, BODY, 204),
        ] {
            let signed = if status == 401 { BODY } else { body };
            let answered = receiver.post(id, signed_by, signed, body);
            assert_eq!(answered, status, "{language:?} {id} {body}");
        }
        let lines = receiver.expect_lines(2).await;
        assert_eq!(lines.len(), 2, "{language:?}: {lines:?}");
        let last: Value = serde_json::from_str(&lines[1]).unwrap();
        assert_eq!(last["id"], "msg_4", "{language:?}");
    }
    pipeline.stop().await;
}

const BODY: &str = r#"{"type":"b","timestamp":"2026-11-23T12:00:00Z","data":{}}"#;

/// An example that receives. It is killed when dropped.
struct Running {
    child: Child,
    url: String,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Running {
    async fn start(mut command: Command, secret: &SigningSecret) -> Self {
        let mut child = command
            .arg("0")
            .env("WEBHOOK_SECRET", secret.reveal())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example starts");
        let output = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        let lines = Arc::new(Mutex::new(Vec::new()));
        let reading = Arc::clone(&lines);
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                reading.lock().unwrap().push(line);
            }
        });
        let mut receiver = Self {
            child,
            url: String::new(),
            lines,
        };
        let first = eventually(PATIENCE, "the example listens", async || {
            receiver.lines.lock().unwrap().first().cloned()
        });
        let first = first.await;
        let url = first.strip_prefix("listening at ").expect("it says where");
        receiver.url = url.to_owned();
        receiver
    }

    /// Waits until it has told of this many notifications, and returns what it told.
    async fn expect_lines(&self, at_least: usize) -> Vec<String> {
        let what = format!("{at_least} notifications told by {}", self.url);
        eventually(PATIENCE, &what, async || {
            let lines = self.lines.lock().unwrap();
            (lines.len() > at_least).then(|| lines[1..].to_vec())
        })
        .await
    }

    /// Sends a webhook signed for one body with perhaps another, and returns the status of the answer.
    fn post(&self, id: &str, secret: &SigningSecret, signed: &str, body: &str) -> u16 {
        let now = wall_clock().now();
        let signature = sign_standard(std::slice::from_ref(secret), id, now, signed.as_bytes());
        let host = self.url.trim_start_matches("http://").trim_end_matches('/');
        let mut stream = TcpStream::connect(host).expect("the example listens");
        let request = format!(
            "POST / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {}\r\n\
             webhook-id: {id}\r\nwebhook-timestamp: {}\r\nwebhook-signature: {signature}\r\n\r\n{body}",
            body.len(),
            now.as_second(),
        );
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let status = answer.split(' ').nth(1).expect("a status line");
        status.parse().expect("a status")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
