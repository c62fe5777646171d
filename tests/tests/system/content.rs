//! Filters and payload templates through the whole program.

use fanfare_model::{EventTypePattern, PayloadTemplate};
use fanfare_registry::NewEndpoint;
use fanfare_testkit::{Receiver, TestBroker, Version};
use fanfare_tests::{PATIENCE, Pipeline, on_each_rabbitmq};
use serde_json::{Value, json};

on_each_rabbitmq!(
    an_event_goes_to_the_endpoints_that_want_its_content,
    a_template_makes_the_body_and_one_that_fails_a_dead_letter,
);

fn event(id: &str, data: &Value) -> String {
    let event = json!({
        "specversion": "1.0", "id": id, "source": "/test", "type": "order.paid", "tenant": "t",
        "data": data,
    });
    event.to_string()
}

fn filtered(filter: &str) -> impl FnOnce(&mut NewEndpoint) {
    let filter = filter.parse().unwrap();
    |new| new.filter = Some(filter)
}

fn template(form: Value) -> impl FnOnce(&mut NewEndpoint) {
    let template: PayloadTemplate = serde_json::from_value(form).unwrap();
    |new| {
        new.template = Some(template);
        new.event_types = vec![EventTypePattern::Any];
    }
}

async fn an_event_goes_to_the_endpoints_that_want_its_content(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    for (path, filter) in [
        (
            "/large",
            r#"{"data": {"amount": [{"numeric": [">=", 100]}]}}"#,
        ),
        ("/euros", r#"{"data": {"currency": ["EUR"]}}"#),
        ("/nobody", r#"{"subject": [{"exists": true}]}"#),
    ] {
        let url = receiver.url(path);
        pipeline
            .register("t", &url, &["order.*"], filtered(filter))
            .await;
    }

    let amqp = pipeline.plain_amqp().await;
    for (id, amount, currency) in [("1", 5, "USD"), ("2", 100, "USD"), ("3", 200, "EUR")] {
        let data = json!({"amount": amount, "currency": currency});
        amqp.publish_event("t.order.paid", &event(id, &data)).await;
    }
    let mut received: Vec<_> = receiver
        .expect_requests(3, PATIENCE)
        .await
        .iter()
        .map(|request| {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            (
                request.path.clone(),
                body["data"]["amount"].as_u64().unwrap(),
            )
        })
        .collect();
    received.sort();
    let expected = [("/euros", 200), ("/large", 100), ("/large", 200)];
    let expected = expected.map(|(path, amount)| (path.to_owned(), amount));
    assert_eq!(received, expected);
    // An event that no filter wants is accepted; it is neither rejected nor a dead letter.
    for queue in ["events", "rejected", "dead-letters"] {
        pipeline.expect_depth(&format!("fanfare.{queue}"), 0).await;
    }
    pipeline.stop().await;
    assert_eq!(receiver.count(), 3);
}

async fn a_template_makes_the_body_and_one_that_fails_a_dead_letter(version: Version) {
    let (broker, receiver) = (TestBroker::new(version), Receiver::start().await);
    let pipeline = Pipeline::start(broker.settings()).await;
    let source = "{\n  \"text\": \"{{ data.name }} paid\"\n}";
    let own = pipeline
        .register(
            "t",
            &receiver.url("/own"),
            &["*"],
            template(json!({"source": source})),
        )
        .await;
    let slack = template(json!({"preset": "slack"}));
    pipeline
        .register("u", &receiver.url("/slack"), &["*"], slack)
        .await;

    let amqp = pipeline.plain_amqp().await;
    let data = json!({"name": "Ada \"A\" O"});
    amqp.publish_event("t.order.paid", &event("1", &data)).await;
    let request = receiver.expect_requests(1, PATIENCE).await.remove(0);
    request.assert_signed_by(&own.secrets[0]);
    assert_eq!(request.header("content-type"), "application/json");
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body, json!({"text": "Ada \"A\" O paid"}));

    let other = event("2", &data).replace(r#""tenant":"t""#, r#""tenant":"u""#);
    amqp.publish_event("u.order.paid", &other).await;
    let request = receiver.expect_requests(2, PATIENCE).await.remove(1);
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(
        body["blocks"][1]["fields"][0]["text"],
        "*name*\nAda \"A\" O"
    );

    amqp.publish_event("t.order.paid", &event("3", &json!({})))
        .await;
    pipeline.expect_depth("fanfare.dead-letters", 1).await;
    let letter = amqp.get("fanfare.dead-letters").await.unwrap();
    assert_eq!(letter.headers["x-fanfare-reason"], "template");
    let error = &letter.headers["x-fanfare-last-error"];
    assert!(
        error.starts_with("template, line 2, column 15: "),
        "{error}"
    );
    pipeline.stop().await;
    assert_eq!(receiver.count(), 2);
}
