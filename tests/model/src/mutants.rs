//! Known-bad variants of the world, each the breach of one invariant: a checker that cannot fail proves nothing.
//!
//! They bend what goes into the machines and what comes out of them; the machines are the real ones throughout.

use assent_common::code::ErrorCode;
use assent_common::command::Access;
use assent_common::coordinator::{Message, Purpose};
use assent_common::outcome::{Aborted, Applied, Call, Prepared, Refusal, Vote};
use assent_common::participant::{Answer, Evaluation, Participant, Prepare, Request, Stepped};
use assent_common::wire::branch::{BranchState, Mode};

use crate::config::Client;
use crate::state::Ask;
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
    /// 9: the commit of a branch that is lost is acknowledged.
    LossAcknowledged,
    /// 10: the low-water mark passes transactions that are active.
    MarkTooHigh,
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
    /// 4 and 15: a one-phase answer that leaves no trace is told before it is kept.
    ReaderToldEarly,
}

impl World {
    /// One script, bent.
    pub(crate) fn script(
        &self,
        participant: &mut Participant,
        incarnation: u64,
        request: Request,
    ) -> Stepped {
        let Some(mutant) = self.config.mutant else {
            return participant.step(incarnation, request);
        };
        let is_prepare = matches!(request, Request::Prepare(_));
        let state = request.txid().and_then(|txid| participant.state(txid));
        match mutant {
            Mutant::VoteNotDurable if is_prepare => participant.clone().step(incarnation, request),
            Mutant::NoDoneMarker => {
                let mut applied = participant.clone();
                let stepped = applied.step(incarnation, request);
                if stepped.apply.is_none() {
                    *participant = applied;
                }
                stepped
            }
            Mutant::NoFence if matches!(request, Request::Abort(_)) && state.is_none() => {
                Answer::Aborted(Call::Applied(Aborted::Fenced)).into()
            }
            Mutant::FenceIgnored | Mutant::EpochIgnored | Mutant::MarkIgnored if is_prepare => {
                step_ignoring(mutant, participant, incarnation, request)
            }
            Mutant::CommitNeedsMemory
                if matches!(request, Request::Commit(_))
                    && state == Some(BranchState::Prepared) =>
            {
                let refusal = Refusal::new(ErrorCode::RedisOutOfMemory, "no memory");
                Answer::Applied(Call::Refused(refusal)).into()
            }
            Mutant::FreesForeignLocks => {
                let stepped = participant.step(incarnation, request);
                if matches!(stepped.answer, Answer::Applied(_) | Answer::Aborted(_)) {
                    *participant = unlocked(participant);
                }
                stepped
            }
            Mutant::LossAcknowledged => {
                let mut stepped = participant.step(incarnation, request);
                if let Answer::Applied(Call::Refused(_)) = stepped.answer {
                    stepped.answer = Answer::Applied(Call::Applied(Applied { dirty_writes: 0 }));
                }
                stepped
            }
            _ => participant.step(incarnation, request),
        }
    }

    /// What the coordinator makes of an answer, bent.
    pub(crate) fn misread(&self, ask: &Ask, answer: Answer) -> Answer {
        match (self.config.mutant, answer) {
            (Some(Mutant::SilenceIsYes), Answer::Prepared(Call::Unknown(_))) => {
                let (replies, redo) = ("[1]".into(), [1][..].into());
                let vote = Vote { replies, redo, incarnation: 1, seq: 1 };
                Answer::Prepared(Call::Applied(Prepared::Yes(vote)))
            }
            (Some(Mutant::UnknownIsConflict), Answer::Prepared(Call::Unknown(why)))
                if ask.message == Message::Prepare =>
            {
                Answer::Prepared(Call::Refused(Refusal::new(ErrorCode::LockConflict, why)))
            }
            (_, answer) => answer,
        }
    }

    pub(crate) fn purpose(&self, request: &Client) -> Purpose {
        match self.config.mutant {
            Some(Mutant::ReaderToldEarly) => Purpose::Write,
            _ => request.purpose,
        }
    }
}

/// Stages all the same what is refused for one reason, as if nothing had ever been heard here.
fn step_ignoring(
    mutant: Mutant,
    participant: &mut Participant,
    incarnation: u64,
    request: Request,
) -> Stepped {
    let ignored = match mutant {
        Mutant::FenceIgnored => ErrorCode::Fenced,
        Mutant::EpochIgnored => ErrorCode::StaleEpoch,
        _ => ErrorCode::BelowLowWater,
    };
    let stepped = participant.step(incarnation, request.clone());
    match &stepped.answer {
        Answer::Prepared(Call::Refused(refusal)) if refusal.code == ignored => {
            *participant = Participant::new(incarnation);
            participant.step(incarnation, request)
        }
        _ => stepped,
    }
}

/// The same branches in doubt, and nobody holds a lock.
fn unlocked(participant: &Participant) -> Participant {
    let mut free = Participant::new(participant.incarnation());
    for (txid, staged) in participant.staged() {
        let evaluation =
            Evaluation { replies: staged.vote.replies.clone(), redo: staged.vote.redo.clone() };
        free.step(
            participant.incarnation(),
            Request::Prepare(Prepare {
                txid: *txid,
                id: staged.id,
                mode: Mode::TwoPhase,
                locks: Vec::<(_, Access)>::new(),
                evaluation: Ok(evaluation),
            }),
        );
    }
    free
}
