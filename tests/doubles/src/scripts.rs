//! The participant's scripts, and known-bad variants of them: each the breach of one invariant.
//!
//! The machine is the real one throughout; what goes into it and what comes out of it is bent.

use assent_common::Txid;
use assent_common::code::ErrorCode;
use assent_common::command::{Access, Range};
use assent_common::outcome::{Aborted, Applied, Call, Prepared, Refusal};
use assent_common::participant::{
    Answer, DoneMarker, Participant, Prepare, Request, Restored, Stepped,
};
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
    request: Request,
) -> Stepped {
    let Some(bend) = bend else { return participant.step(incarnation, request) };
    let is_prepare = matches!(request, Request::Prepare(_));
    let state = request.txid().and_then(|txid| participant.state(txid));
    match bend {
        Bend::VoteNotDurable if is_prepare => participant.clone().step(incarnation, request),
        Bend::ReaderVoteNotKept if is_prepare && reads_only(&request) => {
            participant.clone().step(incarnation, request)
        }
        Bend::SettlesWithoutFence if matches!(request, Request::Settle(_)) => {
            participant.clone().step(incarnation, request)
        }
        Bend::AppliesAgain
            if matches!(request, Request::Commit(_)) && state == Some(BranchState::Applied) =>
        {
            Stepped { apply: Some([][..].into()), ..participant.step(incarnation, request) }
        }
        Bend::NoDoneMarker => {
            let mut applied = participant.clone();
            let stepped = applied.step(incarnation, request);
            if stepped.apply.is_none() {
                *participant = applied;
            }
            stepped
        }
        Bend::MarkerWithoutWrites if state == Some(BranchState::Applied) => {
            let mut stepped = participant.step(incarnation, request);
            if let Answer::Prepared(Call::Applied(Prepared::Committed(done)))
            | Answer::Aborted(Call::Applied(Aborted::AlreadyCommitted(done))) =
                &mut stepped.answer
            {
                done.written = None;
            }
            stepped
        }
        Bend::NoFence if matches!(request, Request::Abort(_)) && state.is_none() => {
            Answer::Aborted(Call::Applied(Aborted::Fenced)).into()
        }
        Bend::FenceIgnored | Bend::EpochIgnored | Bend::MarkIgnored if is_prepare => {
            step_ignoring(bend, participant, incarnation, request)
        }
        Bend::CommitNeedsMemory
            if matches!(request, Request::Commit(_)) && state == Some(BranchState::Prepared) =>
        {
            let refusal = Refusal::new(ErrorCode::RedisOutOfMemory, "no memory");
            Answer::Applied(Call::Refused(refusal)).into()
        }
        Bend::FreesForeignLocks => {
            let txid = request.txid();
            let stepped = participant.step(incarnation, request);
            let is_end = matches!(stepped.answer, Answer::Applied(_) | Answer::Aborted(_));
            if let Some(txid) = txid.filter(|_| is_end && !participant.locks().is_empty()) {
                *participant = unlocked(participant, txid);
            }
            stepped
        }
        Bend::LossAcknowledged => {
            let mut stepped = participant.step(incarnation, request);
            if let Answer::Applied(Call::Refused(_)) = stepped.answer {
                stepped.answer = Answer::Applied(Call::Applied(Applied { dirty_writes: 0 }));
            }
            stepped
        }
        Bend::EscrowIgnoresPending | Bend::EscrowIgnoresBounds => {
            let request = ungoverned(bend, participant, request);
            participant.step(incarnation, request)
        }
        _ => participant.step(incarnation, request),
    }
}

/// The same prepare with those claims granted that only the rest of the rule refuses.
fn ungoverned(bend: Bend, participant: &Participant, mut request: Request) -> Request {
    if let Request::Prepare(Prepare { evaluation: Ok(evaluation), .. }) = &mut request {
        for claimed in &mut evaluation.claims {
            let Some(value) = claimed.value else { continue };
            let met = match bend {
                Bend::EscrowIgnoresPending => Range::of(value),
                _ => participant.locks().range(&claimed.claim.key, &claimed.claim.field, value),
            };
            let needs = claimed.claim.needs();
            if needs.low <= met.low && met.high <= needs.high {
                claimed.value = None;
            }
        }
    }
    request
}

fn reads_only(request: &Request) -> bool {
    let Request::Prepare(prepare) = request else { return false };
    prepare.locks.iter().all(|(_, access)| *access == Access::Shared)
}

/// Stages all the same what is refused for one reason, as if nothing had ever been heard here.
fn step_ignoring(
    bend: Bend,
    participant: &mut Participant,
    incarnation: u64,
    request: Request,
) -> Stepped {
    let ignored = match bend {
        Bend::FenceIgnored => ErrorCode::Fenced,
        Bend::EpochIgnored => ErrorCode::StaleEpoch,
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
