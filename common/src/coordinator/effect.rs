//! What goes into the machine and what comes out of it.

use std::fmt;

use crate::ids::Attempt;
use crate::outcome::{
    Aborted, Applied, Call, Heuristic, Prepared, Refusal, Replies, Settled, Vote, Written,
};
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

/// Something happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Input {
    /// The transaction is to begin.
    Begin,
    /// What came of a prepare.
    Prepared {
        /// The branch.
        branch: Branch,
        /// The attempt that the prepare was of.
        attempt: Attempt,
        /// The result.
        call: Call<Prepared>,
    },
    /// What came of a commit.
    Applied {
        /// The branch.
        branch: Branch,
        /// The result.
        call: Call<Applied>,
    },
    /// What came of an abort.
    Aborted {
        /// The branch.
        branch: Branch,
        /// The attempt that the abort was of.
        attempt: Attempt,
        /// The result.
        call: Call<Aborted>,
    },
    /// What came of a settle.
    Settled {
        /// The branch.
        branch: Branch,
        /// The attempt that the settle was of.
        attempt: Attempt,
        /// The result.
        call: Call<Settled>,
    },
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
    /// Send a message to a branch; its result comes back as an input.
    Send {
        /// The branch.
        branch: Branch,
        /// The attempt: together with the transaction's number, the txid.
        attempt: Attempt,
        /// What to say.
        message: Message,
    },
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

/// A message to a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Message {
    /// Stage and vote.
    Prepare,
    /// The same, by the call that may wait for a younger holder.
    PrepareWaiting,
    /// Apply.
    Commit,
    /// Drop and fence; of one phase, also the question whether it was applied.
    Abort,
    /// Say what is kept, and fence if that is nothing: the question of an implicit transaction.
    Settle,
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

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.refusal.code, self.refusal.detail)
    }
}
