//! Repair: fenced data is made whole from what the logs committed, and opened under a new incarnation (invariants 9, 12).
//!
//! The reference for `store/repair` at the participant. Until it is done, nothing else runs against the data, so that
//! no branch can see it half repaired.

use super::{DoneMarker, Heard, OnePhaseMarker, Participant};
use crate::coordinator::resync::Redone;
use crate::ids::{LogId, Txid};
use crate::limits::VOTES_UNHEARD_MAX;
use crate::outcome::Redo;
use crate::wire::resync::DataPoint;

/// What all logs that the data owes say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repair {
    /// What is committed and may be missing, in the order of the votes.
    pub redo: Vec<Redone>,
    /// How far each log is.
    pub logs: Vec<(LogId, Heard)>,
    /// The incarnation of the data when it is whole, and the number that it opens with ([`opening_seq`]).
    pub open: DataPoint,
}

/// The number that repaired data opens with, above the highest that its agent or a log has heard.
#[must_use]
pub const fn opening_seq(highest_heard: u64) -> u64 {
    highest_heard.saturating_add(VOTES_UNHEARD_MAX)
}

impl Participant {
    /// Makes the data whole, and returns the writes that are to be applied for it, in order. Done again it does nothing:
    /// what was redone has its marker.
    ///
    /// What is staged and in no log's word was not committed by any: its coordinator has given it up before it spoke.
    pub fn repair(&mut self, repair: Repair) -> Vec<Redo> {
        let writes = repair.redo.into_iter().filter_map(|redone| self.redo(redone)).collect();
        let undecided: Vec<_> = self.staged.keys().copied().collect();
        for txid in undecided {
            self.free(txid);
            self.fences.insert(txid);
        }
        for (log_id, heard) in repair.logs {
            self.hear(log_id, heard);
        }
        self.incarnation = repair.open.incarnation;
        self.seq = self.seq.max(repair.open.seq);
        writes
    }

    /// Applies one committed branch, and returns the writes that are to be applied for it: one step of a repair, which may
    /// end behind any of them and begin anew.
    ///
    /// What is staged is applied by its record: whoever planned named no writes for it.
    pub fn redo(&mut self, Redone { txid, redo, .. }: Redone) -> Option<Redo> {
        if self.done.contains_key(&txid) {
            return None;
        }
        let staged = self.free(txid);
        let redo = staged.as_ref().map_or(redo, |staged| staged.vote.redo.clone());
        self.done.insert(txid, staged.map_or(DoneMarker::Logged, DoneMarker::of));
        Some(redo).filter(|redo| !redo.is_empty())
    }

    /// Applies one branch of one phase that no log has, as the agent that repairs remembers it
    /// ([`Unlogged`](super::Unlogged)): in its place among the votes, and with its marker, so that
    /// its log will hear what it wrote.
    pub fn redo_unlogged(&mut self, txid: Txid, marker: OnePhaseMarker) -> Option<Redo> {
        if self.done.contains_key(&txid) {
            return None;
        }
        let (seq, redo) = marker.wrote.clone()?;
        self.seq = self.seq.max(seq);
        self.done.insert(txid, DoneMarker::OnePhase(marker));
        Some(redo).filter(|redo| !redo.is_empty())
    }
}
