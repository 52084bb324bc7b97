//! Segment files: their names, how one is made ready, and what the bytes of one mean.
//!
//! A file is filled with zeros and synced under the name `spare` before it becomes a segment, because overwriting is
//! cheaper than growing and cannot run out of space. [`scan`] is the judge of damage: it knows what vouches for a byte.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use assent_common::frame::{self, Found, InvalidFrame, Place, Scanner, SegmentHeader};

use super::disk::{Disk, DiskFile};
use super::options::{LogCrashPoint, LogOptions};
use super::{LogError, LogPosition, SegmentInfo};

const SPARE: &str = "spare";

/// Zeros are written in pieces of this size and each is synced, so that no batch waits behind a whole segment of them.
const FILL_BYTES: usize = 1024 * 1024;

pub(super) fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08}.log"))
}

/// The number in a segment's file name.
pub(super) fn number(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".log")?;
    let all_digits = digits.len() >= 8 && digits.bytes().all(|b| b.is_ascii_digit());
    all_digits.then(|| digits.parse().ok())?
}

/// Makes the spare anew. `cancelled` leaves it half-made, which the next start clears away.
pub(super) fn fill_spare(
    disk: &dyn Disk,
    dir: &Path,
    segment_bytes: u32,
    cancelled: &AtomicBool,
) -> Result<(), LogError> {
    remove_spare(disk, dir)?;
    let path = dir.join(SPARE);
    let file = disk.create(&path).map_err(LogError::io("create", &path))?;
    let zeros = vec![0; FILL_BYTES.min(segment_bytes as usize)];
    let mut offset = 0;
    while offset < segment_bytes as usize && !cancelled.load(Ordering::Relaxed) {
        let piece = &zeros[..zeros.len().min(segment_bytes as usize - offset)];
        file.write_all_at(piece, offset as u64).map_err(LogError::io("fill", &path))?;
        file.sync().map_err(LogError::io("sync", &path))?;
        offset += piece.len();
    }
    Ok(())
}

