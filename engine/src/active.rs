//! A transaction that is not ended: its machine, and what is known beside it.

use std::fmt;
use std::sync::Arc;

use assent_common::coordinator::{Branch, Outcome, Subject, Transaction};
use assent_common::ids::TxNumber;
use assent_common::log::LogPosition;
use assent_common::record::Identity;
use assent_common::time::Millis;
use assent_common::wire::branch::BranchAddress;
use assent_common::wire::transaction::Ack;
use assent_common::{Attempt, ParticipantName};
use serde_json::value::RawValue;

/// By what the shell finds who waits for something; the shell gives them out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What was asked for; does not change, and is shared with the batches under way.
#[derive(Debug)]
pub struct Accepted {
    /// Who asked, and for what.
    pub identity: Identity,
    /// When `committed` is answered.
    pub ack: Ack,
    /// Until when it has to be decided.
    pub deadline: Millis,
    /// The participants of the branches, in the order of the request.
    pub participants: Vec<ParticipantName>,
    /// Where all branches are, for each to know: of an implicit transaction.
    pub(crate) addresses: Vec<BranchAddress>,
}

/// The client's ops, passed through unread, with whatever is to be held for as long as prepares are
/// sent.
pub trait RequestOps: fmt::Debug + Send + Sync {
    /// The ops of a branch.
    fn of(&self, branch: Branch) -> Option<&RawValue>;

    /// What the hook of its participant decides about, if the client sent that.
    fn input(&self, branch: Branch) -> Option<&RawValue>;
}

/// An answer that is given.
#[derive(Debug, Clone)]
pub struct Decided {
    /// Which transaction it is of.
    pub number: TxNumber,
    /// What was asked for.
    pub accepted: Arc<Accepted>,
    /// The attempt that it ended with.
    pub attempt: Attempt,
    /// What came of it.
    pub outcome: Outcome,
    /// When that was decided.
    pub decided_at: Millis,
    /// How long the answer took, in milliseconds.
    pub took_ms: u64,
    /// Who waits for it.
    pub waiters: Vec<Ticket>,
}

/// Of one transaction: the branches that are counted at their participants, a bit for each.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counted {
    /// Their votes are waited for.
    pub(crate) voting: u64,
    /// They have not acknowledged the outcome.
    pub(crate) owing: u64,
}

/// A transaction that is not ended.
pub struct Active {
    /// The protocol's part.
    pub machine: Transaction,
    /// What was asked for.
    pub accepted: Arc<Accepted>,
    /// What to prepare; absent after a restart, and when the outcome is known.
    pub(crate) ops: Option<Arc<dyn RequestOps>>,
    /// Whether it counts against what may be begun.
    pub(crate) is_undecided: bool,
    /// What was counted at the participants of its branches.
    pub(crate) counted: Counted,
    /// The lanes of the branches, by place.
    pub lanes: Vec<usize>,
    /// Who waits for the answer.
    pub(crate) waiters: Vec<Ticket>,
    /// Whether somebody watches every change.
    pub(crate) is_watched: bool,
    /// The earliest moment that the timer is armed for.
    pub(crate) armed: Option<Millis>,
    /// The record that answers for it when it has ended.
    pub position: Option<LogPosition>,
}

impl Active {
    /// What the hook of a branch decides about.
    pub(crate) fn input(&self, branch: Branch) -> Option<&RawValue> {
        self.ops.as_ref()?.input(branch)
    }

    /// What the records of the log are about.
    pub(crate) fn subject(&self, number: TxNumber) -> Subject<'_> {
        let Accepted { identity, participants, .. } = &*self.accepted;
        Subject { number, identity, participants }
    }

    /// Whether the client's answer is given, so that a further request need not wait.
    pub(crate) fn has_answered(&self) -> bool {
        match self.machine.outcome() {
            Some((Outcome::Aborted(_), _)) => !self.machine.answer_is_held_back(),
            Some((Outcome::Committed { applied, .. }, _)) => {
                applied || self.accepted.ack == Ack::Decided
            }
            None => false,
        }
    }
}
