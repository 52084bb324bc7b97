//! What a participant is asked, and what it answers.

use std::sync::Arc;

use super::escrow::Claimed;
use crate::command::Access;
use crate::ids::{Epoch, LogId, TransactionId, TxNumber, Txid};
use crate::outcome::{Aborted, Applied, Call, Prepared, Redo, Refusal, Replies, Settled};
use crate::value::Arg;
use crate::wire::branch::{BranchAddress, Mode};

/// A key, as its Redis has it: any bytes.
pub type Key = Arg;

/// All branches of an implicit transaction; none where a log decides.
pub type Branches = Arc<[BranchAddress]>;

/// One call of a script.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Request {
    /// Lock, stage and vote; of one phase, apply at once.
    Prepare(Prepare),
    /// Apply what is staged.
    Commit(Txid),
    /// Drop what is staged, and fence.
    Abort(Txid),
    /// Fence if nothing is kept, and say what is.
    Settle(Txid),
    /// What a coordinator says of itself with every batch; both only ever rise.
    LowWater {
        /// The log that speaks.
        log_id: LogId,
        /// Its process life.
        epoch: Epoch,
        /// Every transaction of this log below this number has ended, as far as this participant is concerned.
        mark: TxNumber,
    },
    /// Collect the done-markers and fences below the marks.
    Sweep,
    /// Drop the done-marker of an implicit transaction that was left behind: no other branch of it is in doubt.
    Forget(Txid),
}

/// A branch that is to be prepared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Prepare {
    /// The branch's transaction.
    pub txid: Txid,
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

/// The answer to a request, and what the same step does to the keyspace.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Stepped {
    /// The answer.
    pub answer: Answer,
    /// The writes that are applied in this step; each branch's come once (invariant 8).
    pub apply: Option<Redo>,
}

/// The answer to a request. A step here is one script, so that its result is never unknown: that is the transport's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Answer {
    /// To a prepare.
    Prepared(Call<Prepared>),
    /// To a commit.
    Applied(Call<Applied>),
    /// To an abort.
    Aborted(Call<Aborted>),
    /// To a settle.
    Settled(Call<Settled>),
    /// To a low-water mark, a sweep or a word to forget that was taken.
    Noted,
    /// To one that was not.
    Refused(Refusal),
}

impl Answer {
    /// The writes of a branch that this step applies.
    pub(super) const fn applying(self, redo: Redo) -> Stepped {
        Stepped { answer: self, apply: Some(redo) }
    }
}

impl From<Answer> for Stepped {
    fn from(answer: Answer) -> Self {
        Self { answer, apply: None }
    }
}

impl Request {
    /// The branch that the request is about, if it is about one.
    #[must_use]
    pub const fn txid(&self) -> Option<Txid> {
        match self {
            Self::Prepare(prepare) => Some(prepare.txid),
            Self::Commit(txid) | Self::Abort(txid) | Self::Settle(txid) | Self::Forget(txid) => {
                Some(*txid)
            }
            Self::LowWater { .. } | Self::Sweep => None,
        }
    }

    /// The same refusal, as the answer to this request.
    pub(super) fn refused(&self, refusal: Refusal) -> Answer {
        match self {
            Self::Prepare(_) => Answer::Prepared(Call::Refused(refusal)),
            Self::Commit(_) => Answer::Applied(Call::Refused(refusal)),
            Self::Abort(_) => Answer::Aborted(Call::Refused(refusal)),
            Self::Settle(_) => Answer::Settled(Call::Refused(refusal)),
            Self::LowWater { .. } | Self::Sweep | Self::Forget(_) => Answer::Refused(refusal),
        }
    }
}
