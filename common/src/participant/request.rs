//! What a branch is prepared with, and what a step comes to.

use std::sync::Arc;

use super::escrow::Claimed;
use crate::branch::BranchAnswer;
use crate::command::Access;
use crate::ids::TransactionId;
use crate::outcome::{Redo, Refusal, Replies};
use crate::value::Arg;
use crate::wire::branch::{BranchAddress, Mode};

/// A key, as its Redis has it: any bytes.
pub type Key = Arg;

/// All branches of an implicit transaction; none where a log decides.
pub type Branches = Arc<[BranchAddress]>;

/// How a branch is to be prepared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Prepare {
    /// The public id: the age for wait-die.
    pub id: TransactionId,
    /// Whether a decision follows, or the branch decides alone.
    pub mode: Mode,
    /// All branches, where their votes are the decision.
    pub branches: Branches,
    /// The keys, in the order of their first use.
    pub locks: Vec<(Key, Access)>,
    /// What the ops come to on the present data, under these locks. Evaluation needs Redis and is outside; it is asked
    /// for nothing if the locks cannot be had.
    pub evaluation: Result<Evaluation, Refusal>,
}

/// What the ops of a branch come to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Evaluation {
    /// The replies.
    pub replies: Replies,
    /// The resolved writes; empty for a branch that only reads.
    pub redo: Redo,
    /// What it adds to counters in escrow, if there is room. Their keys are among the locks, and each counter is there once.
    pub claims: Vec<Claimed>,
}

/// The answer to a message, and what the same step does to the keyspace. A step is one script, so
/// that its result is never unknown: that is the transport's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Stepped {
    /// The answer.
    pub answer: BranchAnswer,
    /// The writes that are applied in this step; each branch's come once (invariant 8).
    pub apply: Option<Redo>,
}

impl Stepped {
    /// Of a step that applies the writes of a branch.
    pub(super) const fn applying(answer: BranchAnswer, redo: Redo) -> Self {
        Self { answer, apply: Some(redo) }
    }
}

impl From<BranchAnswer> for Stepped {
    fn from(answer: BranchAnswer) -> Self {
        Self { answer, apply: None }
    }
}
