//! The in-memory double of the log, for tests and the simulator.
//!
//! [`MemoryStore`] is the disk: it outlives [`MemoryLog`]s, which are lives of a process on it. It never does anything
//! by itself unless asked to ([`MemoryLog::sync_by_thread`]): the simulator calls [`MemoryLog::sync`] when its schedule
//! says so, and the callback runs on the thread that called. It keeps no checksums: it cannot rot.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use assent_common::{Epoch, LogId};

use super::{
    Callbacks, DecisionLog, KIND_EPOCH, LogError, LogPosition, LogRecord, NewRecord, SegmentInfo,
    Token, Visitor,
};

const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What survives a crash: the durable records of one log.
#[derive(Clone)]
pub struct MemoryStore {
    shared: Arc<Mutex<Durable>>,
    log_id: LogId,
}

struct Durable {
    segments: BTreeMap<u32, Vec<(LogPosition, LogRecord)>>,
    epoch: u64,
    locked: bool,
    records_per_segment_max: usize,
}

impl MemoryStore {
    /// A new, empty log whose segments hold this many records each.
    #[must_use]
    pub fn init(log_id: LogId, records_per_segment_max: usize) -> Self {
        let durable = Durable {
            segments: BTreeMap::from([(1, Vec::new())]),
            epoch: 0,
            locked: false,
            records_per_segment_max,
        };
        Self { shared: Arc::new(Mutex::new(durable)), log_id }
    }

    /// Begins a life of the log: takes the lock, visits every durable record, raises the epoch.
    pub fn open(&self, visitor: &mut Visitor<'_>) -> Result<OpenedMemoryLog, LogError> {
        let mut durable = lock(&self.shared);
        if durable.locked {
            return Err(LogError::Locked { dir: "memory".into(), pid: "of this test".into() });
        }
        for (position, record) in durable.segments.values().flatten() {
            visit(visitor, *position, record)?;
        }
        durable.locked = true;
        durable.epoch += 1;
        Ok(OpenedMemoryLog { store: self.clone(), epoch: Epoch(durable.epoch) })
    }
}

/// A log that was replayed and waits for its callbacks.
pub struct OpenedMemoryLog {
    store: MemoryStore,
    /// The epoch of this life.
    pub epoch: Epoch,
}

impl OpenedMemoryLog {
    /// Begins to take records.
    #[must_use]
    pub fn start(self, callbacks: Callbacks) -> Arc<MemoryLog> {
        Arc::new(MemoryLog {
            store: self.store,
            epoch: self.epoch,
            life: Mutex::new(Life { state: State::Running, queue: Vec::new(), sync_fails: false }),
            queued: Condvar::new(),
            callbacks: Mutex::new(Some(callbacks)),
        })
    }
}

/// One life of an in-memory log.
pub struct MemoryLog {
    store: MemoryStore,
    epoch: Epoch,
    life: Mutex<Life>,
    queued: Condvar,
    callbacks: Mutex<Option<Callbacks>>,
}

struct Life {
    state: State,
    queue: Vec<(Token, LogRecord)>,
    sync_fails: bool,
}

enum State {
    Running,
    Closed,
    Stopped(String),
}

impl MemoryLog {
    /// Makes everything queued durable and reports it as one batch, on this thread.
    pub fn sync(&self) {
        // The callbacks' lock is held all through, so that batches are reported in order.
        let mut callbacks = lock(&self.callbacks);
        let mut life = lock(&self.life);
        if !matches!(life.state, State::Running) || life.queue.is_empty() {
            return;
        }
        if std::mem::take(&mut life.sync_fails) {
            let error = LogError::Io {
                action: "sync",
                file: "memory".into(),
                source: std::io::Error::other("a sync that a test made fail"),
            };
            life.state = State::Stopped(error.with_sources());
            drop(life);
            if let Some(callbacks) = callbacks.take() {
                (callbacks.on_fatal)(&error);
            }
            return;
        }
        let queue = std::mem::take(&mut life.queue);
        drop(life);
        let batch = lock(&self.store.shared).store(queue);
        if let Some(callbacks) = callbacks.as_mut() {
            (callbacks.on_durable)(batch);
        }
    }

    /// The next [`MemoryLog::sync`] fails, and the log stops.
    pub fn fail_next_sync(&self) {
        lock(&self.life).sync_fails = true;
    }

    /// Ends this life as a crash would: what was not synced is gone, nothing more is reported, the lock is free.
    pub fn crash(&self) {
        // Without the callbacks: a crash may be called from within one.
        self.end(State::Stopped("the process crashed".to_owned()));
    }

    /// Records queued and not durable.
    #[must_use]
    pub fn queued_records(&self) -> usize {
        lock(&self.life).queue.len()
    }

    /// Starts a thread that syncs whatever is queued, lazy or forced, until the log ends: for tests with a real clock.
    pub fn sync_by_thread(self: &Arc<Self>) {
        let log = Arc::clone(self);
        std::thread::spawn(move || {
            loop {
                let life = lock(&log.life);
                let idle =
                    |life: &mut Life| matches!(life.state, State::Running) && life.queue.is_empty();
                let life =
                    log.queued.wait_while(life, idle).unwrap_or_else(PoisonError::into_inner);
                if !matches!(life.state, State::Running) {
                    return;
                }
                drop(life);
                log.sync();
            }
        });
    }

