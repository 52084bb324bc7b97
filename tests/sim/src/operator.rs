//! The human: accepts a loss that no log can make good, and gives up branches that nobody can redo, each by a record
//! (invariant 16).

use assent_common::TxNumber;
use assent_common::code::ErrorCode;
use assent_common::coordinator::{Branch, Delivery, Input, Problem, State as Phase, Transaction};
use assent_common::record::{Abandoned, LossAccepted, Record};
use assent_common::time::Millis;

use crate::coordinator::participant_name;
use crate::mutants::Mutant;
use crate::oracle::{Step, ensure};
use crate::trace::note;
use crate::world::World;

/// Looks after everything that waits for a human because a Redis lost data.
pub(crate) fn after_losses(world: &mut World) -> Step {
    for c in 0..world.coordinators.len() {
        for at in 0..world.agents.len() {
            if world.coordinators[c].is_up {
                accept_loss(world, c, at);
            }
        }
    }
    give_up_what_is_lost(world)
}

fn accept_loss(world: &mut World, c: usize, at: usize) {
    let data = &mut world.coordinators[c].data[at];
    let Some(loss) = data.loss.take().filter(|loss| data.accepted.as_ref() != Some(loss)) else {
        return;
    };
    data.accepted = Some(loss.clone());
    let loss = loss.to_string();
    note!(world, "c{c}: an operator accepts a loss of p{at}: {loss}");
    world.report.accepted += 1;
    let record = Record::LossAccepted(LossAccepted {
        participant: participant_name(at),
        loss,
        actor: "operator".to_owned(),
        reason: "there is no other copy".to_owned(),
        at: Millis(0),
    });
    world.append(c, record, true);
}

fn give_up_what_is_lost(world: &mut World) -> Step {
    for c in 0..world.coordinators.len() {
        if !world.coordinators[c].is_up {
            continue;
        }
        let is_hasty = world.config.is(Mutant::OperatorIsHasty);
        let active = world.coordinators[c].active.iter();
        let hopeless: Vec<_> = active
            .flat_map(|(number, active)| {
                let branches = hopeless(&active.machine, is_hasty).into_iter();
                branches.map(|branch| (*number, active.request, branch))
            })
            .collect();
        for (number, request, branch) in hopeless {
            // It may die of giving up the one before.
            if !world.coordinators[c].is_up {
                break;
            }
            give_up(world, c, number, request, branch)?;
        }
    }
    Ok(())
}

fn give_up(world: &mut World, c: usize, number: TxNumber, request: usize, branch: Branch) -> Step {
    let asked = &world.requests[request];
    let at = asked.branches[branch.index()].at;
    ensure(world.oracle.has_lost(at), "16 a branch is given up after a loss only", || {
        format!("c{c}: {number:?} at p{at}")
    })?;
    note!(world, "c{c}: an operator gives up {}.{} at p{at}", number.epoch, number.n);
    world.report.given_up += 1;
    let Some(active) = world.coordinators[c].active.get(&number) else { return Ok(()) };
    let attempt = active.machine.attempt();
    let record = Record::Abandoned(Abandoned {
        number,
        id: asked.id,
        participant: participant_name(at),
        actor: "operator".to_owned(),
        reason: "its Redis lost data".to_owned(),
        at: Millis(0),
        attempt: Some(attempt),
    });
    // An operator waits for the disk before the machine hears.
    world.oracle.durable(c, &record, &world.requests)?;
    world.append(c, record, true);
    world.feed(c, number, Input::Abandon { branch, attempt })
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
