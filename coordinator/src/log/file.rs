//! The log on disk: making it, opening it, and its handle. [`super::writer`] writes.
//!
//! Opening is the only place that changes what lies on the disk before the owner has seen it, and it changes three
//! things only: it clears what a crash left of a rotation or retirement, it cuts a torn tail, and it writes the tail
//! that no earlier sync vouched for once more before that tail is believed. The last is because the process before may
//! have died of a failed sync, after which the kernel shows pages that the disk does not have.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use assent_client::mutant;
use assent_common::frame::{self, Found, Place, Scanner, SegmentHeader};
use assent_common::mutant::Mutant;
use assent_common::{Epoch, LogId};
use rustix::fs::FlockOperation;

use super::disk::DiskFile;
use super::options::LogOptions;
use super::queue::{Shared, lock};
use super::segment::{self, TornTail};
use super::superblock::{self, Superblock, SuperblockFile};
use super::survey::{self, EPOCH_BYTES, Survey, Walked};
use super::writer::{Current, Writer};
use super::{
    Callbacks, DecisionLog, KIND_EPOCH, LogError, LogPosition, LogRecord, NewRecord, SegmentInfo,
    VisitError, Visitor, metric,
};

const LOCK: &str = "LOCK";

/// Files that may lie in a directory that becomes a log: our lock, and what file systems put into every volume.
const NOT_COUNTED: [&str; 2] = [LOCK, "lost+found"];

/// Makes a new, empty log. Never touches a directory that holds anything else.
pub fn init(options: &LogOptions) -> Result<LogId, LogError> {
    options.check()?;
    let (dir, disk) = (&options.dir, &*options.disk);
    if !dir.is_dir() {
        make_private(dir).map_err(LogError::io("create", dir))?;
    }
    let _lock = take_lock(dir)?;
    let names = disk.list(dir).map_err(LogError::io("list", dir))?;
    // The superblock gets its name last. So a log that has none, but its draft, was never used.
    let unfinished = names.iter().any(|name| name == superblock::NEW_FILE_NAME);
    for name in names.iter().filter(|name| !NOT_COUNTED.contains(&name.as_str())) {
        if name == superblock::FILE_NAME || (segment::number(name).is_some() && !unfinished) {
            return Err(LogError::AlreadyInitialised { dir: dir.clone() });
        }
        if !unfinished {
            return Err(LogError::NotEmpty { dir: dir.clone(), found: name.clone() });
        }
    }
    for leftover in [superblock::NEW_FILE_NAME, "00000001.log"] {
        if names.iter().any(|name| name == leftover) {
            let path = dir.join(leftover);
            disk.remove(&path).map_err(LogError::io("remove", &path))?;
        }
    }
    keep_private(dir)?;
    let log_id = LogId(uuid::Uuid::now_v7());
    let created_ms = (options.clock_ms)();
    let mark = LogPosition::new(1, frame::SEGMENT_HEADER_BYTES);
    let draft = dir.join(superblock::NEW_FILE_NAME);
    let content = Superblock { log_id, created_ms, first_segment: 1, mark };
    SuperblockFile::create(disk, &draft, content)?;
    disk.sync_dir(dir).map_err(LogError::io("sync", dir))?;
    segment::fill_spare(disk, dir, options.segment_bytes, &false.into())?;
    let header = SegmentHeader {
        place: Place { log_id, segment: 1 },
        segment_bytes: options.segment_bytes,
        created_ms,
        epoch: 0,
        previous_end: 0,
        previous_digest: 0,
    };
    segment::adopt_spare(options, &header)?;
    let name = dir.join(superblock::FILE_NAME);
    disk.rename(&draft, &name).map_err(LogError::io("rename to", &name))?;
    disk.sync_dir(dir).map_err(LogError::io("sync", dir))?;
    Ok(log_id)
}

/// What `open` found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenReport {
    /// Records visited.
    pub records: u64,
    /// Bytes that a crash left incomplete, now cut.
    pub torn_tail: Option<TornTail>,
    /// One slot of the superblock was invalid: torn by a crash, or rot. It has been written again.
    pub superblock_slot_damaged: bool,
}

/// A log that was replayed and waits for its callbacks.
pub struct OpenedLog {
    writer: Writer,
    /// Which log it is.
    pub log_id: LogId,
    /// The epoch of this life, durable.
    pub epoch: Epoch,
    /// What was found.
    pub report: OpenReport,
}

