//! Escrow: many add to one counter at once, and each is right.

use assent_common::branch::BranchAnswer;
use assent_common::code::ErrorCode;
use assent_common::outcome::{Call, Prepared};

use super::never;
use crate::state::{Breach, State};
use crate::world::World;

/// The value is within the bounds of a branch whenever what it adds is applied, in whatever order that comes.
pub(super) fn bounds_hold(_: &World, state: &State) -> bool {
    never(state, Breach::BoundBroken)
}

/// And it will be: by every outcome of those who hold the counter.
pub(super) fn bounds_will_hold(world: &World, state: &State) -> bool {
    (0..).zip(&state.participants).all(|(at, participant)| {
        let holders = || {
            participant.staged().values().filter_map(move |staged| {
                let client = world.config.clients.iter().find(|client| client.id == staged.id)?;
                client.branches.iter().find(|branch| branch.at == at)?.adds
            })
        };
        let value = state.counters[at];
        holders().enumerate().all(|(place, adds)| {
            let others = || holders().enumerate().filter(|(other, _)| *other != place);
            let low: i64 = others().map(|(_, other)| other.delta.min(0)).sum();
            let high: i64 = others().map(|(_, other)| other.delta.max(0)).sum();
            value + low + adds.delta >= adds.at_least && value + high + adds.delta <= adds.at_most
        })
    })
}

/// The point of it: where there is room for all, nobody waits for another, and nobody dies of one.
pub(super) fn room_is_for_all(world: &World, state: &State) -> bool {
    let is_in_the_way = |answer: &BranchAnswer| match answer {
        BranchAnswer::Prepared(Call::Applied(Prepared::Wait(_))) => true,
        BranchAnswer::Prepared(Call::Refused(refusal)) => refusal.code == ErrorCode::LockConflict,
        _ => false,
    };
    !world.config.has_room() || !state.answers().any(|(_, answer)| is_in_the_way(answer))
}

/// What is in the counter is what the applied branches have added, each once.
pub(super) fn nothing_is_lost(world: &World, state: &State) -> bool {
    state.counters.iter().enumerate().all(|(at, value)| {
        let applied = state.witness.applied.keys().filter(|(_, place)| *place == at);
        let added: i64 = applied
            .filter_map(|(txid, _)| {
                let began = state.witness.began.iter().find(|it| it.number == txid.number)?;
                let branches = &world.config.clients[began.client].branches;
                Some(branches.iter().find(|branch| branch.at == at)?.adds?.delta)
            })
            .sum();
        *value == world.config.stock + added
    })
}
