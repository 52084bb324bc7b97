//! Who speaks, what ends, and the answers to a batch.

use assent_common::branch::{BranchAnswer, BranchMessage, Ending};
use assent_common::ids::{Epoch, LogId, Txid};
use assent_common::limits;
use assent_common::outcome::{Aborted, Call, Done, Failed, Prepared};

use super::call::PrepareItem;
use super::decode;

/// Why a prepare of a batch was left.
const ANSWERS_ARE_FULL: &str =
    "the replies of the branches before it fill the answer to this batch";

/// Who speaks, as far as the protocol needs it.
pub(super) struct Speaker<'a> {
    pub(super) log_id: LogId,
    pub(super) epoch: Epoch,
    pub(super) url: &'a str,
}

/// A commit, an abort or a settle, and its place among the messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct EndingItem {
    pub(super) slot: usize,
    pub(super) txid: Txid,
    pub(super) ending: Ending,
}

/// The answers, by the slots of their messages.
pub(super) struct Answers(Vec<Slot>);

enum Slot {
    Open(BranchMessage<()>),
    Answered(BranchAnswer),
}

impl Slot {
    const fn answer(&self) -> Option<&BranchAnswer> {
        match self {
            Self::Open(_) => None,
            Self::Answered(answer) => Some(answer),
        }
    }

    const fn kind(&self) -> BranchMessage<()> {
        match self {
            Self::Open(kind) => *kind,
            Self::Answered(answer) => answer.kind(),
        }
    }
}

impl Answers {
    /// None yet, to messages of these kinds.
    pub(super) fn to(kinds: impl Iterator<Item = BranchMessage<()>>) -> Self {
        Self(kinds.map(Slot::Open).collect())
    }

    pub(super) fn put(&mut self, slot: usize, answer: BranchAnswer) {
        assert_eq!(self.0[slot].kind(), answer.kind(), "an answer is of its message's kind");
        self.0[slot] = Slot::Answered(answer);
    }

    pub(super) fn of(&self, slot: usize) -> Option<&BranchAnswer> {
        self.0.get(slot)?.answer()
    }

    pub(super) fn fail_endings(&mut self, items: &[EndingItem], failed: &Failed) {
        for EndingItem { slot, ending, .. } in items {
            self.put(*slot, ending.failed(failed.clone()));
        }
    }

    pub(super) fn fail_prepares(&mut self, items: &[PrepareItem], failed: &Failed) {
        for item in items {
            self.put(item.slot, BranchAnswer::Prepared(failed.clone().into()));
        }
    }

    /// Bytes of replies and writes in the answers so far.
    fn bytes(&self) -> usize {
        self.0.iter().filter_map(Slot::answer).map(bytes).sum()
    }

    /// Leaves prepares that have not begun, once the answers are full: the coordinator asks for
    /// them again.
    pub(super) fn leave_if_full(&mut self, prepares: &mut Vec<PrepareItem>) {
        if prepares.is_empty() || self.bytes() <= limits::BATCH_REPLIES_BYTES_MAX {
            return;
        }
        self.fail_prepares(prepares, &Failed::Unknown(ANSWERS_ARE_FULL.to_owned()));
        prepares.clear();
    }

    /// Whether what became of a prepare is not known.
    pub(super) fn is_unclear(&self, slot: usize) -> bool {
        match self.of(slot) {
            // Not begun.
            Some(BranchAnswer::Prepared(Call::Unknown(why))) => why != ANSWERS_ARE_FULL,
            _ => false,
        }
    }

    /// What Redis said to one of them, if that was that it is no master any more.
    pub(super) fn demoted(&self) -> Option<&str> {
        self.0.iter().filter_map(Slot::answer).find_map(|answer| {
            let refusal = answer.refused().map(|refusal| &*refusal.detail);
            refusal.or_else(|| answer.unknown()).filter(|said| decode::is_demoted(said))
        })
    }

    /// The slots that have no answer yet.
    pub(super) fn open(&self) -> Vec<usize> {
        (0..self.0.len()).filter(|slot| self.of(*slot).is_none()).collect()
    }

    /// All of them. What came of a message that nobody has answered is not known.
    pub(super) fn finish(self) -> Vec<BranchAnswer> {
        let answer = |slot| match slot {
            Slot::Open(kind) => kind.unknown("the agent has lost sight of it"),
            Slot::Answered(answer) => answer,
        };
        self.0.into_iter().map(answer).collect()
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
