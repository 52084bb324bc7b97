//! Invariants 10 and 12: what may be forgotten, and on which data a script may run.

use assent_common::coordinator::Branch;
use assent_common::participant::Participant;
use assent_common::wire::branch::BranchState;

use super::never;
use crate::state::{Breach, INCARNATION, State};
use crate::world::World;

/// 10: no participant has heard of a mark above a transaction that is under way and of which it may hear again.
pub(super) fn covers_only_what_has_ended(world: &World, state: &State) -> bool {
    state.active.iter().all(|(number, active)| {
        let branches = &world.config.clients[active.client].branches;
        (0..).map(Branch).zip(branches).all(|(branch, planned)| {
            active.machine.is_over_at(branch) || state.mark(planned.at) <= *number
        })
    })
}

/// 10: a prepare below the mark stages and applies nothing.
pub(super) fn below_mark_is_refused(_: &World, state: &State) -> bool {
    never(state, Breach::BelowMarkStaged)
}

/// 10: of what is not below the mark, nothing is forgotten.
pub(super) fn markers_above_the_mark_are_kept(_: &World, state: &State) -> bool {
    let is_kept = |(txid, at): &(assent_common::Txid, usize), expected: BranchState| {
        txid.number < state.mark(*at) || state.participants[*at].state(*txid) == Some(expected)
    };
    state.witness.applied.keys().all(|branch| is_kept(branch, BranchState::Applied))
        && state.witness.aborted.iter().all(|branch| is_kept(branch, BranchState::Aborted))
}

/// 10, and condition (c) of implicit transactions: who settles a staged branch must find every applied one.
pub(super) fn applied_is_found(_: &World, state: &State) -> bool {
    let staged = state.participants.iter().flat_map(|participant| participant.staged());
    let mut implicit = staged.filter(|(_, staged)| !staged.branches.is_empty());
    implicit.all(|(txid, _)| {
        let mut applied = state.witness.applied.keys().filter(|(other, _)| other == txid);
        applied.all(|(_, at)| state.participants[*at].state(*txid) == Some(BranchState::Applied))
    })
}

/// 12: data that is not that of the agent's start is not touched.
pub(super) fn nothing_runs_on_other_data(_: &World, state: &State) -> bool {
    state.participants.iter().all(|participant| {
        let incarnation = participant.incarnation();
        incarnation == INCARNATION || **participant == Participant::new(incarnation)
    })
}
