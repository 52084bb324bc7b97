//! The TOML file. Unknown keys are refused: a typo must not silently be a default.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{ClientArgs, CoordinatorArgs, ParticipantArgs};
use crate::exit::Failure;

/// Read if it is there and no other file is named.
const DEFAULT_PATH: &str = "assent.toml";

/// Which file to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigPath {
    /// `./assent.toml`, if it is there.
    Default,
    /// None, whatever is there.
    Nowhere,
    /// This one, which must be there.
    Named(PathBuf),
}

impl ConfigPath {
    /// What `--config` says; `none` means no file.
    #[must_use]
    pub fn from_flag(flag: Option<PathBuf>) -> Self {
        match flag {
            None => Self::Default,
            Some(path) if path.as_os_str() == "none" => Self::Nowhere,
            Some(path) => Self::Named(path),
        }
    }
}

/// The file's content.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConfigFile {
    /// For `assent coordinator` and `assent init`.
    pub coordinator: CoordinatorArgs,
    /// For `assent participant`.
    pub participant: ParticipantArgs,
    /// For the commands that talk to a coordinator.
    pub client: ClientArgs,
    /// Where it was read from.
    #[serde(skip)]
    pub path: Option<PathBuf>,
}

impl ConfigFile {
    /// Reads the file, if there is one to read.
    pub fn load(path: &ConfigPath) -> Result<Self, Failure> {
        let path = match path {
            ConfigPath::Nowhere => return Ok(Self::default()),
            ConfigPath::Named(path) => path.as_path(),
            ConfigPath::Default if Path::new(DEFAULT_PATH).exists() => Path::new(DEFAULT_PATH),
            ConfigPath::Default => return Ok(Self::default()),
        };
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::usage(format!("cannot read the configuration {}: {error}", path.display()))
        })?;
        Self::parse(&text, path)
    }

    /// Reads this text as the file at `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, Failure> {
        let parsed: Self = toml::from_str(text)
            .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
        Ok(Self { path: Some(path.to_owned()), ..parsed })
    }
}
