//! What logs report of fenced data, and what follows from it at the participant (invariants 9, 12).
//!
//! Every log that has ever spoken to the data owes its report. Reports come in parts, and are kept
//! until the last one is whole, because redoing in the order of the votes needs all of them. Then
//! there is a plan of the repair, which the agent carries out step by step; it may die between any
//! two of them, leaves fenced data then, and is told again.

use std::collections::{BTreeMap, BTreeSet};

use super::{FENCED, Heard, NO_DATA, Unlogged, opening_seq};
use crate::code::ErrorCode;
use crate::ids::{LogId, Txid};
use crate::limits::CAME_OF_MAX;
use crate::outcome::{Redo, Refusal};
use crate::wire::resync::{DataPoint, DataView, FoundData, RedoBranch, Resync, Resynced, Served};

/// What logs have reported of the data that was found like this.
#[derive(Debug, Default)]
pub struct Reports {
    found: Option<FoundData>,
    logs: BTreeMap<LogId, LogReport>,
}

/// What one log has reported.
#[derive(Debug)]
struct LogReport {
    heard: Heard,
    known: Option<DataPoint>,
    redo: Vec<RedoBranch>,
    parts: u32,
    is_whole: bool,
}

/// What is to be done when a part of a report has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReportTaken {
    /// It is answered like this.
    Answered(Resynced),
    /// All is there that the data waits for: it is to be made whole, and opened.
    Repairs,
}

/// How fenced data is made whole. `S` is what the agent has of a branch that is staged, `M` the
/// done-marker of one phase.
#[derive(Debug)]
pub struct RepairPlan<S, M> {
    /// The committed branches, in the order of their votes.
    pub steps: Vec<RepairStep<S, M>>,
    /// What is staged and not committed, of logs that have reported. Of another log it stays in
    /// doubt.
    pub undecided: Vec<S>,
    /// How far each log is that has reported.
    pub logs: Vec<(LogId, Heard)>,
    /// The data that each of them knew.
    pub served: Vec<Served>,
    /// The number of the last vote in the data.
    pub found_seq: u64,
    /// The highest number of a vote that this agent or a log has heard.
    pub heard_seq: u64,
}

/// A committed branch that is applied again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairStep<S, M> {
    /// The number of its vote.
    pub seq: u64,
    /// Its transaction.
    pub txid: Txid,
    /// By what.
    pub by: RedoBy<S, M>,
}

/// How a branch is applied again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedoBy<S, M> {
    /// It is staged in the data: by its record.
    Record(S),
    /// The data lost it: by the writes that its log has.
    Writes(Redo),
    /// The same, of one phase that its log has not heard of: by its done-marker.
    Marker(M),
}

impl Reports {
    /// Takes a part of a report about data that is like this. `spoken` are the logs that have ever
    /// spoken to it.
    pub fn take(
        &mut self,
        part: Resync,
        view: &DataView,
        spoken: &BTreeSet<LogId>,
    ) -> Result<ReportTaken, Refusal> {
        let wrong = |detail: &str| Err(Refusal::new(ErrorCode::WrongState, detail));
        if !view.fenced {
            // Open without this report, because the fence was lost or the data had forgotten the
            // log: whoever takes that for a repair forgets what it lost.
            if part.known.is_some_and(|known| !view.has_served(part.coordinator.log_id, known)) {
                return wrong("the data is open, and did not use this report; look again");
            }
            let incarnation = view.incarnation.unwrap_or_default();
            let open = Some(DataPoint { incarnation, seq: view.seq });
            return Ok(ReportTaken::Answered(Resynced { open, owed: Vec::new(), redone: 0 }));
        }
        if part.found != view.found() {
            return wrong("the data is not what the coordinator was shown; look again");
        }
        let (is_last, alone) = (part.last, part.alone);
        self.add(part)?;
        let owed = self.owed(spoken);
        if !is_last || !(owed.is_empty() || alone) {
            return Ok(ReportTaken::Answered(Resynced { open: None, owed, redone: 0 }));
        }
        Ok(ReportTaken::Repairs)
    }

    fn add(&mut self, part: Resync) -> Result<(), Refusal> {
        let Resync { coordinator, low_water, found, known, part, last, redo, .. } = part;
        if self.found != Some(found) {
            *self = Self { found: Some(found), logs: BTreeMap::new() };
        }
        let heard = Heard { epoch: coordinator.epoch, low_water };
        let fresh = || LogReport { heard, known, redo: Vec::new(), parts: 0, is_whole: false };
        let report = self.logs.entry(coordinator.log_id).or_insert_with(fresh);
        if part == 0 {
            *report = fresh();
        }
        if part != report.parts || heard.epoch != report.heard.epoch {
            let detail =
                format!("part {part} arrived where part {} was due; begin again", report.parts);
            return Err(Refusal::new(ErrorCode::WrongState, detail));
        }
        report.parts += 1;
        report.is_whole = last;
        report.redo.extend(redo);
        Ok(())
    }

