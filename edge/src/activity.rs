//! What a connection does, for its timers and for the listener that wants its place.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::options::Patience;

/// What a connection is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A request's head: of a new connection, or one that has begun.
    Head = 0,
    /// The next request.
    Idle = 1,
    /// Its request's answer.
    Busy = 2,
}

/// What a connection does. Written by its own task only, so that the order of the fields does not
/// matter.
#[derive(Debug)]
pub struct Activity {
    opened: Instant,
    stage: AtomicU8,
    /// When the stage began, if it is a wait, in milliseconds since the connection was opened.
    since_ms: AtomicU64,
    /// When the client stopped taking bytes, counted likewise from 1; 0 if it takes them.
    stalled_ms: AtomicU64,
    /// It shall go, for another one to come.
    leave: Notify,
}

impl Activity {
    pub(crate) fn new() -> Self {
        Self {
            opened: Instant::now(),
            stage: AtomicU8::new(Stage::Head as u8),
            since_ms: AtomicU64::new(0),
            stalled_ms: AtomicU64::new(0),
            leave: Notify::new(),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Relaxed) {
            0 => Stage::Head,
            1 => Stage::Idle,
            _ => Stage::Busy,
        }
    }

    /// It waits for something else now.
    pub fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Relaxed);
        // Nobody asks since when it is busy.
        if stage != Stage::Busy {
            self.since_ms.store(self.now_ms(), Relaxed);
        }
    }

    fn is_stalled(&self) -> bool {
        self.stalled_ms.load(Relaxed) != 0
    }

    pub(crate) fn ask_to_leave(&self) {
        self.leave.notify_one();
    }

    /// Waits until another connection wants its place.
    pub async fn asked_to_leave(&self) {
        self.leave.notified().await;
    }

    /// Since when it could go without anybody missing an answer.
    pub fn expendable_since(&self) -> Option<Instant> {
        let waits = self.stage() != Stage::Busy && !self.is_stalled();
        waits.then(|| self.opened + Duration::from_millis(self.since_ms.load(Relaxed)))
    }

    /// When its time is over, as things are.
    pub(crate) fn deadline(&self, patience: &Patience) -> Option<Instant> {
        let after = |ms: u64, limit| self.opened + Duration::from_millis(ms) + limit;
        let since_ms = self.since_ms.load(Relaxed);
        let stage = match self.stage() {
            Stage::Head => Some(after(since_ms, patience.header)),
            Stage::Idle => Some(after(since_ms, patience.idle)),
            Stage::Busy => None,
        };
        let stalled_ms = self.stalled_ms.load(Relaxed);
        let write = (stalled_ms != 0).then(|| after(stalled_ms, patience.write));
        match (stage, write) {
            // While it takes no bytes it is not idle.
            (_, Some(write)) => Some(write),
            (stage, None) => stage,
        }
    }

    /// Whether the client took bytes that were written.
    pub fn wrote(&self, progress: bool) {
        if progress {
            if self.is_stalled() {
                self.stalled_ms.store(0, Relaxed);
                // What it waits for begins now, not when the answer did.
                self.since_ms.store(self.now_ms(), Relaxed);
            }
        } else if !self.is_stalled() {
            self.stalled_ms.store(self.now_ms().max(1), Relaxed);
        }
    }
}
