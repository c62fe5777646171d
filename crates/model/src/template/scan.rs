//! Reads the text of a template before the engine does: which values stand inside a text of JSON.
//!
//! `{"text": "Hello {{ data.name }}"}` and `{"name": {{ data.name }}}` both have to end up as JSON whatever
//! the name is. The engine writes values as JSON; those that stand inside a text are marked here, so that
//! they are written without quotes of their own. For that to be certain, a tag must not open in a text and
//! close outside it, and tags that collect output elsewhere are not accepted.

use std::ops::Range;

use super::TemplateFault;

/// The filter that writes a value into a text of JSON.
pub(super) const IN_TEXT: &str = "_in_text";

/// The statements of the language.
const STATEMENTS: [&str; 9] = [
    "if", "elif", "else", "endif", "for", "endfor", "set", "with", "endwith",
];

/// A template as the engine gets it.
#[derive(Debug)]
pub(super) struct Scanned {
    pub(super) source: String,
    /// What was put in: where in `source`, and how many bytes.
    inserted: Vec<(usize, usize)>,
    /// The names of filters and tests, and where in the original they stand.
    pub(super) names: Vec<Name>,
    original: String,
}

/// The name of something that the engine has to know.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) kind: NameKind,
    pub(super) text: String,
    pub(super) at: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NameKind {
    Filter,
    Test,
}

impl Scanned {
    /// The line and the column in the original of a place in what the engine got.
    pub(super) fn place_of(&self, at: usize) -> (usize, usize) {
        let before = self.inserted.iter().take_while(|(place, _)| *place < at);
        let inserted: usize = before.map(|(place, bytes)| (*bytes).min(at - place)).sum();
        line_and_column(&self.original, at - inserted)
    }

    /// Where the value stands that the filter at this place writes into a text.
    pub(super) fn value_in_text(&self, at: usize) -> Option<Range<usize>> {
        let n = self
            .inserted
            .iter()
            .position(|(place, bytes)| *place < at && at < place + bytes)?;
        let (opened, _) = self.inserted.get(n.checked_sub(1)?)?;
        let value = &self.source[opened + 1..self.inserted[n].0];
        let start = opened + 1 + value.len() - value.trim_start().len();
        Some(start..start + value.trim().len())
    }

    /// The line and the column of a place in the original.
    pub(super) fn place_in_original(&self, at: usize) -> (usize, usize) {
        line_and_column(&self.original, at)
    }

    /// Where in the original this word stands first, as a word of its own.
    pub(super) fn find_word(&self, word: &str) -> Option<usize> {
        let part = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
        self.original.match_indices(word).find_map(|(at, _)| {
            let before = self.original[..at].chars().next_back();
            let after = self.original[at + word.len()..].chars().next();
            let alone = !before.is_some_and(part)
                && !after.is_some_and(|c| c.is_alphanumeric() || c == '_');
            alone.then_some(at)
        })
    }
}

/// Scans a template; `json` says whether its result is JSON.
pub(super) fn scan(source: &str, json: bool) -> Result<Scanned, TemplateFault> {
    let mut scanner = Scanner {
        source,
        json,
        at: 0,
        text: Text::default(),
        open: Vec::new(),
        scanned: Scanned {
            source: String::with_capacity(source.len()),
            inserted: Vec::new(),
            names: Vec::new(),
            original: source.to_owned(),
        },
    };
    while scanner.at < source.len() {
        scanner.step()?;
    }
    Ok(scanner.scanned)
}

/// Where a text of JSON begins and ends.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Text {
    inside: bool,
    escaped: bool,
}

impl Text {
    fn read(&mut self, text: &str) {
        for byte in text.bytes() {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.inside => self.escaped = true,
                b'"' => self.inside = !self.inside,
                _ => {}
            }
        }
    }
}

struct Scanner<'s> {
    source: &'s str,
    json: bool,
    at: usize,
    text: Text,
    /// For each open tag, whether it was opened inside a text.
    open: Vec<bool>,
    scanned: Scanned,
}

