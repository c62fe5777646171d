//! What chats and automation services get, whole: the shape that each says it accepts.

use std::sync::Arc;

use fanfare_egress::attempt;
use fanfare_model::{Auth, Delivery, Endpoint, Event, PayloadTemplate, TraceContext};
use fanfare_testkit::{ReceivedRequest, Receiver, wall_clock};
use serde_json::{Value, json};

use crate::support::{PATIENCE, answered, egress, endpoint};

/// What a receiver gets for an endpoint with this template and these credentials.
async fn sent(template: Value, auth: Option<Value>) -> ReceivedRequest {
    let receiver = Receiver::start().await;
    let endpoint = Endpoint {
        template: Some(serde_json::from_value::<PayloadTemplate>(template).unwrap()),
        auth: auth.map(|auth| Box::new(serde_json::from_value::<Auth>(auth).unwrap())),
        ..endpoint(&receiver.url("/"))
    };
    let data = r#"{"name": "Ada & \"Co\"", "points": 3, "tags": ["a"]}"#;
    let mut event = Event::for_tests("t", "/shop", "7", "reward.unlocked", data.as_bytes());
    event.time = Some("2026-11-24T12:00:00Z".parse().unwrap());
    event.subject = Some("order-1".to_owned());
    let now = wall_clock().now();
    let delivery = Delivery::new(
        Arc::new(event),
        endpoint.id,
        1,
        TraceContext::default(),
        now,
    );
    let outcome = attempt(&egress(), &endpoint, &delivery, now, PATIENCE).await;
    assert_eq!(outcome, answered(200));
    let request = receiver.requests().remove(0);
    request.assert_signed_by(&endpoint.secrets[0]);
    request
}

async fn assert_posts(template: Value, expected: Value) {
    let request = sent(template.clone(), None).await;
    assert_eq!(request.header("content-type"), "application/json");
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body, expected, "{template}");
}

/// <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>, with blocks.
#[tokio::test]
async fn slack_gets_a_message_of_blocks() {
    let text = |text: &str| json!({"type": "mrkdwn", "text": text});
    let fields = ["*name*\nAda &amp; \"Co\"", "*points*\n3", "*tags*\n[\"a\"]"].map(text);
    let expected = json!({
        "text": "New",
        "blocks": [
            {"type": "header", "text": {"type": "plain_text", "text": "New"}},
            {"type": "section", "fields": fields},
            {"type": "context", "elements": [text("t · 2026-11-24T12:00:00Z · order-1")]},
        ],
    });
    assert_posts(
        json!({"preset": "slack", "parameters": {"title": "New"}}),
        expected,
    )
    .await;
}

/// <https://discord.com/developers/docs/resources/webhook#execute-webhook>.
#[tokio::test]
async fn discord_gets_an_embed_that_mentions_nobody() {
    let field = |name: &str, value: &str| json!({"name": name, "value": value, "inline": true});
    let expected = json!({
        "username": "Shop",
        "allowed_mentions": {"parse": []},
        "embeds": [{
            "title": "reward.unlocked",
            "description": "order-1",
            "timestamp": "2026-11-24T12:00:00Z",
            "footer": {"text": "t"},
            "fields": [field("name", "Ada & \"Co\""), field("points", "3"), field("tags", "[\"a\"]")],
        }],
    });
    let template = json!({"preset": "discord", "parameters": {"username": "Shop"}});
    assert_posts(template, expected).await;
}

/// <https://core.telegram.org/bots/api#sendmessage>, as JSON; without a parse mode nothing has to be escaped.
#[tokio::test]
async fn telegram_gets_a_plain_text_for_a_chat() {
    let text = "reward.unlocked\norder-1\nname: Ada & \"Co\"\npoints: 3\ntags: [\"a\"]";
    let expected = json!({
        "chat_id": "-100", "text": text, "link_preview_options": {"is_disabled": true},
    });
    let template = json!({"preset": "telegram", "parameters": {"chat_id": "-100"}});
    assert_posts(template, expected).await;
}

/// What the trigger "when a Teams webhook request is received" takes: one adaptive card as an attachment.
#[tokio::test]
async fn teams_gets_an_adaptive_card() {
    let fact = |title: &str, value: &str| json!({"title": title, "value": value});
    let body = json!([
        {"type": "TextBlock", "size": "Medium", "weight": "Bolder", "wrap": true, "text": "reward.unlocked"},
        {"type": "TextBlock", "isSubtle": true, "spacing": "None", "wrap": true,
            "text": "t · 2026-11-24T12:00:00Z · order-1"},
        {"type": "FactSet", "facts": [fact("name", "Ada & \"Co\""), fact("points", "3"), fact("tags", "[\"a\"]")]},
    ]);
    let card = json!({
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard", "version": "1.4", "body": body,
    });
    let attachment = json!({
        "contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": null, "content": card,
    });
    let expected = json!({"type": "message", "attachments": [attachment]});
    assert_posts(json!({"preset": "teams"}), expected).await;
}

/// A catch hook takes any JSON; its members become the fields of a Zap.
#[tokio::test]
async fn zapier_gets_the_event() {
    let template = json!({"preset": "zapier"});
    let request = sent(template, None).await;
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let expected = json!({
        "id": "7", "type": "reward.unlocked", "source": "/shop", "subject": "order-1", "tenant": "t",
        "time": "2026-11-24T12:00:00Z", "webhook_id": request.id(),
        "data": {"name": "Ada & \"Co\"", "points": 3, "tags": ["a"]},
    });
    assert_eq!(body, expected);
}

/// <https://www.twilio.com/docs/messaging/api/message-resource#create-a-message-resource>: a form, with the account's
/// SID and its token as basic authentication.
#[tokio::test]
async fn twilio_gets_a_form_with_basic_authentication() {
    let template =
        json!({"preset": "twilio", "parameters": {"from": "+15550001", "to": "+447700900000"}});
    let auth = json!({"kind": "basic", "username": "AC1", "password": "token"});
    let request = sent(template, Some(auth)).await;
    assert_eq!(
        request.header("content-type"),
        "application/x-www-form-urlencoded"
    );
    assert_eq!(request.header("authorization"), "Basic QUMxOnRva2Vu");
    let body = std::str::from_utf8(&request.body).unwrap();
    let expected = "To=%2B447700900000&From=%2B15550001&Body=reward.unlocked%0Aname%3A+Ada+%26+%22Co%22%0Apoints%3A+3\
                    %0Atags%3A+%5B%22a%22%5D";
    assert_eq!(body, expected);
}
