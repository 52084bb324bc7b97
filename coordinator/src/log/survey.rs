//! What lies in a log's directory, and walking all of it; shared by opening and by looking from outside.
//!
//! It only reads. A gap, a foreign file or an older copy shows here, before any record is believed.

use std::path::Path;

use assent_common::frame::{Frame, Place, SegmentHeader};

use super::disk::Disk;
use super::segment::{self, Expected, Scanned};
use super::superblock::{self, Loaded, Superblock};
use super::{KIND_EPOCH, LogError, LogPosition};

/// Bytes of an epoch record.
pub(super) const EPOCH_BYTES: usize = 8;

pub(super) struct Survey {
    pub(super) loaded: Loaded,
    /// Oldest first, never empty.
    pub(super) headers: Vec<SegmentHeader>,
    /// Segments whose retirement a crash interrupted.
    pub(super) leftovers: Vec<u32>,
}

impl Survey {
    pub(super) fn superblock(&self) -> &Superblock {
        &self.loaded.content
    }

    pub(super) fn expected(&self, index: usize) -> Expected {
        if let Some(next) = self.headers.get(index + 1) {
            return Expected::Sealed {
                end: next.previous_end,
                digest: next.previous_digest,
                sealed_ms: next.created_ms,
            };
        }
        let mark = self.superblock().mark;
        let of_last = mark.segment() == self.headers[index].place.segment;
        Expected::Last { mark: if of_last { mark.offset() } else { 0 } }
    }
}

/// Whether a directory holds a log, some of a log, or none.
pub(super) fn check_initialised(disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
    let none = || LogError::NotInitialised { dir: dir.to_owned() };
    let names = match disk.list(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(none()),
        listed => listed.map_err(LogError::io("list", dir))?,
    };
    if names.iter().any(|name| name == superblock::FILE_NAME) {
        return Ok(());
    }
    let unfinished = names.iter().any(|name| name == superblock::NEW_FILE_NAME);
    let segment = names.iter().find(|name| segment::number(name).is_some());
    match segment {
        // An `init` that a crash interrupted leaves a segment too; `init` finishes it.
        Some(segment) if !unfinished => Err(LogError::Missing {
            file: dir.join(superblock::FILE_NAME),
            reason: format!("{segment} is there"),
        }),
        _ => Err(none()),
    }
}

pub(super) fn survey(disk: &dyn Disk, dir: &Path) -> Result<Survey, LogError> {
    check_initialised(disk, dir)?;
    let loaded = superblock::load(disk, dir)?;
    let Superblock { log_id, first_segment, mark, .. } = loaded.content;
    let names = disk.list(dir).map_err(LogError::io("list", dir))?;
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| segment::number(name)).collect();
    numbers.sort_unstable();
    let leftovers = numbers.iter().copied().filter(|number| *number < first_segment).collect();
    let last = numbers.last().copied().unwrap_or(0).max(mark.segment());
    let mut headers = Vec::new();
    for segment in first_segment..=last {
        if numbers.binary_search(&segment).is_err() {
            let reason = format!("the log has segments {first_segment} to {last}");
            return Err(LogError::Missing { file: segment::path(dir, segment), reason });
        }
        headers.push(segment::read_header(disk, dir, Place { log_id, segment })?);
    }
    let survey = Survey { loaded, headers, leftovers };
    check_mark(dir, &survey)?;
    Ok(survey)
}

/// The mark may lag, but a segment that was sealed below it is not the one that the mark was written for.
fn check_mark(dir: &Path, survey: &Survey) -> Result<(), LogError> {
    let mark = survey.superblock().mark;
    let index = survey.headers.iter().position(|h| h.place.segment == mark.segment());
    let Some(Expected::Sealed { end, .. }) = index.map(|index| survey.expected(index)) else {
        return Ok(());
    };
    if end >= mark.offset() {
        return Ok(());
    }
    Err(LogError::Corrupt {
        file: segment::path(dir, mark.segment() + 1),
        offset: 0,
        reason: format!(
            "it says that the segment before it ended at offset {end}, but that one was durable to {}",
            mark.offset()
        ),
    })
}

/// What a walk over the whole log found.
pub(super) struct Walked {
    pub(super) segments: Vec<Scanned>,
    pub(super) epoch: u64,
}

/// Scans every segment in order. `bytes` holds the last one afterwards.
pub(super) fn walk(
    disk: &dyn Disk,
    dir: &Path,
    survey: &Survey,
    bytes: &mut Vec<u8>,
    visit: &mut dyn FnMut(LogPosition, &Frame<'_>) -> Result<(), LogError>,
) -> Result<Walked, LogError> {
    let mut walked = Walked { segments: Vec::new(), epoch: 0 };
    for (index, header) in survey.headers.iter().enumerate() {
        walked.epoch = walked.epoch.max(header.epoch);
        let expected = survey.expected(index);
        let scanned = segment::scan(disk, dir, header, expected, bytes, &mut |position, frame| {
            if frame.kind == KIND_EPOCH {
                walked.epoch = walked.epoch.max(epoch_of(frame.payload).unwrap_or(0));
            }
            visit(position, frame)
        })?;
        walked.segments.push(scanned);
    }
    Ok(walked)
}

fn epoch_of(payload: &[u8]) -> Option<u64> {
    payload.first_chunk::<EPOCH_BYTES>().map(|bytes| u64::from_le_bytes(*bytes))
}
