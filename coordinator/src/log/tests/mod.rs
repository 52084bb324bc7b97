//! Tests of the log on disk: the conformance suite, then what only files can suffer.

mod crash;
mod damage;
mod faults;
#[cfg(feature = "crash-points")]
mod mutants;
mod rules;

use std::path::PathBuf;
use std::sync::Arc;

use assent_common::{Epoch, LogId};

use super::suite::{self, Bed};
use super::test_disk::TestDisk;
use super::{
    Callbacks, LogError, LogHandle, LogOptions, MemoryStore, VerifyReport, Visitor, init, open,
    verify,
};

/// Two pages: a header and room for a few records.
const SEGMENT_BYTES: u32 = 8192;

fn options(dir: PathBuf) -> LogOptions {
    LogOptions { segment_bytes: SEGMENT_BYTES, ..LogOptions::new(dir) }
}

fn start(
    options: LogOptions,
    visitor: &mut Visitor<'_>,
    callbacks: Callbacks,
) -> Result<(LogHandle, Epoch), LogError> {
    let opened = open(options, visitor)?;
    let epoch = opened.epoch;
    Ok((opened.start(callbacks)?, epoch))
}

/// A log in files.
struct RealBed {
    dir: tempfile::TempDir,
}

impl RealBed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        init(&options(dir.path().join("log"))).unwrap();
        Self { dir }
    }

    fn options(&self) -> LogOptions {
        options(self.dir.path().join("log"))
    }
}

impl Bed for RealBed {
    fn open(&self, v: &mut Visitor<'_>, c: Callbacks) -> Result<(LogHandle, Epoch), LogError> {
        start(self.options(), v, c)
    }
}

/// A log on the disk for tests.
struct TestBed {
    disk: TestDisk,
    options: LogOptions,
    /// Holds the lock file only.
    _dir: tempfile::TempDir,
}

impl TestBed {
    fn new() -> Self {
        let bed = Self::on(TestDisk::default());
        init(&bed.options).unwrap();
        bed
    }

    /// A bed whose disk may have been used before.
    fn on(disk: TestDisk) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = LogOptions { disk: Arc::new(disk.clone()), ..options(dir.path().to_owned()) };
        Self { disk, options, _dir: dir }
    }

    fn verify(&self) -> Result<VerifyReport, LogError> {
        verify(&self.disk, &self.options.dir)
    }
}

impl Bed for TestBed {
    fn open(&self, v: &mut Visitor<'_>, c: Callbacks) -> Result<(LogHandle, Epoch), LogError> {
        start(self.options.clone(), v, c)
    }
}

struct MemoryBed(MemoryStore);

impl Bed for MemoryBed {
    fn open(&self, v: &mut Visitor<'_>, c: Callbacks) -> Result<(LogHandle, Epoch), LogError> {
        let opened = self.0.open(v)?;
        let epoch = opened.epoch;
        let log = opened.start(c);
        log.sync_by_thread();
        Ok((log, epoch))
    }
}

mod on_files {
    use super::*;
    suite::conformance!(RealBed::new());
}

mod on_the_test_disk {
    use super::*;
    suite::conformance!(TestBed::new());
}

mod in_memory {
    use super::*;
    suite::conformance!(MemoryBed(MemoryStore::init(LogId(uuid::Uuid::nil()), 9)));
}
