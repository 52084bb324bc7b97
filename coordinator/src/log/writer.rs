//! The one writer: takes what is queued, writes it as one batch, syncs once, reports.
//!
//! It is the only thing that changes the files of an open log. It never reports before the sync, never tries a failed
//! write or sync again, and never goes on after one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use assent_client::mutant;
use assent_common::frame::{self, Place, SegmentHeader};
use assent_common::mutant::Mutant;

use super::disk::DiskFile;
use super::options::LogCrashPoint;
use super::queue::{Shared, lock};
use super::segment;
use super::superblock::SuperblockFile;
use super::survey::EPOCH_BYTES;
use super::{
    Callbacks, KIND_EPOCH, LogError, LogPosition, NewRecord, OnDurable, SegmentInfo, Token, metric,
};

/// How long until a disk that had no room for the next segment is tried again: whoever makes room
/// looks at the probe.
const REFILL: Duration = Duration::from_secs(1);

/// The segment being written.
pub(super) struct Current {
    pub(super) header: SegmentHeader,
    pub(super) path: PathBuf,
    pub(super) file: Box<dyn DiskFile>,
    /// Everything before is durable; the next batch begins here.
    pub(super) end: u32,
    pub(super) digest: u32,
}

/// Frames about to be written.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    records: Vec<(Token, LogPosition)>,
    payload_bytes: usize,
    digest: u32,
    last: Option<LogPosition>,
}

pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    current: Current,
    superblock: SuperblockFile,
    filler: Option<Filler>,
    batch: Batch,
}