impl Scanner<'_> {
    /// Takes what stands before the next tag, or the tag.
    fn step(&mut self) -> Result<(), TemplateFault> {
        let rest = &self.source[self.at..];
        let tags = ["{{", "{%", "{#"];
        let next = tags.iter().filter_map(|tag| rest.find(tag)).min();
        match next {
            Some(0) => {}
            Some(before) => {
                self.text.read(&rest[..before]);
                self.copy(before);
                return Ok(());
            }
            None => {
                self.text.read(rest);
                self.copy(rest.len());
                return Ok(());
            }
        }
        if rest.starts_with("{#") {
            let length = rest.find("#}").map_or(rest.len(), |end| end + 2);
            self.copy(length);
            return Ok(());
        }
        let close = if rest.starts_with("{{") { "}}" } else { "%}" };
        let Some(end) = self.end_of_tag(close) else {
            return Err(self.wrong(self.at, &format!("this tag has no `{close}`")));
        };
        self.note_names(self.at + 2, end);
        if close == "}}" {
            self.expression(end);
        } else {
            self.statement(end)?;
            self.copy(end + 2 - self.at);
        }
        Ok(())
    }

    fn copy(&mut self, bytes: usize) {
        let part = &self.source[self.at..self.at + bytes];
        self.scanned.source.push_str(part);
        self.at += bytes;
    }

    fn insert(&mut self, text: &str) {
        let place = self.scanned.source.len();
        self.scanned.source.push_str(text);
        self.scanned.inserted.push((place, text.len()));
    }

    fn wrong(&self, at: usize, problem: &str) -> TemplateFault {
        TemplateFault {
            place: Some(line_and_column(self.source, at)),
            problem: problem.to_owned(),
        }
    }

    /// Where the tag that begins here ends: before its `close`, outside strings and brackets.
    fn end_of_tag(&self, close: &str) -> Option<usize> {
        let (bytes, mut at, mut depth) = (self.source.as_bytes(), self.at + 2, 0_usize);
        while at < bytes.len() {
            if depth == 0 && self.source.as_bytes()[at..].starts_with(close.as_bytes()) {
                return Some(at);
            }
            match bytes[at] {
                quote @ (b'"' | b'\'') => at = self.end_of_string(at, quote)?,
                b'(' | b'[' | b'{' => depth += 1,
                b')' | b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            at += 1;
        }
        None
    }

    /// Where the string that begins at `at` ends: at its closing quote.
    fn end_of_string(&self, at: usize, quote: u8) -> Option<usize> {
        let mut escaped = false;
        let rest = self.source.as_bytes()[at + 1..].iter();
        let length = rest.copied().position(|byte| {
            let closes = byte == quote && !escaped;
            escaped = byte == b'\\' && !escaped;
            closes
        })?;
        Some(at + 1 + length)
    }

    /// Copies `{{ … }}`, and marks it where it stands inside a text of JSON.
    fn expression(&mut self, end: usize) {
        if !(self.json && self.text.inside) {
            self.copy(end + 2 - self.at);
            return;
        }
        let trims = |byte: u8| byte == b'-' || byte == b'+';
        let bytes = self.source.as_bytes();
        let first = self.at + 2 + usize::from(bytes.get(self.at + 2).copied().is_some_and(trims));
        let last = end - usize::from(end > first && trims(bytes[end - 1]));
        self.copy(first - self.at);
        self.insert("(");
        self.copy(last.max(first) - self.at);
        self.insert(&format!(")|{IN_TEXT} "));
        self.copy(end + 2 - self.at);
    }

    /// Judges `{% … %}`.
    fn statement(&mut self, end: usize) -> Result<(), TemplateFault> {
        let inner = self.source[self.at + 2..end].trim_start_matches(['-', '+']);
        let inner = inner.trim_end_matches(['-', '+']).trim();
        let word = inner
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .next();
        let word = word.unwrap_or_default();
        if !STATEMENTS.contains(&word) {
            let accepted = STATEMENTS.join("`, `");
            let problem = format!("unknown statement `{word}`: accepted are `{accepted}`");
            return Err(self.wrong(self.at, &problem));
        }
        match word {
            "set" if !inner.contains('=') => {
                let problem = "`set` without a value: accepted is `{% set name = value %}`";
                return Err(self.wrong(self.at, problem));
            }
            "if" | "for" | "with" => self.open.push(self.text.inside),
            "elif" | "else" => self.check_branch(self.open.last().copied())?,
            "endif" | "endfor" | "endwith" => {
                let opened = self.open.pop();
                self.check_branch(opened)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn check_branch(&self, opened_inside: Option<bool>) -> Result<(), TemplateFault> {
        match opened_inside {
            Some(inside) if self.json && inside != self.text.inside => {
                let problem = "a text of JSON (`\"…\"`) begins or ends between this tag and the one it belongs \
                               to: accepted are texts that lie wholly inside or wholly outside";
                Err(self.wrong(self.at, problem))
            }
            // That no tag is open is for the engine to say.
            Some(_) | None => Ok(()),
        }
    }

    /// Notes what stands behind `|` and `is` in a tag.
    fn note_names(&mut self, from: usize, to: usize) {
        let bytes = self.source.as_bytes();
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b >= 0x80;
        let (mut at, mut previous, mut expected) = (from, b' ', None);
        while at < to {
            let byte = bytes[at];
            if byte == b'"' || byte == b'\'' {
                at = self.end_of_string(at, byte).unwrap_or(to);
                expected = None;
            } else if byte == b'|' {
                expected = Some(NameKind::Filter);
            } else if word(byte) {
                let length = bytes[at..to].iter().take_while(|b| word(**b)).count();
                let text = &self.source[at..at + length];
                match expected {
                    Some(NameKind::Test) if text == "not" => {}
                    Some(kind) => {
                        let text = text.to_owned();
                        self.scanned.names.push(Name { kind, text, at });
                        expected = None;
                    }
                    None if text == "is" && previous != b'.' => expected = Some(NameKind::Test),
                    None => {}
                }
                at += length - 1;
            } else if !byte.is_ascii_whitespace() {
                expected = None;
            }
            if !byte.is_ascii_whitespace() {
                previous = byte;
            }
            at += 1;
        }
    }
}

/// The line and the column, both from 1, of a byte.
fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or(before).chars().count() + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_inside_texts_are_marked() {
        for (source, expected) in [
            (r#"{"a": {{ x }}}"#, r#"{"a": {{ x }}}"#),
            (r#"{"a": "b {{ x }}"}"#, r#"{"a": "b {{( x )|_in_text }}"}"#),
            (r#"{"a": "{{- x -}}"}"#, r#"{"a": "{{-( x )|_in_text -}}"}"#),
            (
                r#"{"a": "\" {{ x }}", "b": {{ y }}}"#,
                r#"{"a": "\" {{( x )|_in_text }}", "b": {{ y }}}"#,
            ),
            (
                r#""{{ {"a": "}}"} }}{# "{{ no }}" #}{{ '"' }}""#,
                r#""{{( {"a": "}}"} )|_in_text }}{# "{{ no }}" #}{{( '"' )|_in_text }}""#,
            ),
            (
                r#""{% if x == "y" %}{{ x }}{% endif %}""#,
                r#""{% if x == "y" %}{{( x )|_in_text }}{% endif %}""#,
            ),
        ] {
            assert_eq!(scan(source, true).unwrap().source, expected, "{source}");
            assert_eq!(scan(source, false).unwrap().source, source, "{source}");
        }
    }

    #[test]
    fn places_are_those_of_the_original() {
        let source = "{\n\"a\": \"{{ x }} {{ y }}\"}";
        let scanned = scan(source, true).unwrap();
        let at = scanned.source.find("y )").unwrap();
        assert_eq!(scanned.place_of(at), (2, 18));
        assert_eq!(scanned.find_word("y"), source.find('y'));
    }

    #[test]
    fn the_names_of_filters_and_tests_are_found() {
        let source =
            r#"{{ a|upper|default("|no")}}{% if b.is is not defined and c is odd %}{% endif %}"#;
        let names = scan(source, true).unwrap().names;
        let names: Vec<_> = names.iter().map(|name| &*name.text).collect();
        assert_eq!(names, ["upper", "default", "defined", "odd"]);
    }
}
