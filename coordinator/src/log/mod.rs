//! The decision log: an append-only file of the coordinator's own, whose records are the decisions.
//!
//! It owns the order and durability of records, their places, segments, the epoch and the exclusive lock. It never
//! looks into a payload, never drops a record that was reported durable, and never answers from memory for a disk
//! that failed. [`FileLog`] is the real one, [`MemoryLog`] the double; `suite.rs` is what both must pass.
//!
//! ```text
//! init(dir) once ─► open(dir, visitor): lock, replay, raise the epoch ─► start(callbacks) ─► LogHandle
//!
//! append([token, kind, payload, Forced]) ─► queue ─► writer thread: one write, one fdatasync for all queued
//!                                                      └─► on_durable([(token, position), …])
//! ```
//!
//! # Contract
//!
//! - **Order.** Positions grow in the order of appending, across lives of the process.
//! - **Durability.** `on_durable` names a record only after the disk has it. It is called once per batch, in order,
//!   from the writer thread, and holds up the next batch: hand over and return. Every appended record is named once,
//!   or the process stops.
//! - **Forced and lazy.** A lazy record causes no sync; it rides with the next forced one, or is written when the lazy
//!   interval has passed, and is reported alike.
//! - **Failure.** When a write or sync fails nothing more is reported, every call answers [`LogError::Stopped`] and
//!   `on_fatal` is called once. What the disk has is then unknown; the sync is never tried again, because a kernel may
//!   report a failed sync once and then call the lost pages clean. Restarting reads what there is, and rewrites what
//!   no earlier sync vouched for before it believes it.
//! - **Replay.** Every durable record of the segments not yet retired is visited once per copy, oldest first. Records
//!   that were appended but never reported may be there or not. The owner's replay must be **idempotent**: a record
//!   that was appended again for compaction is visited twice when a crash came before its old segment was retired.
//! - **Compaction.** The owner reads the oldest segment, appends again what it must keep, waits until that is
//!   reported, and calls [`DecisionLog::retire`]. Segments go oldest first, so that a gap always means loss.
//! - **Rot is not a torn tail.** Bytes that fail their check are cut only if they lie at the very end of the last
//!   segment, where nothing ever vouched for them. Anything else refuses to open, with file and offset.
//! - **Epoch.** Each `open` is a new epoch, durable before `open` returns (invariant 1).
//! - **Backups.** A copy of the whole directory put back later is not told from the original by the log. Participants
//!   tell: they know higher epochs.

use std::collections::VecDeque;
use std::sync::Arc;

use assent_common::{Epoch, LogId};

pub mod disk;
mod error;
mod file;
mod memory;
mod metric;
mod offline;
mod options;
mod queue;
mod segment;
mod superblock;
mod survey;
mod writer;

#[cfg(test)]
mod suite;
#[cfg(test)]
mod test_disk;
#[cfg(test)]
mod tests;

pub use assent_common::log::{Durability, KIND_EPOCH, LogPosition, NewRecord, Token};
pub use error::LogError;
pub use file::{FileLog, OpenReport, OpenedLog, init, open};
pub use memory::{MemoryLog, MemoryStore, OpenedMemoryLog};
pub use metric::describe as describe_metrics;
pub use offline::{Damage, DumpedFrame, SegmentReport, VerifyReport, dump, verify};
pub use options::{CrashHook, LogCrashPoint, LogOptions, SEGMENT_BYTES_DEFAULT};
pub use segment::TornTail;

/// A log in use; cheap to clone.
pub type LogHandle = Arc<dyn DecisionLog>;

/// Called from the writer thread with each batch that became durable, in the order of appending.
pub type OnDurable = Box<dyn FnMut(Vec<(Token, LogPosition)>) + Send>;

/// Called once, from the writer thread, when the log cannot be written. Production prints the error and ends the
/// process ([`stop_process`]).
pub type OnFatal = Box<dyn FnOnce(&LogError) + Send>;

