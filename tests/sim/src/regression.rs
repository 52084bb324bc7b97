//! Regression files: a seed and its configuration, and why it is kept. A few lines of TOML.

use std::fmt::Write as _;
use std::path::Path;

use crate::Config;

/// A regression file cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {reason}")]
pub struct Unreadable {
    file: String,
    reason: String,
}

/// Reads a regression file.
pub fn read(path: &Path) -> Result<Config, Unreadable> {
    let unreadable = |reason: String| Unreadable { file: path.display().to_string(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    toml::from_str(&text).map_err(|error| unreadable(error.to_string()))
}

/// The text of one.
#[must_use]
pub fn text(config: &Config, why: &str) -> String {
    let mut text = String::new();
    for line in why.lines().take(4) {
        let _ = writeln!(text, "# {line}");
    }
    text.push_str(&toml::to_string(config).unwrap_or_else(|error| unreachable!("{error}")));
    text
}
