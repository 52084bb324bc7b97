//! Invariants 8, 9, 11, 14: an outcome reaches every branch, once, and is acknowledged for what it is.

use assent_common::record::Record;
use assent_common::{Attempt, Txid};

use super::never;
use crate::state::{Breach, State, log_id};
use crate::world::World;

/// 8: the writes of a branch reach the keyspace once at most.
pub(super) fn applied_once(_: &World, state: &State) -> bool {
    state.witness.applied.values().all(|times| *times <= 1)
}

/// 8: a branch of several is applied only when the decision is on disk: in the log, or as all votes.
pub(super) fn applied_only_when_decided(world: &World, state: &State) -> bool {
    state.witness.applied.keys().all(|(txid, _)| {
        let began = state.witness.began.iter().find(|began| began.number == txid.number);
        let is_one_phase = began.is_some_and(|b| world.config.clients[b.client].is_one_phase());
        is_one_phase || state.is_decided(*txid, &world.config)
    })
}

/// The promise itself: of one attempt, no branch is applied (or decided to be) and another dropped.
pub(super) fn all_or_none(world: &World, state: &State) -> bool {
    let witness = &state.witness;
    witness.aborted.iter().all(|(txid, _)| {
        let applied = witness.applied.keys().any(|(other, _)| other == txid);
        !applied && !state.is_decided(*txid, &world.config)
    })
}

/// 9: a commit is acknowledged only by a branch that is applied.
pub(super) fn unknown_is_never_ok(_: &World, state: &State) -> bool {
    never(state, Breach::UnappliedAcknowledged)
}

/// 11: the end is recorded when every branch that writes has applied, or an operator gave it up.
pub(super) fn end_needs_every_branch(world: &World, state: &State) -> bool {
    let records = &state.log.records;
    let attempt_of = |number| {
        records.iter().find_map(|record| match record {
            Record::Committed(committed) if committed.number == number => Some(committed.attempt),
            _ => None,
        })
    };
    records.iter().all(|record| {
        let Record::Ended(ended) = record else { return true };
        let attempt = attempt_of(ended.number).unwrap_or(Attempt::FIRST);
        let txid = Txid { log_id: log_id(), number: ended.number, attempt };
        let began = state.witness.began.iter().find(|began| began.number == ended.number);
        let is_given_up = |name: &str| {
            records.iter().any(|record| {
                matches!(record, Record::Abandoned(a)
                    if a.number == ended.number && a.participant.as_str() == name)
            })
        };
        began.is_some_and(|began| {
            let branches = &world.config.clients[began.client].branches;
            branches.iter().filter(|branch| !branch.reads()).all(|branch| {
                state.witness.applied.contains_key(&(txid, branch.at))
                    || is_given_up(crate::log::participant_name(branch.at).as_str())
            })
        })
    })
}

/// 14: the commit of a staged branch is never answered with a no.
pub(super) fn staged_commits(_: &World, state: &State) -> bool {
    never(state, Breach::StagedCommitRefused)
}
