//! Invariants 3 and 13: locks, and what they protect.

use assent_common::command::Access;
use assent_common::participant::{Lock, Participant};

use crate::state::State;
use crate::world::World;

/// 13 and 3: what is staged holds its locks, as strongly as it asked for them, and nobody else holds any.
pub(super) fn locks_are_the_votes(world: &World, state: &State) -> bool {
    (0..).zip(&state.participants).all(|(at, participant)| {
        owners_are_staged(participant) && votes_hold_their_locks(world, at, participant)
    })
}

fn owners_are_staged(participant: &Participant) -> bool {
    participant.locks().iter().all(|(key, lock)| {
        lock.owners().all(|(owner, id)| {
            let staged = participant.staged().get(&owner);
            staged.is_some_and(|staged| staged.id == id && staged.keys.contains(key))
        })
    })
}

fn votes_hold_their_locks(world: &World, at: usize, participant: &Participant) -> bool {
    participant.staged().iter().all(|(txid, staged)| {
        let client = world.config.clients.iter().find(|client| client.id == staged.id);
        let branch = client.and_then(|client| client.branches.iter().find(|b| b.at == at));
        branch.is_some_and(|branch| {
            branch.locks.iter().all(|(key, access)| match (participant.locks().get(key), access) {
                (Some(Lock::Exclusive(owner, _)), Access::Exclusive) => owner == txid,
                (Some(Lock::Shared(owners)), Access::Shared) => owners.contains_key(txid),
                (Some(Lock::Escrow(kind, owners)), Access::Escrow(wanted)) => {
                    let reserved = owners.get(txid).map(|escrow| &escrow.reserved);
                    kind == wanted && reserved.is_some_and(|reserved| reserved.len() == 1)
                }
                _ => false,
            })
        })
    })
}

/// 3, and isolation: the keys of a branch in doubt are as they were when it voted, also those that it only read. As every
/// transaction sees all its keys so until its outcome, all are serialisable in the order of their decisions.
pub(super) fn data_waits_for_the_outcome(world: &World, state: &State) -> bool {
    (0..).zip(&state.participants).all(|(at, participant)| {
        participant.staged().iter().all(|(txid, staged)| {
            let client = world.config.clients.iter().find(|client| client.id == staged.id);
            let branch = client.and_then(|client| client.branches.iter().find(|b| b.at == at));
            let seen = state.witness.seen.get(&(*txid, at)).into_iter().flatten();
            let keys = branch.into_iter().flat_map(|branch| &branch.locks).map(|(key, _)| key);
            keys.zip(seen).all(|(key, version)| {
                let now = state.witness.versions.get(&(at, key.clone())).copied().unwrap_or(0);
                now == *version
            })
        })
    })
}
