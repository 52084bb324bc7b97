//! Escrow: accounts that many add to at once, each within its bounds.

use super::{Step, ensure};
use crate::redis::Data;
use crate::request::{Adds, BranchPlan, OpKind, Request, place_of};

/// A branch has just been applied: the balances are within what it was promised, save of accounts
/// that the data `lacks` a change of.
pub(super) fn bounds_hold(
    plan: &BranchPlan,
    data: &Data,
    lacks: impl Fn(usize) -> bool,
    text: impl Fn() -> String,
) -> Step {
    for op in &plan.ops {
        let OpKind::Escrow(Adds { at_least, at_most, .. }) = op.kind else { continue };
        if lacks(op.account) {
            continue;
        }
        let balance = data.balances[op.account];
        let holds = (at_least..=at_most).contains(&balance);
        ensure(holds, "8 a bound in escrow holds by every outcome", || {
            format!("{}: account {} holds {balance}", text(), op.account)
        })?;
    }
    Ok(())
}

/// Whatever becomes of the branches in doubt, in whatever order, each of them will be right.
pub(super) fn bounds_will_hold(at: usize, data: &Data, requests: &[Request]) -> Step {
    let holders = || {
        data.control.staged().iter().flat_map(move |(txid, staged)| {
            let branches = requests[place_of(staged.id)].branches.iter();
            let ops = branches.filter(move |branch| branch.at == at).flat_map(|plan| &plan.ops);
            ops.filter_map(move |op| match op.kind {
                OpKind::Escrow(adds) => Some((*txid, op.account, adds)),
                OpKind::Read | OpKind::Add(_) => None,
            })
        })
    };
    for (txid, account, Adds { amount, at_least, at_most }) in holders() {
        let others = || holders().filter(move |(it, of, _)| *it != txid && *of == account);
        let least: i64 = others().map(|(.., other)| other.amount.min(0)).sum();
        let most: i64 = others().map(|(.., other)| other.amount.max(0)).sum();
        let balance = data.balances[account] + amount;
        let holds = balance + least >= at_least && balance + most <= at_most;
        ensure(holds, "8 a bound in escrow holds by every outcome", || {
            format!("p{at}: account {account} may come to {} for {txid}", balance + least)
        })?;
    }
    Ok(())
}