    fn end(&self, state: State) {
        let mut life = lock(&self.life);
        if matches!(life.state, State::Closed) {
            return;
        }
        life.state = state;
        life.queue.clear();
        self.queued.notify_all();
        lock(&self.store.shared).locked = false;
    }

    fn running(&self) -> Result<MutexGuard<'_, Life>, LogError> {
        let life = lock(&self.life);
        match &life.state {
            State::Running => Ok(life),
            State::Closed => Err(LogError::Closed),
            State::Stopped(cause) => Err(LogError::Stopped { cause: cause.clone() }),
        }
    }
}

impl DecisionLog for MemoryLog {
    fn log_id(&self) -> LogId {
        self.store.log_id
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn append_all(&self, records: &mut VecDeque<NewRecord>) -> Result<(), LogError> {
        let mut life = self.running()?;
        while let Some(NewRecord { kind, payload, .. }) = records.front() {
            if *kind == KIND_EPOCH {
                return Err(LogError::ReservedKind { kind: *kind });
            }
            let queued = queued_bytes(&life.queue);
            if queued + payload.len() > QUEUE_BYTES_MAX {
                return Err(LogError::Full { queued, max: QUEUE_BYTES_MAX });
            }
            let taken = records.pop_front();
            life.queue.extend(taken.map(|record| {
                let NewRecord { token, kind, payload, .. } = record;
                (token, LogRecord { kind, payload })
            }));
            self.queued.notify_one();
        }
        Ok(())
    }

    fn read(&self, position: LogPosition) -> Result<LogRecord, LogError> {
        drop(self.running()?);
        let durable = lock(&self.store.shared);
        let records = durable.segment(position.segment())?;
        let at = records.binary_search_by_key(&position, |(at, _)| *at);
        at.map(|at| records[at].1.clone()).map_err(|_| LogError::NoRecord { position })
    }

    fn segments(&self) -> Vec<SegmentInfo> {
        let durable = lock(&self.store.shared);
        let last = durable.last();
        let info = |(number, records): (&u32, &Vec<(LogPosition, LogRecord)>)| SegmentInfo {
            number: *number,
            bytes: records.iter().map(|(_, record)| record.payload.len() as u64).sum(),
            first: records.first().map(|(position, _)| *position),
            last: records.last().map(|(position, _)| *position),
            created_ms: 0,
            sealed_ms: (*number != last).then_some(0),
        };
        durable.segments.iter().map(info).collect()
    }

    fn read_segment(&self, number: u32, visitor: &mut Visitor<'_>) -> Result<(), LogError> {
        drop(self.running()?);
        let records = lock(&self.store.shared).segment(number)?.clone();
        // The lock is free here: a visitor may append.
        records.iter().try_for_each(|(position, record)| visit(visitor, *position, record))
    }

    fn retire(&self, through: u32) -> Result<(), LogError> {
        drop(self.running()?);
        lock(&self.store.shared).check_retire(through)?;
        self.sync();
        drop(self.running()?);
        lock(&self.store.shared).segments.retain(|number, _| *number > through);
        Ok(())
    }

    fn queued_bytes(&self) -> usize {
        queued_bytes(&lock(&self.life).queue)
    }

    fn close(&self) {
        self.sync();
        self.end(State::Closed);
    }
}

impl Durable {
    fn last(&self) -> u32 {
        self.segments.last_key_value().map_or(1, |(number, _)| *number)
    }

    fn segment(&self, segment: u32) -> Result<&Vec<(LogPosition, LogRecord)>, LogError> {
        let first = self.segments.first_key_value().map_or(1, |(number, _)| *number);
        self.segments.get(&segment).ok_or_else(|| LogError::NoSegment {
            segment,
            first,
            last: self.last(),
        })
    }

    fn check_retire(&self, through: u32) -> Result<(), LogError> {
        self.segment(through)?;
        if through == self.last() { Err(LogError::InUse { segment: through }) } else { Ok(()) }
    }

    fn store(&mut self, queue: Vec<(Token, LogRecord)>) -> Vec<(Token, LogPosition)> {
        let mut batch = Vec::with_capacity(queue.len());
        for (token, record) in queue {
            let mut number = self.last();
            if self.segments.get(&number).is_some_and(|s| s.len() >= self.records_per_segment_max) {
                number += 1;
            }
            let records = self.segments.entry(number).or_default();
            let position = LogPosition::new(number, 1 + records.len() as u32);
            records.push((position, record));
            batch.push((token, position));
        }
        batch
    }
}

impl Drop for MemoryLog {
    fn drop(&mut self) {
        self.close();
    }
}

fn visit(v: &mut Visitor<'_>, position: LogPosition, record: &LogRecord) -> Result<(), LogError> {
    v(position, record.kind, &record.payload)
        .map_err(|source| LogError::Refused { position, source })
}

fn queued_bytes(queue: &[(Token, LogRecord)]) -> usize {
    queue.iter().map(|(_, record)| record.payload.len()).sum()
}

/// A panic of another thread does not make the data wrong: every change under these locks is complete or absent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
