//! The participant's scripts, and known-bad variants of them: each the breach of one invariant.
//!
//! The machine is the real one throughout; what goes into it and what comes out of it is bent.

use assent_common::Txid;
use assent_common::branch::{BranchAnswer, BranchMessage};
use assent_common::code::ErrorCode;
use assent_common::command::{Access, Range};
use assent_common::outcome::{Aborted, Applied, Call, Prepared, Refusal};
use assent_common::participant::{DoneMarker, Participant, Prepare, Restored, Stepped};
use assent_common::wire::branch::BranchState;

/// How a script is bent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bend {
    /// A vote is given before it is durable, and lost.
    VoteNotDurable,
    /// The same, of a branch that only reads.
    ReaderVoteNotKept,
    /// A settle says that an absent branch is fenced, and does not fence it.
    SettlesWithoutFence,
    /// A commit that comes again is applied again.
    AppliesAgain,
    /// A branch is applied and leaves no done-marker.
    NoDoneMarker,
    /// What is said again of one phase lacks what it wrote.
    MarkerWithoutWrites,
    /// The abort of an unknown branch leaves no fence.
    NoFence,
    /// A prepare does not look for a fence.
    FenceIgnored,
    /// Prepares of an earlier life are taken.
    EpochIgnored,
    /// A prepare below the mark is taken.
    MarkIgnored,
    /// A commit can be refused for memory.
    CommitNeedsMemory,
    /// An end frees the locks of its keys, whoever holds them.
    FreesForeignLocks,
    /// The commit of a branch that is lost is acknowledged.
    LossAcknowledged,
    /// A claim in escrow is judged as if nobody held the counter.
    EscrowIgnoresPending,
    /// A claim in escrow is judged by its own bounds alone.
    EscrowIgnoresBounds,
}

/// One script, bent or not.
pub fn step(
    bend: Option<Bend>,
    participant: &mut Participant,
    incarnation: u64,
    txid: Txid,
    message: BranchMessage<Prepare>,
) -> Stepped {
    let Some(bend) = bend else { return participant.step(incarnation, txid, message) };
    let (kind, is_prepare) = (message.kind(), message.is_prepare());
    let state = participant.state(txid);
    match bend {
        Bend::VoteNotDurable if is_prepare => participant.clone().step(incarnation, txid, message),
        Bend::ReaderVoteNotKept if is_prepare && reads_only(&message) => {
            participant.clone().step(incarnation, txid, message)
        }
        Bend::SettlesWithoutFence if kind == BranchMessage::Settle => {
            participant.clone().step(incarnation, txid, message)
        }
        Bend::AppliesAgain
            if kind == BranchMessage::Commit && state == Some(BranchState::Applied) =>
        {
            Stepped { apply: Some([][..].into()), ..participant.step(incarnation, txid, message) }
        }
        Bend::NoDoneMarker => {
            let mut applied = participant.clone();
            let stepped = applied.step(incarnation, txid, message);
            if stepped.apply.is_none() {
                *participant = applied;
            }
            stepped
        }
        Bend::MarkerWithoutWrites if state == Some(BranchState::Applied) => {
            let mut stepped = participant.step(incarnation, txid, message);
            if let BranchAnswer::Prepared(Call::Applied(Prepared::Committed(done)))
            | BranchAnswer::Aborted(Call::Applied(Aborted::AlreadyCommitted(done))) =
                &mut stepped.answer
            {
                done.written = None;
            }
            stepped
        }
        Bend::NoFence if kind == BranchMessage::Abort && state.is_none() => {
            BranchAnswer::Aborted(Call::Applied(Aborted::Fenced)).into()
        }
        Bend::FenceIgnored | Bend::EpochIgnored | Bend::MarkIgnored if is_prepare => {
            step_ignoring(bend, participant, incarnation, txid, message)
        }
        Bend::CommitNeedsMemory
            if kind == BranchMessage::Commit && state == Some(BranchState::Prepared) =>
        {
            let refusal = Refusal::new(ErrorCode::RedisOutOfMemory, "no memory");
            BranchAnswer::Applied(Call::Refused(refusal)).into()
        }
        Bend::FreesForeignLocks => {
            let stepped = participant.step(incarnation, txid, message);
            let is_end =
                matches!(stepped.answer, BranchAnswer::Applied(_) | BranchAnswer::Aborted(_));
            if is_end && !participant.locks().is_empty() {
                *participant = unlocked(participant, txid);
            }
            stepped
        }
        Bend::LossAcknowledged => {
            let mut stepped = participant.step(incarnation, txid, message);
            if let BranchAnswer::Applied(Call::Refused(_)) = stepped.answer {
                stepped.answer = BranchAnswer::Applied(Call::Applied(Applied { dirty_writes: 0 }));
            }
            stepped
        }
        Bend::EscrowIgnoresPending | Bend::EscrowIgnoresBounds => {
            let message = ungoverned(bend, participant, message);
            participant.step(incarnation, txid, message)
        }
        _ => participant.step(incarnation, txid, message),
    }
}

/// The same prepare with those claims granted that only the rest of the rule refuses.
fn ungoverned(
    bend: Bend,
    participant: &Participant,
    mut message: BranchMessage<Prepare>,
) -> BranchMessage<Prepare> {
    if let BranchMessage::Prepare(Prepare { evaluation: Ok(evaluation), .. }) = &mut message {
        for claimed in &mut evaluation.claims {
            let value = claimed.value;
            let met = match bend {
                Bend::EscrowIgnoresPending => Range::of(value),
                _ => participant.locks().range(&claimed.claim.key, &claimed.claim.field, value),
            };
            let needs = claimed.claim.needs();
            if needs.low <= met.low && met.high <= needs.high {
                for step in &mut claimed.claim.steps {
                    (step.at_least, step.at_most) = (i64::MIN, i64::MAX);
                }
            }
        }
    }
    message
}

fn reads_only(message: &BranchMessage<Prepare>) -> bool {
    let BranchMessage::Prepare(prepare) = message else { return false };
    prepare.locks.iter().all(|(_, access)| *access == Access::Shared)
}

/// Stages all the same what is refused for one reason, as if nothing had ever been heard here.
fn step_ignoring(
    bend: Bend,
    participant: &mut Participant,
    incarnation: u64,
    txid: Txid,
    message: BranchMessage<Prepare>,
) -> Stepped {
    let ignored = match bend {
        Bend::FenceIgnored => ErrorCode::Fenced,
        Bend::EpochIgnored => ErrorCode::StaleEpoch,
        _ => ErrorCode::BelowLowWater,
    };
    let stepped = participant.step(incarnation, txid, message.clone());
    match &stepped.answer {
        BranchAnswer::Prepared(Call::Refused(refusal)) if refusal.code == ignored => {
            *participant = Participant::new(incarnation);
            participant.step(incarnation, txid, message)
        }
        _ => stepped,
    }
}

/// The same branches in doubt, and nobody holds a lock.
fn unlocked(participant: &Participant, ended: Txid) -> Participant {
    let mut free = Restored::new(participant.incarnation(), participant.seq());
    for (txid, staged) in participant.staged() {
        free.staged(*txid, staged.clone(), &[]);
    }
    match participant.state(ended) {
        Some(BranchState::Applied) => {
            let marker = participant.done_marker(ended).cloned();
            free.done(ended, marker.unwrap_or(DoneMarker::Logged));
        }
        Some(BranchState::Aborted) => free.fence(ended),
        Some(BranchState::Prepared) | None => {}
    }
    free.finish()
}