pub(super) fn remove_spare(disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
    let path = dir.join(SPARE);
    match disk.remove(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(LogError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// Turns the spare into a segment: header first, then the name, so that a segment that has its name has its header.
pub(super) fn adopt_spare(
    options: &LogOptions,
    header: &SegmentHeader,
) -> Result<Box<dyn DiskFile>, LogError> {
    let (disk, dir) = (&options.disk, &options.dir);
    let spare = dir.join(SPARE);
    let segment = path(dir, header.place.segment);
    let file = disk.open(&spare).map_err(LogError::io("open", &spare))?;
    file.write_all_at(&header.encode(), 0).map_err(LogError::io("write", &spare))?;
    file.sync().map_err(LogError::io("sync", &spare))?;
    options.crash_point(LogCrashPoint::RotationAfterCreate);
    disk.rename(&spare, &segment).map_err(LogError::io("rename to", &segment))?;
    disk.sync_dir(dir).map_err(LogError::io("sync", dir))?;
    Ok(file)
}

/// Reads a segment's header and checks that it is the one that belongs here.
pub(super) fn read_header(
    disk: &dyn Disk,
    dir: &Path,
    expected: Place,
) -> Result<SegmentHeader, LogError> {
    let path = path(dir, expected.segment);
    let corrupt = |offset, reason| LogError::Corrupt { file: path.clone(), offset, reason };
    let file = disk.open_read(&path).map_err(LogError::io("open", &path))?;
    let bytes = file.bytes().map_err(LogError::io("read", &path))?;
    if bytes < u64::from(frame::SEGMENT_HEADER_BYTES) {
        return Err(corrupt(bytes, "the file ends within its header".to_owned()));
    }
    let mut page = vec![0; frame::SEGMENT_HEADER_BYTES as usize];
    file.read_exact_at(&mut page, 0).map_err(LogError::io("read", &path))?;
    let header = SegmentHeader::decode(&page).map_err(|reason| corrupt(0, reason.to_string()))?;
    let place = header.place;
    if place != expected {
        let reason = format!(
            "it is segment {} of log {}, but here belongs segment {} of log {}",
            place.segment, place.log_id, expected.segment, expected.log_id
        );
        return Err(corrupt(0, reason));
    }
    if bytes != u64::from(header.segment_bytes) {
        let reason =
            format!("the file ends here, but was made with {} bytes", header.segment_bytes);
        return Err(corrupt(bytes.min(u64::from(header.segment_bytes)), reason));
    }
    Ok(header)
}

/// What vouches for the content of a segment.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expected {
    /// The header of the segment after it: this end, this digest.
    Sealed { end: u32, digest: u32, sealed_ms: u64 },
    /// Only the mark, and later batches.
    Last { mark: u32 },
}

/// Bytes at the very end of the last segment that a crash left incomplete and that nothing ever vouched for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The segment's file.
    pub file: PathBuf,
    /// Where the bytes begin.
    pub offset: u32,
    /// How many they are.
    pub bytes: u32,
}

pub(super) struct Scanned {
    pub(super) info: SegmentInfo,
    pub(super) end: u32,
    pub(super) digest: u32,
    pub(super) records: u64,
    pub(super) torn: Option<TornTail>,
}

/// Visits the frames of a segment and judges what comes after them. `bytes` receives the segment, or as much of it as
/// holds frames. The judgement comes last: a visitor may have seen records of a segment that is then refused.
pub(super) fn scan(
    disk: &dyn Disk,
    dir: &Path,
    header: &SegmentHeader,
    expected: Expected,
    bytes: &mut Vec<u8>,
    visit: &mut dyn FnMut(LogPosition, &frame::Frame<'_>) -> Result<(), LogError>,
) -> Result<Scanned, LogError> {
    let path = path(dir, header.place.segment);
    let sealed_ms = match expected {
        Expected::Sealed { end, sealed_ms, .. } => {
            read(disk, &path, end.min(header.segment_bytes), bytes)?;
            Some(sealed_ms)
        }
        Expected::Last { .. } => {
            read_sparsely(disk, &path, header.segment_bytes, bytes)?;
            None
        }
    };
    let mut scanned = Scanned {
        info: SegmentInfo {
            number: header.place.segment,
            bytes: 0,
            first: None,
            last: None,
            created_ms: header.created_ms,
            sealed_ms,
        },
        end: frame::SEGMENT_HEADER_BYTES,
        digest: 0,
        records: 0,
        torn: None,
    };
    let mut stop = None;
    for found in Scanner::new(header.place, bytes) {
        let Found::Frame(frame) = found else {
            stop = Some(found);
            break;
        };
        let position = LogPosition::new(header.place.segment, frame.offset);
        visit(position, &frame)?;
        scanned.info.first.get_or_insert(position);
        scanned.info.last = Some(position);
        scanned.digest = frame::chain(scanned.digest, frame.crc);
        scanned.records += 1;
        scanned.end = frame.end;
    }
    scanned.info.bytes = u64::from(scanned.end - frame::SEGMENT_HEADER_BYTES);
    let reason = match stop {
        Some(Found::Invalid { reason, .. }) => Some(reason),
        _ if frame::data_end(bytes) > scanned.end as usize => Some(InvalidFrame::Hole),
        _ => None,
    };
    scanned.torn = judge(&path, header, expected, &scanned, bytes, reason)?;
    Ok(scanned)
}

/// Whether what follows the last valid frame is the end, a torn tail, or damage.
fn judge(
    path: &Path,
    header: &SegmentHeader,
    expected: Expected,
    scanned: &Scanned,
    bytes: &[u8],
    reason: Option<InvalidFrame>,
) -> Result<Option<TornTail>, LogError> {
    let corrupt = |why: String| {
        let reason = match reason {
            Some(reason) => format!("{reason}; {why}"),
            None => why,
        };
        Err(LogError::Corrupt { file: path.to_owned(), offset: u64::from(scanned.end), reason })
    };
    let mark = match expected {
        Expected::Sealed { end, .. } if scanned.end != end => {
            return corrupt(format!("the next segment says that this one goes on to offset {end}"));
        }
        Expected::Sealed { digest, .. } if scanned.digest != digest => {
            return corrupt("the next segment follows another version of this one".to_owned());
        }
        Expected::Sealed { .. } => return Ok(None),
        Expected::Last { mark } => mark,
    };
    if scanned.end < mark {
        return corrupt(format!("everything before offset {mark} was durable"));
    }
    if reason.is_none() {
        return Ok(None);
    }
    let end = frame::data_end(bytes) as u32;
    if let Some(later) = frame::later_batch(&header.place, bytes, scanned.end..end) {
        return corrupt(format!("a later record at offset {later} shows that it was durable"));
    }
    let bytes = end - scanned.end;
    Ok(Some(TornTail { file: path.to_owned(), offset: scanned.end, bytes }))
}

/// Reads the beginning of a file into the buffer, which becomes that long.
pub(super) fn read(
    disk: &dyn Disk,
    path: &Path,
    length: u32,
    bytes: &mut Vec<u8>,
) -> Result<(), LogError> {
    let file = disk.open_read(path).map_err(LogError::io("open", path))?;
    bytes.resize(length as usize, 0);
    file.read_exact_at(bytes, 0).map_err(LogError::io("read", path))
}

/// The same, for a file that may hold little but zeros: memory is filled only where the file is not. A coordinator with a
/// young log then starts within the memory that it needs.
fn read_sparsely(
    disk: &dyn Disk,
    path: &Path,
    length: u32,
    bytes: &mut Vec<u8>,
) -> Result<(), LogError> {
    let file = disk.open_read(path).map_err(LogError::io("open", path))?;
    // Zeros that the system gives out on first touch.
    *bytes = vec![0; length as usize];
    let mut piece = vec![0; FILL_BYTES.min(length as usize)];
    for (place, target) in bytes.chunks_mut(FILL_BYTES).enumerate() {
        let piece = &mut piece[..target.len()];
        let offset = (place * FILL_BYTES) as u64;
        file.read_exact_at(piece, offset).map_err(LogError::io("read", path))?;
        let used = frame::data_end(piece);
        target[..used].copy_from_slice(&piece[..used]);
    }
    Ok(())
}
