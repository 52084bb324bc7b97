//! Where a transaction stands: its states, each owning its data, and nothing that moves them.

use std::hash::{Hash, Hasher};
use std::{fmt, mem};

use super::delivery::Delivery;
use super::effect::{Branch, BranchSet, Failure, Outcome};
use crate::ids::{Attempt, TxNumber};
use crate::outcome::{Heuristic, Holder, Vote};
use crate::time::Millis;
use crate::wire::transaction::{Ack, Protocol};

/// What does not change in a transaction's life.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Spec {
    /// Its place in the log's order.
    pub number: TxNumber,
    /// How many branches it has, at least one.
    pub branches: u16,
    /// When `committed` is answered.
    pub ack: Ack,
    /// Until when it must be decided.
    pub deadline: Millis,
    /// Whether an answer must be durable before it is given.
    pub answer: AnswerDurability,
    /// Whether it writes anything.
    pub purpose: Purpose,
    /// What decides. Of one branch, the branch does.
    pub protocol: Protocol,
    /// What it does where a key is locked.
    pub contention: Contention,
    /// Branches that a hook decides about. The others are asked when these have voted yes: a hook
    /// may take its time, and a branch that has voted holds its locks meanwhile.
    pub hooked: BranchSet,
}

/// What a transaction does where another one has locked a key that it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Contention {
    /// It waits, or tries again, until its time is over.
    Waits,
    /// It is aborted at once: who asked for it has something else to try.
    GivesUp,
}

/// What a transaction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// It only reads: one phase leaves no trace at the branch, so that nobody can be asked for its
    /// answer later.
    Read,
    /// It writes.
    Write,
    /// Its ops only read, and it has a hook, which may write.
    HookDecides,
}

impl Purpose {
    /// Of a branch whose ops only read, or not, and that has a hook, or none.
    #[must_use]
    pub const fn of_branch(only_reads: bool, has_hook: bool) -> Self {
        match (only_reads, has_hook) {
            (false, _) => Self::Write,
            (true, true) => Self::HookDecides,
            (true, false) => Self::Read,
        }
    }
}

/// Whether an answer that needs no decision record must be durable before the client hears it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AnswerDurability {
    /// The client cannot ask again by a key of its own: the record follows lazily.
    Lazy,
    /// The client sent a key or an id: one key is one outcome, over restarts too.
    BeforeAnswer,
}

/// One transaction.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Transaction {
    pub(super) spec: Spec,
    pub(super) state: State,
    /// Aborts of branches of attempts that were given up; they outlive the attempt.
    pub(super) strays: Vec<Stray>,
    /// Branches that an operator ended by hand, against the outcome.
    pub(super) by_hand: Vec<EndedByHand>,
    /// Bytes of the votes that one decision holds.
    pub(super) decision_bytes_max: usize,
}

/// Where the transaction stands; every phase owns its data.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum State {
    /// Not begun.
    New,
    /// One phase: the begin record is on its way to disk.
    Beginning {
        /// The attempt about to be sent.
        attempt: Attempt,
        /// What the attempt before met.
        met: Option<Failure>,
    },
    /// One phase: the only branch decides.
    OnePhase(OnePhase),
    /// Votes are being collected.
    Preparing(Preparing),
    /// An implicit transaction is to be given up; but while all votes may be yes, that is not
    /// for its coordinator to say.
    Settling(Settling),
    /// The attempt is definitely aborted by a conflict; the next one is due.
    Pausing {
        /// The next attempt.
        next: Attempt,
        /// When it begins.
        resume_at: Millis,
        /// What the last one met.
        failure: Failure,
    },
    /// All votes are yes; the decision is on its way to disk. No way back.
    Deciding {
        /// The attempt that commits.
        attempt: Attempt,
        /// The votes.
        votes: Vec<Vote>,
        /// When it was decided.
        decided_at: Millis,
    },
    /// The decision stands; branches are told until all have acknowledged.
    Committing(Committing),
    /// The outcome is fixed and nothing but records and stray aborts is left.
    Closing(Closing),
    /// Nothing is left to do.
    Ended(Outcome),
}

/// Votes are being collected.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Preparing {
    /// The attempt.
    pub attempt: Attempt,
    /// The branches' votes.
    pub votes: Vec<VoteState>,
    /// What the attempt before met; the best word on a deadline that passes meanwhile.
    pub met: Option<Failure>,
}

/// Where a vote stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum VoteState {
    /// It is asked when the hooks of other branches have said yes. Nothing of it is anywhere.
    Later,
    /// The prepare is out; its result will come.
    Asked {
        /// Earlier tries, which brought no vote.
        tries: u32,
        /// What came of the last of them.
        last: Option<NoVote>,
    },
    /// The last try brought no vote; the same prepare goes out again.
    Resend {
        /// When.
        at: Millis,
        /// Tries so far.
        tries: u32,
        /// What came of the last one.
        why: NoVote,
    },
    /// Yes.
    Yes(Vote),
}

