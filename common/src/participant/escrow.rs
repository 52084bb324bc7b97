//! Who adds to a counter in escrow, and whether there is room for one more.
//!
//! With `value` the one in the keyspace, `low` it and all pending deltas below zero, `high` it and all above zero: the
//! outcomes of the holders take the value nowhere else. The rule is that of every holder at once, the new one included:
//! `floor <= low` and `high <= ceiling`. As both ends only come closer when holders end, what held at the vote holds until the
//! outcome, in whatever order outcomes come, at however many counters and participants: any order of the holders is right,
//! so that of their decisions is.

use crate::command::{Claim, Range, Reserved};
use crate::ids::{TransactionId, Txid};
use crate::outcome::Refusal;
use crate::value::Arg;

/// A counter of a key: the field of a hash, or none for the number in a string.
pub type Counter = Option<Arg>;

/// One transaction that adds to counters of a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Escrow {
    /// Its public id.
    pub id: TransactionId,
    /// What it has reserved, in the order of its claims; each counter once.
    pub reserved: Vec<(Counter, Reserved)>,
}

/// A claim, and the counter's value in the keyspace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Claimed {
    /// The claim.
    pub claim: Claim,
    /// The value; 0 where there is none.
    pub value: i64,
}

/// Whether a claim can be granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// By every outcome of the others.
    Granted,
    /// Not as long as these hold the counter.
    Blocked(Vec<(Txid, TransactionId)>),
    /// By no outcome of the others.
    Never(Refusal),
}

/// What the others may make of a counter.
pub(super) fn range<'a>(value: i64, others: impl Iterator<Item = &'a Reserved>) -> Range {
    others.fold(Range::of(value), |range, other| range.with(other.delta))
}

/// The rule.
pub(super) fn judge(
    claim: &Claim,
    value: i64,
    others: &[(Txid, TransactionId, Reserved)],
) -> Verdict {
    let range = range(value, others.iter().map(|(_, _, reserved)| reserved));
    let (needs, delta) = (claim.needs(), claim.delta());
    if range.high < needs.low || range.low > needs.high {
        return Verdict::Never(claim.refusal(range));
    }
    // Any outcome may make or take the room; those that add nothing are not to blame.
    let is_short = range.low < needs.low || range.high > needs.high;
    let all = range.with(delta);
    let is_blocking = |other: &Reserved| {
        is_short && other.delta != 0
            || delta < 0 && all.low < other.floor
            || delta > 0 && all.high > other.ceiling
    };
    let blocking: Vec<_> = others
        .iter()
        .filter(|(_, _, reserved)| is_blocking(reserved))
        .map(|(txid, id, _)| (*txid, *id))
        .collect();
    if blocking.is_empty() { Verdict::Granted } else { Verdict::Blocked(blocking) }
}
