//! What one call of a script is about, and the answers to a batch.

use assent_common::branch::BranchAnswer;
use assent_common::code::ErrorCode;
use assent_common::ids::Txid;
use assent_common::limits;
use assent_common::outcome::{Aborted, Call, Done, Prepared, Refusal};
use assent_common::wire::branch::Mode;

use super::call::PrepareItem;
use super::decode;
use super::scripts::Script;
use super::sorted::Sorted;

/// Why a prepare of a batch was left.
const ANSWERS_ARE_FULL: &str =
    "the replies of the branches before it fill the answer to this batch";

/// What a call carries, so that its answers find their places.
pub(super) enum Work {
    Commits(Vec<(usize, Txid)>),
    Aborts(Vec<(usize, Txid)>),
    Settles(Vec<(usize, Txid)>),
    Prepares(Vec<PrepareItem>),
}

impl Work {
    /// Whether branches may end with it on their coordinator's word.
    pub(super) fn may_end(&self) -> bool {
        match self {
            Self::Commits(_) | Self::Aborts(_) => true,
            Self::Prepares(items) => items.iter().any(|item| item.prepare.mode == Mode::OnePhase),
            Self::Settles(_) => false,
        }
    }

    pub(super) fn script(&self) -> Script {
        match self {
            Self::Commits(_) => Script::Commit,
            Self::Aborts(_) => Script::Abort,
            Self::Settles(_) => Script::Settle,
            Self::Prepares(items) => Script::Prepare(
                items.iter().fold(0, |set, item| set | item.prepare.branch.families),
            ),
        }
    }

    /// How many branches it is about.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Commits(txids) | Self::Aborts(txids) | Self::Settles(txids) => txids.len(),
            Self::Prepares(items) => items.len(),
        }
    }

    /// The same, a call for each branch.
    pub(super) fn each(self) -> Vec<Self> {
        match self {
            Self::Commits(txids) => txids.into_iter().map(|it| Self::Commits(vec![it])).collect(),
            Self::Aborts(txids) => txids.into_iter().map(|it| Self::Aborts(vec![it])).collect(),
            Self::Settles(txids) => txids.into_iter().map(|it| Self::Settles(vec![it])).collect(),
            Self::Prepares(items) => {
                items.into_iter().map(|item| Self::Prepares(vec![item])).collect()
            }
        }
    }

    /// The same answer to every message of the call.
    pub(super) fn answer_all(&self, answers: &mut Answers, call: &Call<()>) {
        match self {
            Self::Commits(txids) => {
                for (slot, _) in txids {
                    answers.put(*slot, BranchAnswer::Applied(widen(call)));
                }
            }
            Self::Aborts(txids) => {
                for (slot, _) in txids {
                    answers.put(*slot, BranchAnswer::Aborted(widen(call)));
                }
            }
            Self::Settles(txids) => {
                for (slot, _) in txids {
                    answers.put(*slot, BranchAnswer::Settled(widen(call)));
                }
            }
            Self::Prepares(items) => {
                for item in items {
                    answers.put(item.slot, BranchAnswer::Prepared(widen(call)));
                }
            }
        }
    }
}

/// A call that was not applied, as one of another kind.
pub(super) fn widen<T>(call: &Call<()>) -> Call<T> {
    match call {
        Call::Applied(()) => Call::Unknown("no answer".to_owned()),
        Call::Refused(refusal) => Call::Refused(refusal.clone()),
        Call::Unknown(why) => Call::Unknown(why.clone()),
    }
}

/// The answers, by the slots of their messages.
pub(super) struct Answers(pub(super) Vec<Option<BranchAnswer>>);

impl Answers {
    pub(super) fn put(&mut self, slot: usize, answer: BranchAnswer) {
        self.0[slot] = Some(answer);
    }

    pub(super) fn of(&self, slot: usize) -> Option<&BranchAnswer> {
        self.0.get(slot)?.as_ref()
    }

    /// Bytes of replies and writes in the answers so far.
    fn bytes(&self) -> usize {
        self.0.iter().flatten().map(bytes).sum()
    }

    /// Leaves prepares that have not begun, once the answers are full: the coordinator asks for
    /// them again.
    pub(super) fn leave_if_full(&mut self, prepares: &mut Vec<PrepareItem>) {
        if prepares.is_empty() || self.bytes() <= limits::BATCH_REPLIES_BYTES_MAX {
            return;
        }
        for item in prepares.drain(..) {
            let call = Call::Unknown(ANSWERS_ARE_FULL.to_owned());
            self.put(item.slot, BranchAnswer::Prepared(call));
        }
    }

    /// What Redis said to one of them, if that was that it is no master any more.
    pub(super) fn demoted(&self) -> Option<&str> {
        self.0.iter().flatten().find_map(|answer| {
            let refusal = answer.refused().map(|refusal| &*refusal.detail);
            refusal.or_else(|| answer.unknown()).filter(|said| decode::is_demoted(said))
        })
    }

    /// The slots that have no answer yet.
    pub(super) fn open(&self) -> Vec<usize> {
        (0..self.0.len()).filter(|slot| self.0[*slot].is_none()).collect()
    }

    pub(super) fn finish(self) -> Vec<BranchAnswer> {
        let unanswered = || BranchAnswer::Prepared(Call::Unknown("no answer".to_owned()));
        self.0.into_iter().map(|answer| answer.unwrap_or_else(unanswered)).collect()
    }
}

/// Bytes of the replies and writes of an answer.
fn bytes(answer: &BranchAnswer) -> usize {
    let done = |done: &Done| {
        done.replies.len() + done.written.as_ref().map_or(0, |written| written.redo.len())
    };
    match answer {
        BranchAnswer::Prepared(Call::Applied(Prepared::Yes(vote))) => {
            vote.replies.len() + vote.redo.len()
        }
        BranchAnswer::Prepared(Call::Applied(Prepared::Committed(applied)))
        | BranchAnswer::Aborted(Call::Applied(Aborted::AlreadyCommitted(applied))) => done(applied),
        _ => 0,
    }
}

/// Answers what could not even be begun.
pub(super) fn fail(sorted: &mut Sorted, why: &str, answers: &mut Answers) {
    let refused = Refusal::new(ErrorCode::RedisUnavailable, why);
    // Not all prepares go at once.
    while !sorted.is_empty() {
        for work in sorted.take_work() {
            let call = match work {
                Work::Prepares(_) => Call::Refused(refused.clone()),
                Work::Commits(_) | Work::Aborts(_) | Work::Settles(_) => {
                    Call::Unknown(why.to_owned())
                }
            };
            work.answer_all(answers, &call);
        }
    }
}
