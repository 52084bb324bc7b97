//! Everything that reaches a terminal or a pipe goes through here: results to stdout, messages to stderr.
//!
//! Names, keys and error texts come from clients and from other servers. None of them may move the cursor, set a title or
//! make a row that is not there: [`printable`] spells what a terminal would obey.
//!
//! A closed stdout (`assent tx list | head`) ends the output quietly: the reader has had enough.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::exit::Failure;

/// The form of what goes to stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// The schema of the API, one document.
    Json,
    /// Ids only, one a line, for pipes.
    Id,
}

/// Rows for people.
#[derive(Debug)]
pub struct Rows {
    table: Table,
}

impl Rows {
    /// A table with this header.
    #[must_use]
    pub fn new(header: &[&str]) -> Self {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_header(header.iter().copied());
        Self { table }
    }

    /// One more row. A cell is one line, whatever its text holds.
    pub fn push<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.table.add_row(cells.into_iter().map(|cell| printable(cell.as_ref()).into_owned()));
    }
}

/// The text with every character that a terminal obeys instead of showing spelt as JSON spells it (`\u001b`, `\n`):
/// control characters, and those that change the direction of what stands around them.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    spelt(text, is_obeyed)
}

/// The same for a text of ours that may have several lines.
fn lines_of(text: &str) -> Cow<'_, str> {
    spelt(text, |character| is_obeyed(character) && !matches!(character, '\n' | '\t'))
}

fn is_obeyed(character: char) -> bool {
    let turns = matches!(character, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    character.is_control() || turns
}

fn spelt(text: &str, is_spelt: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_spelt) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '\n' if is_spelt('\n') => out.push_str("\\n"),
            '\t' if is_spelt('\t') => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            _ if is_spelt(character) => {
                // All of them are in the first plane; writing to a string cannot fail.
                let _infallible = write!(out, "\\u{:04x}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
    Cow::Owned(out)
}

/// Writes data of one or several lines.
pub fn line(text: &str) -> Result<(), Failure> {
    finish(writeln!(io::stdout().lock(), "{}", lines_of(text)))
}

/// Writes a document of data.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::of("cannot write JSON", &error))?;
    line(&text)
}

/// Writes a document of data in one line.
pub fn json_line(value: &impl Serialize) -> Result<(), Failure> {
    let text =
        serde_json::to_string(value).map_err(|error| Failure::of("cannot write JSON", &error))?;
    line(&text)
}

/// Writes rows; the columns are set apart by spaces, so that `awk` reads them.
pub fn rows(rows: &Rows) -> Result<(), Failure> {
    for text in rows.table.lines() {
        // The style leaves a space before the first column.
        line(text.strip_prefix(' ').unwrap_or(&text).trim_end())?;
    }
    Ok(())
}

/// Says something to the person at the terminal.
pub fn talk(text: &str) {
    // Nobody is left to tell when stderr is gone.
    let _gone = writeln!(io::stderr().lock(), "{}", lines_of(text));
}

/// Whether stderr is read by a person.
#[must_use]
pub fn is_watched() -> bool {
    io::stderr().is_terminal()
}

fn finish(written: io::Result<()>) -> Result<(), Failure> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            Err(Failure { exit: crate::Exit::Ok, message: String::new() })
        }
        other => other.map_err(|error| Failure::of("cannot write to stdout", &error)),
    }
}

/// A moment of the API (`2026-11-22T14:30:12.345Z`) as an age (`12s`), for people.
#[must_use]
pub fn age(at: Option<&str>) -> String {
    let Some(at) = at.and_then(|at| at.parse::<jiff::Timestamp>().ok()) else {
        return "-".to_owned();
    };
    let seconds = jiff::Timestamp::now().duration_since(at).as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// A span of time, for people.
#[must_use]
pub fn millis(ms: u64) -> String {
    format!("{:.1}s", ms as f64 / 1_000.0)
}

/// A word of the API: what serde makes of an enum without fields.
#[must_use]
pub fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_spelt_and_all_else_stays() {
        let shown = "Übung 日本 \\ \"quoted\" {x}";
        assert!(matches!(printable(shown), Cow::Borrowed(text) if text == shown));
        // Clear the screen, set the title, go back in the line, begin a row, the one-character CSI, and turn the text around.
        let foul = "\u{1b}[2J\u{1b}]0;x\u{7}\r\n\u{9b}31m\u{202e}\u{7f}";
        assert_eq!(printable(foul), "\\u001b[2J\\u001b]0;x\\u0007\\r\\n\\u009b31m\\u202e\\u007f");
    }

    #[test]
    fn a_document_stays_the_same_document() {
        let document = serde_json::json!({ "name": "\u{1b}\u{9b}\u{202e}\n", "more": [1] });
        let text = serde_json::to_string_pretty(&document).unwrap();
        let written = lines_of(&text).into_owned();
        assert!(!written.chars().any(|c| is_obeyed(c) && c != '\n'), "{written}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&written).unwrap(), document);
    }

    #[test]
    fn a_cell_is_one_line() {
        let mut rows = Rows::new(&["A", "B"]);
        rows.push(["one\ntwo", "\u{1b}[31m"]);
        let table: Vec<String> = rows.table.lines().collect();
        assert_eq!(table.len(), 2, "{table:?}");
        assert!(table[1].contains("one\\ntwo") && table[1].contains("\\u001b[31m"), "{table:?}");
    }
}
