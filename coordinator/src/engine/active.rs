//! A transaction that is not ended: its machine, and what the shell knows beside it.

use std::sync::Arc;

use assent_common::coordinator::{Entry, Outcome, Transaction};
use assent_common::ids::TxNumber;
use assent_common::outcome::{Replies, Written};
use assent_common::record::{
    AnswerRecord, Answered, Begun, Committed, CommittedBranch, Ended, Identity, Record,
    WrittenRecord,
};
use assent_common::time::Millis;
use assent_common::wire::branch::BranchAddress;
use assent_common::wire::transaction::Ack;
use assent_common::{Attempt, ParticipantName};
use assent_edge::Held;
use serde_json::value::RawValue;
use tokio::sync::{oneshot, watch};

use crate::log::LogPosition;

/// What was asked for; does not change, and is shared with the batches under way.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) identity: Identity,
    pub(super) ack: Ack,
    pub(super) deadline: Millis,
    pub(super) branches: Vec<AcceptedBranch>,
    /// Where all branches are, for each to know: of an implicit transaction.
    pub(super) addresses: Vec<BranchAddress>,
}

/// A branch as it was asked for.
#[derive(Debug)]
pub(super) struct AcceptedBranch {
    pub(super) participant: ParticipantName,
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
    /// The record of an entry that the machine wants durable.
    pub(super) fn record(&self, number: TxNumber, entry: Entry) -> Record {
        let identity = || self.accepted.identity.clone();
        match entry {
            Entry::Begun(attempt) => Record::Begun(Begun {
                number,
                attempt,
                identity: identity(),
                participant: self.accepted.branches[0].participant.clone(),
            }),
            Entry::Committed { attempt, votes, decided_at } => {
                let branches = self.accepted.branches.iter().zip(votes);
                Record::Committed(Committed {
                    number,
                    attempt,
                    identity: identity(),
                    decided_at,
                    branches: branches
                        .map(|(branch, vote)| CommittedBranch {
                            participant: branch.participant.clone(),
                            replies: vote.replies,
                            redo: vote.redo,
                            incarnation: vote.incarnation,
                            seq: vote.seq,
                        })
                        .collect(),
                })
            }
            Entry::Ended => Record::Ended(Ended { number }),
            Entry::Answered { attempt, decided_at, outcome, written } => {
                Record::Answered(Answered {
                    number,
                    attempt,
                    identity: identity(),
                    decided_at,
                    participants: self
                        .accepted
                        .branches
                        .iter()
                        .map(|branch| branch.participant.clone())
                        .collect(),
                    answer: answer_record(outcome),
                    written: written.map(|Written { redo, incarnation, seq }| WrittenRecord {
                        redo,
                        incarnation,
                        seq,
                    }),
                })
            }
        }
    }
}

fn answer_record(outcome: Outcome) -> AnswerRecord {
    match outcome {
        Outcome::Committed { replies, .. } => {
            let replies: Option<Replies> = replies.into_iter().next();
            AnswerRecord::Committed { replies: replies.unwrap_or_else(|| "[]".into()) }
        }
        Outcome::Aborted(failure) => AnswerRecord::Aborted {
            branch: failure.branch.map(|branch| branch.0),
            code: failure.refusal.code,
            detail: failure.refusal.detail,
            op: failure.refusal.op,
            reply: failure.refusal.reply,
        },
    }
}
