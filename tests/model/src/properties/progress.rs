//! That everything ends once nothing goes wrong any more, and that the paths which matter are explored.

use assent_common::branch::{BranchAnswer, BranchMessage};
use assent_common::code::ErrorCode;
use assent_common::coordinator::{PrepareCall, State as Phase};
use assent_common::outcome::Settled;
use assent_common::outcome::{Call, Prepared};
use assent_common::wire::branch::BranchState;

use crate::config::{Client, Config, Questions};
use crate::state::{From, State, Told};
use crate::world::World;

/// A state in which nothing can happen without a fault is an end: every transaction ended, every client that can ask
/// answered, nothing staged, nothing locked, and all markers collected.
///
/// Steps without faults never lead in a circle (see the test of that name), so that each run of them comes to such a
/// state: together this is liveness.
pub(super) fn quiet_means_ended(world: &World, state: &State) -> bool {
    has_ended(world, state) || !world.is_quiet(state)
}

fn has_ended(world: &World, state: &State) -> bool {
    let answered = |client: usize| {
        let lives = state.witness.numbers(client).count();
        let gave_up =
            !world.config.clients[client].is_keyed() && state.budget != world.config.budget;
        lives > 0 && (gave_up || state.witness.told.contains_key(&client))
    };
    state.active.is_empty()
        && state.log.pending() == 0
        && (0..world.config.clients.len()).all(answered)
        && state.participants.iter().all(|participant| {
            let swept =
                !state.budget.marks || participant.markers() == participant.left_behind().count();
            participant.staged().is_empty() && participant.locks().is_empty() && swept
        })
}

type Concerns = fn(&Config) -> bool;
type Met = fn(&World, &State) -> bool;

/// Paths that must be among those explored, each for the configurations that have it.
pub(super) const SOMETIMES: &[(&str, Concerns, Met)] = &[
    ("met: a commit", may_commit, commit),
    ("met: an abort", may_abort, abort),
    (
        "met: two that hold one counter",
        |config| config.has_room() && has_two_phases(config),
        shared,
    ),
    (
        "met: a commit finished by the next life",
        |config| config.budget.crashes > 0 && has_two_phases(config),
        recovered,
    ),
    (
        "met: a branch that learns its outcome by asking",
        |config| {
            config.budget.questions == Questions::Later
                && config.budget.crashes > 0
                && has_two_phases(config)
        },
        asked,
    ),
    (
        "met: a prepare that comes after its fence",
        |config| config.budget.losses > 0 && has_two_phases(config),
        late_prepare,
    ),
    (
        "met: a commit delivered twice",
        |config| config.budget.losses > 0 && has_two_phases(config) && may_commit(config),
        commit_again,
    ),
    (
        "met: a prepare of a life that is over",
        |config| config.budget.crashes > 0 && config.budget.marks,
        old_prepare,
    ),
    ("met: a wait for a younger holder", may_wait, wait),
    (
        "met: a retried attempt that goes through",
        |config| may_wait(config) && config.attempts > 1,
        retried,
    ),
    ("met: a branch that is lost", |config| config.budget.rollbacks > 0, lost),
    ("met: data that is not the agent's", |config| config.budget.replacements > 0, quarantined),
    ("met: a branch given up", |config| config.budget.overrides > 0, given_up),
    (
        "met: a commit that no log knows, finished by asking the branches",
        |config| {
            is_implicit(config) && may_commit(config) && config.budget.questions == Questions::Later
        },
        |world, state| {
            state.asks().any(|ask| {
                ask.from == From::Resolver
                    && ask.message == BranchMessage::Commit
                    && world.config.clients[ask.client].is_implicit()
                    && !state.log.has_decided(ask.txid)
            })
        },
    ),
    (
        "met: a vote that is found by a settle",
        |config| is_implicit(config) && config.budget.losses + config.budget.repeats > 0,
        |_, state| settled_as(state, Settled::Prepared),
    ),
    (
        "met: a branch that is found applied",
        |config| {
            is_implicit(config)
                && may_commit(config)
                && config.budget.losses > 0
                && config.budget.questions != Questions::Never
        },
        |_, state| settled_as(state, Settled::Applied),
    ),
    (
        "met: a question about one phase",
        |config| config.budget.losses > 0 && !has_two_phases(config),
        one_phase_question,
    ),
];

fn is_implicit(config: &Config) -> bool {
    config.clients.iter().all(Client::is_implicit)
}