    /// The logs whose reports are missing, of those that have ever spoken to the data.
    #[must_use]
    pub fn owed(&self, spoken: &BTreeSet<LogId>) -> Vec<LogId> {
        let begun: BTreeSet<LogId> = self.logs.keys().copied().collect();
        spoken.union(&begun).filter(|log_id| !self.is_whole(**log_id)).copied().collect()
    }

    fn is_whole(&self, log_id: LogId) -> bool {
        self.logs.get(&log_id).is_some_and(|report| report.is_whole)
    }

    /// The logs that have reported all.
    fn whole(&self) -> impl Iterator<Item = (&LogId, &LogReport)> {
        self.logs.iter().filter(|(_, report)| report.is_whole)
    }

    /// Plans the repair of data that is like this and has these branches staged. `heard_seq` is
    /// the highest number of a vote that the agent has heard, `unlogged` what it remembers of one
    /// phase.
    pub fn plan<S, M: Clone>(
        &self,
        view: &DataView,
        staged: impl IntoIterator<Item = (Txid, S)>,
        heard_seq: u64,
        unlogged: Option<&mut Unlogged<M>>,
    ) -> RepairPlan<S, M> {
        let mut staged: BTreeMap<Txid, S> = staged.into_iter().collect();
        let committed = self.whole().flat_map(|(_, report)| &report.redo);
        let steps = committed.map(|RedoBranch { txid, seq, redo }| {
            let by = match staged.remove(txid) {
                Some(staged) => RedoBy::Record(staged),
                None => RedoBy::Writes(redo.0.clone()),
            };
            RepairStep { seq: *seq, txid: *txid, by }
        });
        let mut steps: Vec<_> = steps.collect();
        if let Some(unlogged) = unlogged {
            let said: BTreeSet<Txid> = steps.iter().map(|step| step.txid).collect();
            if view.hole.is_some() {
                unlogged.may_lack_up_to(view.seq);
            }
            for (log_id, report) in self.whole() {
                unlogged.let_go(*log_id, report.heard.low_water);
            }
            let known = |log_id| self.logs.get(&log_id)?.known;
            let lacking = unlogged.lacking(view.seq, known);
            let lacking = lacking.filter(|(txid, _)| !said.contains(txid));
            steps.extend(lacking.map(|(txid, branch)| {
                let by = RedoBy::Marker(branch.marker.clone());
                RepairStep { seq: branch.seq, txid, by }
            }));
        }
        steps.sort_by_key(|step| (step.seq, step.txid));
        let undecided = staged.into_iter().filter(|(txid, _)| self.is_whole(txid.log_id));
        let known = self.whole().filter_map(|(_, report)| report.known);
        let known_seq = known.map(|known| known.seq).max().unwrap_or(0);
        let served = self.whole().map(|(log_id, report)| Served {
            log_id: *log_id,
            incarnation: report.known.map_or(0, |known| known.incarnation),
        });
        RepairPlan {
            steps,
            undecided: undecided.map(|(_, staged)| staged).collect(),
            logs: self.whole().map(|(log_id, report)| (*log_id, report.heard)).collect(),
            served: served.collect(),
            found_seq: view.seq,
            heard_seq: heard_seq.max(view.seq).max(known_seq),
        }
    }
}

impl<S, M> RepairPlan<S, M> {
    /// The incarnations that the data comes of: the newest of `history`, which is that of the agent
    /// that repairs it, and those that the logs knew.
    #[must_use]
    pub fn came_of(&self, history: &[u64]) -> Vec<u64> {
        let served = self.served.iter().map(|served| served.incarnation);
        let mut came_of = Vec::new();
        for incarnation in history.iter().rev().copied().chain(served) {
            let is_data = ![FENCED, NO_DATA].contains(&incarnation);
            if is_data && !came_of.contains(&incarnation) && came_of.len() < CAME_OF_MAX {
                came_of.push(incarnation);
            }
        }
        came_of
    }

    /// The number that the data opens with.
    #[must_use]
    pub const fn opening_seq(&self) -> u64 {
        opening_seq(self.heard_seq)
    }
}

#[cfg(test)]
mod tests;
