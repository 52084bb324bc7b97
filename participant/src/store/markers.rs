//! The done-markers and fences that this agent left, until they may go. A shortcut only: what is forgotten here, because
//! the agent stopped or the queue was full, is found by the sweep.

use std::collections::{HashMap, VecDeque};

use assent_common::ids::{LogId, TxNumber, Txid};
use assent_common::participant::Heard;

use super::control::Field;

/// Markers that one call of a script deletes along the way; below the 8,000 that Lua can unpack.
pub(super) const COLLECTED_PER_CALL_MAX: usize = 512;

/// Below this many it is not worth to store a new low-water mark; they wait.
const COLLECTED_MIN: usize = 32;

/// But not with more than these bytes in them.
const COLLECTED_MIN_BYTES: usize = 64 * 1024;

/// Markers that are remembered for each log; some 50 bytes each.
const REMEMBERED_MAX: usize = 200_000;

/// What a marker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marker {
    /// Applied: `d:<txid>`.
    Done(Txid),
    /// The same, of an implicit transaction: not for a later life's mark to collect.
    DoneImplicit(Txid),
    /// The same, of one phase, with how many bytes it keeps: its replies and its writes.
    OnePhase(Txid, usize),
    /// Aborted: `a:<txid>`.
    Fence(Txid),
}

impl Marker {
    const fn txid(self) -> Txid {
        match self {
            Self::Done(txid)
            | Self::DoneImplicit(txid)
            | Self::OnePhase(txid, _)
            | Self::Fence(txid) => txid,
        }
    }

    /// How many bytes it keeps, beyond its name.
    const fn bytes(self) -> usize {
        match self {
            Self::OnePhase(_, bytes) => bytes,
            Self::Done(_) | Self::DoneImplicit(_) | Self::Fence(_) => 0,
        }
    }

    /// Its field in the control hash.
    pub(super) const fn field(self) -> Field<'static> {
        match self {
            Self::Done(txid) | Self::DoneImplicit(txid) | Self::OnePhase(txid, _) => {
                Field::Done(txid)
            }
            Self::Fence(txid) => Field::Fence(txid),
        }
    }
}

/// The markers and low-water mark of each log.
#[derive(Debug, Default)]
pub(super) struct Markers {
    logs: HashMap<LogId, LogMarkers>,
}

#[derive(Debug, Default)]
struct LogMarkers {
    queue: VecDeque<Marker>,
    heard: Option<Heard>,
}

impl Markers {
    pub(super) fn left(&mut self, marker: Marker) {
        let queue = &mut self.logs.entry(marker.txid().log_id).or_default().queue;
        if queue.len() == REMEMBERED_MAX {
            queue.pop_front();
        }
        queue.push_back(marker);
    }

    /// Takes note of what a log says of itself, and returns the highest mark that is known.
    pub(super) fn raise(&mut self, log_id: LogId, said: Heard) -> TxNumber {
        let known = &mut self.logs.entry(log_id).or_default().heard;
        let raised = known.map_or(said, |known| known.and(said));
        *known = Some(raised);
        raised.low_water
    }

    /// What each log has said of itself: the mark never without the life that gave it, since that of a later life does
    /// not collect what an earlier one left.
    pub(super) fn all_heard(&self) -> HashMap<LogId, Heard> {
        let logs = self.logs.iter();
        logs.filter_map(|(log_id, log)| Some((*log_id, log.heard?))).collect()
    }

    /// What a log has said of itself.
    pub(super) fn heard(&self, log_id: LogId) -> Option<Heard> {
        self.logs.get(&log_id)?.heard
    }

    /// Takes markers below the mark out of the queue, if there are enough to be worth it. They are roughly in order, so
    /// that looking at the front is enough.
    pub(super) fn collect(&mut self, log_id: LogId) -> Vec<Marker> {
        let Some(log) = self.logs.get_mut(&log_id) else { return Vec::new() };
        let Some(heard) = log.heard else { return Vec::new() };
        // What an earlier life left is not for this one to collect.
        let is_left_behind = |marker: &Marker| matches!(marker, Marker::DoneImplicit(txid) if txid.number.epoch < heard.epoch);
        while log.queue.front().is_some_and(is_left_behind) {
            log.queue.pop_front();
        }
        let below =
            |marker: &&Marker| marker.txid().number < heard.low_water && !is_left_behind(marker);
        let collected = log.queue.iter().take(COLLECTED_PER_CALL_MAX).take_while(below);
        let (count, bytes) =
            collected.fold((0, 0), |(count, bytes), marker| (count + 1, bytes + marker.bytes()));
        if count < COLLECTED_MIN && bytes < COLLECTED_MIN_BYTES {
            return Vec::new();
        }
        log.queue.drain(..count).collect()
    }

    /// Puts back what a call that did not succeed should have deleted.
    pub(super) fn restore(&mut self, log_id: LogId, markers: Vec<Marker>) {
        let queue = &mut self.logs.entry(log_id).or_default().queue;
        for marker in markers.into_iter().rev() {
            queue.push_front(marker);
        }
    }
}
