//! Known-bad variants of the world, each the breach of one invariant: a check that cannot fail
//! proves nothing.
//!
//! They bend what goes into the machines and what comes out of them; the machines are the real ones
//! throughout.

use assent_common::branch::{BranchAnswer, BranchMessage};
use assent_common::code::ErrorCode;
use assent_common::coordinator::authority::{Authority, Decisions};
use assent_common::coordinator::{FromBranch, PrepareCall, Purpose};
use assent_common::outcome::{Call, Prepared, Refusal, Vote};
use assent_common::record::Record;
use assent_common::{Attempt, LogId};
use assent_doubles::scripts::Bend;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::network::Ask;
use crate::request::Request;

/// What is bent, and the invariant that it breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Mutant {
    /// 1: a restart goes on in the epoch of the last life.
    EpochReused,
    /// 2: a vote is given before it is durable, and lost.
    VoteNotDurable,
    /// 3: a branch in doubt decides for itself after a while.
    VoteTimesOut,
    /// 3: a branch in doubt commits by itself after a while.
    DoubtCommits,
    /// 3: a branch that reads frees its locks when it votes.
    ReaderReleasedAtVote,
    /// 3: a branch does not hold what its hook has read.
    HookUnguarded,
    /// 4: records are acknowledged before they are synced.
    PersistedTooEarly,
    /// 4: a record that could not be synced is taken for durable.
    FailedSyncIgnored,
    /// 4: a torn tail is not cut, and what is written behind it is lost.
    TornTailKept,
    /// 5: a branch that did not answer is counted as a yes.
    SilenceIsYes,
    /// 5: a vote of an earlier attempt counts.
    AttemptIgnored,
    /// 5: a deadline aborts what is being decided.
    DecidesTwice,
    /// 5: a branch is told to abort while its transaction is being decided.
    AbortsWhileDeciding,
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
    /// 7: compaction forgets what was committed.
    CompactionForgets,
    /// 7: a coordinator answers by the number alone, whose log it is of.
    AnswersForOtherLogs,
    /// 7: another log's answer counts.
    ForeignLogBelieved,
    /// 7: a 404 is taken for aborted.
    NotFoundIsAborted,
    /// 8: a commit that comes again is applied again.
    AppliesAgain,
    /// 8: a branch is applied and leaves no done-marker.
    NoDoneMarker,
    /// 9: a branch of one phase says what it wrote the first time only.
    MarkerWithoutWrites,
    /// 9: an agent that connects again does not look what became of one phase.
    UnansweredForgotten,
    /// 9: a repair does not put back what was applied in one phase and is in no log yet.
    UnloggedForgotten,
    /// 8: an agent evaluates ops on what it remembers, not on what is there.
    StaleReads,
    /// Escrow: what others have reserved is not counted.
    EscrowIgnoresPending,
    /// Escrow: the bounds of others are not kept.
    EscrowIgnoresBounds,
    /// Escrow: the write is what the balance would be, not what is added.
    EscrowResolved,
    /// 9: the commit of a branch that is lost is acknowledged.
    LossAcknowledged,
    /// 10: the low-water mark passes transactions that are active.
    MarkTooHigh,
    /// 10: a sweep collects above the mark.
    SweepIgnoresMark,
    /// 10: nothing is swept.
    NeverSweeps,
    /// 10: a prepare below the mark is taken.
    MarkIgnored,
    /// 11: the first acknowledgement is taken for all.
    EndsAfterFirstAck,
    /// 11: a commit that was not acknowledged is not sent again.
    DeliversOnce,
    /// 12: scripts run on whatever data they find.
    IncarnationIgnored,
    /// 12: nobody compares the numbers of votes after a Redis came back.
    LostVotesIgnored,
    /// 9: nobody compares the counts of what has ended.
    HoleIgnored,
    /// 8 and 9: a branch that is in doubt again is applied by its record, whatever came behind it.
    RevivedVoteApplied,
    /// 12: repaired data goes on with the numbers that were heard.
    OpensAtOldNumbers,
    /// 12: an agent does not compare what coordinators know with its data.
    KnownIgnored,
    /// 12: fenced data is known to be so in the agent's memory only.
    FenceInMemory,
    /// 12: an agent takes data with fewer votes than it has seen, because somebody knows no better.
    AdoptsOldData,
    /// 12: the repaired data keeps its incarnation.
    KeepsIncarnation,
    /// 12: what is undecided is not given up before a log speaks.
    UndecidedKept,
    /// 9: the data opens with the first word.
    OpensEarly,
    /// 9: a word about open data is answered as if it had been taken.
    UnfencedIsOpen,
    /// 9: lost branches are redone in the wrong order.
    RedoneBackwards,
    /// 9: a repair that begins anew applies again what it had.
    RedoneTwice,
    /// 9: a word about what the data was before it was lost once more counts.
    OldWordsCount,
    /// 9: a log speaks of active transactions only.
    PlanMissesEnded,
    /// 9: a log speaks before all that clients have been told is on disk.
    PlansTooEarly,
    /// 9: coordinators look at data only if they have something to say.
    NeverLooks,
    /// 13: an end frees the locks of its keys, whoever holds them.
    FreesForeignLocks,
    /// 14: a commit can be refused for memory.
    CommitNeedsMemory,
    /// 15: a call without an answer is taken for a no, and run anew.
    UnknownIsConflict,
    /// 15: a coordinator does not know after a restart which keys it has served.
    KeysForgotten,
    /// Answers: the replies of a vote are lost on the way.
    RepliesLost,
    /// Of the shell: a record is reported durable twice.
    PersistedTwice,
    /// 16: an operator gives up a branch whose Redis has lost nothing.
    OperatorIsHasty,
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
    /// Implicit: what was left behind is forgotten although another branch is in doubt.
    ForgetsUnasked,
    /// 4 and 15: a one-phase answer that leaves no trace is told before it is kept.
    ReaderToldEarly,
}

