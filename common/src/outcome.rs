//! The three-valued result of a call, and what a participant says of a branch.
//!
//! *Unknown is a value.* A timeout, a reset connection, a 502 or a body that is not Assent's tells nothing about what
//! happened at the other side. That is decided once, in the `client` crate; everywhere else it is a variant to handle.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::code::ErrorCode;
use crate::ids::{TransactionId, Txid};

/// What came of a call to another process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Call<T> {
    /// The other side did it, and says this.
    Applied(T),
    /// The other side did not do it, and says why.
    Refused(Refusal),
    /// Not known: it may have been done, or be done yet. The text is for people.
    Unknown(String),
}

impl<T> Call<T> {
    /// The same result with another value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Call<U> {
        match self {
            Self::Applied(value) => Call::Applied(f(value)),
            Self::Refused(refusal) => Call::Refused(refusal),
            Self::Unknown(why) => Call::Unknown(why),
        }
    }

    /// The refusal, if it is one.
    pub const fn refused(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::Applied(_) | Self::Unknown(_) => None,
        }
    }

    /// Why it is not known, if it is not.
    pub fn unknown(&self) -> Option<&str> {
        match self {
            Self::Unknown(why) => Some(why),
            Self::Applied(_) | Self::Refused(_) => None,
        }
    }
}

/// What came of a call that is not known to have been done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failed {
    /// See [`Call::Refused`].
    Refused(Refusal),
    /// See [`Call::Unknown`].
    Unknown(String),
}

impl<T> From<Failed> for Call<T> {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Refused(refusal) => Self::Refused(refusal),
            Failed::Unknown(why) => Self::Unknown(why),
        }
    }
}

/// A definite no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of no.
    pub code: ErrorCode,
    /// A sentence for people: which op or key, what was met, what to do.
    pub detail: String,
    /// The place of the op in its branch, where one op is to blame.
    pub op: Option<u32>,
    /// Who holds the lock, where the no is a conflict.
    pub holder: Option<Holder>,
    /// The reply that a false expectation met, or what a hook said with its veto, as JSON text.
    pub reply: Option<Arc<str>>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

/// Without the sentence: no transition looks at it, so that the model takes states that differ in
/// their words only for one.
impl Hash for Refusal {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { code, detail: _, op, holder, reply } = self;
        (code, op, holder, reply).hash(state);
    }
}

impl Refusal {
    /// A no with its code and sentence only.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), op: None, holder: None, reply: None }
    }

    /// The same, naming the op to blame.
    #[must_use]
    pub fn at_op(mut self, op: u32) -> Self {
        self.op = Some(op);
        self
    }

    /// A key is locked by another transaction.
    #[must_use]
    pub fn lock_conflict(holder: Holder) -> Self {
        let detail = holder.to_string();
        Self { holder: Some(holder), ..Self::new(ErrorCode::LockConflict, detail) }
    }
}

/// The transaction that holds a lock which another one wants. It travels in every conflict.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Holder {
    /// The holder's public id, which also is its age.
    pub id: TransactionId,
    /// The holder as participants know it.
    pub txid: Txid,
    /// The key that is locked, readable (bytes that are not UTF-8 escaped).
    pub key: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key {} is locked by transaction {}", self.key, self.id)
    }
}

/// What a participant answers to a prepare that it did not refuse.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Prepared {
    /// The branch is staged and durable: a vote of yes.
    Yes(Vote),
    /// One phase: the branch is prepared and applied in one step.
    Committed(Done),
    /// Wait-die: the holder is younger, so ask again by the waiting call. No vote, nothing staged.
    Wait(Holder),
}

/// A vote of yes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Vote {
    /// The replies of the branch's ops.
    pub replies: Replies,
    /// The resolved writes, as the participant staged them: opaque to the coordinator, kept in the commit record so
    /// that a branch whose Redis lost its vote can be redone. Empty for a branch that only reads.
    pub redo: Redo,
    /// The incarnation of the data that the vote was given on.
    pub incarnation: u64,
    /// The number of the vote within that incarnation.
    pub seq: u64,
}

impl Vote {
    /// Of a branch that is applied and whose vote nobody heard: without an incarnation, because no data has that of 0.
    #[must_use]
    pub fn unheard() -> Self {
        Self { replies: "[]".into(), redo: [].into(), incarnation: 0, seq: 0 }
    }

    /// Whether it was heard, so that it says what the branch wrote.
    #[must_use]
    pub const fn is_heard(&self) -> bool {
        self.incarnation != 0
    }
}

/// What came of one phase.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Done {
    /// The replies of the branch's ops.
    pub replies: Replies,
    /// What it wrote. `None` for a branch that only reads, and for one whose log has it already.
    pub written: Option<Written>,
}

/// What a one-phase branch wrote, for the log to keep, so that it can be redone like a branch of two phases. Every answer
/// about the branch says it, until the log has it: no answer may be the only one that does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Written {
    /// The resolved writes.
    pub redo: Redo,
    /// The incarnation of the data that has it. Numbers rise over incarnations, so that the number is right there too,
    /// when the data was given a new one since.
    pub incarnation: u64,
    /// The number that it took among the votes.
    pub seq: u64,
}

impl From<Replies> for Done {
    fn from(replies: Replies) -> Self {
        Self { replies, written: None }
    }
}

impl From<&str> for Done {
    fn from(replies: &str) -> Self {
        Replies::from(replies).into()
    }
}

/// The replies of a branch's ops, in order: the text of a JSON array, passed through unread.
pub type Replies = Arc<str>;

/// The writes of a branch as staged, opaque outside the participant.
pub type Redo = Arc<[u8]>;

/// What a participant answers to a commit that it did not refuse: the branch is applied, now or before.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Applied {
    /// Writes that met data of another type than prepare had seen, because somebody wrote past the agent. The decision
    /// stands and the other writes are applied.
    pub dirty_writes: u32,
}

/// What a participant answers to a settle that it did not refuse: what the branch of an implicit transaction is, for good
/// or until its outcome. One that was never there is fenced by the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Settled {
    /// It is staged: its vote is yes.
    Prepared,
    /// It is applied: somebody has seen the votes of all.
    Applied,
    /// Nothing is staged, and nothing will be.
    Fenced,
}

/// How an operator ended a branch by hand, where its log says otherwise: the field calls that a heuristic outcome.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Heuristic {
    /// Applied here; the log has aborted.
    Committed,
    /// Dropped here; the log has committed.
    Aborted,
}

impl Heuristic {
    /// The outcome's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Aborted => "aborted",
        }
    }

    /// What the log says then.
    #[must_use]
    pub const fn decided(self) -> &'static str {
        match self {
            Self::Committed => Self::Aborted.as_str(),
            Self::Aborted => Self::Committed.as_str(),
        }
    }
}

/// What a participant answers to an abort that it did not refuse.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Aborted {
    /// Nothing of the branch is left, and a fence keeps a late prepare out.
    Fenced,
    /// It cannot be: the branch has been applied. The answer to a question about one phase; an alarm about two.
    AlreadyCommitted(Done),
}
