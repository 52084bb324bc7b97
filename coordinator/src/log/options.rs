//! How a log is set up: where, how large, on which disk; and the places at which tests let it crash.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use assent_common::frame;

use super::LogError;
use super::disk::{Disk, RealDisk};

/// Bytes of a segment file: rotation costs milliseconds, so it should be rare; compaction frees space in these units.
pub const SEGMENT_BYTES_DEFAULT: u32 = 64 * 1024 * 1024;

/// The smallest segment: a header and a few records; for tests.
pub(super) const SEGMENT_BYTES_MIN: u32 = 2 * frame::SEGMENT_HEADER_BYTES;

/// The largest segment, which is read into memory whole.
pub(super) const SEGMENT_BYTES_MAX: u32 = 1024 * 1024 * 1024;

/// Bytes that may wait for the disk before `append` refuses: about a second of a slow disk.
pub(super) const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of one write: beyond this a larger batch saves nothing and only delays those at its front.
pub(super) const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long a lazy record waits for a forced one to ride with.
pub(super) const LAZY_INTERVAL: Duration = Duration::from_millis(20);

/// How long the log is idle before the mark of what is durable is synced too, which then covers the last record.
pub(super) const MARK_IDLE: Duration = Duration::from_millis(100);

/// Where a test can copy, stop or kill the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogCrashPoint {
    /// A batch is about to be written.
    BeforeWrite,
    /// It is written and not synced.
    AfterWriteBeforeSync,
    /// It is synced and not reported.
    AfterSync,
    /// The next segment has its header, and not yet its name.
    RotationAfterCreate,
    /// The next segment has its name, and no record.
    RotationBeforeSwitch,
    /// The mark says that segments are retired; their files are there.
    CompactionBeforeDelete,
    /// The files are gone, the caller does not know.
    CompactionAfterDelete,
}

/// Called at every [`LogCrashPoint`].
pub type CrashHook = Arc<dyn Fn(LogCrashPoint) + Send + Sync>;

/// How a log is set up.
#[derive(Clone)]
pub struct LogOptions {
    /// The log's own directory.
    pub dir: PathBuf,
    /// Bytes of segments begun from now on.
    pub segment_bytes: u32,
    /// Bytes that may be queued.
    pub queue_bytes_max: usize,
    /// Bytes of one batch; a larger record is a batch of its own.
    pub batch_bytes_max: usize,
    /// How long a lazy record waits.
    pub lazy_interval: Duration,
    /// The file system, or what a test puts in its place.
    pub disk: Arc<dyn Disk>,
    /// The time for people, in milliseconds since the epoch of Unix; nothing depends on it.
    pub clock_ms: fn() -> u64,
    /// For tests.
    pub crash_hook: CrashHook,
}

impl LogOptions {
    /// A log in this directory with the defaults.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            queue_bytes_max: QUEUE_BYTES_MAX,
            batch_bytes_max: BATCH_BYTES_MAX,
            lazy_interval: LAZY_INTERVAL,
            disk: Arc::new(RealDisk),
            clock_ms: wall_clock_ms,
            crash_hook: Arc::new(|_| ()),
        }
    }

    /// The largest payload that a segment of this size holds.
    #[must_use]
    pub const fn payload_bytes_max(&self) -> usize {
        (self.segment_bytes - frame::SEGMENT_HEADER_BYTES) as usize - frame::FRAME_HEADER_BYTES
    }

    pub(super) fn check(&self) -> Result<(), LogError> {
        let fits = (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes);
        if fits && self.segment_bytes.is_multiple_of(frame::SEGMENT_HEADER_BYTES) {
            return Ok(());
        }
        let page = frame::SEGMENT_HEADER_BYTES;
        Err(LogError::Option {
            option: "segment_bytes",
            value: u64::from(self.segment_bytes),
            rule: format!("a multiple of {page} from {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}"),
        })
    }

    pub(super) fn crash_point(&self, point: LogCrashPoint) {
        (self.crash_hook)(point);
    }
}

fn wall_clock_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