/// The decision stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Committing {
    /// The attempt that commits.
    pub attempt: Attempt,
    /// The votes; their redo is what a branch that lost its data is repaired from.
    pub votes: Vec<Vote>,
    /// When it was decided.
    pub decided_at: Millis,
    /// The deliveries, by branch.
    pub deliveries: Vec<Delivery>,
    /// Where its record is.
    pub record: DecisionRecord,
}

/// Where the record of a decision is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DecisionRecord {
    /// On its way to disk: the votes of all are the decision, and are durable.
    UnderWay,
    /// On disk.
    Durable,
}

/// The outcome is fixed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Closing {
    /// The attempt that it came out of.
    pub attempt: Attempt,
    /// The outcome.
    pub outcome: Outcome,
    /// When it was decided.
    pub decided_at: Millis,
    /// What the record handed to the log last is for.
    pub record: ClosingRecord,
    /// Branches that an operator has given up (invariant 16).
    pub abandoned: Vec<Branch>,
    /// Branches of a commit that are never told again, because the log has their acknowledgements.
    pub recorded: Vec<Branch>,
}

/// What becomes of the last record of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClosingRecord {
    /// On its way, behind the decision's; the client has heard.
    BehindDecision,
    /// On its way; the client hears when it is durable.
    TellWhenDurable,
    /// On its way; the client has heard.
    Told,
    /// Durable.
    Durable,
}

/// An abort on its way to a branch of an attempt that was given up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Stray {
    /// The attempt.
    pub attempt: Attempt,
    /// The branch.
    pub branch: Branch,
    /// Where the delivery stands.
    pub delivery: Delivery,
}

/// A branch that an operator ended by hand, against the outcome.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EndedByHand {
    /// The branch.
    pub branch: Branch,
    /// How it ended there.
    pub outcome: Heuristic,
    /// Who did it and why, in the participant's words.
    pub detail: String,
    /// Whether the log has that.
    pub is_recorded: bool,
}

/// One phase under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OnePhase {
    /// The attempt.
    pub attempt: Attempt,
    /// Where it stands.
    pub call: OnePhaseCall,
    /// What the attempt before met; the best word on a deadline that passes meanwhile.
    pub met: Option<Failure>,
}

/// Where one phase stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum OnePhaseCall {
    /// The message is out; its result will come.
    Sent {
        /// Earlier tries, which brought no answer.
        tries: u32,
        /// What came of the last of them.
        last: Option<NoVote>,
    },
    /// The last try brought no answer; the same message goes out again.
    Resend {
        /// When.
        at: Millis,
        /// Tries so far.
        tries: u32,
        /// What came of the last one.
        why: NoVote,
    },
    /// The branch is asked what it did, and fenced if it did nothing.
    Asking {
        /// The delivery of the question.
        delivery: Delivery,
        /// What the transaction is aborted for, if the branch did nothing.
        failure: Failure,
    },
}

/// An implicit transaction that is to be given up, if that can be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Settling {
    /// The attempt.
    pub attempt: Attempt,
    /// What is known of the branches.
    pub branches: Vec<SettleState>,
    /// What it is aborted for, if a branch is fenced.
    pub failure: Failure,
}

/// What is known of a branch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SettleState {
    /// Nothing: it is asked.
    Asking(Delivery),
    /// It is staged; its vote was lost on the way and is asked for again.
    Staged(Delivery),
    /// It voted yes. An operator may have applied it since; then its vote is not known any more.
    Yes(Vote),
    /// It is applied by somebody who saw the votes of all. What its vote was is not known any more.
    Applied,
}

/// What came of a try that brought neither a vote nor a refusal. The words in it are for
/// people and no transition looks at them: machines that differ in them only have one hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoVote {
    /// The result is not known, for this reason.
    Unknown(String),
    /// The key is still locked by a younger transaction.
    Held(Holder),
}

impl fmt::Display for NoVote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(why) => f.write_str(why),
            Self::Held(holder) => holder.fmt(f),
        }
    }
}

impl Hash for NoVote {
    fn hash<H: Hasher>(&self, state: &mut H) {
        mem::discriminant(self).hash(state);
    }
}

impl State {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Beginning { .. } => "beginning",
            Self::OnePhase(_) => "one phase",
            Self::Preparing(_) => "preparing",
            Self::Settling(_) => "settling",
            Self::Pausing { .. } => "pausing",
            Self::Deciding { .. } => "deciding",
            Self::Committing(_) => "committing",
            Self::Closing(_) => "closing",
            Self::Ended(_) => "ended",
        }
    }
}
