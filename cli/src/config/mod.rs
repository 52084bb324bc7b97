//! Where settings come from: flags, then `ASSENT_…` of the environment, then the TOML file, then the defaults.
//!
//! One struct per section is both the flags (clap) and the keys of the file (serde), so that a setting has one name and
//! one type. [`Layers`] merges them and remembers where each value came from, for `assent config show`. Secrets are
//! never settings: files that hold them are.

mod client;
mod coordinator;
mod edge;
pub(crate) mod environment;
mod file;
mod participant;
pub(crate) mod reference;

pub use client::{ClientArgs, ClientSettings};
pub use coordinator::{CoordinatorArgs, CoordinatorSettings, NamedUrl};
pub use file::{ConfigFile, ConfigPath};
pub use participant::{ParticipantArgs, ParticipantSettings, of_hook};

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use assent_client::Token;
use clap::ArgMatches;
use clap::parser::ValueSource;

use crate::exit::Failure;
use crate::output;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag(String),
    /// The environment.
    Environment(String),
    /// The configuration file.
    File(String),
    /// Nobody set it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => f.write_str(flag),
            Self::Environment(variable) => f.write_str(variable),
            Self::File(path) => f.write_str(path),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A setting as `config show` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The section and the key, as in the file.
    pub key: String,
    /// The value that counts.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

/// Merges one section.
#[derive(Debug)]
pub struct Layers<'a> {
    section: &'static str,
    matches: &'a ArgMatches,
    file: Option<&'a Path>,
    shown: Vec<Shown>,
}

impl<'a> Layers<'a> {
    /// Layers for this section.
    #[must_use]
    pub const fn new(
        section: &'static str,
        matches: &'a ArgMatches,
        file: Option<&'a Path>,
    ) -> Self {
        Self { section, matches, file, shown: Vec::new() }
    }

    /// The value that counts, where nobody must set one.
    pub fn optional<T: fmt::Display>(
        &mut self,
        key: &str,
        argument: Option<T>,
        file: Option<T>,
    ) -> Option<T> {
        let (value, origin) = match (argument, file) {
            (Some(value), _) => (Some(value), self.origin_of_argument(key)),
            (None, Some(value)) => (Some(value), self.origin_of_file()),
            (None, None) => (None, Origin::Default),
        };
        let text = value.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
        self.show(key, text, origin);
        value
    }

    /// The value that counts.
    pub fn value<T: fmt::Display>(
        &mut self,
        key: &str,
        argument: Option<T>,
        file: Option<T>,
        default: T,
    ) -> T {
        let value = self.optional(key, argument, file);
        value.unwrap_or_else(|| {
            if let Some(shown) = self.shown.last_mut() {
                shown.value = default.to_string();
            }
            default
        })
    }

    /// The list that counts: layers replace each other, they do not add up.
    pub fn list<T: fmt::Display>(&mut self, key: &str, argument: Vec<T>, file: Vec<T>) -> Vec<T> {
        let (list, origin) = if !argument.is_empty() {
            (argument, self.origin_of_argument(key))
        } else if !file.is_empty() {
            (file, self.origin_of_file())
        } else {
            (Vec::new(), Origin::Default)
        };
        let texts: Vec<String> = list.iter().map(ToString::to_string).collect();
        let text = if texts.is_empty() { "-".to_owned() } else { texts.join(", ") };
        self.show(key, text, origin);
        list
    }

    /// Replaces the last value as it is shown, where it may hold a secret.
    pub fn redact(&mut self, text: String) {
        if let Some(shown) = self.shown.last_mut() {
            shown.value = text;
        }
    }

    /// What was merged, in order.
    #[must_use]
    pub fn into_shown(self) -> Vec<Shown> {
        self.shown
    }

    fn show(&mut self, key: &str, value: String, origin: Origin) {
        self.shown.push(Shown { key: format!("{}.{key}", self.section), value, origin });
    }

    fn origin_of_argument(&self, key: &str) -> Origin {
        let known = self.matches.ids().any(|id| id.as_str() == key);
        match known.then(|| self.matches.value_source(key)).flatten() {
            Some(ValueSource::EnvVariable) => {
                Origin::Environment(environment_variable(self.section, key))
            }
            _ => Origin::Flag(format!("--{}", key.replace('_', "-"))),
        }
    }

    fn origin_of_file(&self) -> Origin {
        self.file.map_or(Origin::Default, |path| Origin::File(path.display().to_string()))
    }
}

/// The environment variable of a setting. The client's have no section in their names: they are typed by people.
#[must_use]
pub fn environment_variable(section: &str, key: &str) -> String {
    match section {
        "client" => format!("ASSENT_{key}"),
        section => format!("ASSENT_{section}_{key}"),
    }
    .to_uppercase()
}

/// A path as a setting.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(transparent)]
pub struct PathValue(pub std::path::PathBuf);

impl fmt::Display for PathValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}
impl std::str::FromStr for PathValue {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.into()))
    }
}

/// The mode of a file of this user's that its group or all others may read.
fn open_to_others(path: &Path) -> Option<u32> {
    const READ_BY_OTHERS: u32 = 0o044;
    let meta = std::fs::metadata(path).ok()?;
    let mode = meta.mode() & 0o7777;
    let is_own = meta.uid() == rustix::process::geteuid().as_raw();
    (is_own && mode & READ_BY_OTHERS != 0).then_some(mode)
}

/// Reads a token from its file.
pub fn read_token(path: Option<&PathValue>) -> Result<Option<Token>, Failure> {
    path.map(|path| read_secret(path).map(|text| Token::new(&text))).transpose()
}

/// Reads a secret, which may not be empty.
///
/// A file that others may read is warned of, where it is this user's own: ssh refuses such a key,
/// but the secrets of containers are often readable by all inside, which whoever runs there cannot
/// change.
pub fn read_secret(path: &PathValue) -> Result<String, Failure> {
    if let Some(mode) = open_to_others(&path.0) {
        let shown = path.0.display();
        let warning = format!(
            "other users can read the secret in {shown} (mode {mode:04o}): chmod 600 {shown}"
        );
        if output::is_watched() {
            output::talk(&format!("assent: {warning}"));
        } else {
            tracing::warn!("{warning}");
        }
    }
    let text = std::fs::read_to_string(&path.0)
        .map_err(|error| Failure::usage(format!("cannot read the secret in {path}: {error}")))?;
    match text.trim() {
        "" => Err(Failure::usage(format!("{path} is empty; it should hold a secret"))),
        secret => Ok(secret.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_of_ones_own_that_others_may_read_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "secret").unwrap();
        for (mode, noticed) in
            [(0o600, None), (0o400, None), (0o644, Some(0o644)), (0o440, Some(0o440))]
        {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(open_to_others(&path), noticed, "{mode:o}");
        }
        assert_eq!(open_to_others(&dir.path().join("gone")), None);
    }
}