/// Takes the lock, visits every record, repairs the tail, raises the epoch.
pub fn open(options: LogOptions, visitor: &mut Visitor<'_>) -> Result<OpenedLog, LogError> {
    let opened = open_uncounted(options, visitor);
    if let Err(error) = &opened {
        metric::count_corruption(error);
    }
    opened
}

fn open_uncounted(options: LogOptions, visitor: &mut Visitor<'_>) -> Result<OpenedLog, LogError> {
    options.check()?;
    let (dir, disk) = (&options.dir, &*options.disk);
    survey::check_initialised(disk, dir)?;
    let lock = take_lock(dir)?;
    keep_private(dir)?;
    let survey = survey::survey(disk, dir)?;
    let mut bytes = Vec::new();
    let mut records = 0;
    let walked = survey::walk(disk, dir, &survey, &mut bytes, &mut |position, frame| {
        if frame.kind == KIND_EPOCH {
            return Ok(());
        }
        records += 1;
        visit(visitor, position, frame.kind, frame.payload)
    })?;
    // Nothing was changed so far; from here on the log is known to be whole.
    for leftover in &survey.leftovers {
        let path = segment::path(dir, *leftover);
        disk.remove(&path).map_err(LogError::io("remove", path))?;
    }
    segment::remove_spare(disk, dir)?;
    disk.sync_dir(dir).map_err(LogError::io("sync", dir))?;
    let torn_tail = walked.segments.last().and_then(|last| last.torn.clone());
    let current = settle_tail(&options, &survey, &walked, &bytes)?;
    drop(bytes);
    let log_id = survey.superblock().log_id;
    let raise = u64::from(walked.epoch == 0 || !mutant::is(Mutant::EpochNotRaised));
    let epoch = Epoch(walked.epoch + raise);
    let report =
        OpenReport { records, torn_tail, superblock_slot_damaged: survey.loaded.slot_damaged };
    let superblock = SuperblockFile::open(disk, dir, &survey.loaded)?;
    let segments = walked.segments.into_iter().map(|scanned| scanned.info).collect();
    let shared = Arc::new(Shared::new(options, log_id, epoch, segments, lock));
    let mut writer = Writer::new(shared, current, superblock);
    writer.write_epoch(epoch.0.to_le_bytes())?;
    Ok(OpenedLog { writer, log_id, epoch, report })
}

/// Cuts a torn tail and makes certain that the disk has what the replay has seen.
fn settle_tail(
    options: &LogOptions,
    survey: &Survey,
    walked: &Walked,
    bytes: &[u8],
) -> Result<Current, LogError> {
    let dir = &options.dir;
    // The survey has one header at least, and the walk one result for each.
    let (Some(header), Some(scanned)) = (survey.headers.last(), walked.segments.last()) else {
        return Err(LogError::NotInitialised { dir: dir.clone() });
    };
    let path = segment::path(dir, header.place.segment);
    let file = options.disk.open(&path).map_err(LogError::io("open", &path))?;
    if let Some(torn) = &scanned.torn {
        tracing::warn!(file = %path.display(), offset = torn.offset, bytes = torn.bytes, "cutting a torn tail");
        let zeros = vec![0; torn.bytes as usize];
        let at = u64::from(torn.offset);
        file.write_all_at(&zeros, at).map_err(LogError::io("cut the torn tail of", &path))?;
    }
    let mark = survey.superblock().mark;
    let of_this = mark.segment() == header.place.segment;
    let vouched = if of_this { mark.offset() } else { frame::SEGMENT_HEADER_BYTES };
    let unvouched = &bytes[vouched as usize..scanned.end as usize];
    write_again(&*file, &path, unvouched, u64::from(vouched))?;
    Ok(Current { header: *header, path, file, end: scanned.end, digest: scanned.digest })
}

fn write_again(file: &dyn DiskFile, path: &Path, bytes: &[u8], at: u64) -> Result<(), LogError> {
    file.write_all_at(bytes, at).map_err(LogError::io("write", path))?;
    file.sync().map_err(LogError::io("sync", path))
}

impl OpenedLog {
    /// Starts the writer thread and begins to take records.
    pub fn start(self, callbacks: Callbacks) -> Result<Arc<FileLog>, LogError> {
        let shared = Arc::clone(&self.writer.shared);
        let writer = self.writer;
        let thread = thread::Builder::new()
            .name("assent-log".to_owned())
            .spawn(move || writer.run(callbacks))
            .map_err(LogError::io("start the writer of", &shared.options.dir))?;
        Ok(Arc::new(FileLog { shared, thread: Mutex::new(Some(thread)) }))
    }

