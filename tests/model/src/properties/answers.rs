//! Invariants 15 and 16, and what clients hear.

use assent_common::coordinator::{Delivery, State as Phase};
use assent_common::record::Record;
use assent_common::wire::branch::BranchState;

use super::never;
use crate::state::{Breach, State, Told};
use crate::world::World;

/// Whether a transaction committed, however it did.
fn committed(world: &World, state: &State, client: usize) -> usize {
    let numbers = state.witness.numbers(client);
    let is_committed = |number: &assent_common::TxNumber| {
        state.log.decisions().any(|decision| decision.number == *number)
            || state.has_decided(*number, &world.config)
            || state.witness.applied.keys().any(|(txid, _)| txid.number == *number)
    };
    numbers.filter(is_committed).count()
}

/// 15: a transaction goes on to another attempt only when nothing of the one before was or can be applied: its branches
/// are not staged for a decision, nothing of it is applied.
pub(super) fn no_rerun_while_unclear(world: &World, state: &State) -> bool {
    state.active.iter().all(|(number, active)| {
        let attempt = active.machine.attempt();
        let of_earlier = |txid: &assent_common::Txid| {
            txid.number == *number
                && txid.attempt < attempt
                && !matches!(active.machine.state(), Phase::Closing(_))
        };
        let applied = state.witness.applied.keys().any(|(txid, _)| of_earlier(txid));
        let decided = state.log.decisions().any(|decision| {
            decision.number == *number
                && decision.attempt < attempt
                && !matches!(active.machine.state(), Phase::Closing(_))
        });
        let done = state.participants.iter().any(|participant| {
            let earlier = state.witness.voted.iter().map(|(txid, _)| *txid);
            earlier
                .filter(of_earlier)
                .any(|txid| participant.state(txid) == Some(BranchState::Applied))
        });
        let voted = state.witness.voted.iter().map(|(txid, _)| *txid);
        let by_votes =
            voted.filter(|txid| of_earlier(txid)).any(|txid| state.is_decided(txid, &world.config));
        !applied && !decided && !by_votes && !done
    })
}

/// 15, and the promise of one key: however often a request was sent or run, it took effect once.
pub(super) fn one_request_one_commit(world: &World, state: &State) -> bool {
    (0..world.config.clients.len()).all(|client| {
        let attempts = state.witness.applied.keys().filter(|(txid, at)| {
            let branches = &world.config.clients[client].branches;
            let is_first = branches.first().is_some_and(|branch| branch.at == *at);
            is_first && state.witness.numbers(client).any(|number| number == txid.number)
        });
        committed(world, state, client) <= 1 && attempts.count() <= 1
    })
}

/// 16: what is given up was given up by a record of an operator's.
pub(super) fn override_is_an_operators(_: &World, state: &State) -> bool {
    state.active.iter().all(|(number, active)| {
        let given_up = match active.machine.state() {
            Phase::Committing(committing) => committing.deliveries.contains(&Delivery::Abandoned),
            Phase::Closing(closing) => !closing.abandoned.is_empty(),
            _ => false,
        };
        let is_recorded =
            |record: &Record| matches!(record, Record::Abandoned(a) if a.number == *number);
        !given_up || state.log.on_disk().iter().any(is_recorded)
    })
}

/// What a client hears never changes, over restarts too.
pub(super) fn one_outcome(_: &World, state: &State) -> bool {
    state.witness.told.values().all(|told| *told != Told::Both)
}

/// `committed` is told of what committed, `aborted` of what did not and never does.
pub(super) fn told_is_true(world: &World, state: &State) -> bool {
    state.witness.told.iter().all(|(client, told)| match told {
        Told::Committed => {
            let mut numbers = state.witness.numbers(*client);
            committed(world, state, *client) == 1
                || numbers.any(|number| state.witness.untraced.contains(&number))
        }
        Told::Aborted => committed(world, state, *client) == 0,
        Told::Both => false,
    })
}

/// `applied` is said only when every branch that writes has applied.
pub(super) fn said_applied(_: &World, state: &State) -> bool {
    never(state, Breach::SaidAppliedTooEarly)
}

/// Of the model itself: an input without a transition would hide what comes after it.
pub(super) fn no_impossible_input(_: &World, state: &State) -> bool {
    never(state, Breach::NoTransition)
}
