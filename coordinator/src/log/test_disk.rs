//! A disk for tests, in memory: it knows what was synced, loses what was not, and fails when told to.
//!
//! The model: writes land in a cache by sectors; a sync makes a file's sectors durable; a power cut keeps each unsynced
//! sector or not, by chance. Names change in order: a cut keeps some first part of the changes since `sync_dir`. A sync
//! that fails leaves the cache clean and the disk old, as Linux does. There is one directory, whatever it is called, so
//! that a disk can move from one bed to another.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use super::disk::{Disk, DiskFile};

const SECTOR: usize = 512;

#[derive(Clone, Default)]
pub(super) struct TestDisk(Arc<Mutex<State>>);

#[derive(Clone, Default)]
struct State {
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    changes: Vec<Change>,
    syncs_until_failure: Option<u32>,
    /// Writes until the disk is full, and writes that then fail.
    full: Option<(u32, u32)>,
    failures: u32,
}

#[derive(Clone, Default)]
struct Content {
    cached: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

#[derive(Clone)]
enum Change {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Create(path, file) => drop(names.insert(path.clone(), *file)),
            Self::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            Self::Remove(path) => drop(names.remove(path)),
        }
    }
}

impl Content {
    fn persist(&mut self, sector: usize) {
        let begin = sector * SECTOR;
        let end = (begin + SECTOR).min(self.cached.len());
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        self.durable[begin..end].copy_from_slice(&self.cached[begin..end]);
    }
}

impl TestDisk {
    /// An independent copy, as of now.
    pub(super) fn snapshot(&self) -> Self {
        Self(Arc::new(Mutex::new(self.state().clone())))
    }

    /// Becomes what another disk is.
    pub(super) fn restore(&self, from: &Self) {
        let state = from.state().clone();
        *self.state() = state;
    }

    /// Cuts the power. `coin` decides for each unsynced sector.
    pub(super) fn power_cut(&self, coin: &mut dyn FnMut() -> bool) {
        let mut state = self.state();
        for content in &mut state.files {
            for sector in std::mem::take(&mut content.dirty) {
                if coin() {
                    content.persist(sector);
                }
            }
            content.cached.clone_from(&content.durable);
        }
        let changes = std::mem::take(&mut state.changes);
        for change in changes.iter().take_while(|_| coin()) {
            change.apply(&mut state.durable_names);
        }
        state.names = state.durable_names.clone();
    }

    /// The sync after this many more fails.
    pub(super) fn fail_sync_after(&self, syncs: u32) {
        self.state().syncs_until_failure = Some(syncs);
    }

    /// After this many more writes the disk is full, for so many.
    pub(super) fn full_after(&self, writes: u32, lasts: u32) {
        self.state().full = Some((writes, lasts));
    }

    /// Nothing fails any more.
    pub(super) fn heal(&self) {
        let mut state = self.state();
        state.full = None;
        state.syncs_until_failure = None;
    }

    /// How many writes and syncs have failed.
    pub(super) fn failures(&self) -> u32 {
        self.state().failures
    }

    /// Whether a file is absent, shorter than this, or not synced.
    pub(super) fn unfinished(&self, name: &str, bytes: usize) -> bool {
        let state = self.state();
        state.names.get(name).is_none_or(|file| state.files[*file].durable.len() < bytes)
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    pub(super) fn content(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.files[state.names[name]].cached.clone()
    }

    /// Changes a file behind the log's back, durably.
    pub(super) fn edit(&self, name: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let file = state.names[name];
        let content = &mut state.files[file];
        edit(&mut content.cached);
        content.durable.clone_from(&content.cached);
    }

    pub(super) fn delete(&self, name: &str) {
        let mut state = self.state();
        state.names.remove(name);
        state.durable_names.remove(name);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn handle(&self, file: usize) -> Box<dyn DiskFile> {
        Box::new(TestFile { disk: self.clone(), file })
    }
}

struct TestFile {
    disk: TestDisk,
    file: usize,
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for TestDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        assert!(!state.names.contains_key(&name(path)), "{path:?} is created twice");
        let file = state.files.len();
        state.files.push(Content::default());
        let change = Change::Create(name(path), file);
        change.apply(&mut state.names);
        state.changes.push(change);
        drop(state);
        Ok(self.handle(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = self.state().names.get(&name(path)).copied().ok_or_else(not_found)?;
        Ok(self.handle(file))
    }

    fn open_read(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        assert!(!state.names.contains_key(&name(to)), "{to:?} is replaced");
        let change = Change::Rename(name(from), name(to));
        change.apply(&mut state.names);
        state.changes.push(change);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.names.get(&name(path)).ok_or_else(not_found)?;
        let change = Change::Remove(name(path));
        change.apply(&mut state.names);
        state.changes.push(change);
        Ok(())
    }

    fn list(&self, _dir: &Path) -> io::Result<Vec<String>> {
        Ok(self.names())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.durable_names = state.names.clone();
        state.changes.clear();
        Ok(())
    }
}

impl DiskFile for TestFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.disk.state();
        let cached = &state.files[self.file].cached;
        let bytes = cached.get(offset as usize..offset as usize + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let full = match &mut state.full {
            Some((0, lasts)) if *lasts > 0 => {
                *lasts -= 1;
                true
            }
            Some((writes, _)) => {
                *writes = writes.saturating_sub(1);
                false
            }
            None => false,
        };
        state.failures += u32::from(full);
        // A full disk takes what it can.
        let bytes = if full { &bytes[..bytes.len() / 2] } else { bytes };
        let content = &mut state.files[self.file];
        let (begin, end) = (offset as usize, offset as usize + bytes.len());
        if content.cached.len() < end {
            content.cached.resize(end, 0);
        }
        content.cached[begin..end].copy_from_slice(bytes);
        content.dirty.extend(begin / SECTOR..end.div_ceil(SECTOR));
        if full { Err(io::Error::from_raw_os_error(28)) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let fails = state.syncs_until_failure.as_mut().is_some_and(|left| {
            let now = *left == 0;
            *left = left.wrapping_sub(1);
            now
        });
        state.failures += u32::from(fails);
        let content = &mut state.files[self.file];
        let dirty = std::mem::take(&mut content.dirty);
        if fails {
            return Err(io::Error::from_raw_os_error(5));
        }
        for sector in dirty {
            content.persist(sector);
        }
        // A file grows only by writes, and all of them are durable now.
        assert_eq!(content.durable, content.cached);
        Ok(())
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.file].cached.len() as u64)
    }
}
