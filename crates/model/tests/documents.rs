//! The examples in `docs/filters.md` and `docs/templates.md` are filters and templates.

#![allow(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::sync::Arc;

use fanfare_model::{
    Event, EventView, Filter, PayloadTemplate, TemplateForm, TemplatePreset, Timestamp,
};

const FILTERS: &str = include_str!("../../../docs/filters.md");
const TEMPLATES: &str = include_str!("../../../docs/templates.md");
const SAMPLE: &[u8] = include_bytes!("../../cli/samples/new_registration.json");

/// What stands behind the opening fence of each block, and the block.
fn blocks(page: &str) -> impl Iterator<Item = (&str, &str)> {
    let parts = page.split("\n```").skip(1).step_by(2);
    parts.map(|block| block.split_once('\n').unwrap())
}

#[test]
fn examples_of_filters_match_what_the_page_says() {
    let mut filters = blocks(FILTERS).filter(|(kind, _)| *kind == "json filter");
    let mut check = |event_type: &str, subject: &str, data: &str, missing: &str| {
        let filter: Filter = filters.next().unwrap().1.parse().unwrap();
        let mut event = Event::for_tests("t", "/s", "1", event_type, data.as_bytes());
        event.subject = Some(subject.to_owned());
        assert_eq!(filter.mismatch(&EventView::new(&event)), None);
        event.data = Some(missing.to_owned().into());
        assert!(!filter.matches(&EventView::new(&event)));
    };
    check(
        "order.paid",
        "order/7",
        r#"{"currency": "EUR", "amount": 100}"#,
        r#"{"currency": "GBP", "amount": 100}"#,
    );
    check(
        "reward.unlocked",
        "x",
        r#"{"amount": 501, "trial": false}"#,
        r#"{"amount": 501, "trial": true}"#,
    );
    assert!(filters.next().is_none());
}

#[test]
fn conditions_in_the_table_are_conditions() {
    let rows = FILTERS.lines().filter(|line| line.starts_with("| `{"));
    let mut conditions = 0;
    for row in rows {
        let condition = row.split('`').nth(1).unwrap();
        let filter = format!("{{\"data\": [{condition}]}}");
        assert!(filter.parse::<Filter>().is_ok(), "{filter}");
        conditions += 1;
    }
    assert!(conditions >= 8, "{conditions}");
}

#[test]
fn examples_of_templates_render_the_sample() {
    let mut event = Event::for_tests("t", "/s", "1", "new_registration", SAMPLE);
    event.subject = Some("sub_7f3a91".to_owned());
    let event = Arc::new(event);
    let mut bodies = blocks(TEMPLATES).filter_map(|(kind, source)| {
        let media_type = kind.strip_prefix("jinja ")?;
        let form = TemplateForm {
            source: Some(source.to_owned()),
            media_type: Some(media_type.to_owned()),
            parameters: [("to".to_owned(), "+44 7".to_owned())].into(),
            ..TemplateForm::default()
        };
        let template = PayloadTemplate::new(form).unwrap();
        let rendered = template.render(&event, "msg_1", Timestamp::UNIX_EPOCH);
        Some(String::from_utf8(rendered.unwrap().body).unwrap())
    });
    let json: serde_json::Value = serde_json::from_str(&bodies.next().unwrap()).unwrap();
    let expected = serde_json::json!({"text": "Ada joined t", "points": 0, "tags": []});
    assert_eq!(json, expected);
    assert_eq!(bodies.next().unwrap(), "To=%2B44+7&Body=Ada+joined");
    let text = "new_registration: ADA (referred by Tomas Lind)";
    assert_eq!(bodies.next().unwrap(), text);
    assert!(bodies.next().is_none());
}

#[test]
fn the_page_lists_every_preset_with_its_parameters() {
    for preset in TemplatePreset::ALL {
        let row = format!("| `{}` |", preset.name);
        let row = TEMPLATES.lines().find(|line| line.starts_with(&row));
        let row = row.unwrap_or_else(|| panic!("{} has no row", preset.name));
        for required in preset.required {
            assert!(row.contains(&format!("**`{required}`**")), "{row}");
        }
        for optional in preset.optional {
            assert!(row.contains(&format!("`{optional}`")), "{row}");
        }
    }
}
