//! Everything that reaches a terminal or a pipe goes through here: data to stdout, talk to stderr.
//!
//! A closed stdout (`assent tx list | head`) ends the output quietly: the reader has had enough.

use std::io::{self, IsTerminal as _, Write as _};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::exit::Failure;

/// The form of what goes to stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
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
pub(crate) struct Rows {
    table: Table,
}

impl Rows {
    /// A table with this header.
    #[must_use]
    pub(crate) fn new(header: &[&str]) -> Self {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_header(header.iter().copied());
        Self { table }
    }

    /// One more row.
    pub(crate) fn push<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.table.add_row(cells.into_iter().map(Into::into));
    }
}

/// Writes a line of data.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    finish(writeln!(io::stdout().lock(), "{text}"))
}

/// Writes a document of data.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::of("cannot write JSON", &error))?;
    line(&text)
}

/// Writes a document of data in one line.
pub(crate) fn json_line(value: &impl Serialize) -> Result<(), Failure> {
    let text =
        serde_json::to_string(value).map_err(|error| Failure::of("cannot write JSON", &error))?;
    line(&text)
}

/// Writes rows; the columns are set apart by spaces, so that `awk` reads them.
pub(crate) fn rows(rows: &Rows) -> Result<(), Failure> {
    for text in rows.table.lines() {
        // The style leaves a space before the first column.
        line(text.strip_prefix(' ').unwrap_or(&text).trim_end())?;
    }
    Ok(())
}

/// Says something to the person at the terminal.
pub(crate) fn talk(text: &str) {
    // Nobody is left to tell when stderr is gone.
    let _gone = writeln!(io::stderr().lock(), "{text}");
}

/// Whether stderr is read by a person.
#[must_use]
pub(crate) fn is_watched() -> bool {
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
pub(crate) fn age(at: Option<&str>) -> String {
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

/// A word of the API: what serde makes of an enum without fields.
#[must_use]
pub(crate) fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "?".to_owned(),
    }
}
