//! Presumed abort: what a log may say of a transaction that is not active (invariant 7).
//!
//! The log answers only for its own id and for epochs up to its own, and only when the whole of it has been replayed:
//! an [`Authority`] is made of the [`Decisions`] of a replay. What it has no commit of, it never committed, and says so.

use std::collections::{BTreeMap, HashMap};

use roaring::RoaringTreemap;

use crate::ids::{Attempt, Epoch, LogId, TxNumber, Txid};
use crate::record::{Committed, CommittedSet};
use crate::wire::outcome::BranchOutcome;

/// What a log has ever committed, in some bits for each transaction; kept for as long as the log exists, because a
/// participant may come back after any time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decisions {
    committed: BTreeMap<Epoch, RoaringTreemap>,
    /// Attempts other than the first; they are few.
    retried: HashMap<TxNumber, Attempt>,
}

/// The right to answer: a log's id, its present epoch, and all its decisions.
#[derive(Debug, Clone, PartialEq)]
pub struct Authority {
    log_id: LogId,
    epoch: Epoch,
    decisions: Decisions,
}

impl Decisions {
    /// Takes a decision, from replay or when it has become durable.
    pub fn committed(&mut self, number: TxNumber, attempt: Attempt) {
        self.committed.entry(number.epoch).or_default().insert(number.n);
        if attempt != Attempt::FIRST {
            self.retried.insert(number, attempt);
        }
    }

    /// The same, from a record.
    pub fn apply(&mut self, committed: &Committed) {
        self.committed(committed.number, committed.attempt);
    }

    /// Takes what compaction had written down. Fails with the reason if the bitmap is none.
    pub fn apply_set(&mut self, set: &CommittedSet) -> Result<(), String> {
        let bitmap = RoaringTreemap::deserialize_from(&set.bitmap[..])
            .map_err(|error| format!("the committed set of epoch {}: {error}", set.epoch))?;
        *self.committed.entry(set.epoch).or_default() |= bitmap;
        for (n, attempt) in &set.retried {
            self.retried.insert(TxNumber { epoch: set.epoch, n: *n }, *attempt);
        }
        Ok(())
    }

    /// What compaction must write down before it deletes decisions.
    #[must_use]
    pub fn sets(&self) -> Vec<CommittedSet> {
        let retried = |epoch: Epoch| {
            let of_epoch = self.retried.iter().filter(move |(number, _)| number.epoch == epoch);
            let mut retried: Vec<_> =
                of_epoch.map(|(number, attempt)| (number.n, *attempt)).collect();
            retried.sort_unstable();
            retried
        };
        self.committed
            .iter()
            .map(|(&epoch, bitmap)| {
                let mut bytes = Vec::with_capacity(bitmap.serialized_size());
                bitmap
                    .serialize_into(&mut bytes)
                    .unwrap_or_else(|error| unreachable!("writing to memory: {error}"));
                CommittedSet { epoch, bitmap: bytes, retried: retried(epoch) }
            })
            .collect()
    }

    /// Whether a transaction was committed by this attempt.
    #[must_use]
    pub fn has(&self, number: TxNumber, attempt: Attempt) -> bool {
        let committed =
            self.committed.get(&number.epoch).is_some_and(|numbers| numbers.contains(number.n));
        committed && attempt == self.retried.get(&number).copied().unwrap_or(Attempt::FIRST)
    }
}

impl Authority {
    /// Of a log that has been replayed to its end.
    #[must_use]
    pub fn new(log_id: LogId, epoch: Epoch, mut decisions: Decisions) -> Self {
        decisions.committed.entry(epoch).or_default();
        Self { log_id, epoch, decisions }
    }

    /// Takes a decision that has become durable.
    pub fn committed(&mut self, number: TxNumber, attempt: Attempt) {
        self.decisions.committed(number, attempt);
    }

    /// What compaction must write down before it deletes decisions.
    #[must_use]
    pub fn sets(&self) -> Vec<CommittedSet> {
        self.decisions.sets()
    }

    /// The answer about a transaction that is not active here.
    #[must_use]
    pub fn outcome(&self, txid: Txid) -> BranchOutcome {
        if txid.log_id != self.log_id || txid.number.epoch > self.epoch {
            return BranchOutcome::UnknownAuthority;
        }
        if self.decisions.has(txid.number, txid.attempt) {
            BranchOutcome::Committed
        } else {
            BranchOutcome::Aborted
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_id(text: &str) -> LogId {
        text.parse().unwrap()
    }

    const OURS: &str = "0198f1c2-a4b2-7c1d-9c0e-3f4a5b6c7d8e";
    const THEIRS: &str = "0198f1c2-a4b2-7c1d-9c0e-3f4a5b6c7d8f";

    fn txid(log: &str, epoch: u64, n: u64, attempt: u32) -> Txid {
        let number = TxNumber { epoch: Epoch(epoch), n };
        Txid { log_id: log_id(log), number, attempt: Attempt(attempt) }
    }

    fn authority() -> Authority {
        let mut authority = Authority::new(log_id(OURS), Epoch(3), Decisions::default());
        authority.committed(txid(OURS, 2, 7, 0).number, Attempt(0));
        authority.committed(txid(OURS, 3, 1, 0).number, Attempt(2));
        authority
    }

    /// Invariant 7: another log's transactions, and those of a later epoch, are not ours to judge.
    #[test]
    fn another_log_or_a_later_epoch_is_unknown_authority() {
        assert_eq!(authority().outcome(txid(THEIRS, 2, 7, 0)), BranchOutcome::UnknownAuthority);
        assert_eq!(authority().outcome(txid(OURS, 4, 1, 0)), BranchOutcome::UnknownAuthority);
    }

    #[test]
    fn only_the_attempt_that_committed_is_committed_and_all_else_is_presumed_aborted() {
        let authority = authority();
        assert_eq!(authority.outcome(txid(OURS, 2, 7, 0)), BranchOutcome::Committed);
        assert_eq!(authority.outcome(txid(OURS, 3, 1, 2)), BranchOutcome::Committed);
        assert_eq!(authority.outcome(txid(OURS, 3, 1, 0)), BranchOutcome::Aborted);
        assert_eq!(authority.outcome(txid(OURS, 3, 1, 1)), BranchOutcome::Aborted);
        assert_eq!(authority.outcome(txid(OURS, 2, 8, 0)), BranchOutcome::Aborted);
    }

    #[test]
    fn the_sets_that_compaction_writes_say_the_same() {
        let original = authority();
        let mut copy = Decisions::default();
        for set in original.sets() {
            copy.apply_set(&set).unwrap();
        }
        assert_eq!(copy, original.decisions);
        let rotten = CommittedSet { epoch: Epoch(1), bitmap: vec![9; 5], retried: Vec::new() };
        assert!(copy.apply_set(&rotten).is_err());
    }
}
