//! Invariants 6 and 7: what an abort leaves behind, and who may presume one.

use assent_common::Txid;
use assent_common::branch::{BranchAnswer, BranchMessage};
use assent_common::coordinator::State as Phase;
use assent_common::outcome::{Aborted, Call};
use assent_common::wire::branch::BranchState;

use super::never;
use crate::config::Client;
use crate::state::{Breach, From, State};
use crate::world::World;

/// 6: an abort that is acknowledged has its fence, or is below the mark, which fences as well.
pub(super) fn abort_leaves_a_fence(_: &World, state: &State) -> bool {
    state.answers().all(|(ask, answer)| match answer {
        BranchAnswer::Aborted(Call::Applied(Aborted::Fenced)) => {
            let is_fenced =
                state.participants[ask.at].state(ask.txid) == Some(BranchState::Aborted);
            is_fenced || ask.txid.number < state.mark(ask.at)
        }
        _ => true,
    })
}

/// 6: a prepare that meets a fence stages nothing.
pub(super) fn a_fence_holds(_: &World, state: &State) -> bool {
    never(state, Breach::FencedStaged)
}

/// 7: a branch that asked hears `aborted` only of an attempt that is not committed and never will be.
pub(super) fn presumed_abort_is_true(world: &World, state: &State) -> bool {
    let mut told = state
        .asks()
        .filter(|ask| ask.from == From::Resolver && ask.message == BranchMessage::Abort);
    told.all(|ask| {
        let request = &world.config.clients[ask.client];
        if request.is_implicit() {
            return !state.is_decided(ask.txid, &world.config) && is_out(state, request, ask.txid);
        }
        let active = state.active.get(&ask.txid.number);
        let may_commit = active.is_some_and(|active| match active.machine.state() {
            Phase::New | Phase::Beginning { .. } | Phase::OnePhase(_) => true,
            Phase::Preparing(preparing) => preparing.attempt == ask.txid.attempt,
            Phase::Settling(settling) => settling.attempt == ask.txid.attempt,
            Phase::Deciding { attempt, .. } => *attempt == ask.txid.attempt,
            Phase::Committing(committing) => committing.attempt == ask.txid.attempt,
            Phase::Pausing { .. } | Phase::Closing(_) | Phase::Ended(_) => false,
        });
        !may_commit && !state.log.has_decided(ask.txid)
    })
}

/// Whether a branch of it can never be staged, so that nobody can ever find all votes.
fn is_out(state: &State, request: &Client, txid: Txid) -> bool {
    request.branches.iter().any(|branch| {
        let is_fenced = state.participants[branch.at].state(txid) == Some(BranchState::Aborted);
        is_fenced || txid.number < state.mark(branch.at)
    })
}
