//! A batch: who speaks, what is to be done, and the answers.

use std::ops::Range;
use std::sync::Arc;

use assent_common::branch::{BranchAnswer, BranchMessage, Ending};
use assent_common::code::ErrorCode;
use assent_common::command::{OpRequest, ReplyKind, ValidatedBranch, ValidatedOp};
use assent_common::ids::{Epoch, LogId, TransactionId, Txid};
use assent_common::limits;
use assent_common::outcome::{Aborted, Call, Done, Failed, Prepared, Refusal};
use assent_common::participant::Branches;
use assent_common::wire::branch::Mode;

use super::control::ToldPosition;
use super::said;

/// Why a prepare of a batch was left.
const ANSWERS_ARE_FULL: &str =
    "the replies of the branches before it fill the answer to this batch";

/// Who speaks, as far as the protocol needs it.
pub(super) struct Speaker<'a> {
    pub(super) log_id: LogId,
    pub(super) epoch: Epoch,
    pub(super) url: &'a str,
    /// How far its log was on disk, as it was last told here.
    pub(super) told: Option<ToldPosition>,
}

/// A commit, an abort or a settle, and its place among the messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct EndingItem {
    pub(super) slot: usize,
    pub(super) txid: Txid,
    pub(super) ending: Ending,
}

/// How a branch is to be prepared, checked.
#[derive(Debug, Clone)]
pub struct CheckedPrepare<B = ValidatedBranch> {
    /// The public id of its transaction, which is its age.
    pub id: TransactionId,
    /// Whether a decision follows.
    pub mode: Mode,
    /// All branches, where their votes are the decision.
    pub branches: Branches,
    /// The ops.
    pub branch: B,
    /// The no to it if nothing is kept of it yet; what is kept answers for itself.
    pub if_new: Option<Box<Refusal>>,
    /// What a hook has added to it, if its participant has one that was asked.
    pub hooked: Option<Hooked>,
}

/// The part of a hook in a branch. Of all replies those are shown of the ops that the client gave,
/// and behind them what the hook replies.
#[derive(Debug, Clone)]
pub struct Hooked {
    /// How many ops stand before those of the client: of each key that the hook read, that it is
    /// what it was.
    pub before: usize,
    /// How many ops the client gave.
    pub given: usize,
    /// What the hook replies: the text of any JSON.
    pub reply: Arc<str>,
}

impl Hooked {
    /// The places of the client's ops.
    pub(super) fn client_ops(&self) -> Range<usize> {
        self.before..self.before + self.given
    }
}

/// A prepare, and its place among the messages.
#[derive(Debug, Clone)]
pub(super) struct PrepareItem {
    pub(super) slot: usize,
    pub(super) txid: Txid,
    pub(super) prepare: CheckedPrepare,
    /// Whether its ops are for the script, because the owner has found that by itself it cannot say
    /// yes to them.
    pub(super) by_script: bool,
}

impl PrepareItem {
    /// Whether a done-marker stays behind if it is applied at once.
    pub(super) fn leaves_marker(&self) -> bool {
        self.prepare.mode == Mode::OnePhase && !self.prepare.branch.read_only
    }

    /// The kinds of the replies that are shown. They follow from what was asked for, so that a
    /// hook that answers otherwise the second time changes none of them.
    pub(super) fn shown_kinds(&self) -> impl Iterator<Item = ReplyKind> {
        let CheckedPrepare { branch, hooked, .. } = &self.prepare;
        let shown = hooked.as_ref().map_or(0..branch.ops.len(), Hooked::client_ops);
        let hook = hooked.iter().map(|_| ReplyKind::Hook);
        branch.ops[shown].iter().map(|op| op.reply).chain(hook)
    }

    /// The ops that the script evaluates, with their places: all but those in escrow, which are
    /// judged by what others have reserved.
    pub(super) fn evaluated_ops(&self) -> impl Iterator<Item = (usize, &ValidatedOp)> {
        let ops = self.prepare.branch.ops.iter().enumerate();
        ops.filter(|(_, op)| op.handler != OpRequest::ESCROW_HANDLER)
    }
}

/// The messages of a batch, outcomes apart: they free the locks that prepares want. What is done is
/// taken out.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    pub(super) endings: Vec<EndingItem>,
    pub(super) prepares: Vec<PrepareItem>,
}

impl Sorted {
    pub(super) fn is_empty(&self) -> bool {
        self.endings.is_empty() && self.prepares.is_empty()
    }

    /// Takes outcomes out, at most so many: the commits first, then the aborts.
    pub(super) fn take_endings(&mut self, most: usize) -> Vec<EndingItem> {
        self.endings.sort_by_key(|item| item.ending);
        self.endings.drain(..most.min(self.endings.len())).collect()
    }

    /// Puts back messages that were taken out, and not done.
    pub(super) fn put_all_back(&mut self, sorted: Self) {
        self.endings.extend(sorted.endings);
        self.prepares.extend(sorted.prepares);
    }

    /// Answers what could not even be begun: a prepare that was not sent has surely not been done;
    /// an outcome may have been, when it came before.
    pub(super) fn answer_unsent(&mut self, why: &Refusal, answers: &mut Answers) {
        let Self { endings, prepares } = std::mem::take(self);
        answers.fail_endings(&endings, &Failed::Unknown(why.detail.clone()));
        answers.fail_prepares(&prepares, &Failed::Refused(why.clone()));
    }

    /// Answers what is another agent's to do.
    pub(super) fn answer_elsewhere(&mut self, answers: &mut Answers) {
        let why = Refusal::new(ErrorCode::NotOwner, "another agent owns this Redis");
        std::mem::take(self).fail(&Failed::Refused(why), answers);
    }

    /// The same answer to all of them.
    pub(super) fn fail(&self, failed: &Failed, answers: &mut Answers) {
        answers.fail_endings(&self.endings, failed);
        answers.fail_prepares(&self.prepares, failed);
    }
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
            refusal.or_else(|| answer.unknown()).filter(|said| said::is_demoted(said))
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
