//! What one phase came to, as an agent remembers it until the log has it (invariant 9).
//!
//! A branch of one phase decides alone, and its log hears of it by an answer, which may be lost.
//! The done-marker answers for it then. But if the data is lost before the log has asked again, the
//! marker is lost too, and the branch would be told aborted although others have read what it
//! wrote. So an agent remembers the markers that it left or found, and a repair puts back those
//! that the data lacks, in their place among the votes.
//!
//! ```text
//! applied here ─────┐
//!                   ├─► remembered ── the mark passes it: its log has it ──► let go
//! found in data ────┘        └── the data is lost ──► a repair applies it again, with its marker
//! ```
//!
//! It must never bring back what was told aborted. What this agent fences it forgets, and what
//! another agent opened without it has its outcome there.

use std::collections::BTreeMap;

use crate::ids::{Attempt, Epoch, LogId, TxNumber, Txid};
use crate::limits::{UNLOGGED_BYTES_MAX, UNLOGGED_MAX};
use crate::wire::resync::DataPoint;

/// The branches of one phase that an agent remembers, each with its done-marker.
#[derive(Debug, Clone)]
pub struct Unlogged<M> {
    /// The incarnations of the data that has them, each opened from the one before by this agent;
    /// the last one is that of now.
    opened: Vec<u64>,
    /// The highest number of a vote that this agent has seen in it.
    seq: u64,
    branches: BTreeMap<Txid, UnloggedBranch<M>>,
    bytes: usize,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnloggedBranch<M> {
    /// The number that it took among the votes.
    pub seq: u64,
    /// How many bytes its marker has.
    pub bytes: usize,
    /// Its done-marker, as the data keeps it.
    pub marker: M,
}

impl<M> Unlogged<M> {
    /// Of an agent that begins with this data.
    #[must_use]
    pub fn new(DataPoint { incarnation, seq }: DataPoint) -> Self {
        Self { opened: vec![incarnation], seq, branches: BTreeMap::new(), bytes: 0 }
    }

    /// A branch is applied in the data of this incarnation. Above the bounds, those with the lowest
    /// numbers are forgotten: their logs have most likely asked.
    pub fn applied(&mut self, incarnation: u64, txid: Txid, branch: UnloggedBranch<M>) {
        if self.opened.last() != Some(&incarnation) {
            return;
        }
        self.seq = self.seq.max(branch.seq);
        self.bytes += branch.bytes;
        let before = self.branches.insert(txid, branch);
        self.bytes -= before.map_or(0, |before| before.bytes);
        while self.branches.len() > UNLOGGED_MAX || self.bytes > UNLOGGED_BYTES_MAX {
            let Some((_, oldest)) = self.branches.pop_first() else { return };
            self.bytes -= oldest.bytes;
        }
    }

    /// A branch is fenced, or its marker dropped by hand: it was not applied as far as anybody will
    /// hear.
    pub fn forget(&mut self, txid: Txid) {
        self.bytes -= self.branches.remove(&txid).map_or(0, |branch| branch.bytes);
    }

    /// The log has what is below its mark.
    pub fn let_go(&mut self, log_id: LogId, low_water: TxNumber) {
        let at = |number| Txid { log_id, number, attempt: Attempt::FIRST };
        let below = at(TxNumber { epoch: Epoch(0), n: 0 })..at(low_water);
        while let Some(txid) = self.branches.range(below.clone()).next().map(|(txid, _)| *txid) {
            self.forget(txid);
        }
    }

    /// What was found of the data lacks these. `known` says what a log that gave its word knows of
    /// the data: one that has heard of data which somebody else opened later has heard there of
    /// what was applied before.
    pub fn lacking(
        &self,
        found_seq: u64,
        known: impl Fn(LogId) -> Option<DataPoint>,
    ) -> impl Iterator<Item = (Txid, &UnloggedBranch<M>)> {
        let is_overtaken = move |log_id: LogId| {
            known(log_id).is_some_and(|known| {
                known.seq > self.seq && !self.opened.contains(&known.incarnation)
            })
        };
        let branches = self.branches.iter().map(|(txid, branch)| (*txid, branch));
        branches.filter(move |(txid, branch)| branch.seq > found_seq && !is_overtaken(txid.log_id))
    }

    /// The data has a hole: which of these it lacks, and whether others wrote the same keys behind
    /// them, nobody can say.
    pub fn may_lack_up_to(&mut self, seq: u64) {
        self.branches.retain(|_, branch| branch.seq > seq);
        self.bytes = self.branches.values().map(|branch| branch.bytes).sum();
    }

    /// This agent has opened the data again, with all that it lacked.
    pub fn opened(&mut self, DataPoint { incarnation, seq }: DataPoint) {
        self.opened.push(incarnation);
        self.seq = self.seq.max(seq);
    }

    /// The incarnations of its data, each opened from the one before by this agent.
    #[must_use]
    pub fn history(&self) -> &[u64] {
        &self.opened
    }

