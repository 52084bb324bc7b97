//! What the writer thread shares with everybody else: the bounded queue, the state, the list of segments.
//!
//! The queue counts bytes until they are durable, not until they are taken, so that its bound is one on memory.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use assent_common::{Epoch, LogId};

use super::options::{LogOptions, MARK_IDLE};
use super::{Durability, KIND_EPOCH, LogError, NewRecord, SegmentInfo};

pub(super) struct Shared {
    pub(super) options: LogOptions,
    pub(super) log_id: LogId,
    pub(super) epoch: Epoch,
    /// Oldest first, never empty.
    pub(super) segments: Mutex<Vec<SegmentInfo>>,
    queue: Mutex<Queue>,
    wake: Condvar,
    /// Why the next segment could not be made ready, until it is.
    trouble: Mutex<Option<String>>,
    /// Held for the life of the log; the writer frees it as the last thing that it does.
    lock: Mutex<Option<File>>,
}

pub(super) struct Retire {
    pub(super) through: u32,
    pub(super) done: SyncSender<()>,
}

/// What the writer takes at once. Records come before retirements.
#[derive(Default)]
pub(super) struct Work {
    pub(super) records: Vec<NewRecord>,
    pub(super) retires: Vec<Retire>,
    pub(super) closing: bool,
}

struct Queue {
    records: Vec<NewRecord>,
    /// Bytes of `records`.
    waiting_bytes: usize,
    /// Bytes not durable: those of `records` and those that the writer has taken.
    bytes: usize,
    due: Due,
    retires: Vec<Retire>,
    state: State,
    /// When the writer goes on by itself, while it sleeps.
    sleeps_until: Option<Due>,
}

/// When the writer has something to do; what is sooner is less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// A forced record is queued.
    Now,
    /// Only lazy records are queued.
    At(Instant),
    /// Nothing is queued.
    Never,
}

enum State {
    Running,
    Closing,
    Stopped(String),
}

impl Shared {
    pub(super) fn new(
        options: LogOptions,
        log_id: LogId,
        epoch: Epoch,
        segments: Vec<SegmentInfo>,
        lock: File,
    ) -> Self {
        let queue = Queue {
            records: Vec::new(),
            waiting_bytes: 0,
            bytes: 0,
            due: Due::Never,
            retires: Vec::new(),
            state: State::Running,
            sleeps_until: None,
        };
        Self {
            options,
            log_id,
            epoch,
            segments: Mutex::new(segments),
            queue: Mutex::new(queue),
            wake: Condvar::new(),
            trouble: Mutex::new(None),
            lock: Mutex::new(Some(lock)),
        }
    }

    /// The writer sees all of the records or none: a wake-up for the first one would sync it alone.
    pub(super) fn append_all(&self, records: &mut VecDeque<NewRecord>) -> Result<(), LogError> {
        let mut queue = self.running()?;
        let queued = queue.push(records, &self.options);
        self.wake_writer(&mut queue);
        queued
    }

    /// Waits until the writer has written everything appended so far and has retired the segments.
    pub(super) fn retire(&self, through: u32) -> Result<(), LogError> {
        let (done, wait) = sync_channel(1);
        {
            let mut queue = self.running()?;
            queue.retires.push(Retire { through, done });
            self.wake_writer(&mut queue);
        }
        // The writer drops the sender without a word only when it stops.
        wait.recv().or_else(|_| self.check_running())
    }

    pub(super) fn check_running(&self) -> Result<(), LogError> {
        self.running().map(drop)
    }

    pub(super) fn queued_bytes(&self) -> usize {
        lock(&self.queue).bytes
    }

    pub(super) fn begin_close(&self) {
        let mut queue = lock(&self.queue);
        if matches!(queue.state, State::Running) {
            queue.state = State::Closing;
        }
        self.wake_writer(&mut queue);
    }

    /// For the writer: these bytes are durable and no longer queued.
    pub(super) fn release(&self, bytes: usize) {
        lock(&self.queue).bytes -= bytes;
    }

    /// For the writer: from now on every call says that the log has stopped.
    pub(super) fn stop(&self, error: &LogError) {
        let mut queue = lock(&self.queue);
        queue.state = State::Stopped(error.with_sources());
        queue.records.clear();
        queue.retires.clear();
    }

