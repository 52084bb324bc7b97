//! Looking at a log from outside: `assent log verify` and `assent log dump`.
//!
//! Both only read, take no lock, and work beside a running coordinator. That one writes while they read, so a finding
//! counts only when a second look confirms it; a real one stays.

use std::path::{Path, PathBuf};

use assent_common::LogId;

use super::disk::Disk;
use super::segment::{self, Scanned, TornTail};
use super::survey::{self, Survey};
use super::{LogError, LogPosition, VisitError};

/// Looks at most; a running log that keeps changing under us is then reported as last seen.
const LOOKS_MAX: u32 = 5;

/// What `verify` found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyReport {
    /// Which log it is.
    pub log_id: LogId,
    /// When it was made, in milliseconds since the epoch of Unix.
    pub created_ms: u64,
    /// Everything before this position was durable.
    pub mark: LogPosition,
    /// One of the superblock's two slots is invalid; the other one serves, and the next start writes both.
    pub superblock_slot_damaged: bool,
    /// The segments that are whole, oldest first.
    pub segments: Vec<SegmentReport>,
    /// Bytes that a crash left incomplete, or that are being written now; the next start cuts them.
    pub torn_tail: Option<TornTail>,
    /// What keeps the log from opening; empty for a log that is whole.
    pub damage: Vec<Damage>,
}

/// A segment that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentReport {
    /// Its number.
    pub number: u32,
    /// Its file.
    pub file: PathBuf,
    /// Records in it, the log's own included.
    pub records: u64,
    /// Bytes of frames.
    pub bytes: u64,
    /// When it was begun.
    pub created_ms: u64,
    /// When it was sealed; `None` for the last one.
    pub sealed_ms: Option<u64>,
}

/// A place where the log is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// Where in it; `None` if all of it is missing.
    pub offset: Option<u64>,
    /// What is wrong.
    pub reason: String,
}

/// Reads and checks a whole log. An error means that it could not be looked at; damage is in the report.
pub fn verify(disk: &dyn Disk, dir: &Path) -> Result<VerifyReport, LogError> {
    let mut last = look(disk, dir);
    for _ in 1..LOOKS_MAX {
        if last.as_ref().is_ok_and(|report| report.damage.is_empty()) {
            break;
        }
        let again = look(disk, dir);
        let same = match (&last, &again) {
            (Ok(a), Ok(b)) => a.damage == b.damage,
            (Err(a), Err(b)) => a.with_sources() == b.with_sources(),
            _ => false,
        };
        last = again;
        if same {
            break;
        }
    }
    last
}

fn look(disk: &dyn Disk, dir: &Path) -> Result<VerifyReport, LogError> {
    let survey = match survey::survey(disk, dir) {
        Ok(survey) => survey,
        // Without its headers in order a log cannot be walked; the superblock at least says which one it is.
        Err(error) => return unwalkable(disk, dir, error),
    };
    let mut report = empty_report(&survey.loaded);
    let mut bytes = Vec::new();
    for (index, header) in survey.headers.iter().enumerate() {
        let expected = survey.expected(index);
        match segment::scan(disk, dir, header, expected, &mut bytes, &mut |_, _| Ok(())) {
            Ok(scanned) => {
                report.segments.push(segment_report(dir, &scanned));
                report.torn_tail = scanned.torn;
            }
            Err(error) => report.damage.push(damage(error)?),
        }
    }
    Ok(report)
}

fn unwalkable(disk: &dyn Disk, dir: &Path, error: LogError) -> Result<VerifyReport, LogError> {
    let damage = damage(error)?;
    let Ok(loaded) = super::superblock::load(disk, dir) else {
        let (file, offset) = (damage.file, damage.offset.unwrap_or(0));
        return Err(LogError::Corrupt { file, offset, reason: damage.reason });
    };
    Ok(VerifyReport { damage: vec![damage], ..empty_report(&loaded) })
}

fn empty_report(loaded: &super::superblock::Loaded) -> VerifyReport {
    VerifyReport {
        log_id: loaded.content.log_id,
        created_ms: loaded.content.created_ms,
        mark: loaded.content.mark,
        superblock_slot_damaged: loaded.slot_damaged,
        segments: Vec::new(),
        torn_tail: None,
        damage: Vec::new(),
    }
}

fn segment_report(dir: &Path, scanned: &Scanned) -> SegmentReport {
    SegmentReport {
        number: scanned.info.number,
        file: segment::path(dir, scanned.info.number),
        records: scanned.records,
        bytes: scanned.info.bytes,
        created_ms: scanned.info.created_ms,
        sealed_ms: scanned.info.sealed_ms,
    }
}

/// Damage goes into the report; other errors end the look.
fn damage(error: LogError) -> Result<Damage, LogError> {
    match error {
        LogError::Corrupt { file, offset, reason } => {
            Ok(Damage { file, offset: Some(offset), reason })
        }
        LogError::Missing { file, reason } => Ok(Damage { file, offset: None, reason }),
        other => Err(other),
    }
}

/// One frame of a dump, the log's own records included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DumpedFrame<'a> {
    /// Where it lies.
    pub position: LogPosition,
    /// Where its batch began.
    pub batch: u32,
    /// What it is; [`super::KIND_EPOCH`] is the log's own.
    pub kind: u8,
    /// The record.
    pub payload: &'a [u8],
}

/// Visits every frame from the oldest on, up to the end or the first damage, which is then the error.
pub fn dump(
    disk: &dyn Disk,
    dir: &Path,
    visitor: &mut dyn FnMut(DumpedFrame<'_>) -> Result<(), VisitError>,
) -> Result<(), LogError> {
    let survey: Survey = survey::survey(disk, dir)?;
    survey::walk(disk, dir, &survey, &mut Vec::new(), &mut |position, frame| {
        let (batch, kind, payload) = (frame.batch, frame.kind, frame.payload);
        visitor(DumpedFrame { position, batch, kind, payload })
            .map_err(|source| LogError::Refused { position, source })
    })?;
    Ok(())
}
