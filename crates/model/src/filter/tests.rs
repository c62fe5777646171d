//! Tables: what filters match, and what is no filter.

use serde_json::json;

use super::*;
use crate::Event;

fn event(data: &str) -> Event {
    let mut event = Event::for_tests("t", "/shop", "7", "reward.unlocked", data.as_bytes());
    event.subject = Some("Order 7".to_owned());
    event
}

fn check(filter: Value, data: &str, matches: bool) {
    let shown = filter.to_string();
    let filter = Filter::new(filter).unwrap();
    let event = event(data);
    let view = EventView::new(&event);
    assert_eq!(filter.matches(&view), matches, "{shown} {data}");
    assert_eq!(filter.mismatch(&view).is_none(), matches, "{shown} {data}");
}

/// Checks the conditions on `data.x`.
fn check_x(conditions: Value, x: &str, matches: bool) {
    let data = format!("{{\"x\":{x}}}");
    check(json!({"data": {"x": conditions}}), &data, matches);
}

#[test]
fn values_match_themselves() {
    for (conditions, x, matches) in [
        (json!(["a"]), r#""a""#, true),
        (json!(["a"]), r#""A""#, false),
        (json!(["b", "a"]), r#""a""#, true),
        (json!([5]), "5", true),
        (json!([5]), "5.0", true),
        (json!([300]), "3.0e2", true),
        (json!([5]), r#""5""#, false),
        (
            json!([9_007_199_254_740_993_u64]),
            "9007199254740992",
            false,
        ),
        (json!([true]), "true", true),
        (json!([true]), "1", false),
        (json!([null]), "null", true),
        (json!([null]), "0", false),
        (json!(["a"]), r#"["b", "a"]"#, true),
        (json!(["a"]), r#"["b", ["a"]]"#, true),
        (json!(["a"]), "[]", false),
        (json!(["a"]), r#"{"a": "a"}"#, false),
    ] {
        check_x(conditions, x, matches);
    }
}

#[test]
fn texts_are_compared_in_part_and_without_case() {
    for (condition, x, matches) in [
        (json!({"prefix": "US"}), "USD", true),
        (json!({"prefix": "us"}), "USD", false),
        (json!({"prefix": {"equals-ignore-case": "us"}}), "USD", true),
        (json!({"suffix": ".com"}), "a@example.com", true),
        (json!({"suffix": ".com"}), "a@example.org", false),
        (
            json!({"suffix": {"equals-ignore-case": ".COM"}}),
            "a.com",
            true,
        ),
        (
            json!({"equals-ignore-case": "STRASSE É"}),
            "strasse é",
            true,
        ),
        (json!({"equals-ignore-case": "abc"}), "abcd", false),
        (json!({"wildcard": "a*c"}), "abbc", true),
        (json!({"wildcard": "a*c"}), "ac", true),
        (json!({"wildcard": "a*a"}), "a", false),
        (
            json!({"wildcard": "*@*.example.com"}),
            "x@y.example.com",
            true,
        ),
        (
            json!({"wildcard": "*@*.example.com"}),
            "x@example.com",
            false,
        ),
        (json!({"wildcard": "a*b*"}), "aXbY", true),
        (json!({"wildcard": "a\\**"}), "a*b", true),
        (json!({"wildcard": "a\\**"}), "ab", false),
    ] {
        check_x(json!([condition]), &Value::from(x).to_string(), matches);
    }
    check_x(json!([{"prefix": "1"}]), "12", false);
}

#[test]
fn numbers_lie_in_ranges() {
    for (range, x, matches) in [
        (json!([">", 5]), "5", false),
        (json!([">=", 5]), "5", true),
        (json!(["<", 5]), "4.9", true),
        (json!(["<=", 5]), "5.1", false),
        (json!(["=", 5]), "5.0", true),
        (json!([">", 0, "<=", 5]), "5", true),
        (json!([">", 0, "<=", 5]), "0", false),
        (json!(["<", 5, ">", 0]), "3", true),
        (json!([">=", 5, "<=", 5]), "5", true),
        (json!([">", 5]), r#""6""#, false),
        (json!([">", 5]), "[1, 6]", true),
    ] {
        check_x(json!([{"numeric": range}]), x, matches);
    }
}

#[test]
fn anything_but_wants_another_value_that_is_there() {
    for (unwanted, x, matches) in [
        (json!("a"), r#""b""#, true),
        (json!("a"), r#""a""#, false),
        (json!(["a", 5]), "5", false),
        (json!(["a", 5]), "null", true),
        (json!(["a"]), r#"["a", "b"]"#, true),
        (json!(["a"]), r#"["a"]"#, false),
        (json!(["a"]), "{}", false),
        (json!({"prefix": "a"}), r#""ab""#, false),
        (json!({"prefix": "a"}), "5", true),
        (json!({"suffix": ["x", "y"]}), r#""by""#, false),
        (json!({"equals-ignore-case": "A"}), r#""a""#, false),
        (json!({"wildcard": "a*c"}), r#""ab""#, true),
    ] {
        check_x(json!([{"anything-but": unwanted}]), x, matches);
    }
    check(json!({"data": {"x": [{"anything-but": "a"}]}}), "{}", false);
}

#[test]
fn presence_is_a_condition_of_its_own() {
    let exists = |wanted: bool| json!({"data": {"x": {"y": [{"exists": wanted}]}}});
    for (data, is_there) in [
        (r#"{"x": {"y": 1}}"#, true),
        (r#"{"x": {"y": null}}"#, true),
        (r#"{"x": {"y": []}}"#, true),
        (r#"{"x": {"y": {}}}"#, true),
        (r#"{"x": {}}"#, false),
        (r#"{"x": 5}"#, false),
        (r#"{"x": []}"#, false),
        ("{}", false),
        ("5", false),
        ("{", false),
    ] {
        check(exists(true), data, is_there);
        check(exists(false), data, !is_there);
    }
    let absent_or = json!({"data": {"x": ["a", {"exists": false}]}});
    check(absent_or.clone(), "{}", true);
    check(absent_or.clone(), r#"{"x": "a"}"#, true);
    check(absent_or, r#"{"x": "b"}"#, false);
}

#[test]
fn members_are_combined_by_and_and_or_has_alternatives() {
    let filter = json!({
        "type": [{"prefix": "reward."}],
        "data": {"amount": [{"numeric": [">=", 10]}], "$or": [
            {"currency": ["EUR"]},
            {"vip": [true]},
        ]},
    });
    check(filter.clone(), r#"{"amount": 10, "currency": "EUR"}"#, true);
    check(filter.clone(), r#"{"amount": 10, "vip": true}"#, true);
    check(filter.clone(), r#"{"amount": 9, "vip": true}"#, false);
    check(filter, r#"{"amount": 10, "currency": "USD"}"#, false);

    let either = json!({"$or": [{"subject": [{"suffix": "8"}]}, {"data": {"x": [1]}}]});
    check(either.clone(), r#"{"x": 1}"#, true);
    check(either, r#"{"x": 2}"#, false);
}

#[test]
fn of_a_list_of_objects_one_has_to_match_as_a_whole() {
    let filter = json!({"data": {"items": {"sku": ["a"], "count": [1]}}});
    let split = r#"{"items": [{"sku": "a", "count": 2}, {"sku": "b", "count": 1}]}"#;
    check(filter.clone(), split, false);
    let whole = r#"{"items": [{"sku": "b"}, {"sku": "a", "count": 1}]}"#;
    check(filter, whole, true);
}

#[test]
fn attributes_are_matched_without_reading_the_data() {
    let filter =
        Filter::new(json!({"subject": ["Order 7"], "tenant": ["t"], "id": ["7"]})).unwrap();
    let event = event("{}");
    let view = EventView::new(&event);
    assert!(filter.matches(&view));
    assert!(!view.data_was_read());
    check(json!({"data": [5]}), "5", true);
    check(json!({"time": [{"exists": false}]}), "5", true);
}

#[test]
fn a_mismatch_names_the_first_place_that_differs() {
    for (filter, expected) in [
        (
            json!({"data": {"a": {"b": [2]}}}),
            "`$.data.a.b` is 1, wanted is [2]",
        ),
        (
            json!({"data": {"a": {"c": [2]}}}),
            "`$.data.a.c` is absent, wanted is [2]",
        ),
        (
            json!({"subject": ["x"], "data": {"a": {"b": [1]}}}),
            "`$.subject` is \"Order 7\", wanted is [\"x\"]",
        ),
        (
            json!({"data": {"list": {"z": [1]}}}),
            "`$.data.list` is [{\"z\":2}], wanted is {\"z\":[1]}",
        ),
        (
            json!({"data": {"$or": [{"a": [1]}, {"x y": [1]}]}}),
            "`$.data.$or` is matched by none of 2 patterns, wanted is [{\"a\":[1]},{\"x y\":[1]}]",
        ),
    ] {
        let event = event(r#"{"a": {"b": 1}, "list": [{"z": 2}]}"#);
        let mismatch = Filter::new(filter)
            .unwrap()
            .mismatch(&EventView::new(&event));
        assert_eq!(mismatch.unwrap().to_string(), expected);
    }
}

/// A pattern, the place at fault, and a part of what is said about it.
#[rustfmt::skip]
const NO_FILTERS: &[(&str, &str, &str)] = &[
    (r#"[]"#, r#"$"#, r#"an empty list: accepted is an object"#),
    (r#"{}"#, r#"$"#, r#"an empty pattern"#),
    (r#"{"type": "a"}"#, r#"$.type"#, r#"a text outside a list: accepted is a list"#),
    (r#"{"type": []}"#, r#"$.type"#, r#"an empty list, which nothing matches"#),
    (r#"{"type": {"a": [1]}}"#, r#"$.type"#, r#"only `data` has"#),
    (r#"{"Type": ["a"]}"#, r#"$.Type"#, r#"lower-case letters and digits"#),
    (r#"{"data": {"$and": []}}"#, r#"$.data.$and"#, r#"accepted is `$or`"#),
    (r#"{"data": {"$or": []}}"#, r#"$.data.$or"#, r#"accepted is a list of patterns"#),
    (r#"{"$or": [{}]}"#, r#"$.$or[0]"#, r#"an empty pattern"#),
    (r#"{"data": {"a b": 5}}"#, r#"$.data["a b"]"#, r#"a number outside a list"#),
    (r#"{"data": {"a": [[1]]}}"#, r#"$.data.a[0]"#, r#"a list in a list"#),
    (r#"{"data": {"a": [{}]}}"#, r#"$.data.a[0]"#, r#"an empty object"#),
    (r#"{"data": {"a": [{"prefix": "a", "suffix": "b"}]}}"#, r#"$.data.a[0]"#, r#"several conditions"#),
    (r#"{"data": {"a": [{"like": "b"}]}}"#, r#"$.data.a[0]"#, r#"unknown condition `like`"#),
    (r#"{"data": {"a": [1, {"prefix": 5}]}}"#, r#"$.data.a[1].prefix"#, r#"accepted is a text"#),
    (r#"{"data": {"a": [{"prefix": {"suffix": "x"}}]}}"#, r#"$.data.a[0].prefix.suffix"#, r#"accepted is a text or"#),
    (r#"{"data": {"a": [{"exists": 1}]}}"#, r#"$.data.a[0].exists"#, r#"true or false"#),
    (r#"{"data": {"a": [{"numeric": 5}]}}"#, r#"$.data.a[0].numeric"#, r#"accepted is `["=", 5]`"#),
    (r#"{"data": {"a": [{"numeric": ["!", 5]}]}}"#, r#"$.data.a[0].numeric[0]"#, r#""!" is no comparison: accepted are `=`"#),
    (r#"{"data": {"a": [{"numeric": [">", "5"]}]}}"#, r#"$.data.a[0].numeric[1]"#, r#"a text: accepted is a number"#),
    (r#"{"data": {"a": [{"numeric": [">", 5, ">", 6]}]}}"#, r#"$.data.a[0].numeric"#, r#"a range such as"#),
    (r#"{"data": {"a": [{"numeric": [">", 5, "<", 5]}]}}"#, r#"$.data.a[0].numeric"#, r#"no number is in this range"#),
    (r#"{"data": {"a": [{"wildcard": "a"}]}}"#, r#"$.data.a[0].wildcard"#, r#"1 to 8"#),
    (r#"{"data": {"a": [{"wildcard": "a**b"}]}}"#, r#"$.data.a[0].wildcard"#, r#"two stars"#),
    (r#"{"data": {"a": [{"wildcard": "a\\b*"}]}}"#, r#"$.data.a[0].wildcard"#, r#"a `\` before"#),
    (r#"{"data": {"a": [{"anything-but": []}]}}"#, r#"$.data.a[0].anything-but"#, r#"an empty list"#),
    (r#"{"data": {"a": [{"anything-but": [[1]]}]}}"#, r#"$.data.a[0].anything-but[0]"#, r#"accepted is a text, a number"#),
    (r#"{"data": {"a": [{"anything-but": {"numeric": ["=", 1]}}]}}"#, r#"$.data.a[0].anything-but.numeric"#, r#"unknown condition `numeric`"#),
];

fn check_refused(filter: Value, at: &str, problem: &str) {
    let shown = filter.to_string();
    let invalid = Filter::new(filter).unwrap_err();
    assert_eq!(invalid.at, at, "{shown:.200}: {invalid}");
    assert!(invalid.problem.contains(problem), "{shown:.200}: {invalid}");
}

#[test]
fn what_is_no_filter_is_refused_at_its_place() {
    for (filter, at, problem) in NO_FILTERS {
        check_refused(serde_json::from_str(filter).unwrap(), at, problem);
    }
}

#[test]
fn filters_keep_their_bounds() {
    let deep = (0..20).fold(json!([1]), |inner, _| json!({"a": inner}));
    let deepest = "$.data.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a";
    let many: Vec<_> = (0..501).collect();
    let long = "x".repeat(1025);
    for (data, at, problem) in [
        (deep, deepest, "too deep: accepted are at most 16"),
        (json!({"a": [long]}), "$.data.a[0]", "a text of 1025 bytes"),
        (json!({"a": many}), "$.data.a[500]", "at most 500 in all"),
        (
            json!({"a": vec!["x".repeat(1000); 20]}),
            "$",
            "accepted are at most 16384",
        ),
    ] {
        check_refused(json!({"data": data}), at, problem);
    }
}

#[test]
fn a_filter_is_read_from_text_and_kept_as_it_was_given() {
    let text = r#"{"data":{"a":[1,{"exists":false}]}}"#;
    let filter: Filter = text.parse().unwrap();
    assert_eq!(filter.to_string(), text);
    assert_eq!(serde_json::to_string(&filter).unwrap(), text);
    assert_eq!(serde_json::from_str::<Filter>(text).unwrap(), filter);
    for (text, problem) in [
        ("{", "not JSON"),
        (r#"{"id":["1"],"id":["2"]}"#, "member `id` is there twice"),
        (&*"[".repeat(200), "recursion limit"),
    ] {
        let invalid = text.parse::<Filter>().unwrap_err();
        assert!(invalid.problem.contains(problem), "{text:.20}: {invalid}");
    }
}
