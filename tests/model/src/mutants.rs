//! Known-bad variants of the world, each the breach of one invariant: a checker that cannot fail proves nothing.
//!
//! They bend what goes into the machines and what comes out of them; the machines are the real ones throughout.

use assent_common::Txid;
use assent_common::branch::{BranchAnswer, BranchMessage};
use assent_common::code::ErrorCode;
use assent_common::coordinator::{PrepareCall, Purpose};
use assent_common::outcome::{Aborted, Call, Prepared, Refusal, Settled, Vote};
use assent_common::participant::{Participant, Prepare, Stepped};
use assent_doubles::scripts::{self, Bend};

use crate::config::Client;
use crate::state::{Ask, INCARNATION};
use crate::world::World;

/// What is bent, and the invariant that it breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// 1: a restart goes on in the epoch of the last life.
    EpochReused,
    /// 2: a vote is given before it is durable, and lost.
    VoteNotDurable,
    /// 3: a branch in doubt decides for itself after a while.
    VoteTimesOut,
    /// 3: a branch that reads frees its locks when it votes.
    ReaderReleasedAtVote,
    /// 4: records are acknowledged before they are durable.
    PersistedTooEarly,
    /// 4: a record that could not be synced is taken for durable.
    FailedSyncIgnored,
    /// 5: a branch that did not answer is counted as a yes.
    SilenceIsYes,
    /// 5: a deadline aborts what is being decided.
    DecidesTwice,
    /// 5: a vote of an earlier attempt counts.
    AttemptIgnored,
    /// 5: prepares of an earlier life are taken.
    EpochIgnored,
    /// 6: the abort of an unknown branch leaves no fence.
    NoFence,
    /// 6: a prepare does not look for a fence.
    FenceIgnored,
    /// 7: presumed abort answers for transactions that are active.
    PresumesActive,
    /// 7: presumed abort answers before the log is replayed.
    AnswersBeforeReplay,
    /// 7: another log's answer counts.
    ForeignLogBelieved,
    /// 7: a 404 is taken for aborted.
    NotFoundIsAborted,
    /// 8: a branch is applied and leaves no done-marker.
    NoDoneMarker,
    /// Escrow: what others have reserved is not counted.
    EscrowIgnoresPending,
    /// Escrow: the bounds of others are not kept.
    EscrowIgnoresBounds,
    /// Escrow: a counter is locked like any other key.
    EscrowExclusive,
    /// Escrow: the write is what the value would be, not what is added.
    EscrowResolved,
    /// 9: the commit of a branch that is lost is acknowledged.
    LossAcknowledged,
    /// 10: the low-water mark passes transactions that are active.
    MarkTooHigh,
    /// 10: the mark passes a branch whose acknowledgement is not in the log yet.
    NotedTooEarly,
    /// 10: a sweep collects above the mark.
    SweepIgnoresMark,
    /// 10: a prepare below the mark is taken.
    MarkIgnored,
    /// 11: the first acknowledgement is taken for all.
    EndsAfterFirstAck,
    /// 11: a commit that was not acknowledged is not sent again.
    DeliversOnce,
    /// 12: scripts run on whatever data they find.
    IncarnationIgnored,
    /// 13: an end frees the locks of its keys, whoever holds them.
    FreesForeignLocks,
    /// 14: a commit can be refused for memory.
    CommitNeedsMemory,
    /// 15: a call without an answer is taken for a no, and run anew.
    UnknownIsConflict,
    /// 16: a timer gives up a branch.
    TimerAbandons,
    /// Implicit: a vote that is not known is aborted, and not settled.
    AbortsUnsettled,
    /// Implicit: presumed abort answers for what its log may know nothing of.
    PresumesImplicit,
    /// Implicit: a settle says that an absent branch is fenced, and does not fence it.
    SettlesWithoutFence,
    /// Implicit: the staged records do not name the last branch.
    BranchLeftOut,
    /// Implicit: the staged records do not name the branches that only read.
    ReadersLeftOut,
    /// Implicit: a vote of a branch that only reads is not kept.
    ReaderVoteNotKept,
    /// Implicit: a later life's mark collects the done-marker of what it knows nothing of.
    MarkerCollectedEarly,
    /// 4 and 15: a one-phase answer that leaves no trace is told before it is kept.
    ReaderToldEarly,
}

impl Mutant {
    /// How the scripts of its world are bent.
    const fn bend(self) -> Option<Bend> {
        Some(match self {
            Self::VoteNotDurable => Bend::VoteNotDurable,
            Self::ReaderVoteNotKept => Bend::ReaderVoteNotKept,
            Self::SettlesWithoutFence => Bend::SettlesWithoutFence,
            Self::EpochIgnored => Bend::EpochIgnored,
            Self::NoFence => Bend::NoFence,
            Self::FenceIgnored => Bend::FenceIgnored,
            Self::NoDoneMarker => Bend::NoDoneMarker,
            Self::LossAcknowledged => Bend::LossAcknowledged,
            Self::MarkIgnored => Bend::MarkIgnored,
            Self::FreesForeignLocks => Bend::FreesForeignLocks,
            Self::CommitNeedsMemory => Bend::CommitNeedsMemory,
            Self::EscrowIgnoresPending => Bend::EscrowIgnoresPending,
            Self::EscrowIgnoresBounds => Bend::EscrowIgnoresBounds,
            _ => return None,
        })
    }
}

impl World {
    /// One script, bent.
    pub(crate) fn script(
        &self,
        participant: &mut Participant,
        incarnation: u64,
        txid: Txid,
        message: BranchMessage<Prepare>,
    ) -> Stepped {
        let bend = self.config.mutant.and_then(Mutant::bend);
        scripts::step(bend, participant, incarnation, txid, message)
    }

    /// What the coordinator makes of an answer, bent.
    pub(crate) fn misread(&self, ask: &Ask, answer: BranchAnswer) -> BranchAnswer {
        match (self.config.mutant, answer) {
            (Some(Mutant::SilenceIsYes), BranchAnswer::Prepared(Call::Unknown(_))) => {
                let (replies, redo) = ("[1]".into(), [1][..].into());
                let vote = Vote { replies, redo, incarnation: 1, seq: 1 };
                BranchAnswer::Prepared(Call::Applied(Prepared::Yes(vote)))
            }
            (Some(Mutant::UnknownIsConflict), BranchAnswer::Prepared(Call::Unknown(why)))
                if ask.message == BranchMessage::Prepare(PrepareCall::Batched) =>
            {
                BranchAnswer::Prepared(Call::Refused(Refusal::new(ErrorCode::LockConflict, why)))
            }
            (_, answer) => answer,
        }
    }

    /// One script, in the place of a settle: the abort of a branch that may have voted.
    pub(crate) fn abort_unsettled(&self, participant: &mut Participant, txid: Txid) -> Stepped {
        let stepped = self.script(participant, INCARNATION, txid, BranchMessage::Abort);
        match stepped.answer {
            BranchAnswer::Aborted(call) => {
                BranchAnswer::Settled(call.map(|aborted| match aborted {
                    Aborted::Fenced => Settled::Fenced,
                    Aborted::AlreadyCommitted(_) => Settled::Applied,
                }))
                .into()
            }
            answer => answer.into(),
        }
    }

    pub(crate) fn purpose(&self, request: &Client) -> Purpose {
        match self.config.mutant {
            Some(Mutant::ReaderToldEarly) => Purpose::Write,
            _ => request.purpose,
        }
    }
}