    /// The segments as replayed.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentInfo> {
        lock(&self.writer.shared.segments).clone()
    }
}

/// The log on disk, in use.
pub struct FileLog {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl FileLog {
    fn segment_info(&self, segment: u32) -> Result<SegmentInfo, LogError> {
        let segments = lock(&self.shared.segments);
        let (first, last) = (segments[0].number, segments[segments.len() - 1].number);
        let found = segments.iter().find(|info| info.number == segment).copied();
        found.ok_or(LogError::NoSegment { segment, first, last })
    }

    fn read_uncounted(&self, position: LogPosition) -> Result<LogRecord, LogError> {
        let no_record = || LogError::NoRecord { position };
        let info = self.segment_info(position.segment())?;
        let (offset, end) = (u64::from(position.offset()), end(&info));
        let header_end = offset + frame::FRAME_HEADER_BYTES as u64;
        let begins = u64::from(frame::SEGMENT_HEADER_BYTES);
        if offset < begins || header_end > end || !offset.is_multiple_of(frame::ALIGN as u64) {
            return Err(no_record());
        }
        let path = segment::path(&self.shared.options.dir, position.segment());
        let file = self.open_segment(&path, &info)?;
        let mut bytes = vec![0; frame::FRAME_HEADER_BYTES];
        file.read_exact_at(&mut bytes, offset).map_err(LogError::io("read", &path))?;
        // A length that rot made too great is cut here; the checksum then says so.
        let length = bytes.first_chunk().map_or(0, |length| u32::from_le_bytes(*length));
        let frame_bytes = (frame::frame_bytes(length as usize) as u64).min(end - offset);
        bytes.resize(frame_bytes as usize, 0);
        file.read_exact_at(&mut bytes, offset).map_err(LogError::io("read", &path))?;
        let place = Place { log_id: self.shared.log_id, segment: position.segment() };
        match frame::decode(&place, &bytes, position.offset()) {
            Found::Frame(found) if found.kind == KIND_EPOCH => Err(no_record()),
            Found::Frame(found) => {
                Ok(LogRecord { kind: found.kind, payload: found.payload.to_vec() })
            }
            Found::End { .. } => Err(corrupt(&path, offset, "zeros where a record was")),
            Found::Invalid { reason, .. } => Err(corrupt(&path, offset, reason)),
        }
    }

    fn read_segment_uncounted(
        &self,
        info: &SegmentInfo,
        visitor: &mut Visitor<'_>,
    ) -> Result<(), LogError> {
        let path = segment::path(&self.shared.options.dir, info.number);
        let file = self.open_segment(&path, info)?;
        let mut bytes = vec![0; end(info) as usize];
        file.read_exact_at(&mut bytes, 0).map_err(LogError::io("read", &path))?;
        let place = Place { log_id: self.shared.log_id, segment: info.number };
        let mut at = frame::SEGMENT_HEADER_BYTES;
        for found in Scanner::new(place, &bytes) {
            let Found::Frame(frame) = found else { break };
            at = frame.end;
            if frame.kind != KIND_EPOCH {
                let position = LogPosition::new(info.number, frame.offset);
                visit(visitor, position, frame.kind, frame.payload)?;
            }
        }
        if u64::from(at) == end(info) {
            Ok(())
        } else {
            Err(corrupt(&path, at.into(), "no valid record where one was"))
        }
    }

    /// A file that vanished was retired in between, if the segments now say so.
    fn open_segment(&self, path: &Path, info: &SegmentInfo) -> Result<Box<dyn DiskFile>, LogError> {
        self.shared.options.disk.open_read(path).map_err(|error| {
            let gone = self.segment_info(info.number).err();
            gone.unwrap_or_else(|| LogError::io("open", path)(error))
        })
    }
}

impl DecisionLog for FileLog {
    fn log_id(&self) -> LogId {
        self.shared.log_id
    }

    fn epoch(&self) -> Epoch {
        self.shared.epoch
    }

    fn append_all(&self, records: &mut VecDeque<NewRecord>) -> Result<(), LogError> {
        self.shared.append_all(records)
    }

    fn read(&self, position: LogPosition) -> Result<LogRecord, LogError> {
        self.shared.check_running()?;
        self.read_uncounted(position).inspect_err(metric::count_corruption)
    }