    /// This agent goes on with data that is open: other data says itself what is applied in it.
    pub fn goes_on_with(&mut self, data: DataPoint) {
        if self.opened.last() != Some(&data.incarnation) {
            *self = Self::new(data);
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.branches.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.branches.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{OnePhaseMarker, Participant};
    use super::*;
    use crate::branch::{BranchAnswer, BranchMessage};
    use crate::outcome::{Aborted, Call, Redo};

    const LOG: LogId = LogId(uuid::Uuid::from_u128(1));
    const BEGIN: DataPoint = DataPoint { incarnation: 7, seq: 10 };

    fn number(n: u64) -> TxNumber {
        TxNumber { epoch: Epoch(1), n }
    }

    fn txid(n: u64) -> Txid {
        Txid { log_id: LOG, number: number(n), attempt: Attempt::FIRST }
    }

    fn branch(seq: u64, bytes: usize) -> UnloggedBranch<u64> {
        UnloggedBranch { seq, bytes, marker: seq }
    }

    /// Transactions 1 to 3, with the numbers 11 to 13.
    fn three() -> Unlogged<u64> {
        let mut unlogged = Unlogged::new(BEGIN);
        for n in 1..=3 {
            unlogged.applied(7, txid(n), branch(10 + n, 1));
        }
        unlogged
    }

    fn lacks(unlogged: &Unlogged<u64>, found: u64, known: Option<DataPoint>) -> Vec<u64> {
        unlogged.lacking(found, |_| known).map(|(_, branch)| branch.marker).collect()
    }

    #[test]
    fn what_the_data_lacks_is_behind_what_was_found_and_above_the_mark() {
        let mut unlogged = three();
        assert_eq!(lacks(&unlogged, 11, None), [12, 13]);
        unlogged.let_go(LOG, number(3));
        assert_eq!(lacks(&unlogged, 0, None), [13]);
        unlogged.let_go(LogId(uuid::Uuid::from_u128(2)), number(9));
        assert_eq!(lacks(&unlogged, 0, None), [13], "a mark is one log's");
        unlogged.forget(txid(3));
        assert!(unlogged.is_empty());
    }

    /// Invariant 6: a log may have been told aborted where others opened the data; not where this
    /// agent did.
    #[test]
    fn what_somebody_else_opened_later_has_its_outcome_there() {
        let mut unlogged = three();
        let elsewhere = DataPoint { incarnation: 9, seq: 1_000 };
        assert_eq!(lacks(&unlogged, 0, Some(elsewhere)), [] as [u64; 0]);
        let missed = DataPoint { incarnation: 5, seq: 4 };
        assert_eq!(lacks(&unlogged, 0, Some(missed)), [11, 12, 13], "older than what is known");
        unlogged.opened(elsewhere);
        assert_eq!(lacks(&unlogged, 0, Some(elsewhere)), [11, 12, 13]);
        unlogged.goes_on_with(elsewhere);
        assert_eq!(unlogged.len(), 3);
        unlogged.goes_on_with(DataPoint { incarnation: 10, seq: 2_000 });
        assert!(unlogged.is_empty());
        unlogged.applied(9, txid(4), branch(1_001, 1));
        assert!(unlogged.is_empty(), "what was applied in other data is not in this");
    }

    #[test]
    fn of_data_with_a_hole_only_its_end_is_sure() {
        let mut unlogged = three();
        unlogged.may_lack_up_to(12);
        assert_eq!(lacks(&unlogged, 0, None), [13]);
    }

    #[test]
    fn above_the_bounds_the_oldest_are_forgotten() {
        let mut unlogged = three();
        unlogged.applied(7, txid(4), branch(14, UNLOGGED_BYTES_MAX - 1));
        assert_eq!(lacks(&unlogged, 0, None), [13, 14]);
        unlogged.applied(7, txid(4), branch(14, 1));
        assert_eq!(lacks(&unlogged, 0, None), [13, 14], "the same again");
        for n in 5..=UNLOGGED_MAX as u64 + 3 {
            unlogged.applied(7, txid(n), branch(10 + n, 1));
        }
        assert_eq!(unlogged.len(), UNLOGGED_MAX);
        assert_eq!(lacks(&unlogged, 0, None).first(), Some(&14));
    }

    /// What no log has comes back with its marker, so that the log hears of it; and once.
    #[test]
    fn what_no_log_has_is_put_back_with_its_marker() {
        let mut participant = Participant::new(7);
        let redo: Redo = [1][..].into();
        let marker = OnePhaseMarker { replies: "[1]".into(), wrote: Some((9, redo.clone())) };
        assert_eq!(participant.redo_unlogged(txid(1), marker.clone()), Some(redo));
        assert_eq!(participant.redo_unlogged(txid(1), marker.clone()), None);
        assert_eq!(participant.seq(), 9, "its number is not given again");
        let answer = participant.step(7, txid(1), BranchMessage::Abort).answer;
        let done = marker.done(7);
        assert_eq!(answer, BranchAnswer::Aborted(Call::Applied(Aborted::AlreadyCommitted(done))));
    }
}