impl Mutant {
    /// How the engine is bent.
    pub(crate) const fn of_engine(self) -> Option<assent_common::mutant::Mutant> {
        Some(match self {
            Self::UndecidedKept => assent_common::mutant::Mutant::UndecidedKept,
            Self::PlansTooEarly => assent_common::mutant::Mutant::PlansTooEarly,
            _ => return None,
        })
    }

    /// How the scripts of its world are bent.
    pub(crate) const fn bend(self) -> Option<Bend> {
        Some(match self {
            Self::VoteNotDurable => Bend::VoteNotDurable,
            Self::SettlesWithoutFence => Bend::SettlesWithoutFence,
            Self::AppliesAgain => Bend::AppliesAgain,
            Self::NoDoneMarker => Bend::NoDoneMarker,
            Self::MarkerWithoutWrites => Bend::MarkerWithoutWrites,
            Self::NoFence => Bend::NoFence,
            Self::FenceIgnored => Bend::FenceIgnored,
            Self::EpochIgnored => Bend::EpochIgnored,
            Self::MarkIgnored => Bend::MarkIgnored,
            Self::CommitNeedsMemory => Bend::CommitNeedsMemory,
            Self::FreesForeignLocks => Bend::FreesForeignLocks,
            Self::LossAcknowledged => Bend::LossAcknowledged,
            Self::EscrowIgnoresPending => Bend::EscrowIgnoresPending,
            Self::EscrowIgnoresBounds => Bend::EscrowIgnoresBounds,
            _ => return None,
        })
    }
}

/// What a coordinator whose transaction is in attempt `now` makes of an answer, where that is not
/// what the answer says.
pub(crate) fn misread(
    config: &Config,
    ask: &Ask,
    now: Attempt,
    answer: &BranchAnswer,
) -> Option<FromBranch> {
    let branch = ask.branch;
    let mut attempt = ask.txid.attempt;
    let mutant = config.mutant?;
    let is_bent = mutant == Mutant::AttemptIgnored && attempt != now;
    if is_bent {
        attempt = now;
    }
    let bent = match answer {
        BranchAnswer::Prepared(call) => misread_vote(mutant, ask, call).map(BranchAnswer::Prepared),
        _ => None,
    };
    let answer = bent.or_else(|| is_bent.then(|| answer.clone()))?;
    Some(FromBranch { branch, attempt, answer })
}

fn misread_vote(mutant: Mutant, ask: &Ask, call: &Call<Prepared>) -> Option<Call<Prepared>> {
    match (mutant, call) {
        (Mutant::SilenceIsYes, Call::Unknown(_)) => {
            let vote = Vote { replies: "[]".into(), redo: [][..].into(), incarnation: 1, seq: 1 };
            Some(Call::Applied(Prepared::Yes(vote)))
        }
        (Mutant::UnknownIsConflict, Call::Unknown(why))
            if ask.message == BranchMessage::Prepare(PrepareCall::Batched) =>
        {
            Some(Call::Refused(Refusal::new(ErrorCode::LockConflict, why.clone())))
        }
        (Mutant::RepliesLost, Call::Applied(Prepared::Yes(vote))) => {
            Some(Call::Applied(Prepared::Yes(Vote { replies: "[]".into(), ..vote.clone() })))
        }
        _ => None,
    }
}

/// What a coordinator takes a request for.
pub(crate) fn purpose(config: &Config, request: &Request) -> Purpose {
    match config.mutant {
        Some(Mutant::ReaderToldEarly) => Purpose::Write,
        _ => request.purpose,
    }
}

/// What a log gets for a record.
pub(crate) fn written(config: &Config, log_id: LogId, record: Record) -> Record {
    match record {
        Record::CommittedSet(set) if config.is(Mutant::CompactionForgets) => {
            let nothing = Authority::new(log_id, set.epoch, Decisions::default()).sets();
            nothing.into_iter().next().map_or(Record::CommittedSet(set), Record::CommittedSet)
        }
        record => record,
    }
}