fn settled_as(state: &State, as_what: Settled) -> bool {
    let is_so = |answer: &BranchAnswer| *answer == BranchAnswer::Settled(Call::Applied(as_what));
    state.answers().any(|(_, answer)| is_so(answer))
}

fn has_two_phases(config: &Config) -> bool {
    config.clients.iter().any(|client| !client.is_one_phase())
}

fn may_commit(config: &Config) -> bool {
    config.clients.iter().all(|client| client.branches.iter().all(|branch| !branch.fails))
}

/// Where all is in escrow, and there is room for all of it, only time can run out.
fn may_abort(config: &Config) -> bool {
    has_two_phases(config) && (config.budget.deadlines || !config.has_room())
}

/// Whether somebody may hold a lock that an older one wants; one phase holds none.
fn may_wait(config: &Config) -> bool {
    let is_shared = config.has_room();
    !is_shared
        && config.clients.iter().any(|younger| {
            let is_older = |other: &Client| other.id < younger.id;
            !younger.is_one_phase() && config.clients.iter().any(is_older)
        })
}

fn commit(world: &World, state: &State) -> bool {
    has_ended(world, state) && state.witness.told.values().any(|told| *told == Told::Committed)
}

fn abort(world: &World, state: &State) -> bool {
    has_ended(world, state) && state.witness.told.values().any(|told| *told == Told::Aborted)
}

fn recovered(_: &World, state: &State) -> bool {
    state.active.iter().any(|(number, active)| {
        let earlier = number.epoch < state.epoch;
        earlier && matches!(active.machine.state(), Phase::Closing(_))
    })
}

fn asked(_: &World, state: &State) -> bool {
    let by_resolver = |message: BranchMessage<PrepareCall>| {
        state.asks().any(|ask| ask.from == From::Resolver && ask.message == message)
    };
    by_resolver(BranchMessage::Commit) || by_resolver(BranchMessage::Abort)
}

fn late_prepare(_: &World, state: &State) -> bool {
    let mut prepares =
        state.asks().filter(|ask| ask.message == BranchMessage::Prepare(PrepareCall::Batched));
    prepares.any(|ask| state.participants[ask.at].state(ask.txid) == Some(BranchState::Aborted))
}

fn commit_again(_: &World, state: &State) -> bool {
    let mut commits = state.asks().filter(|ask| ask.message == BranchMessage::Commit);
    commits.any(|ask| state.participants[ask.at].state(ask.txid) == Some(BranchState::Applied))
}

fn old_prepare(_: &World, state: &State) -> bool {
    let mut prepares =
        state.asks().filter(|ask| ask.message == BranchMessage::Prepare(PrepareCall::Batched));
    prepares.any(|ask| {
        let heard = state.participants[ask.at].heard(ask.txid.log_id);
        heard.is_some_and(|heard| ask.txid.number.epoch < heard.epoch)
    })
}

fn wait(_: &World, state: &State) -> bool {
    state.answers().any(|(_, answer)| {
        matches!(answer, BranchAnswer::Prepared(Call::Applied(Prepared::Wait(_))))
    })
}

fn shared(_: &World, state: &State) -> bool {
    let mut locks = state.participants.iter().flat_map(|participant| participant.locks().iter());
    locks.any(|(_, lock)| lock.owners().count() > 1)
}

fn retried(_: &World, state: &State) -> bool {
    let witness = &state.witness;
    let two_phases = witness.voted.iter().map(|(txid, _)| txid);
    let one_phase = witness.applied.keys().map(|(txid, _)| txid);
    two_phases.chain(one_phase).any(|txid| txid.attempt.0 > 0)
}

fn refused_with(state: &State, code: ErrorCode) -> bool {
    state.answers().any(|(_, answer)| match answer {
        BranchAnswer::Prepared(Call::Refused(refusal))
        | BranchAnswer::Applied(Call::Refused(refusal)) => refusal.code == code,
        _ => false,
    })
}

fn lost(_: &World, state: &State) -> bool {
    refused_with(state, ErrorCode::BranchLost)
}

fn quarantined(_: &World, state: &State) -> bool {
    refused_with(state, ErrorCode::Quarantined)
}

fn given_up(_: &World, state: &State) -> bool {
    state.active.values().any(|active| match active.machine.state() {
        Phase::Closing(closing) => !closing.abandoned.is_empty(),
        _ => false,
    })
}

fn one_phase_question(_: &World, state: &State) -> bool {
    state.asks().any(|ask| ask.from == From::Coordinator && ask.message == BranchMessage::Abort)
}
