//! What goes into the machine and what comes out of it.

use std::fmt;

use crate::branch::{BranchAnswer, BranchMessage};
use crate::ids::Attempt;
use crate::limits;
use crate::outcome::{Heuristic, Refusal, Replies, Vote, Written};
use crate::time::Millis;

/// The place of a branch in its transaction, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Branch(pub u16);

impl Branch {
    /// The place as an index.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Some of the branches of a transaction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct BranchSet(u64);

const _: () = assert!(limits::BRANCHES_MAX <= u64::BITS as usize, "a bit for each branch");

impl BranchSet {
    /// None.
    pub const NONE: Self = Self(0);

    /// This branch as well.
    #[must_use]
    pub const fn with(self, branch: Branch) -> Self {
        Self(self.0 | Self::bit(branch))
    }

    /// Whether this branch is among them.
    #[must_use]
    pub const fn has(self, branch: Branch) -> bool {
        self.0 & Self::bit(branch) != 0
    }

    /// None for a branch that no transaction can have.
    const fn bit(branch: Branch) -> u64 {
        match 1_u64.checked_shl(branch.0 as u32) {
            Some(bit) => bit,
            None => 0,
        }
    }
}

impl FromIterator<Branch> for BranchSet {
    fn from_iter<I: IntoIterator<Item = Branch>>(branches: I) -> Self {
        branches.into_iter().fold(Self::NONE, Self::with)
    }
}

/// A message to a branch of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ToBranch {
    /// The branch.
    pub branch: Branch,
    /// The attempt: together with the transaction's number, the txid.
    pub attempt: Attempt,
    /// What it is told.
    pub message: BranchMessage<PrepareCall>,
}

/// By which call a prepare is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PrepareCall {
    /// In a batch, where nothing waits.
    Batched,
    /// Alone, so that it may wait for a younger holder.
    Waiting,
}

/// What came of a message to a branch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FromBranch {
    /// The branch.
    pub branch: Branch,
    /// The attempt that the message was of.
    pub attempt: Attempt,
    /// The result.
    pub answer: BranchAnswer,
}

impl ToBranch {
    /// This came of it.
    #[must_use]
    pub const fn answered(self, answer: BranchAnswer) -> FromBranch {
        let Self { branch, attempt, .. } = self;
        FromBranch { branch, attempt, answer }
    }
}

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Input {
    /// The transaction is to begin.
    Begin,
    /// What came of a message to a branch.
    Answered(FromBranch),
    /// The record handed to the log first of those that are not, is durable.
    Persisted,
    /// The moment of [`Transaction::wake_at`](super::Transaction::wake_at) has come.
    Tick,
    /// An operator wants everything that waits to be sent now.
    RetryNow,
    /// An operator gives up a branch of an attempt; that is recorded already (invariant 16). While
    /// it was being written the attempt may have been aborted: it says nothing of the next one.
    Abandon {
        /// The branch.
        branch: Branch,
        /// The attempt that the record names.
        attempt: Attempt,
    },
    /// What [`Effect::Note`] asked for is durable; or the log had it at the start.
    Noted(Note),
    /// The data that the branch may have voted on is no more: its vote counts for nothing, whether it has been heard or
    /// not (invariant 12). A decision stands, and is redone.
    DataLost(Branch),
}

/// Something is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Tell a branch; what comes of it is an [`Input::Answered`].
    Send(ToBranch),
    /// Append a record; when it is durable, [`Input::Persisted`] comes back.
    Persist(Entry),
    /// Write down what is known of branches; when it is durable, [`Input::Noted`] comes back, whatever the order of other
    /// records.
    Note(Note),
    /// Tell the client. Comes once.
    Answer(Outcome),
}

/// What the log is to know of branches, beside the transaction's own records.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Note {
    /// These have acknowledged the commit, while another one does not. Lazy: what is lost of it is said again.
    Acknowledged(Vec<Branch>),
    /// An operator ended a branch by hand, against the outcome. Lazy: until it is durable, the branch says it again.
    EndedByHand {
        /// The branch.
        branch: Branch,
        /// How it ended there.
        outcome: Heuristic,
        /// Who did it and why, in the participant's words.
        detail: String,
    },
}

/// A record for the log; the shell adds who asked for what.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Entry {
    /// A one-phase attempt is about to be sent. Forced.
    Begun(Attempt),
    /// The decision. Forced; of an implicit transaction it is lazy, because the votes are the decision.
    Committed {
        /// The attempt that commits.
        attempt: Attempt,
        /// The votes, in the order of the branches.
        votes: Vec<Vote>,
        /// When it was decided.
        decided_at: Millis,
    },
    /// Every branch has acknowledged the commit. Lazy.
    Ended,
    /// The answer of a transaction without a decision record. Forced if the client waits for it, else lazy.
    Answered {
        /// The attempt that it ended with.
        attempt: Attempt,
        /// When it was decided.
        decided_at: Millis,
        /// The answer.
        outcome: Outcome,
        /// What a committed one-phase branch wrote, where it said so.
        written: Option<Written>,
    },
}

/// How a transaction came out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Every branch applies.
    Committed {
        /// Whether every branch has, as far as is known.
        applied: bool,
        /// The replies, in the order of the branches.
        replies: Vec<Replies>,
    },
    /// No branch applies.
    Aborted(Failure),
}

/// Why a transaction, or an attempt of it, was aborted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Failure {
    /// The branch to blame, where there is one.
    pub branch: Option<Branch>,
    /// Why.
    pub refusal: Refusal,
}

impl Effect {
    pub(super) const fn send(
        branch: Branch,
        attempt: Attempt,
        message: BranchMessage<PrepareCall>,
    ) -> Self {
        Self::Send(ToBranch { branch, attempt, message })
    }

    pub(super) const fn prepare(branch: Branch, attempt: Attempt, call: PrepareCall) -> Self {
        Self::send(branch, attempt, BranchMessage::Prepare(call))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.refusal.code, self.refusal.detail)
    }
}
