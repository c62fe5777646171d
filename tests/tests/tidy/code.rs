//! Tells the code of a Rust file from its comments and literals.

/// The text with comments, strings and characters blanked. Lines stay where they are.
pub(crate) fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let blank = blank_length(rest);
        if blank == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            let (blanked, after) = rest.split_at(blank);
            let kept = |c| if c == '\n' { '\n' } else { ' ' };
            code.extend(blanked.chars().map(kept));
            rest = after;
        }
    }
    code
}

/// The lines, counted from 1, that have `word` as a whole word.
pub(crate) fn lines_with_word(code: &str, word: &str) -> Vec<usize> {
    let lines = code.lines().enumerate();
    let hits = lines.filter(|(_, line)| has_word(line, word));
    hits.map(|(index, _)| index + 1).collect()
}

fn has_word(line: &str, word: &str) -> bool {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(start, _)| {
        let (before, after) = (&line[..start], &line[start + word.len()..]);
        !before.ends_with(in_word) && !after.starts_with(in_word)
    })
}

/// How many bytes of a comment or a literal the text begins with.
fn blank_length(text: &str) -> usize {
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return text.find("*/").map_or(text.len(), |end| end + 2);
    }
    if text.starts_with('"') {
        return quoted_length(text, '"');
    }
    if let Some(rest) = text.strip_prefix('\'') {
        let mut characters = rest.chars();
        let is_character = characters.next() == Some('\\') || characters.next() == Some('\'');
        // Else it is a lifetime.
        return if is_character {
            quoted_length(text, '\'')
        } else {
            0
        };
    }
    raw_string_length(text).unwrap_or_default()
}

fn quoted_length(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (index, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return index + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

fn raw_string_length(text: &str) -> Option<usize> {
    let rest = text.strip_prefix('r')?;
    let body = rest.trim_start_matches('#');
    let marks = rest.len() - body.len();
    let body = body.strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(marks));
    let length = body.find(&end).map_or(body.len(), |at| at + end.len());
    Some(text.len() - body.len() + length)
}

#[test]
fn comments_and_literals_are_no_code() {
    for (text, expected) in [
        ("a // lapin\nb", "a \nb"),
        ("/* x\n */ c", "\n c"),
        (r#"f("a \" lapin") + 1"#, "f() + 1"),
        ("f(r#\"a \" lapin\"#) + r#type", "f() + r#type"),
        ("'\"' + 'a' + '\\'' + b'x'", " +  +  + b"),
        ("&'a str + \"x\"", "&'a str + "),
    ] {
        let code = code_of(text);
        assert_eq!(code.lines().count(), text.lines().count());
        let squeezed: String = code.split("  ").collect();
        let (left, right) = (squeezed.replace(' ', ""), expected.replace(' ', ""));
        assert_eq!(left, right, "{text}");
    }
    assert_eq!(lines_with_word("x\nuse lapin::A;", "lapin"), [2]);
    assert_eq!(
        lines_with_word("asks_for_lapin(lapins)", "lapin"),
        [0_usize; 0]
    );
}
