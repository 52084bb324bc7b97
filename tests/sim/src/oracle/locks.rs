//! Invariant 13 (and 3): locks, and who holds them.

use assent_common::command::Access;
use assent_common::participant::{Key, Lock, Participant};

use super::{Step, ensure};
use crate::request::{self, BranchPlan, Request, place_of};

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
        wanted += staged.keys.len();
        for key in &staged.keys {
            let is_held = match (control.locks().get(key), access(plan, key)) {
                (Some(Lock::Exclusive(owner, _)), Some(Access::Exclusive)) => owner == txid,
                (Some(Lock::Shared(owners)), Some(Access::Shared)) => owners.contains_key(txid),
                (Some(Lock::Escrow(kind, owners)), Some(Access::Escrow(wanted))) => {
                    *kind == wanted && owners.get(txid).is_some_and(|it| it.reserved.len() == 1)
                }
                _ => false,
            };
            ensure(is_held, CHECK, || format!("p{at}: {txid} does not hold {key:?}"))?;
        }
    }
    ensure(held == wanted, CHECK, || format!("p{at}: {held} locks are held for {wanted} keys"))
}

/// How a branch was to lock a key.
fn access(plan: &BranchPlan, key: &Key) -> Option<Access> {
    let op = plan.ops.iter().find(|op| request::key(op.account) == *key);
    op.map(|op| op.access())
}
