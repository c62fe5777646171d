//! Reads many events from files and standard input, each with the place that it came from.
//!
//! Blocking, and bounded: a line may be as long as an event, a list as long as it fits the memory set apart.

use std::{
    fmt,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use fanfare_wire::EventLimits;
use serde::Serialize;
use serde_json::value::RawValue;

/// The largest file with one JSON list. Lines of any number need no such bound.
const LARGEST_LIST: u64 = 64 << 20;

/// Where a text came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Place {
    pub(super) file: Arc<str>,
    /// Of a file with lines, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) line: Option<u64>,
    /// Of a JSON list, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) item: Option<u64>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, item } = self;
        match (line, item) {
            (Some(line), _) => write!(f, "{file}:{line}"),
            (None, Some(item)) => write!(f, "{file}, event {item}"),
            (None, None) => f.write_str(file),
        }
    }
}

/// What was read at a place: the text of an event, or why there is none.
pub(super) struct Text {
    pub(super) place: Place,
    pub(super) text: Result<Bytes, String>,
    /// How far the file was read, in bytes.
    pub(super) read: u64,
}

/// Hands every text of a file to `take`, until that returns `false`. `Err` means that the file cannot be read on.
pub(super) fn read(path: &Path, mut take: impl FnMut(Text) -> bool) -> io::Result<()> {
    if path == Path::new("-") {
        return read_from("stdin", io::stdin().lock(), &mut take);
    }
    let name = path.display().to_string();
    read_from(&name, BufReader::new(File::open(path)?), &mut take)
}

fn read_from(
    name: &str,
    mut reader: impl BufRead,
    take: &mut impl FnMut(Text) -> bool,
) -> io::Result<()> {
    let file: Arc<str> = name.into();
    let first = reader.fill_buf()?.trim_ascii_start().first().copied();
    if first == Some(b'[') {
        return read_list(&file, reader, take);
    }
    let (mut number, mut read) = (0, 0);
    loop {
        let line = next_line(&mut reader)?;
        let (text, bytes) = match line {
            Line::End => return Ok(()),
            Line::Text(line) => {
                let bytes = line.len() as u64;
                (Ok(Bytes::from(line)), bytes)
            }
            Line::TooLong(bytes) => {
                let most = EventLimits::default().max_event_bytes;
                let why = format!("the line has {bytes} bytes, and an event at most {most}");
                (Err(why), bytes)
            }
        };
        number += 1;
        read += bytes;
        if text.as_ref().is_ok_and(|text| text.trim_ascii().is_empty()) {
            continue;
        }
        let place = Place {
            file: Arc::clone(&file),
            line: Some(number),
            item: None,
        };
        if !take(Text { place, text, read }) {
            return Ok(());
        }
    }
}

enum Line {
    End,
    Text(Vec<u8>),
    TooLong(u64),
}

/// The next line, with its line break. One that is too long is passed over without being kept.
fn next_line(reader: &mut impl BufRead) -> io::Result<Line> {
    let most = EventLimits::default().max_event_bytes as u64 + 1;
    let mut line = Vec::new();
    reader.by_ref().take(most).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(Line::End);
    }
    if (line.len() as u64) < most || line.ends_with(b"\n") {
        return Ok(Line::Text(line));
    }
    let mut bytes = line.len() as u64;
    while !line.ends_with(b"\n") {
        line.clear();
        let rest = reader.by_ref().take(most).read_until(b'\n', &mut line)?;
        if rest == 0 {
            break;
        }
        bytes += rest as u64;
    }
    Ok(Line::TooLong(bytes))
}

fn read_list(
    file: &Arc<str>,
    reader: impl Read,
    take: &mut impl FnMut(Text) -> bool,
) -> io::Result<()> {
    let mut whole = Vec::new();
    reader.take(LARGEST_LIST + 1).read_to_end(&mut whole)?;
    let place = |item| Place {
        file: Arc::clone(file),
        line: None,
        item,
    };
    let whole = Bytes::from(whole);
    let read = whole.len() as u64;
    let items: Result<Vec<&RawValue>, String> = if read > LARGEST_LIST {
        let most = LARGEST_LIST >> 20;
        Err(format!(
            "the list is larger than {most} MiB: put each event on a line of its own"
        ))
    } else {
        serde_json::from_slice(&whole).map_err(|why| format!("not a JSON list: {why}"))
    };
    match items {
        Ok(items) => {
            for (item, text) in (1..).zip(items) {
                let text = Ok(whole.slice_ref(text.get().as_bytes()));
                let place = place(Some(item));
                if !take(Text { place, text, read }) {
                    break;
                }
            }
        }
        Err(why) => {
            let (place, text) = (place(None), Err(why));
            take(Text { place, text, read });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(input: &str) -> Vec<(String, String)> {
        let mut texts = Vec::new();
        read_from("f", input.as_bytes(), &mut |text: Text| {
            let told = match text.text {
                Ok(text) => String::from_utf8_lossy(text.trim_ascii()).into_owned(),
                Err(why) => why,
            };
            texts.push((text.place.to_string(), told));
            true
        })
        .unwrap();
        texts
    }

    fn check(input: &str, expected: &[(&str, &str)]) {
        let expected = expected
            .iter()
            .map(|(place, text)| ((*place).to_owned(), (*text).to_owned()));
        assert_eq!(texts(input), expected.collect::<Vec<_>>(), "{input:.100}");
    }

    #[test]
    fn each_text_has_its_place() {
        check("", &[]);
        check(
            "{}\n\n  \n{\"a\":1}",
            &[("f:1", "{}"), ("f:4", "{\"a\":1}")],
        );
        check(" [ {}, 7 ]", &[("f, event 1", "{}"), ("f, event 2", "7")]);
        let broken = texts("[{}");
        assert_eq!(broken.len(), 1);
        assert!(broken[0].1.starts_with("not a JSON list"), "{broken:?}");
    }

    #[test]
    fn a_line_that_is_too_long_is_told_and_passed_over() {
        let long = "x".repeat(600_000);
        let told = texts(&format!("1\n{long}\n2\n"));
        assert_eq!(told.len(), 3);
        assert_eq!(told[1].0, "f:2");
        assert!(told[1].1.contains("600001 bytes"), "{}", told[1].1);
        assert_eq!(told[2], ("f:3".to_owned(), "2".to_owned()));
    }

    #[test]
    fn whoever_takes_may_have_enough() {
        let mut count = 0;
        read_from("f", "1\n2\n3\n".as_bytes(), &mut |_| {
            count += 1;
            count < 2
        })
        .unwrap();
        assert_eq!(count, 2);
    }
}
