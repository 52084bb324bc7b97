//! The superblock: which log this is, which segment is its first, and the **mark** below which all was durable once.
//!
//! Two slots, each in a page of its own, written in turn, so that a write torn by a crash leaves the other; the valid
//! one with the higher sequence counts. The mark is written after every synced batch but synced only when the log is
//! idle: it is a lower bound, and while batches come each one vouches for those before it. It never runs ahead of what
//! was synced.

use std::path::{Path, PathBuf};

use assent_common::{LogId, frame};
use uuid::Uuid;

use super::disk::{Disk, DiskFile};
use super::{LogError, LogPosition};

pub(super) const FILE_NAME: &str = "superblock";

/// Its name until `init` is done.
pub(super) const NEW_FILE_NAME: &str = "superblock.new";
const MAGIC: &[u8; 8] = b"ASSENTSB";
const VERSION: u32 = 1;
const SLOT_DISTANCE: u64 = 4096;
const SLOT_BYTES: usize = 60;
const COVERED_BYTES: usize = SLOT_BYTES - 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Superblock {
    pub(super) log_id: LogId,
    pub(super) created_ms: u64,
    pub(super) first_segment: u32,
    /// Everything before this was durable when it was written.
    pub(super) mark: LogPosition,
}

impl Superblock {
    fn encode(&self, sequence: u64) -> [u8; SLOT_BYTES] {
        let mut slot = [0; SLOT_BYTES];
        slot[..8].copy_from_slice(MAGIC);
        slot[8..12].copy_from_slice(&VERSION.to_le_bytes());
        slot[12..16].copy_from_slice(&self.first_segment.to_le_bytes());
        slot[16..32].copy_from_slice(self.log_id.0.as_bytes());
        slot[32..40].copy_from_slice(&self.created_ms.to_le_bytes());
        slot[40..48].copy_from_slice(&sequence.to_le_bytes());
        slot[48..56].copy_from_slice(&self.mark.0.to_le_bytes());
        let crc = frame::crc(&slot[..COVERED_BYTES]);
        slot[COVERED_BYTES..].copy_from_slice(&crc.to_le_bytes());
        slot
    }

    /// The sequence and the content, or why there is none.
    fn decode(slot: &[u8; SLOT_BYTES]) -> Result<(u64, Self), String> {
        let u32_at = |at: usize| slot[at..].first_chunk().map_or(0, |b| u32::from_le_bytes(*b));
        let u64_at = |at: usize| slot[at..].first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
        if &slot[..8] != MAGIC || frame::crc(&slot[..COVERED_BYTES]) != u32_at(COVERED_BYTES) {
            return Err("neither of its two slots is valid".to_owned());
        }
        if u32_at(8) != VERSION {
            let version = u32_at(8);
            return Err(format!(
                "it has format version {version}, which this Assent does not know"
            ));
        }
        let log_id = slot[16..].first_chunk().map_or(Uuid::nil(), |b| Uuid::from_bytes(*b));
        let superblock = Self {
            log_id: LogId(log_id),
            created_ms: u64_at(32),
            first_segment: u32_at(12),
            mark: LogPosition(u64_at(48)),
        };
        Ok((u64_at(40), superblock))
    }
}

/// The file, open for writing.
pub(super) struct SuperblockFile {
    path: PathBuf,
    file: Box<dyn DiskFile>,
    sequence: u64,
    pub(super) content: Superblock,
    /// The content was written and not synced.
    pub(super) dirty: bool,
}

/// What a reader finds.
pub(super) struct Loaded {
    pub(super) content: Superblock,
    pub(super) slot_damaged: bool,
    sequence: u64,
}

pub(super) fn load(disk: &dyn Disk, dir: &Path) -> Result<Loaded, LogError> {
    let path = dir.join(FILE_NAME);
    let file = disk.open_read(&path).map_err(LogError::io("open", &path))?;
    let read = |slot: u64| {
        let mut bytes = [0; SLOT_BYTES];
        match file.read_exact_at(&mut bytes, slot * SLOT_DISTANCE) {
            Ok(()) => Ok(Superblock::decode(&bytes)),
            // A file cut short is damage, told from a disk that cannot be read.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Ok(Err("neither of its two slots is valid".to_owned()))
            }
            Err(error) => Err(LogError::io("read", &path)(error)),
        }
    };
    let (loaded, slot_damaged) = match (read(0)?, read(1)?) {
        (Ok(a), Ok(b)) => (if a.0 >= b.0 { a } else { b }, false),
        (Ok(one), Err(_)) | (Err(_), Ok(one)) => (one, true),
        (Err(reason), Err(_)) => return Err(LogError::Corrupt { file: path, offset: 0, reason }),
    };
    Ok(Loaded { content: loaded.1, sequence: loaded.0, slot_damaged })
}

impl SuperblockFile {
    pub(super) fn create(
        disk: &dyn Disk,
        path: &Path,
        content: Superblock,
    ) -> Result<Self, LogError> {
        let file = disk.create(path).map_err(LogError::io("create", path))?;
        let mut new = Self { path: path.to_owned(), file, sequence: 0, content, dirty: false };
        new.store_both()?;
        Ok(new)
    }

    pub(super) fn open(disk: &dyn Disk, dir: &Path, loaded: &Loaded) -> Result<Self, LogError> {
        let path = dir.join(FILE_NAME);
        let file = disk.open(&path).map_err(LogError::io("open", &path))?;
        Ok(Self { path, file, sequence: loaded.sequence, content: loaded.content, dirty: false })
    }

    /// Writes the content into the older slot; not synced.
    pub(super) fn store(&mut self) -> Result<(), LogError> {
        self.sequence += 1;
        let slot = self.content.encode(self.sequence);
        let at = self.sequence % 2 * SLOT_DISTANCE;
        self.file.write_all_at(&slot, at).map_err(LogError::io("write", &self.path))?;
        self.dirty = true;
        Ok(())
    }

    /// Writes both slots and syncs: for changes that the other slot may not contradict.
    pub(super) fn store_both(&mut self) -> Result<(), LogError> {
        self.store()?;
        // In between, so that a crash can never tear both.
        self.sync()?;
        self.store()?;
        self.sync()
    }

    pub(super) fn sync(&mut self) -> Result<(), LogError> {
        self.file.sync().map_err(LogError::io("sync", &self.path))?;
        self.dirty = false;
        Ok(())
    }
}