/// What the owner wants to be called for; given to `start`, when replay is done.
pub struct Callbacks {
    /// A batch became durable.
    pub on_durable: OnDurable,
    /// The log cannot be written.
    pub on_fatal: OnFatal,
}

/// What a visitor may refuse a record with; becomes [`LogError::Refused`], with the record's position.
pub type VisitError = Box<dyn std::error::Error + Send + Sync>;

/// Takes records in order: position, kind, payload.
pub type Visitor<'a> = dyn FnMut(LogPosition, u8, &[u8]) -> Result<(), VisitError> + 'a;

/// A record read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// What it is; never [`KIND_EPOCH`].
    pub kind: u8,
    /// The record.
    pub payload: Vec<u8>,
}

/// What is known of a segment without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number; they are contiguous.
    pub number: u32,
    /// Bytes of frames in it.
    pub bytes: u64,
    /// The position of its first frame, if it has any.
    pub first: Option<LogPosition>,
    /// The position of its last frame, if it has any.
    pub last: Option<LogPosition>,
    /// When it was begun, in milliseconds since the epoch of Unix.
    pub created_ms: u64,
    /// When it was sealed; `None` for the one being written.
    pub sealed_ms: Option<u64>,
}

/// A log of decisions in use. The module's documentation is the contract.
pub trait DecisionLog: Send + Sync + 'static {
    /// Which log this is.
    fn log_id(&self) -> LogId;

    /// The epoch of this life.
    fn epoch(&self) -> Epoch;

    /// Queues records from the front as one, so that one sync serves them all. When too much is queued it fails with
    /// [`LogError::Full`]; on any failure, what was not queued is still there.
    fn append_all(&self, records: &mut VecDeque<NewRecord>) -> Result<(), LogError>;

    /// Queues one record.
    fn append(
        &self,
        token: Token,
        kind: u8,
        payload: Vec<u8>,
        durability: Durability,
    ) -> Result<(), LogError> {
        self.append_all(&mut VecDeque::from([NewRecord { token, kind, payload, durability }]))
    }

    /// Reads a durable record back.
    fn read(&self, position: LogPosition) -> Result<LogRecord, LogError>;

    /// The segments, oldest first; the last one is being written.
    fn segments(&self) -> Vec<SegmentInfo>;

    /// Visits the durable records of one segment.
    fn read_segment(&self, number: u32, visitor: &mut Visitor<'_>) -> Result<(), LogError>;

    /// Deletes the segments up to and including `through`, after everything appended before this call is durable.
    /// Waits for that, so not to be called from `on_durable`. Refuses the segment being written.
    fn retire(&self, through: u32) -> Result<(), LogError>;

    /// Bytes of the largest payload that a record may have; where nothing bounds it, all there are.
    fn payload_bytes_max(&self) -> usize {
        usize::MAX
    }

    /// Bytes queued and not yet durable, for admission control.
    fn queued_bytes(&self) -> usize;

    /// Why the disk did not take the last thing that was written ahead of its time, for as long as
    /// that is so: the log goes on until it needs the room. `None` where nothing can fail.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// Makes everything queued durable, reports it, stops the writer and frees the lock. Idempotent. Dropping the last
    /// handle does the same.
    fn close(&self);
}

/// The production answer to a log that cannot be written: say so and end the process, now and without unwinding,
/// because no other thread may answer from memory meanwhile (invariant 4).
#[allow(clippy::print_stderr, reason = "the last words; a logger may buffer them")]
pub fn stop_process(error: &LogError) {
    let error = error.with_sources();
    // Once, in the form of the log; where nobody listens to that, in plain text.
    if tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!(error, "the decision log failed; stopping");
    } else {
        eprintln!("assent: the decision log failed, stopping: {error}");
    }
    std::process::exit(EXIT_LOG_FAILED);
}

/// The exit code of a process whose log failed: `EX_SOFTWARE`, which supervisors restart.
pub const EXIT_LOG_FAILED: i32 = 70;
