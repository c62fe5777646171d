//! Filters against a naive evaluator: the same answer for 500 generated pairs of pattern and event.

#![allow(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::{cell::Cell, sync::Arc};

use fanfare_model::{Event, EventView, Filter};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};

/// Few names and values, so that patterns often match.
const NAMES: [&str; 3] = ["a", "b", "c"];
const TEXTS: [&str; 8] = ["", "x", "X", "xy", "xyx", "yx*", "Yy", "é"];

fn scalar() -> impl Strategy<Value = Value> + Clone {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2..4_i64).prop_map(Value::from),
        (-4..8_i32).prop_map(|half| Value::from(f64::from(half) / 2.0)),
        proptest::sample::select(&TEXTS[..]).prop_map(Value::from),
    ]
}

fn payload() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 24, 3, |inner| {
        let members = prop::collection::btree_map(
            proptest::sample::select(&NAMES[..]).prop_map(str::to_owned),
            inner.clone(),
            0..4,
        );
        prop_oneof![
            1 => prop::collection::vec(inner, 0..3).prop_map(Value::from),
            4 => members.prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn condition() -> impl Strategy<Value = Value> {
    let text = || proptest::sample::select(&TEXTS[..]);
    let number = || -2..4_i64;
    let on_text = prop_oneof![
        text().prop_map(|t| json!({"prefix": t})),
        text().prop_map(|t| json!({"suffix": t})),
        text().prop_map(|t| json!({"prefix": {"equals-ignore-case": t}})),
        text().prop_map(|t| json!({"suffix": {"equals-ignore-case": t}})),
        text().prop_map(|t| json!({"equals-ignore-case": t})),
        proptest::sample::select(&["*", "x*", "*x", "x*x", "*y*", "x*y*", "*\\*"][..])
            .prop_map(|t| json!({"wildcard": t})),
    ];
    let comparison = proptest::sample::select(&["=", "<", "<=", ">", ">="][..]);
    prop_oneof![
        4 => scalar(),
        2 => any::<bool>().prop_map(|wanted| json!({"exists": wanted})),
        2 => on_text.clone(),
        1 => on_text.prop_map(|test| json!({"anything-but": test})),
        1 => prop::collection::vec(scalar(), 1..3).prop_map(|list| json!({"anything-but": list})),
        1 => (comparison, number()).prop_map(|(op, n)| json!({"numeric": [op, n]})),
        1 => (number(), 1..4_i64).prop_map(|(n, width)| json!({"numeric": [">=", n, "<", n + width]})),
    ]
}

/// Patterns on data.
fn pattern() -> impl Strategy<Value = Value> {
    let leaf = prop::collection::vec(condition(), 1..4)
        .prop_map(Value::from)
        .boxed();
    let object = |test: BoxedStrategy<Value>| {
        let name = proptest::sample::select(&NAMES[..]).prop_map(str::to_owned);
        prop::collection::btree_map(name, test, 1..3)
            .prop_map(|members| Value::Object(members.into_iter().collect()))
    };
    object(leaf.clone()).prop_recursive(3, 24, 3, move |inner| {
        let nested = object(prop_oneof![2 => leaf.clone(), 1 => inner.clone()].boxed());
        let either = (
            nested.clone(),
            prop::collection::vec(inner, 1..3),
            any::<bool>(),
        )
            .prop_map(|(pattern, either, alone)| {
                let plain = pattern.as_object().filter(|_| !alone);
                let mut members = plain.cloned().unwrap_or_default();
                members.insert("$or".to_owned(), either.into());
                Value::Object(members)
            });
        prop_oneof![3 => nested, 1 => either]
    })
}

/// Whether the event as one document matches, by expanding every `$or` first.
fn naive(pattern: &Value, document: &Value) -> bool {
    expand(pattern)
        .iter()
        .any(|plain| members_match(plain, Some(document)))
}

/// The patterns without `$or` of which one has to match: names and tests, in which a name may come twice.
///
/// Those inside members stay apart from each other, so a list of objects is matched by one item as a whole.
fn expand(pattern: &Value) -> Vec<Vec<(String, Value)>> {
    let mut members = pattern.as_object().unwrap().clone();
    let either = members.remove("$or");
    let plain: Vec<_> = members.into_iter().collect();
    let Some(either) = either else {
        return vec![plain];
    };
    let alternatives = either.as_array().unwrap().iter().flat_map(expand);
    alternatives
        .map(|alternative| [plain.clone(), alternative].concat())
        .collect()
}

fn members_match(members: &[(String, Value)], document: Option<&Value>) -> bool {
    members.iter().all(|(name, test)| {
        let found = document.and_then(|document| document.get(name));
        match test.as_array() {
            Some(conditions) => conditions.iter().any(|c| condition_matches(c, found)),
            None => naive_below(test, found.unwrap_or(&Value::Null)),
        }
    })
}

fn naive_below(pattern: &Value, found: &Value) -> bool {
    match found.as_array() {
        Some(items) if !items.is_empty() => items.iter().any(|item| naive_below(pattern, item)),
        _ => naive(pattern, found),
    }
}

fn condition_matches(condition: &Value, found: Option<&Value>) -> bool {
    if let Some(wanted) = condition.get("exists") {
        return wanted == found.is_some();
    }
    let mut scalars = Vec::new();
    collect(found, &mut scalars);
    scalars.into_iter().any(|scalar| holds(condition, scalar))
}

fn collect<'v>(found: Option<&'v Value>, scalars: &mut Vec<&'v Value>) {
    match found {
        Some(Value::Array(items)) => items.iter().for_each(|item| collect(Some(item), scalars)),
        Some(Value::Object(_)) | None => {}
        Some(scalar) => scalars.push(scalar),
    }
}

fn holds(condition: &Value, scalar: &Value) -> bool {
    let Some(condition) = condition.as_object() else {
        return equal(condition, scalar);
    };
    let (name, operand) = condition.iter().next().unwrap();
    let text = scalar.as_str();
    let fold = |text: &str| text.to_lowercase();
    match (name.as_str(), operand) {
        ("prefix", Value::String(prefix)) => text.is_some_and(|t| t.starts_with(prefix)),
        ("suffix", Value::String(suffix)) => text.is_some_and(|t| t.ends_with(suffix)),
        ("prefix", folded) => {
            let prefix = fold(folded["equals-ignore-case"].as_str().unwrap());
            text.is_some_and(|t| fold(t).starts_with(&prefix))
        }
        ("suffix", folded) => {
            let suffix = fold(folded["equals-ignore-case"].as_str().unwrap());
            text.is_some_and(|t| fold(t).ends_with(&suffix))
        }
        ("equals-ignore-case", wanted) => {
            text.is_some_and(|t| fold(t) == fold(wanted.as_str().unwrap()))
        }
        ("wildcard", wanted) => {
            let wanted: Vec<char> = wanted.as_str().unwrap().chars().collect();
            text.is_some_and(|t| wild(&wanted, &t.chars().collect::<Vec<_>>()))
        }
        ("anything-but", Value::Array(list)) => !list.iter().any(|one| equal(one, scalar)),
        ("anything-but", condition) => !holds(condition, scalar),
        ("numeric", comparisons) => {
            let comparisons = comparisons.as_array().unwrap().chunks(2);
            let number = scalar.as_f64();
            number.is_some_and(|number| {
                comparisons.into_iter().all(|pair| {
                    let bound = pair[1].as_f64().unwrap();
                    match pair[0].as_str().unwrap() {
                        "=" => number == bound,
                        "<" => number < bound,
                        "<=" => number <= bound,
                        ">" => number > bound,
                        _ => number >= bound,
                    }
                })
            })
        }
        (other, _) => panic!("{other} is not generated"),
    }
}

fn equal(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

/// The textbook recursion over both.
fn wild(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['*', rest @ ..] => (0..=text.len()).any(|n| wild(rest, &text[n..])),
        ['\\', literal, rest @ ..] | [literal, rest @ ..] => {
            text.first() == Some(literal) && wild(rest, &text[1..])
        }
    }
}

#[test]
fn filters_agree_with_a_naive_evaluator_on_500_pairs() {
    let (matched, missed) = (Cell::new(0_u32), Cell::new(0_u32));
    let mut runner = TestRunner::new(Config {
        cases: 500,
        ..Config::default()
    });
    let pairs = (pattern(), payload(), any::<bool>());
    let outcome = runner.run(&pairs, |(pattern, data, by_type)| {
        let mut whole = json!({"data": pattern});
        if by_type {
            whole["type"] = json!([{"prefix": "reward."}, "other"]);
        }
        let event = Event::for_tests("t", "/s", "1", "reward.sent", data.to_string().as_bytes());
        let event = Arc::new(event);
        let view = EventView::new(&event);
        let filter = Filter::new(whole.clone()).unwrap();
        let document = json!({"type": "reward.sent", "data": data});
        let expected = naive(&whole, &document);
        let count = if expected { &matched } else { &missed };
        count.set(count.get() + 1);
        prop_assert_eq!(filter.matches(&view), expected);
        prop_assert_eq!(filter.mismatch(&view).is_none(), expected);
        Ok(())
    });
    outcome.unwrap();
    let (matched, missed) = (matched.get(), missed.get());
    assert!(
        matched >= 50 && missed >= 50,
        "{matched} matched, {missed} did not"
    );
}
