//! Why a participant has not voted yet, and what a transaction says whose time ran out before.

use std::fmt::Write as _;

use super::effect::{Branch, Failure};
use super::state::{NoVote, Preparing, VoteState};
use crate::code::ErrorCode;
use crate::limits;
use crate::outcome::Refusal;
use crate::text;

/// Bytes of one branch's reason in the answer; the answer's detail has room for [`TOLD_MAX`].
const REASON_BYTES_MAX: usize = 256;

/// Branches whose reasons are told one by one.
const TOLD_MAX: usize = 3;

impl NoVote {
    /// The code of a transaction whose time ran out while the next try was due.
    pub(super) const fn code(&self) -> ErrorCode {
        match self {
            Self::Unknown(_) => ErrorCode::ParticipantUnreachable,
            Self::Held(_) => ErrorCode::Timeout,
        }
    }
}

/// The refusal of a transaction whose time ran out before the participant voted.
pub(super) fn too_late(code: ErrorCode, last: Option<&NoVote>) -> Refusal {
    let why = reason(last);
    let limit = "the transaction's `timeout` passed before it voted";
    Refusal::new(code, format!("{limit}: {why}"))
}

/// What to say when the deadline passes: the first branch without a vote is to blame, and each one
/// says why it has none.
pub(super) fn deadline_failure(preparing: &Preparing) -> Failure {
    let votes = (0..).map(Branch).zip(&preparing.votes);
    let mut missing = votes.filter_map(|(branch, vote)| match vote {
        VoteState::Asked { last, .. } => Some((branch, ErrorCode::Timeout, last.as_ref())),
        VoteState::Resend { why, .. } => Some((branch, why.code(), Some(why))),
        // What it waits for is to blame.
        VoteState::Later | VoteState::Yes(_) => None,
    });
    let Some((branch, code, last)) = missing.next() else {
        let refusal = Refusal::new(ErrorCode::Timeout, "the transaction's `timeout` passed");
        return Failure { branch: None, refusal };
    };
    // A conflict ran the time out; an attempt that was under way at the end has no better word.
    if let (ErrorCode::Timeout, Some(met)) = (code, &preparing.met) {
        return met.clone();
    }
    let mut refusal = too_late(code, last);
    let others = missing.by_ref().take(TOLD_MAX - 1);
    for (Branch(place), _, last) in others {
        let _ = write!(refusal.detail, "; nor did branch {place}: {}", reason(last));
    }
    let untold = missing.count();
    if untold > 0 {
        let _ = write!(refusal.detail, "; nor did {untold} more");
    }
    refusal.detail = text::cut_owned(refusal.detail, limits::DETAIL_BYTES_MAX);
    Failure { branch: Some(branch), refusal }
}

fn reason(last: Option<&NoVote>) -> String {
    last.map_or_else(
        || "it has not answered".to_owned(),
        |last| text::cut_owned(last.to_string(), REASON_BYTES_MAX),
    )
}