    /// For the writer: what came of making the next segment ready. It is said when that changes.
    pub(super) fn made_ready(&self, made: &Result<(), LogError>) {
        let now = made.as_ref().err().map(LogError::with_sources);
        let mut trouble = lock(&self.trouble);
        match (&*trouble, &now) {
            (None, Some(error)) => tracing::error!(
                error,
                "the next log segment cannot be made ready; it is tried again until it is needed, \
                 and then the process stops: make room"
            ),
            (Some(_), None) => tracing::info!("the next log segment is ready"),
            (None, None) | (Some(_), Some(_)) => {}
        }
        *trouble = now;
    }

    pub(super) fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }

    pub(super) fn free_lock(&self) {
        drop(lock(&self.lock).take());
    }

    /// For the writer: waits until there is something to do. Empty work means that the log is idle, and is given only
    /// if asked for.
    pub(super) fn wait(&self, tell_idle: bool) -> Work {
        let idle_at = tell_idle.then(|| Instant::now() + MARK_IDLE);
        let mut queue = lock(&self.queue);
        loop {
            let due = match (queue.due(&self.options), idle_at) {
                (Due::Now, _) => return queue.take(),
                (Due::Never, Some(idle_at)) => Due::At(idle_at),
                (due, _) => due,
            };
            queue.sleeps_until = Some(due);
            queue = if let Due::At(instant) = due {
                let left = instant.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return queue.take();
                }
                self.wake.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0
            } else {
                self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner)
            };
        }
    }

    fn running(&self) -> Result<MutexGuard<'_, Queue>, LogError> {
        let queue = lock(&self.queue);
        match &queue.state {
            State::Running => Ok(queue),
            State::Closing => Err(LogError::Closed),
            State::Stopped(cause) => Err(LogError::Stopped { cause: cause.clone() }),
        }
    }

    /// A wake-up costs two switches of threads: one is enough until the writer sleeps again, and
    /// lazy records need none while it is to wake for earlier ones anyway.
    fn wake_writer(&self, queue: &mut Queue) {
        let due = queue.due(&self.options);
        if queue.sleeps_until.take_if(|until| due < *until).is_some() {
            self.wake.notify_one();
        }
    }
}

impl Queue {
    fn due(&self, options: &LogOptions) -> Due {
        let full = self.waiting_bytes >= options.batch_bytes_max;
        if full || self.closing() || !self.retires.is_empty() { Due::Now } else { self.due }
    }

    const fn closing(&self) -> bool {
        !matches!(self.state, State::Running)
    }

    /// Takes records from the front until one is refused.
    fn push(
        &mut self,
        records: &mut VecDeque<NewRecord>,
        options: &LogOptions,
    ) -> Result<(), LogError> {
        let max = options.queue_bytes_max;
        while let Some(record) = records.front() {
            let bytes = record.payload.len();
            if record.kind == KIND_EPOCH {
                return Err(LogError::ReservedKind { kind: record.kind });
            }
            if bytes > options.payload_bytes_max() {
                return Err(LogError::TooLarge { bytes, max: options.payload_bytes_max() });
            }
            if self.bytes + bytes > max {
                return Err(LogError::Full { queued: self.bytes, max });
            }
            self.bytes += bytes;
            self.waiting_bytes += bytes;
            self.due = match (record.durability, self.due) {
                (Durability::Forced, _) | (_, Due::Now) => Due::Now,
                (Durability::Lazy, Due::At(instant)) => Due::At(instant),
                (Durability::Lazy, Due::Never) => Due::At(Instant::now() + options.lazy_interval),
            };
            self.records.extend(records.pop_front());
        }
        Ok(())
    }

    fn take(&mut self) -> Work {
        let closing = self.closing();
        self.sleeps_until = None;
        self.waiting_bytes = 0;
        self.due = Due::Never;
        Work {
            records: std::mem::take(&mut self.records),
            retires: std::mem::take(&mut self.retires),
            closing,
        }
    }
}

/// A panic of another thread does not make the data wrong: every change under these locks is complete or absent.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
