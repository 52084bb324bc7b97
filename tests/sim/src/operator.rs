//! The human: accepts a loss that no log can make good, and gives up branches that nobody can redo, each by a record
//! (invariant 16).

use assent_common::TxNumber;
use assent_common::code::ErrorCode;
use assent_common::coordinator::{Branch, Delivery, Problem, State as Phase, Transaction};
use assent_common::time::Micros;
use assent_common::wire::transaction::ParticipantData;

use crate::coordinator::{NOBODY, participant_name, request_of};
use crate::mutants::Mutant;
use crate::oracle::{Step, ensure};
use crate::trace::note;
use crate::world::World;

/// Looks after everything that waits for a human because a Redis lost data.
pub(crate) fn after_losses(world: &mut World) -> Step {
    for c in 0..world.coordinators.len() {
        for at in 0..world.agents.len() {
            if world.coordinators[c].is_up {
                accept_loss(world, c, at)?;
            }
        }
    }
    give_up_what_is_lost(world)
}

fn accept_loss(world: &mut World, c: usize, at: usize) -> Step {
    let data = &world.coordinators[c].core.lanes()[at].data;
    if data.word() != ParticipantData::Lost {
        return Ok(());
    }
    let (name, actor) = (participant_name(at), "operator".to_owned());
    let reason = "there is no other copy".to_owned();
    let now = Micros(world.now_us);
    let core = &mut world.coordinators[c].core;
    if let Ok(loss) = core.accept_loss(&name, actor, reason, NOBODY, now) {
        note!(world, "c{c}: an operator accepts a loss of p{at}: {loss}");
        world.report.accepted += 1;
    }
    world.carry_out(c)
}

fn give_up_what_is_lost(world: &mut World) -> Step {
    for c in 0..world.coordinators.len() {
        if !world.coordinators[c].is_up {
            continue;
        }
        let is_hasty = world.config.is(Mutant::OperatorIsHasty);
        for number in world.coordinators[c].active() {
            let Some(active) = world.coordinators[c].core.active(number) else { continue };
            let request = request_of(active);
            for branch in hopeless(&active.machine, is_hasty) {
                // It may die of giving up the one before.
                if world.coordinators[c].is_up {
                    give_up(world, c, number, request, branch)?;
                }
            }
        }
    }
    Ok(())
}

fn give_up(world: &mut World, c: usize, number: TxNumber, request: usize, branch: Branch) -> Step {
    let asked = &world.requests[request];
    let (at, id) = (asked.branches[branch.index()].at, asked.id);
    ensure(world.oracle.has_lost(at), "16 a branch is given up after a loss only", || {
        format!("c{c}: {number:?} at p{at}")
    })?;
    note!(world, "c{c}: an operator gives up {}.{} at p{at}", number.epoch, number.n);
    world.report.given_up += 1;
    let by = ("operator".to_owned(), "its Redis lost data".to_owned());
    let name = participant_name(at);
    // It may have ended, or be undecided again, by now.
    world.turn(c, |core, now| drop(core.abandon(id, &name, by, NOBODY, now)))
}

/// Branches whose participant has said, clearly, that it cannot do what it is told. Only a mutant does not wait for
/// that.
fn hopeless(machine: &Transaction, is_hasty: bool) -> Vec<Branch> {
    // Quarantine ends when the agent is resynchronised; what is told then counts.
    let is_refused = |delivery: &Delivery| match delivery {
        Delivery::Due { problem: Problem::Refused { code, .. }, .. } => {
            *code != ErrorCode::Quarantined
        }
        Delivery::Due { .. } => is_hasty,
        _ => false,
    };
    match machine.state() {
        Phase::Committing(committing) => (0..)
            .map(Branch)
            .zip(&committing.deliveries)
            .filter(|(_, delivery)| is_refused(delivery))
            .map(|(branch, _)| branch)
            .collect(),
        Phase::Closing(_) => {
            let strays = machine.strays().iter();
            strays.filter(|stray| is_refused(&stray.delivery)).map(|stray| stray.branch).collect()
        }
        _ => Vec::new(),
    }
}
