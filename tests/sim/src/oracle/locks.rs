//! Invariant 13 (and 3): locks, and who holds them.

use assent_common::command::Access;
use assent_common::participant::{Lock, Participant};

use super::{Step, ensure};
use crate::request::{Request, place_of};

const CHECK: &str = "13 locks are held by the votes, and by nobody else";

/// What is staged holds its locks, as strongly as it asked for them, and nobody else holds any.
pub(super) fn are_the_votes(at: usize, control: &Participant, requests: &[Request]) -> Step {
    let mut held = 0;
    for (key, lock) in control.locks().iter() {
        for (owner, _) in lock.owners() {
            held += 1;
            let is_staged = control.staged().contains_key(&owner);
            ensure(is_staged, CHECK, || format!("p{at}: {key:?} is held by {owner}"))?;
        }
    }
    let mut wanted = 0;
    for (txid, staged) in control.staged() {
        let mut branches = requests[place_of(staged.id)].branches.iter();
        let plan = branches.find(|branch| branch.at == at).expect("a branch");
        wanted += plan.ops.len();
        for key in &staged.keys {
            let is_held = match control.locks().get(key) {
                Some(Lock::Exclusive(owner, _)) => owner == txid,
                Some(Lock::Shared(owners)) => owners.contains_key(txid) && has_reader(plan),
                None => false,
            };
            ensure(is_held, CHECK, || format!("p{at}: {txid} does not hold {key:?}"))?;
        }
    }
    ensure(held == wanted, CHECK, || format!("p{at}: {held} locks are held for {wanted} keys"))
}

fn has_reader(plan: &crate::request::BranchPlan) -> bool {
    plan.ops.iter().any(|op| op.access() == Access::Shared)
}
