//! Invariants 1, 2, 3 and the epochs of 5: what a vote is of, and what it is worth.

use assent_common::branch::BranchAnswer;
use assent_common::coordinator::{Branch, State as Phase, VoteState};
use assent_common::outcome::{Call, Prepared, Vote};
use assent_common::wire::branch::BranchState;
use assent_common::{Attempt, TxNumber, Txid};

use super::never;
use crate::state::{Breach, State, log_id};
use crate::world::World;

/// 1: no two executions, of whatever request and process life, have the same number.
pub(super) fn ids_are_never_reused(_: &World, state: &State) -> bool {
    let began = &state.witness.began;
    let is_new =
        |place: usize| began[..place].iter().all(|other| other.number != began[place].number);
    (0..began.len()).all(is_new)
}

/// 5: commit needs all votes of one epoch, so that no prepare of an earlier life may bring one.
pub(super) fn stale_epoch_is_refused(_: &World, state: &State) -> bool {
    never(state, Breach::StaleEpochStaged)
}

/// 2: as soon as a yes is under way, the participant keeps something of the branch; or the mark does.
pub(super) fn yes_is_staged(_: &World, state: &State) -> bool {
    state.answers().all(|(ask, answer)| match answer {
        BranchAnswer::Prepared(Call::Applied(Prepared::Yes(_))) => {
            let is_kept = state.participants[ask.at].state(ask.txid).is_some();
            is_kept || ask.txid.number < state.mark(ask.at)
        }
        _ => true,
    })
}

/// 3: a yes that the coordinator counts on is staged as it was voted; after a decision, staged or applied.
pub(super) fn yes_stands(world: &World, state: &State) -> bool {
    state.active.iter().all(|(number, active)| {
        let branches = &world.config.clients[active.client].branches;
        let stands = |branch: Branch, attempt: Attempt, vote: &Vote, may_be_applied: bool| {
            let at = branches[branch.index()].at;
            is_staged(state, at, *number, attempt, vote, may_be_applied)
        };
        let is_implicit = world.config.clients[active.client].is_implicit();
        match active.machine.state() {
            // Others may have found its end out, and told it, before the coordinator does.
            Phase::Preparing(_) | Phase::Settling(_) if is_implicit => true,
            Phase::Preparing(preparing) => {
                (0..).map(Branch).zip(&preparing.votes).all(|(branch, vote)| match vote {
                    VoteState::Yes(vote) => stands(branch, preparing.attempt, vote, false),
                    VoteState::Later | VoteState::Asked { .. } | VoteState::Resend { .. } => true,
                })
            }
            Phase::Deciding { attempt, votes, .. } => {
                // The decision may be on disk already, and a branch may have learned it by asking the next life.
                (0..).map(Branch).zip(votes).all(|(branch, v)| stands(branch, *attempt, v, false))
            }
            Phase::Committing(committing) => {
                let open = (0..).map(Branch).zip(&committing.votes).zip(&committing.deliveries);
                open.filter(|(_, delivery)| !delivery.is_acknowledged())
                    .all(|((branch, vote), _)| stands(branch, committing.attempt, vote, true))
            }
            _ => true,
        }
    })
}

fn is_staged(
    state: &State,
    at: usize,
    number: TxNumber,
    attempt: Attempt,
    vote: &Vote,
    may_be_applied: bool,
) -> bool {
    let txid = Txid { log_id: log_id(), number, attempt };
    let participant = &state.participants[at];
    match participant.staged().get(&txid) {
        // A vote that nobody heard is not known.
        Some(staged) => staged.vote == *vote || vote.incarnation == 0,
        None => may_be_applied && participant.state(txid) == Some(BranchState::Applied),
    }
}
