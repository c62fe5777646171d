//! Prints rows: a table for people, or JSON for scripts, from one definition.

use std::{
    borrow::Cow,
    env,
    io::{self, IsTerminal, Write},
};

use comfy_table::{Table, presets};
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::OutputFormat;

/// Something that is printed as a row.
pub(crate) trait Row: Sized + 'static {
    /// What is shown of it, in order.
    const COLUMNS: &'static [Column<Self>];
}

/// A column of a table, and a member of a JSON object.
pub(crate) struct Column<R> {
    /// In `snake_case`.
    pub(crate) name: &'static str,
    /// `Null` where there is nothing to show.
    pub(crate) value: fn(&R) -> Value,
}

/// Prints rows to stdout.
pub(crate) fn print_rows<R: Row>(format: OutputFormat, rows: &[R]) -> io::Result<()> {
    let text = match format {
        OutputFormat::Table => table(rows),
        OutputFormat::Json => json(rows),
    };
    print(&text)
}

/// Prints a text and a line break to stdout.
pub(crate) fn print(text: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// Prints a remark to stderr, apart from the data.
pub(crate) fn note(text: &str) -> io::Result<()> {
    writeln!(io::stderr().lock(), "{text}")
}

/// Whether stdout shows colours: it is a terminal, and `NO_COLOR` is not set (<https://no-color.org>).
pub(crate) fn has_colour() -> bool {
    #[expect(clippy::disallowed_methods, reason = "`cli` may read the environment")]
    let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !no_color
}

/// The text without control characters, so that what others sent cannot steer the terminal.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && c != '\n';
    if text.contains(steers) {
        let shown = text.chars().map(|c| if steers(c) { '\u{fffd}' } else { c });
        Cow::Owned(shown.collect())
    } else {
        Cow::Borrowed(text)
    }
}

fn table<R: Row>(rows: &[R]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(
        R::COLUMNS
            .iter()
            .map(|column| column.name.to_uppercase().replace('_', " ")),
    );
    for row in rows {
        table.add_row(R::COLUMNS.iter().map(|column| cell(&(column.value)(row))));
    }
    table.trim_fmt()
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => harmless(text).replace('\n', " "),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

fn json<R: Row>(rows: &[R]) -> String {
    let objects: Vec<Object<'_, R>> = rows.iter().map(Object).collect();
    serde_json::to_string_pretty(&objects).expect("names and JSON values can be written as JSON")
}

/// Writes a row as an object whose members keep the order of the columns.
struct Object<'r, R>(&'r R);

impl<R: Row> Serialize for Object<'_, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(
            R::COLUMNS
                .iter()
                .map(|column| (column.name, (column.value)(self.0))),
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Pet {
        name: &'static str,
        legs: Option<u8>,
    }

    impl Row for Pet {
        const COLUMNS: &'static [Column<Self>] = &[
            Column {
                name: "name",
                value: |pet| pet.name.into(),
            },
            Column {
                name: "leg_count",
                value: |pet| pet.legs.into(),
            },
        ];
    }

    const PETS: [Pet; 2] = [
        Pet {
            name: "cat",
            legs: Some(4),
        },
        Pet {
            name: "s\u{1b}[31mn\nake",
            legs: None,
        },
    ];

    #[test]
    fn a_table_has_a_header_and_no_control_characters() {
        let lines: Vec<String> = table(&PETS).lines().map(squeezed).collect();
        assert_eq!(lines, ["NAME LEG COUNT", "cat 4", "s\u{fffd}[31mn ake -"]);
    }

    fn squeezed(line: &str) -> String {
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn json_has_the_same_rows_in_the_same_order() {
        let text = json(&PETS);
        let rows: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(rows[0], json!({"name": "cat", "leg_count": 4}));
        assert_eq!(
            rows[1],
            json!({"name": "s\u{1b}[31mn\nake", "leg_count": null})
        );
        assert!(text.find("name") < text.find("leg_count"));
    }
}
