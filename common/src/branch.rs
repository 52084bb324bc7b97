//! What a branch is told, and what it answers: the words that the machines of both sides, the
//! participant's store and the wire share.

use std::convert::Infallible;

use crate::outcome::{Aborted, Applied, Call, Failed, Prepared, Refusal, Settled};

/// A message to a branch. `P` is what a prepare says beyond the name of the branch; the others say
/// nothing more. Without it (`BranchMessage<()>`) it is the kind of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BranchMessage<P> {
    /// Lock, run, stage and vote; or, in one phase, apply.
    Prepare(P),
    /// Apply what is staged.
    Commit,
    /// Drop what is staged, and fence; of one phase, also the question whether it was applied.
    Abort,
    /// Say what is kept, and fence if that is nothing: the question of an implicit transaction.
    Settle,
}

impl<P> BranchMessage<P> {
    /// Its kind.
    pub const fn kind(&self) -> BranchMessage<()> {
        match self {
            Self::Prepare(_) => BranchMessage::Prepare(()),
            Self::Commit => BranchMessage::Commit,
            Self::Abort => BranchMessage::Abort,
            Self::Settle => BranchMessage::Settle,
        }
    }

    /// Whether it is a prepare.
    pub const fn is_prepare(&self) -> bool {
        matches!(self, Self::Prepare(_))
    }

    /// The same message, with another payload of a prepare.
    pub fn map<Q>(self, f: impl FnOnce(P) -> Q) -> BranchMessage<Q> {
        match self {
            Self::Prepare(prepare) => BranchMessage::Prepare(f(prepare)),
            Self::Commit => BranchMessage::Commit,
            Self::Abort => BranchMessage::Abort,
            Self::Settle => BranchMessage::Settle,
        }
    }

    /// The answer to it that says this.
    pub fn failed(&self, failed: Failed) -> BranchAnswer {
        match self {
            Self::Prepare(_) => BranchAnswer::Prepared(failed.into()),
            Self::Commit => BranchAnswer::Applied(failed.into()),
            Self::Abort => BranchAnswer::Aborted(failed.into()),
            Self::Settle => BranchAnswer::Settled(failed.into()),
        }
    }

    /// The answer to it that is this refusal.
    pub fn refused(&self, refusal: Refusal) -> BranchAnswer {
        self.failed(Failed::Refused(refusal))
    }

    /// The answer to it where what came of it is not known.
    pub fn unknown(&self, why: impl Into<String>) -> BranchAnswer {
        self.failed(Failed::Unknown(why.into()))
    }
}

impl<P, E> BranchMessage<Result<P, E>> {
    /// The message, if nothing is wrong with its prepare.
    pub fn transpose(self) -> Result<BranchMessage<P>, E> {
        Ok(match self {
            Self::Prepare(prepare) => BranchMessage::Prepare(prepare?),
            Self::Commit => BranchMessage::Commit,
            Self::Abort => BranchMessage::Abort,
            Self::Settle => BranchMessage::Settle,
        })
    }
}

impl BranchMessage<()> {
    /// Its word in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prepare(()) => "prepare",
            Self::Commit => "commit",
            Self::Abort => "abort",
            Self::Settle => "settle",
        }
    }
}

/// A message about a branch that is not to be prepared.
pub type Ending = BranchMessage<Infallible>;

/// The answer to a [`BranchMessage`], of the same kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BranchAnswer {
    /// To a prepare.
    Prepared(Call<Prepared>),
    /// To a commit.
    Applied(Call<Applied>),
    /// To an abort.
    Aborted(Call<Aborted>),
    /// To a settle.
    Settled(Call<Settled>),
}

impl BranchAnswer {
    /// The kind of the message that it answers.
    #[must_use]
    pub const fn kind(&self) -> BranchMessage<()> {
        match self {
            Self::Prepared(_) => BranchMessage::Prepare(()),
            Self::Applied(_) => BranchMessage::Commit,
            Self::Aborted(_) => BranchMessage::Abort,
            Self::Settled(_) => BranchMessage::Settle,
        }
    }

    /// The refusal, if it is one.
    #[must_use]
    pub const fn refused(&self) -> Option<&Refusal> {
        match self {
            Self::Prepared(call) => call.refused(),
            Self::Applied(call) => call.refused(),
            Self::Aborted(call) => call.refused(),
            Self::Settled(call) => call.refused(),
        }
    }

    /// Why it is not known what came of the message, if it is not.
    #[must_use]
    pub fn unknown(&self) -> Option<&str> {
        match self {
            Self::Prepared(call) => call.unknown(),
            Self::Applied(call) => call.unknown(),
            Self::Aborted(call) => call.unknown(),
            Self::Settled(call) => call.unknown(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::ErrorCode;

    /// Promise *unknown is a value*: what failed is said of the message that it was, and is never
    /// taken for done.
    #[test]
    fn a_message_that_failed_is_answered_by_its_own_kind() {
        for message in [
            BranchMessage::Prepare(()),
            BranchMessage::Commit,
            BranchMessage::Abort,
            BranchMessage::Settle,
        ] {
            let refusal = Refusal::new(ErrorCode::Quarantined, "no");
            let refused = message.refused(refusal.clone());
            assert_eq!(refused.kind(), message);
            assert_eq!((refused.refused(), refused.unknown()), (Some(&refusal), None));
            let unknown = message.unknown("lost");
            assert_eq!(unknown.kind(), message);
            assert_eq!((unknown.refused(), unknown.unknown()), (None, Some("lost")));
        }
    }
}
