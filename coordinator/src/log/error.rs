//! What can go wrong with a log, said to the person who has to do something about it: file, offset, what to do.

use std::io;
use std::path::PathBuf;

use super::{LogPosition, VisitError};

/// An error of the decision log. Its text does not repeat its source; [`LogError::with_sources`] does.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Nothing to open.
    #[error(
        "no decision log in {dir}. If this coordinator never ran, create one with `assent init`. If it did, find its \
         volume: a fresh log would not know the decisions of the old one, and branches waiting for them could never \
         be finished"
    )]
    NotInitialised {
        /// The directory.
        dir: PathBuf,
    },
    /// `init` where there is a log.
    #[error("{dir} already holds a decision log; `assent init` never replaces one")]
    AlreadyInitialised {
        /// The directory.
        dir: PathBuf,
    },
    /// `init` among other files.
    #[error("{dir} is not empty: it holds {found}. Give the decision log a directory of its own")]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// One of the files in it.
        found: String,
    },
    /// Another process has it.
    #[error("the decision log in {dir} is in use by process {pid}; a log has one writer at a time")]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// What the other process wrote into the lock file.
        pid: String,
    },
    /// Bytes that were durable are not what they were.
    #[error(
        "the decision log is damaged: {file} at offset {offset}: {reason}. Nothing was changed. Run `assent log \
         verify` for the extent, then restore the file from a copy of this very log; do not delete it, its decisions \
         may be the only record of committed transactions"
    )]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// A file of the log is gone.
    #[error(
        "the decision log is incomplete: {file} is missing ({reason}). Nothing was changed. Restore it from a copy of \
         this very log; without it committed transactions would count as aborted"
    )]
    Missing {
        /// The file that should be there.
        file: PathBuf,
        /// How that is known.
        reason: String,
    },
    /// Options that cannot work.
    #[error("the log's {option} is {value}, but must be {rule}")]
    Option {
        /// Which one.
        option: &'static str,
        /// Its value.
        value: u64,
        /// The rule it broke.
        rule: String,
    },
    /// The owner cannot make sense of a record.
    #[error("the record at {position} of the decision log cannot be used")]
    Refused {
        /// The record.
        position: LogPosition,
        /// What the owner said.
        #[source]
        source: VisitError,
    },
    /// Too much is queued.
    #[error("the decision log has {queued} bytes queued of at most {max}; try again later")]
    Full {
        /// Bytes queued.
        queued: usize,
        /// The limit.
        max: usize,
    },
    /// A record that no segment can hold.
    #[error("a record of {bytes} bytes does not fit into a log segment, which holds at most {max}")]
    TooLarge {
        /// Bytes of the record.
        bytes: usize,
        /// The largest that fits.
        max: usize,
    },
    /// A kind that belongs to the log itself.
    #[error("record kind {kind} is the log's own")]
    ReservedKind {
        /// The kind.
        kind: u8,
    },
    /// The position names no record of this log.
    #[error("no record at {position} of the decision log")]
    NoRecord {
        /// The position.
        position: LogPosition,
    },
    /// The segment is not, or no longer, there.
    #[error(
        "segment {segment} of the decision log is not there; the segments are {first} to {last}"
    )]
    NoSegment {
        /// The segment asked for.
        segment: u32,
        /// The oldest.
        first: u32,
        /// The one being written.
        last: u32,
    },
    /// The segment being written cannot be retired.
    #[error("segment {segment} of the decision log is being written and cannot be retired")]
    InUse {
        /// The segment.
        segment: u32,
    },
    /// The log failed before; it stays so until the process restarts.
    #[error("the decision log has stopped: {cause}")]
    Stopped {
        /// The first failure.
        cause: String,
    },
    /// Closed by its owner.
    #[error("the decision log is closed")]
    Closed,
    /// The file system said no.
    #[error("cannot {action} {file}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl LogError {
    pub(crate) fn io(
        action: &'static str,
        file: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let file = file.into();
        move |source| Self::Io { action, file, source }
    }

    /// The text with those of its sources, for the end of a program.
    #[must_use]
    pub fn with_sources(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        text
    }
}
