//! Lays out JSON for reading. Order, numbers and spelling stay as they were sent.

use serde::de::IgnoredAny;

/// The text with a line for each member; `None` when it is no JSON.
pub(crate) fn pretty(text: &str) -> Option<String> {
    // What follows relies on it: brackets match, and strings end.
    serde_json::from_str::<IgnoredAny>(text).ok()?;
    let mut laid_out = String::with_capacity(text.len() * 2);
    let mut depth = 0;
    let mut rest = text.trim_start();
    while let Some(c) = rest.chars().next() {
        let token = if c == '"' {
            string_length(rest)
        } else {
            c.len_utf8()
        };
        let (word, after) = rest.split_at(token);
        rest = after.trim_start();
        match c {
            '{' | '[' if !rest.starts_with(['}', ']']) => {
                depth += 1;
                laid_out.push(c);
                line_break(&mut laid_out, depth);
            }
            '}' | ']' if !laid_out.ends_with(['{', '[']) => {
                depth -= 1;
                line_break(&mut laid_out, depth);
                laid_out.push(c);
            }
            ',' => {
                laid_out.push(c);
                line_break(&mut laid_out, depth);
            }
            ':' => laid_out.push_str(": "),
            _ => laid_out.push_str(word),
        }
    }
    Some(laid_out)
}

/// Deeper nesting is laid out no deeper: the indents of a hostile body would fill the memory.
const DEEPEST_INDENT: usize = 32;

fn line_break(laid_out: &mut String, depth: usize) {
    laid_out.push('\n');
    laid_out.push_str(&"  ".repeat(depth.min(DEEPEST_INDENT)));
}

/// How many bytes the string takes with which the text begins, quotes included.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn json_is_laid_out_in_its_own_order_and_spelling() {
        for (text, expected) in [
            (
                r#" {"z":1.50,"a":[1,{}],"e":[ ]} "#,
                "{\n  \"z\": 1.50,\n  \"a\": [\n    1,\n    {}\n  ],\n  \"e\": []\n}",
            ),
            (r#"{"a":"{,\":"}"#, "{\n  \"a\": \"{,\\\":\"\n}"),
            (
                r#"["\\",12345678901234567890123]"#,
                "[\n  \"\\\\\",\n  12345678901234567890123\n]",
            ),
            (r#""["  "#, r#""[""#),
            ("true", "true"),
        ] {
            assert_eq!(pretty(text).as_deref(), Some(expected), "{text}");
        }
        for other in ["", "{", "not json", "{} {}"] {
            assert_eq!(pretty(other), None, "{other}");
        }
        let deep = "[".repeat(10_000) + &"]".repeat(10_000);
        let laid_out = pretty(&deep).unwrap();
        assert!(laid_out.len() < deep.len() * (2 * DEEPEST_INDENT + 2));
    }

    proptest! {
        #[test]
        fn the_layout_changes_no_value(texts in proptest::collection::vec(any::<String>(), 0..5)) {
            let value = serde_json::json!({ "texts": texts, "nested": [{ "again": texts }] });
            let laid_out = pretty(&value.to_string()).unwrap();
            prop_assert_eq!(&laid_out, &serde_json::to_string_pretty(&value).unwrap());
            prop_assert_eq!(serde_json::from_str::<Value>(&laid_out).unwrap(), value);
        }
    }
}
