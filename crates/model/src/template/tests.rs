//! Tables: what templates render, and what is no template.

use serde_json::{Value, json};

use super::*;

fn event(data: &str) -> Arc<Event> {
    let mut event = Event::for_tests("t", "/shop", "7", "reward.unlocked", data.as_bytes());
    event.time = Some("2026-11-24T12:00:00Z".parse().unwrap());
    Arc::new(event)
}

fn form(source: &str, media_type: &str) -> TemplateForm {
    TemplateForm {
        source: Some(source.to_owned()),
        media_type: Some(media_type.to_owned()),
        ..TemplateForm::default()
    }
}

fn rendered(template: &PayloadTemplate, data: &str) -> Result<String, TemplateFault> {
    let rendered = template.render(&event(data), "msg_1", Timestamp::UNIX_EPOCH)?;
    Ok(String::from_utf8(rendered.body).unwrap())
}

fn check(source: &str, media_type: &str, data: &str, expected: &str) {
    let template = PayloadTemplate::new(form(source, media_type)).unwrap();
    assert_eq!(rendered(&template, data).unwrap(), expected, "{source}");
}

#[test]
fn values_are_written_as_the_media_type_asks() {
    let nasty =
        r#"{"name": "A \"B\" <c> & d/é\n", "list": [1, {"a": null}], "none": null, "real": 1.0}"#;
    for (source, expected) in [
        (
            r#"{"n": {{ data.name }}}"#,
            r#"{"n": "A \"B\" <c> & d/é\n"}"#,
        ),
        (
            r#"{"n": "-{{ data.name }}-"}"#,
            r#"{"n": "-A \"B\" <c> & d/é\n-"}"#,
        ),
        (r#"{"n": {{ data.list }}}"#, r#"{"n": [1,{"a":null}]}"#),
        (
            r#"{"n": "{{ data.list }}"}"#,
            r#"{"n": "[1,{\"a\":null}]"}"#,
        ),
        (
            r#"[{{ data.none }}, "{{ data.none }}", {{ data.real }}]"#,
            r#"[null, "", 1.0]"#,
        ),
        (
            r#"{{ "Hi " ~ data.name|upper }}"#,
            r#""Hi A \"B\" <C> & D/É\n""#,
        ),
        (
            r#"{"{{ type }}": {{ data.x|default("no") }}}"#,
            r#"{"reward.unlocked": "no"}"#,
        ),
        (
            r#"[{% for one in data.list %}{{ one }}{% if not loop.last %}, {% endif %}{% endfor %}]"#,
            r#"[1, {"a":null}]"#,
        ),
        (
            r#"[{{ id }}, {{ source }}, {{ tenant }}, {{ time }}, {{ webhook_id }}, {{ event.specversion }}]"#,
            r#"["7", "/shop", "t", "2026-11-24T12:00:00Z", "msg_1", "1.0"]"#,
        ),
    ] {
        check(source, "application/json", nasty, expected);
    }
    check(
        "n={{ data.name }}&x",
        "application/x-www-form-urlencoded",
        nasty,
        "n=A+%22B%22+%3Cc%3E+%26+d%2F%C3%A9%0A&x",
    );
    check(
        "<n>{{ data.name|trim }}</n>",
        "text/xml",
        nasty,
        "<n>A &quot;B&quot; &lt;c&gt; &amp; d&#x2f;é</n>",
    );
    check(
        "{{ data.name }}{{ data.none }}",
        "text/plain",
        nasty,
        "A \"B\" <c> & d/é\n",
    );
}

#[test]
fn a_template_sees_extensions_text_and_parameters() {
    let mut event = Event::for_tests("t", "s", "1", "a", b"hello");
    event.data_content_type = Some("text/plain".to_owned());
    event
        .extensions
        .insert("level".to_owned(), crate::AttributeValue::Integer(3));
    let template = PayloadTemplate::new(TemplateForm {
        parameters: BTreeMap::from([("to".to_owned(), "x".to_owned())]),
        ..form(
            "{{ data }} {{ event.level }} {{ parameters.to }} {{ time }}",
            "text/plain",
        )
    });
    let rendered = template
        .unwrap()
        .render(&Arc::new(event), "msg_1", Timestamp::UNIX_EPOCH);
    let rendered = rendered.unwrap();
    assert_eq!(rendered.media_type, "text/plain");
    assert_eq!(rendered.body, b"hello 3 x 1970-01-01T00:00:00Z");
}

#[test]
fn what_fails_says_at_which_line_and_why() {
    for (source, data, place, problem) in [
        (
            "{\"a\":\n  {{ data.nme }}}",
            "{}",
            Some((2, 6)),
            "undefined",
        ),
        (
            "{\"a\":\n \"x {{ data.nme }}\"}",
            "{}",
            Some((2, 8)),
            "`data.nme` is undefined",
        ),
        ("{{ data.a.b }}", "{}", Some((1, 8)), "undefined"),
        ("{{ data }}", "{", Some((1, 4)), "undefined"),
        (
            "{{ data.a|upper + 1 }}",
            r#"{"a": "x"}"#,
            Some((1, 4)),
            "invalid operation",
        ),
        ("{\"a\": b}", "{}", None, "not the JSON"),
        ("{}{}", "{}", None, "not the JSON"),
        (
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            "{}",
            Some((1, 1)),
            "more than one rendering may",
        ),
        (
            "\"{{ 'x' * 600000 }}\"",
            "{}",
            None,
            "more than 524288 bytes",
        ),
    ] {
        let template = PayloadTemplate::new(form(source, "application/json")).unwrap();
        let fault = rendered(&template, data).unwrap_err();
        if problem == "more than one rendering may" {
            assert!(fault.place.is_some(), "{fault}");
        } else {
            assert_eq!(fault.place, place, "{source}: {fault}");
        }
        assert!(fault.problem.contains(problem), "{source}: {fault}");
    }
}

/// A template for JSON, the line and the column at fault, and a part of what is said about it.
#[rustfmt::skip]
const NO_TEMPLATES: &[(&str, (usize, usize), &str)] = &[
    ("{{ data", (1, 1), "no `}}`"),
    ("{}\n{% if %}", (2, 7), "syntax error"),
    ("{{ data..x }}", (1, 9), "syntax error"),
    ("{% if data %}{}", (1, 14), "syntax error"),
    ("[{{ nmae }}]", (1, 5), "nothing is called `nmae`: accepted are `data`"),
    ("[\n{{ data|uper }}]", (2, 9), "no filter `uper`"),
    ("{% if data is od %}{% endif %}", (1, 15), "no test `od`"),
    ("{% include 'x' %}", (1, 1), "unknown statement `include`: accepted are `if`"),
    ("{% raw %}{% endraw %}", (1, 1), "unknown statement `raw`"),
    ("{% set x %}a{% endset %}", (1, 1), "accepted is `{% set name"),
    ("{% if data %}\"a{% endif %}\"", (1, 16), "a text of JSON"),
];

#[test]
fn what_is_no_template_is_refused_at_its_place() {
    for (source, place, problem) in NO_TEMPLATES {
        let invalid = PayloadTemplate::new(form(source, "application/json")).unwrap_err();
        let at = (&*invalid.field, invalid.place);
        assert_eq!(at, ("source", Some(*place)), "{source}: {invalid}");
        assert!(invalid.problem.contains(problem), "{source}: {invalid}");
    }
    let long = "x".repeat(33_000);
    for (source, media_type, field, problem) in [
        (&*long, "application/json", "source", "at most 32768"),
        ("{}", "json", "media_type", "such as `application/json`"),
        ("{}", "a/b\r\nx: y", "media_type", "visible ASCII"),
    ] {
        let invalid = PayloadTemplate::new(form(source, media_type)).unwrap_err();
        assert_eq!(invalid.field, field, "{invalid}");
        assert!(invalid.problem.contains(problem), "{invalid}");
    }
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    for (written, field, problem) in [
        (json!({}), "source", "either `source`"),
        (
            json!({"source": "{}", "preset": "slack"}),
            "source",
            "either `source`",
        ),
        (
            json!({"preset": "slak"}),
            "preset",
            "accepted are `slack`, `discord`",
        ),
        (
            json!({"preset": "telegram"}),
            "parameters.chat_id",
            "needs `chat_id`",
        ),
        (
            json!({"preset": "slack", "parameters": {"colour": "red"}}),
            "parameters.colour",
            "accepted are `title`",
        ),
        (
            json!({"preset": "zapier", "parameters": {"a": "b"}}),
            "parameters.a",
            "has no parameters",
        ),
        (
            json!({"preset": "slack", "media_type": "text/plain"}),
            "media_type",
            "beside a preset",
        ),
        (
            json!({"source": "{}", "parameters": {"A": "b"}}),
            "parameters.A",
            "lower-case",
        ),
        (
            json!({"source": "{}", "parameters": {"a": "x".repeat(1001)}}),
            "parameters.a",
            "at most 1000",
        ),
    ] {
        let form: TemplateForm = serde_json::from_value(written.clone()).unwrap();
        let invalid = PayloadTemplate::new(form).unwrap_err();
        assert_eq!(invalid.field, field, "{written}: {invalid}");
        assert!(invalid.problem.contains(problem), "{written}: {invalid}");
    }
    for unknown in [json!({"sauce": "{}"}), json!({"source": 5}), json!("{}")] {
        assert!(serde_json::from_value::<PayloadTemplate>(unknown).is_err());
    }
}

#[test]
fn a_template_is_kept_as_it_was_written() {
    let written = json!({"preset": "telegram", "parameters": {"chat_id": "-100"}});
    let template: PayloadTemplate = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(serde_json::to_value(&template).unwrap(), written);
    assert_eq!(template.media_type(), "application/json");
}

/// The result of a preset as JSON.
fn preset(name: &str, parameters: Value, data: &str) -> Value {
    let written = json!({"preset": name, "parameters": parameters});
    let template: PayloadTemplate = serde_json::from_value(written).unwrap();
    let text = rendered(&template, data).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|fault| panic!("{name}: {fault}\n{text}"))
}

