//! Invariants 4 and 5: the decision, once, durable before anybody hears of it.

use assent_common::branch::BranchMessage;
use assent_common::record::{AnswerRecord, Record};
use assent_common::{Attempt, TxNumber, Txid};

use crate::state::{State, Told, log_id};
use crate::world::World;

/// 4: every commit message under way has its decision on disk, whoever sent it; an implicit one has all votes there.
pub(super) fn no_commit_before_durable(world: &World, state: &State) -> bool {
    let mut commits = state.asks().filter(|ask| ask.message == BranchMessage::Commit);
    commits.all(|ask| state.is_decided(ask.txid, &world.config))
}

/// 4: a client that heard `committed` has a decision on disk; of one phase, the branch itself is it.
pub(super) fn no_committed_before_durable(world: &World, state: &State) -> bool {
    state.witness.told.iter().all(|(client, told)| {
        let request = &world.config.clients[*client];
        let decided = |number: TxNumber| state.has_decided(number, &world.config);
        *told == Told::Aborted
            || request.is_one_phase()
            || state.witness.numbers(*client).any(decided)
    })
}

/// 5: one transaction has one commit record, or one answer; and its end only behind the commit.
pub(super) fn written_once(_: &World, state: &State) -> bool {
    let records = &state.log.records;
    let fate = |record: &Record| match record {
        Record::Committed(committed) => Some(committed.number),
        Record::Answered(answered) => Some(answered.number),
        _ => None,
    };
    let is_committed = |number: TxNumber| {
        records.iter().any(|r| matches!(r, Record::Committed(c) if c.number == number))
    };
    (0..records.len()).all(|place| {
        let is_first = |number| records[..place].iter().all(|other| fate(other) != Some(number));
        match &records[place] {
            Record::Ended(ended) => is_committed(ended.number),
            record => fate(record).is_none_or(is_first),
        }
    })
}

/// 5: the commit record of a transaction has a durable yes of every branch, of this attempt and this epoch. An answer
/// of commit, which has no decision record, is of a branch that has applied or only read.
pub(super) fn commit_needs_all_votes(world: &World, state: &State) -> bool {
    let txid = |number: TxNumber, attempt: Attempt| Txid { log_id: log_id(), number, attempt };
    state.log.records.iter().all(|record| match record {
        Record::Committed(committed) => {
            let began = state.witness.began.iter().find(|began| began.number == committed.number);
            began.is_some_and(|began| {
                let branches = &world.config.clients[began.client].branches;
                let txid = txid(committed.number, committed.attempt);
                committed.branches.len() == branches.len()
                    && branches.iter().all(|b| state.witness.voted.contains(&(txid, b.at)))
            })
        }
        Record::Answered(answered) if matches!(answered.answer, AnswerRecord::Committed { .. }) => {
            let txid = txid(answered.number, answered.attempt);
            let applied = state.witness.applied.keys().any(|(other, _)| *other == txid);
            applied || state.witness.untraced.contains(&answered.number)
        }
        _ => true,
    })
}
