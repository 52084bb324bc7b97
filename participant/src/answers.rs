//! What the agent answers: one answer to each message of a batch, in the order of the messages.

use assent_common::branch::{BranchAnswer, BranchMessage};
use assent_common::outcome::{Holder, Refusal};
use assent_common::wire::branch::{Answer, StateWord, VoteWord};
use assent_common::{ErrorCode, Txid, limits};

use crate::resource::CheckedOps;
use crate::store::CheckedPrepare;

/// A message to a branch; instead of a prepare that is not well formed, the no that it gets.
pub(crate) type Checked = (Txid, BranchMessage<Result<CheckedPrepare<CheckedOps>, Refusal>>);

/// The same no to any message; a prepare that was not well formed has its own.
pub(super) fn refused((_, message): &Checked, refusal: &Refusal) -> BranchAnswer {
    let refusal = match message {
        BranchMessage::Prepare(Err(own)) => own,
        _ => refusal,
    };
    message.refused(refusal.clone())
}

/// What came of a message, in a word.
pub(super) fn result(answer: &BranchAnswer) -> &'static str {
    match (answer.refused(), answer.unknown()) {
        (Some(_), _) => "refused",
        (_, Some(_)) => "unknown",
        (None, None) => "applied",
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
