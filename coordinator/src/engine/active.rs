//! A transaction that is not ended: its machine, and what the shell knows beside it.

use std::sync::Arc;

use assent_common::coordinator::{Branch, Entry, Note, Outcome, Transaction};
use assent_common::ids::TxNumber;
use assent_common::outcome::{Replies, Written};
use assent_common::record::{
    Acknowledged, AnswerRecord, Answered, Begun, Committed, CommittedBranch, Ended, Identity,
    Record, WrittenRecord,
};
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
    /// The record of what the machine wants the log to know of branches.
    pub(super) fn note_record(&self, number: TxNumber, note: &Note) -> Record {
        let name = |branch: &Branch| self.accepted.participants.get(branch.index()).cloned();
        match note {
            Note::Acknowledged(branches) => Record::Acknowledged(Acknowledged {
                number,
                participants: branches.iter().filter_map(name).collect(),
            }),
        }
    }

    /// The record of an entry that the machine wants durable.
    pub(super) fn record(&self, number: TxNumber, entry: Entry) -> Record {
        let identity = || self.accepted.identity.clone();
        match entry {
            Entry::Begun(attempt) => Record::Begun(Begun {
                number,
                attempt,
                identity: identity(),
                participant: self.accepted.participants[0].clone(),
            }),
            Entry::Committed { attempt, votes, decided_at } => {
                let branches = self.accepted.participants.iter().zip(votes);
                Record::Committed(Committed {
                    number,
                    attempt,
                    identity: identity(),
                    decided_at,
                    branches: branches
                        .map(|(participant, vote)| CommittedBranch {
                            participant: participant.clone(),
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
                    participants: self.accepted.participants.clone(),
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
