//! Prints rows: a table for people, or JSON for scripts, from one definition.

use std::{
    borrow::Cow,
    env,
    io::{self, IsTerminal, Write},
};

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::OutputFormat;

/// How wide a table is, unless a single word needs more.
const TABLE_WIDTH: u16 = 100;

/// Something that is printed as a row.
pub(crate) trait Row: Sized + 'static {
    /// What is shown of it, in order.
    const COLUMNS: &'static [Column<Self>];
    /// What a table shows of it, when that is something else.
    const TABLE: &'static [Column<Self>] = Self::COLUMNS;
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

/// Prints one thing to stdout: a line for each column, or a JSON object.
pub(crate) fn print_one<R: Row>(format: OutputFormat, row: &R) -> io::Result<()> {
    let text = match format {
        OutputFormat::Table => lines(row),
        OutputFormat::Json => to_json(&Object(row)),
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

/// A line for each row, below a header.
pub(crate) fn table<R: Row>(rows: &[R]) -> String {
    let header = R::TABLE.iter().map(|column| title(column.name));
    let cells = rows.iter().map(|row| {
        let cells = R::TABLE.iter().map(|column| cell(&(column.value)(row)));
        cells.collect()
    });
    laid_out(std::iter::once(header.collect()).chain(cells).collect())
}

/// A line for each column, for a thing that has too many of them to stand in a row.
fn lines<R: Row>(row: &R) -> String {
    let line = |column: &Column<R>| vec![title(column.name), cell(&(column.value)(row))];
    laid_out(R::COLUMNS.iter().map(line).collect())
}

/// A table for a page of the documentation.
pub(crate) fn markdown<R: Row>(rows: &[R]) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let columns = || R::COLUMNS.iter();
    let header = line(
        columns()
            .map(|column| column.name.replace('_', " "))
            .collect(),
    );
    let rule = line(columns().map(|_| "---".to_owned()).collect());
    let rows = rows.iter().map(|row| {
        let cells = columns().map(|column| cell(&(column.value)(row)));
        line(
            cells
                .map(|text| text.replace('|', "\\|").replace('\n', "<br>"))
                .collect(),
        )
    });
    [header, rule].into_iter().chain(rows).collect()
}

fn title(name: &str) -> String {
    name.to_uppercase().replace('_', " ")
}

/// Sets cells in columns. Long cells are broken at spaces alone, so that ids can be copied.
fn laid_out(cells: Vec<Vec<String>>) -> String {
    let count = cells.first().map_or(0, Vec::len);
    let longest_word = |column: usize| {
        let words = cells.iter().flat_map(|row| row[column].split_whitespace());
        let longest = words.map(|word| word.chars().count()).max();
        u16::try_from(longest.unwrap_or(0)).unwrap_or(u16::MAX)
    };
    let widths: Vec<u16> = (0..count).map(longest_word).collect();
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(TABLE_WIDTH);
    table.add_rows(cells);
    let padding = 2;
    table.set_constraints(
        widths.into_iter().map(|width| {
            ColumnConstraint::LowerBoundary(Width::Fixed(width.saturating_add(padding)))
        }),
    );
    table.trim_fmt()
}

/// A list has a line for each of its items, an object for each of its members.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => harmless(text).replace('\n', " "),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Object(members) if members.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join("\n"),
        Value::Object(members) => {
            let line =
                |(name, value): (&String, &Value)| format!("{}={}", harmless(name), cell(value));
            members.iter().map(line).collect::<Vec<_>>().join("\n")
        }
    }
}

fn json<R: Row>(rows: &[R]) -> String {
    to_json(&Objects(rows))
}

/// The JSON text that scripts get.
pub(crate) fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).expect("names and JSON values can be written as JSON")
}

/// One row as scripts get it, to stand within something larger.
pub(crate) fn object<R: Row>(row: &R) -> Value {
    serde_json::to_value(Object(row)).expect("names and JSON values can be written as JSON")
}

/// Writes rows as a list of objects.
pub(crate) struct Objects<'r, R>(pub(crate) &'r [R]);

impl<R: Row> Serialize for Objects<'_, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Object))
    }
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

    #[test]
    fn long_cells_are_broken_at_spaces_alone() {
        struct Long(&'static str);
        impl Row for Long {
            const COLUMNS: &'static [Column<Self>] = &[
                Column {
                    name: "id",
                    value: |_| "ep_0123456789abcdef0123456789abcdef".into(),
                },
                Column {
                    name: "text",
                    value: |long| long.0.into(),
                },
                Column {
                    name: "list",
                    value: |_| json!(["a", 1, null]),
                },
            ];
        }
        let text = "word ".repeat(60);
        let text: &'static str = text.leak();
        let table = table(&[Long(text)]);
        assert!(table.contains("ep_0123456789abcdef0123456789abcdef"));
        assert!(
            table.lines().all(|line| line.chars().count() <= 100),
            "{table}"
        );
        assert_eq!(table.matches("word").count(), 60);
        assert_eq!(table.lines().next().map(squeezed).unwrap(), "ID TEXT LIST");
        let unbroken = "x".repeat(200).leak();
        assert!(self::table(&[Long(unbroken)]).contains(&*unbroken));
    }

    #[test]
    fn one_thing_has_a_line_for_each_column() {
        let shown: Vec<String> = lines(&PETS[0]).lines().map(squeezed).collect();
        assert_eq!(shown, ["NAME cat", "LEG COUNT 4"]);
        let object: Value = serde_json::from_str(&to_json(&Object(&PETS[0]))).unwrap();
        assert_eq!(object, json!({"name": "cat", "leg_count": 4}));
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