const DATA: &str = r#"{"name": "Ada \"<&>\" O", "points": 3, "nested": {"a": [1]}, "empty": ""}"#;

#[test]
fn each_preset_has_the_shape_that_its_receiver_accepts() {
    let none = json!({});
    let slack = preset("slack", none.clone(), DATA);
    assert_eq!(slack["text"], "reward.unlocked");
    assert_eq!(slack["blocks"][0]["text"]["text"], "reward.unlocked");
    let fields = &slack["blocks"][1]["fields"];
    assert_eq!(fields[0]["text"], "*name*\nAda \"&lt;&amp;&gt;\" O");
    assert_eq!(fields[2]["text"], "*nested*\n{\"a\":[1]}");
    assert_eq!(
        slack["blocks"][2]["elements"][0]["text"],
        "t · 2026-11-24T12:00:00Z"
    );

    let discord = preset("discord", json!({"title": "New"}), DATA);
    assert_eq!(discord["allowed_mentions"], json!({"parse": []}));
    assert_eq!(discord["embeds"][0]["title"], "New");
    let first = json!({"name": "name", "value": "Ada \"<&>\" O", "inline": true});
    assert_eq!(discord["embeds"][0]["fields"][0], first);
    assert_eq!(discord["embeds"][0]["fields"][3]["value"], "-");

    let telegram = preset("telegram", json!({"chat_id": "-100"}), DATA);
    assert_eq!(telegram["chat_id"], "-100");
    let text = "reward.unlocked\nname: Ada \"<&>\" O\npoints: 3\nnested: {\"a\":[1]}\nempty: ";
    assert_eq!(telegram["text"], text);

    let teams = preset("teams", none.clone(), DATA);
    let attachment = &teams["attachments"][0];
    assert_eq!(
        attachment["contentType"],
        "application/vnd.microsoft.card.adaptive"
    );
    let facts = &attachment["content"]["body"][2]["facts"];
    assert_eq!(facts[1], json!({"title": "points", "value": "3"}));

    let zapier = preset("zapier", none, DATA);
    assert_eq!(zapier["data"]["nested"], json!({"a": [1]}));
    assert_eq!(zapier["subject"], Value::Null);

    let written = json!({"preset": "twilio", "parameters": {"to": "+44 7", "from": "+1"}});
    let twilio: PayloadTemplate = serde_json::from_value(written).unwrap();
    assert_eq!(twilio.media_type(), "application/x-www-form-urlencoded");
    let body = rendered(&twilio, r#"{"a": "x&y=z"}"#).unwrap();
    assert_eq!(
        body,
        "To=%2B44+7&From=%2B1&Body=reward.unlocked%0Aa%3A+x%26y%3Dz"
    );
}

#[test]
fn presets_hold_whatever_the_data_is() {
    let many: serde_json::Map<String, Value> = (0..20)
        .map(|n| {
            (
                format!("{n}{}", "n&".repeat(300)),
                Value::from("<\"\\".repeat(2000)),
            )
        })
        .collect();
    let many = Value::from(many).to_string();
    for preset in TemplatePreset::ALL {
        let parameters: BTreeMap<_, _> = preset
            .required
            .iter()
            .map(|name| ((*name).to_owned(), "1".to_owned()))
            .collect();
        let form = TemplateForm {
            preset: Some(preset.name.to_owned()),
            parameters,
            ..TemplateForm::default()
        };
        let template = PayloadTemplate::new(form).unwrap();
        for data in ["", "null", "5", "[]", "[1]", "{}", "\"x\"", &many[..]] {
            let result = rendered(&template, data)
                .unwrap_or_else(|f| panic!("{} {data:.20}: {f}", preset.name));
            let (longest, name) = (result.chars().count(), preset.name);
            // Of the largest: what each receiver accepts at most, in all or in its text.
            let accepted = match name {
                "zapier" => usize::MAX,
                "telegram" => 16_000,
                "twilio" => 9 * 1600,
                _ => 28 * 1024,
            };
            assert!(longest < accepted, "{name}: {longest}");
        }
    }
    let telegram = preset("telegram", json!({"chat_id": "1"}), &many);
    assert!(telegram["text"].as_str().unwrap().chars().count() <= 4096);
    let slack = preset("slack", json!({}), &many);
    for field in slack["blocks"][1]["fields"].as_array().unwrap() {
        assert!(field["text"].as_str().unwrap().chars().count() <= 2000);
    }
}