    fn segments(&self) -> Vec<SegmentInfo> {
        lock(&self.shared.segments).clone()
    }

    fn read_segment(&self, number: u32, visitor: &mut Visitor<'_>) -> Result<(), LogError> {
        self.shared.check_running()?;
        let info = self.segment_info(number)?;
        self.read_segment_uncounted(&info, visitor).inspect_err(metric::count_corruption)
    }

    fn retire(&self, through: u32) -> Result<(), LogError> {
        if self.segment_info(through)?.sealed_ms.is_none() {
            return Err(LogError::InUse { segment: through });
        }
        self.shared.retire(through)
    }

    fn payload_bytes_max(&self) -> usize {
        self.shared.options.payload_bytes_max()
    }

    fn queued_bytes(&self) -> usize {
        self.shared.queued_bytes()
    }

    fn trouble(&self) -> Option<String> {
        self.shared.trouble()
    }

    fn close(&self) {
        self.shared.begin_close();
        let thread = lock(&self.thread).take();
        // The last handle may be dropped by the writer's own callback; the thread then ends by itself.
        if let Some(thread) = thread.filter(|t| t.thread().id() != thread::current().id()) {
            // It catches its panics, so that there is no result to look at.
            let _ = thread.join();
        }
    }
}

impl Drop for FileLog {
    fn drop(&mut self) {
        self.close();
    }
}

fn visit(
    visitor: &mut Visitor<'_>,
    position: LogPosition,
    kind: u8,
    payload: &[u8],
) -> Result<(), LogError> {
    let refused = |source: VisitError| LogError::Refused { position, source };
    visitor(position, kind, payload).map_err(refused)
}

fn corrupt(path: &Path, offset: u64, reason: impl ToString) -> LogError {
    LogError::Corrupt { file: path.to_owned(), offset, reason: reason.to_string() }
}

fn end(info: &SegmentInfo) -> u64 {
    u64::from(frame::SEGMENT_HEADER_BYTES) + info.bytes
}

/// What others may do with a file or a directory of the log.
const OTHERS: u32 = 0o077;

/// Takes from others what they may do in the log's directory: the log holds what clients wrote, in clear. Logs of earlier
/// versions were open to all.
fn keep_private(dir: &Path) -> Result<(), LogError> {
    let failed = |error| LogError::io("restrict", dir)(error);
    let entries = fs::read_dir(dir).map_err(failed)?.collect::<Result<Vec<_>, _>>();
    let files = entries.map_err(failed)?.into_iter().map(|entry| entry.path());
    for path in std::iter::once(dir.to_owned()).chain(files) {
        let meta = match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_symlink() || (meta.is_dir() && path != dir) => continue,
            Ok(meta) => meta,
            // The writer's thread of an earlier life may have been at work.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        let mode = meta.permissions().mode();
        if mode & OTHERS == 0 {
            continue;
        }
        match fs::set_permissions(&path, Permissions::from_mode(mode & !OTHERS)) {
            Ok(()) => tracing::info!(path = %path.display(), "others could read this; no more"),
            // Of another owner, as a volume may be: who may enter it is that owner's to say.
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, %error, "others can read this, and it cannot be changed");
            }
        }
    }
    Ok(())
}

/// Makes the log's directory, its owner's only; what is above it, as usual.
fn make_private(dir: &Path) -> std::io::Result<()> {
    if let Some(above) = dir.parent() {
        fs::create_dir_all(above)?;
    }
    DirBuilder::new().mode(0o777 & !OTHERS).create(dir)
}

/// Takes the exclusive lock and leaves our process id for whoever comes next. Held until the file is dropped.
fn take_lock(dir: &Path) -> Result<File, LogError> {
    let path = dir.join(LOCK);
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(super::disk::PRIVATE)
        .open(&path);
    let mut file = opened.map_err(LogError::io("open", &path))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) if mutant::is(Mutant::NotLocked) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            // What cannot be read is not worth hiding the real error for.
            let _ = file.read_to_string(&mut pid);
            let pid = if pid.trim().is_empty() { "unknown" } else { pid.trim() }.to_owned();
            return Err(LogError::Locked { dir: dir.to_owned(), pid });
        }
        Err(error) => return Err(LogError::io("lock", path)(error.into())),
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(LogError::io("write", &path))?;
    Ok(file)
}

const _: () = assert!(EPOCH_BYTES == size_of::<u64>(), "an epoch record is a u64");
