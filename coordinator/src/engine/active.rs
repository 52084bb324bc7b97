//! A transaction that is not ended: its machine, and what the shell knows beside it.

use std::sync::Arc;

use assent_common::coordinator::{Outcome, Subject, Transaction};
use assent_common::ids::TxNumber;
use assent_common::record::Identity;
use assent_common::time::Millis;
use assent_common::wire::branch::BranchAddress;
use assent_common::wire::transaction::Ack;
use assent_common::{Attempt, ParticipantName};
use assent_edge::Held;
use serde_json::value::RawValue;
use tokio::sync::{oneshot, watch};

use super::admission::Counted;
use crate::log::LogPosition;

/// What was asked for; does not change, and is shared with the batches under way.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) identity: Identity,
    pub(super) ack: Ack,
    pub(super) deadline: Millis,
    /// The participants of the branches, in the order of the request.
    pub(super) participants: Vec<ParticipantName>,
    /// Where all branches are, for each to know: of an implicit transaction.
    pub(super) addresses: Vec<BranchAddress>,
}

/// The client's ops, passed through unread, and the memory that they were granted: until the outcome is known, for as
/// long as prepares are sent.
#[derive(Debug)]
pub(super) struct RequestOps {
    /// By the place of the branch.
    pub(super) branches: Vec<Box<RawValue>>,
    pub(super) _held: Held,
}

/// The decision, as the waiter of a submission gets it.
#[derive(Debug)]
pub(super) struct Decided {
    pub(super) accepted: Arc<Accepted>,
    pub(super) attempt: Attempt,
    pub(super) outcome: Outcome,
    pub(super) decided_at: Millis,
}

/// A transaction that is not ended.
pub(super) struct Active {
    pub(super) machine: Transaction,
    pub(super) accepted: Arc<Accepted>,
    /// What to prepare; absent after a restart, and when the outcome is known.
    pub(super) ops: Option<Arc<RequestOps>>,
    /// Whether it counts against what may be begun.
    pub(super) is_undecided: bool,
    /// What was counted at the participants of its branches.
    pub(super) counted: Counted,
    /// The lanes of the branches, by place.
    pub(super) lanes: Vec<usize>,
    /// Who waits for the answer.
    pub(super) waiters: Vec<oneshot::Sender<Decided>>,
    /// Who watches every change; made for the first of them.
    pub(super) changes: Option<watch::Sender<u64>>,
    /// The earliest moment that the timer is armed for.
    pub(super) armed: Option<Millis>,
    /// The record that answers for it when it has ended.
    pub(super) position: Option<LogPosition>,
}

impl Active {
    /// What the records of the log are about.
    pub(super) fn subject(&self, number: TxNumber) -> Subject<'_> {
        let Accepted { identity, participants, .. } = &*self.accepted;
        Subject { number, identity, participants }
    }
}