/// The thread that makes the next segment ready.
struct Filler {
    thread: JoinHandle<Result<(), LogError>>,
    cancelled: Arc<AtomicBool>,
    /// Somebody waits for it: it is not the time to wait for room.
    wanted: Arc<AtomicBool>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, current: Current, superblock: SuperblockFile) -> Self {
        Self { shared, current, superblock, filler: None, batch: Batch::default() }
    }

    /// Makes this life's epoch durable. A crash in between leaves the next life to take it or a higher one: nothing
    /// was sent under it.
    pub(super) fn write_epoch(&mut self, epoch: [u8; EPOCH_BYTES]) -> Result<(), LogError> {
        self.make_room(EPOCH_BYTES, &mut |_| ())?;
        self.add(KIND_EPOCH, &epoch);
        self.flush(&mut |_| ())?;
        self.superblock.store_both()
    }

    /// The thread's main: until the log is closed or fails.
    pub(super) fn run(mut self, callbacks: Callbacks) {
        let Callbacks { mut on_durable, on_fatal } = callbacks;
        let worked = catch_unwind(AssertUnwindSafe(|| self.work(&mut on_durable)));
        let failed = match worked {
            Ok(worked) => worked.err(),
            Err(_) => Some(LogError::Stopped { cause: "its writer panicked".to_owned() }),
        };
        if let Some(error) = &failed {
            self.shared.stop(error);
            on_fatal(error);
        }
        if let Some(filler) = self.filler.take() {
            filler.cancelled.store(true, Ordering::Relaxed);
            // A half-made spare is cleared away by the next start, whatever became of it.
            let _ = filler.join();
        }
        self.shared.free_lock();
    }

    fn work(&mut self, on_durable: &mut OnDurable) -> Result<(), LogError> {
        self.start_filler();
        loop {
            let work = self.shared.wait(self.superblock.dirty);
            let idle = work.records.is_empty() && work.retires.is_empty();
            for record in work.records {
                self.take(record, on_durable)?;
            }
            self.flush(on_durable)?;
            for retire in work.retires {
                self.retire(retire.through)?;
                // Who asked may have gone away.
                let _ = retire.done.send(());
            }
            if (idle || work.closing) && self.superblock.dirty {
                self.superblock.sync()?;
            }
            if work.closing {
                return Ok(());
            }
        }
    }

    fn take(&mut self, record: NewRecord, on_durable: &mut OnDurable) -> Result<(), LogError> {
        self.make_room(record.payload.len(), on_durable)?;
        self.start_filler();
        let position = self.add(record.kind, &record.payload);
        self.batch.records.push((record.token, position));
        self.batch.payload_bytes += record.payload.len();
        Ok(())
    }

    /// Ends the batch if it would grow too long, and the segment if the record does not fit.
    fn make_room(
        &mut self,
        payload_bytes: usize,
        on_durable: &mut dyn FnMut(Vec<(Token, LogPosition)>),
    ) -> Result<(), LogError> {
        let bytes = frame::frame_bytes(payload_bytes);
        let batched = self.batch.bytes.len();
        let left = (self.current.header.segment_bytes - self.current.end) as usize;
        let fits = batched + bytes <= left;
        if !fits || batched + bytes > self.shared.options.batch_bytes_max {
            self.flush(on_durable)?;
        }
        if fits { Ok(()) } else { self.rotate_if_full(bytes) }
    }

    /// Encodes a record at the end of the batch; there is room.
    fn add(&mut self, kind: u8, payload: &[u8]) -> LogPosition {
        let (current, batch) = (&self.current, &mut self.batch);
        if batch.bytes.is_empty() {
            batch.digest = current.digest;
        }
        let offset = current.end + batch.bytes.len() as u32;
        let place = &current.header.place;
        let crc = frame::encode(place, offset, current.end, kind, payload, &mut batch.bytes);
        batch.digest = frame::chain(batch.digest, crc);
        let position = LogPosition::new(place.segment, offset);
        batch.last = Some(position);
        position
    }

    /// Writes, syncs, reports.
    fn flush(
        &mut self,
        on_durable: &mut dyn FnMut(Vec<(Token, LogPosition)>),
    ) -> Result<(), LogError> {
        if self.batch.bytes.is_empty() {
            return Ok(());
        }
        let (current, options) = (&mut self.current, &self.shared.options);
        if mutant::is(Mutant::ReportsBeforeSync) {
            on_durable(std::mem::take(&mut self.batch.records));
        }
        options.crash_point(LogCrashPoint::BeforeWrite);
        let written = current.file.write_all_at(&self.batch.bytes, current.end.into());
        written.map_err(LogError::io("write", &current.path))?;
        options.crash_point(LogCrashPoint::AfterWriteBeforeSync);
        let begun = Instant::now();
        let synced = current.file.sync().map_err(LogError::io("sync", &current.path));
        synced.or_else(|error| mutant::is(Mutant::FailedSyncIgnored).then_some(()).ok_or(error))?;
        metric::record_batch(self.batch.records.len(), begun.elapsed());
        options.crash_point(LogCrashPoint::AfterSync);
        let begin = LogPosition::new(current.header.place.segment, current.end);
        current.end += self.batch.bytes.len() as u32;
        current.digest = self.batch.digest;
        self.superblock.content.mark = LogPosition::new(current.header.place.segment, current.end);
        self.superblock.store()?;
        {
            let mut segments = lock(&self.shared.segments);
            if let Some(info) = segments.last_mut() {
                info.first.get_or_insert(begin);
                info.last = self.batch.last.take();
                info.bytes = u64::from(current.end - frame::SEGMENT_HEADER_BYTES);
            }
            metric::set_bytes(&segments);
        }
        self.shared.release(std::mem::take(&mut self.batch.payload_bytes));
        self.batch.bytes.clear();
        // A batch of one huge record must not pin its memory for good.
        self.batch.bytes.shrink_to(self.shared.options.batch_bytes_max);
        on_durable(std::mem::take(&mut self.batch.records));
        Ok(())
    }

    /// Begins the next segment, if this one has no room for so many bytes. Nothing is batched.
    fn rotate_if_full(&mut self, bytes: usize) -> Result<(), LogError> {
        let header = &self.current.header;
        if self.current.end as usize + bytes <= header.segment_bytes as usize {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let options = &shared.options;
        let created_ms = (options.clock_ms)();
        let segment = header.place.segment + 1;
        let header = SegmentHeader {
            place: Place { segment, ..header.place },
            segment_bytes: options.segment_bytes,
            created_ms,
            epoch: shared.epoch.0,
            previous_end: self.current.end,
            previous_digest: self.current.digest,
        };
        self.await_spare()?;
        let file = segment::adopt_spare(options, &header)?;
        options.crash_point(LogCrashPoint::RotationBeforeSwitch);
        let end = frame::SEGMENT_HEADER_BYTES;
        self.superblock.content.mark = LogPosition::new(segment, end);
        self.superblock.store_both()?;
        let path = segment::path(&options.dir, segment);
        self.current = Current { header, path, file, end, digest: 0 };
        let mut segments = lock(&shared.segments);
        if let Some(sealed) = segments.last_mut() {
            sealed.sealed_ms = Some(created_ms);
        }
        let (first, last, sealed_ms) = (None, None, None);
        segments.push(SegmentInfo {
            number: segment,
            bytes: 0,
            first,
            last,
            created_ms,
            sealed_ms,
        });
        Ok(())
    }

    /// Deletes segments. The superblock says so first, in both slots, so that a crash in between is finished by the
    /// next start, and a lost file is never taken for a retired one.
    fn retire(&mut self, through: u32) -> Result<(), LogError> {
        let shared = Arc::clone(&self.shared);
        let options = &shared.options;
        let first = self.superblock.content.first_segment;
        if through < first || through >= self.current.header.place.segment {
            return Ok(());
        }
        self.superblock.content.first_segment = through + 1;
        self.superblock.store_both()?;
        options.crash_point(LogCrashPoint::CompactionBeforeDelete);
        {
            let mut segments = lock(&shared.segments);
            segments.retain(|info| info.number > through);
            metric::set_bytes(&segments);
        }
        for segment in first..=through {
            let path = segment::path(&options.dir, segment);
            options.disk.remove(&path).map_err(LogError::io("remove", path))?;
        }
        options.disk.sync_dir(&options.dir).map_err(LogError::io("sync", &options.dir))?;
        options.crash_point(LogCrashPoint::CompactionAfterDelete);
        Ok(())
    }

    /// Begins to make the next segment ready, if nothing does. Only while the thread runs: a log that is opened and
    /// never started must leave nothing behind, and two fillers would fill one file.
    fn start_filler(&mut self) {
        if self.filler.is_some() {
            return;
        }
        let [cancelled, wanted] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let (shared, flags) = (Arc::clone(&self.shared), [&cancelled, &wanted].map(Arc::clone));
        let spawned = thread::Builder::new().name("assent-log-fill".to_owned()).spawn(move || {
            let [cancelled, _] = &flags;
            loop {
                let made = make_spare(&shared, cancelled);
                let is_hurried = || flags.iter().any(|flag| flag.load(Ordering::Acquire));
                if made.is_ok() || is_hurried() {
                    return made;
                }
                thread::park_timeout(REFILL);
                if is_hurried() {
                    return made;
                }
            }
        });
        // Without the thread the spare is made when it is needed.
        self.filler = spawned.ok().map(|thread| Filler { thread, cancelled, wanted });
    }

    /// Waits for the spare, or makes it now if that failed before: space may have come free since.
    fn await_spare(&mut self) -> Result<(), LogError> {
        let filled = self.filler.take().map(Filler::join);
        if let Some(Ok(Ok(()))) = filled {
            return Ok(());
        }
        make_spare(&self.shared, &AtomicBool::new(false))
    }
}

impl Filler {
    /// What came of it, now.
    fn join(self) -> thread::Result<Result<(), LogError>> {
        self.wanted.store(true, Ordering::Release);
        self.thread.thread().unpark();
        self.thread.join()
    }
}

/// Makes the next segment ready, and has it known whether the disk takes it: long before it is
/// needed, that is the first sign of a disk that is full.
fn make_spare(shared: &Shared, cancelled: &AtomicBool) -> Result<(), LogError> {
    let options = &shared.options;
    let made = segment::fill_spare(&*options.disk, &options.dir, options.segment_bytes, cancelled);
    shared.made_ready(&made);
    made
}
