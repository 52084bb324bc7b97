//! What the agent answers: one answer to each message of a batch, in the order of the messages.

use assent_common::outcome::{Aborted, Applied, Call, Holder, Prepared, Refusal, Settled};
use assent_common::wire::branch::{Answer, StateWord, VoteWord};
use assent_common::{ErrorCode, Txid, limits};

use crate::agent::Checked;
use crate::store::{BranchAnswer, BranchMessage};

/// The same no to any message.
pub(super) fn refused(message: &Checked, refusal: &Refusal) -> BranchAnswer {
    let refusal = refusal.clone();
    match message {
        Ok(BranchMessage::Commit(_)) => BranchAnswer::Applied(Call::Refused(refusal)),
        Ok(BranchMessage::Abort(_)) => BranchAnswer::Aborted(Call::Refused(refusal)),
        Ok(BranchMessage::Settle(_)) => BranchAnswer::Settled(Call::Refused(refusal)),
        Ok(BranchMessage::Prepare { .. }) => BranchAnswer::Prepared(Call::Refused(refusal)),
        Err(own) => BranchAnswer::Prepared(Call::Refused(own.clone())),
    }
}

/// What a message asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Prepare,
    Commit,
    Abort,
    Settle,
}

pub(super) const fn kind(message: &BranchMessage) -> (Txid, Kind) {
    match message {
        BranchMessage::Prepare { txid, .. } => (*txid, Kind::Prepare),
        BranchMessage::Commit(txid) => (*txid, Kind::Commit),
        BranchMessage::Abort(txid) => (*txid, Kind::Abort),
        BranchMessage::Settle(txid) => (*txid, Kind::Settle),
    }
}

pub(super) const fn result<T>(call: &Call<T>) -> &'static str {
    match call {
        Call::Applied(_) => "applied",
        Call::Refused(_) => "refused",
        Call::Unknown(_) => "unknown",
    }
}

pub(super) fn into_wire(answer: BranchAnswer) -> Answer {
    match answer {
        BranchAnswer::Prepared(call) => Call::<Prepared>::into(call),
        BranchAnswer::Applied(call) => Call::<Applied>::into(call),
        BranchAnswer::Aborted(call) => Call::<Aborted>::into(call),
        BranchAnswer::Settled(call) => Call::<Settled>::into(call),
    }
}

/// The answers to a batch, within what a coordinator reads. What is too much is not known, and
/// asked for again: what is kept of the branch answers then.
pub(super) fn fitting(mut answers: Vec<Answer>) -> Vec<Answer> {
    let most = limits::BATCH_BYTES_MAX - limits::BATCH_WORDS_BYTES_MAX;
    let mut bytes = 0;
    for answer in &mut answers {
        let replies = answer.replies.as_ref().map_or(0, |replies| replies.get().len());
        let redo = answer.redo.as_ref().map_or(0, |redo| redo.0.len().div_ceil(3) * 4);
        // One alone fits in any case.
        if bytes > 0 && bytes + replies + redo > most {
            let detail = "the answers before it fill the answer to this batch";
            *answer = Answer {
                vote: answer.vote.map(|_| VoteWord::Unknown),
                state: answer.state.map(|_| StateWord::Unknown),
                detail: Some(detail.to_owned()),
                ..Answer::default()
            };
        } else {
            bytes += replies + redo;
        }
    }
    answers
}

/// The no of a prepare whose time to wait is over.
pub(super) fn conflict(holder: Holder) -> Refusal {
    let detail = format!("{holder}, and stayed so");
    Refusal { holder: Some(holder), ..Refusal::new(ErrorCode::LockConflict, detail) }
}

/// The no of a prepare that an older one stands before.
pub(super) fn waited_for(older: Holder) -> Refusal {
    let detail = format!("an older transaction, {}, waits for key {}", older.id, older.key);
    Refusal { holder: Some(older), ..Refusal::new(ErrorCode::LockConflict, detail) }
}
