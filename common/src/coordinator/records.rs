//! From what a machine wants written down to the record that the log keeps: whoever runs the machine adds which
//! transaction it is, and who asked for it.

use super::effect::{Branch, Entry, Note, Outcome};
use crate::ids::{ParticipantName, TxNumber};
use crate::outcome::{Vote, Written};
use crate::record::{
    Acknowledged, AnswerRecord, Answered, Begun, Committed, CommittedBranch, Ended, EndedByHand,
    Identity, Record, WrittenRecord,
};

/// The transaction that records are about.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Its number in the log.
    pub number: TxNumber,
    /// Who asked for what.
    pub identity: &'a Identity,
    /// The participants of its branches, in the order of the request; at least one.
    pub participants: &'a [ParticipantName],
}

impl Subject<'_> {
    /// The record of an entry.
    #[must_use]
    pub fn record(self, entry: Entry) -> Record {
        let Self { number, identity, participants } = self;
        match entry {
            Entry::Begun(attempt) => Record::Begun(Begun {
                number,
                attempt,
                identity: identity.clone(),
                participant: participants[0].clone(),
            }),
            Entry::Committed { attempt, votes, decided_at } => Record::Committed(Committed {
                number,
                attempt,
                identity: identity.clone(),
                decided_at,
                branches: participants.iter().cloned().zip(votes).map(committed_branch).collect(),
            }),
            Entry::Ended => Record::Ended(Ended { number }),
            Entry::Answered { attempt, decided_at, outcome, written } => {
                Record::Answered(Answered {
                    number,
                    attempt,
                    identity: identity.clone(),
                    decided_at,
                    participants: participants.to_vec(),
                    answer: answer(outcome),
                    written: written.map(written_record),
                })
            }
        }
    }

    /// The record of what the log is to know of branches.
    #[must_use]
    pub fn note(self, note: &Note) -> Record {
        let name = |branch: &Branch| self.participants[branch.index()].clone();
        match note {
            Note::Acknowledged(branches) => Record::Acknowledged(Acknowledged {
                number: self.number,
                participants: branches.iter().map(name).collect(),
            }),
            Note::EndedByHand { branch, outcome, detail } => Record::EndedByHand(EndedByHand {
                number: self.number,
                id: self.identity.id,
                participant: name(branch),
                outcome: *outcome,
                detail: detail.clone(),
            }),
        }
    }
}

fn committed_branch((participant, vote): (ParticipantName, Vote)) -> CommittedBranch {
    let Vote { replies, redo, incarnation, seq } = vote;
    CommittedBranch { participant, replies, redo, incarnation, seq }
}

fn written_record(Written { redo, incarnation, seq }: Written) -> WrittenRecord {
    WrittenRecord { redo, incarnation, seq }
}

/// Only one phase is committed without a decision record: it has one branch, and so one branch's replies.
fn answer(outcome: Outcome) -> AnswerRecord {
    match outcome {
        Outcome::Committed { replies, .. } => {
            let replies = replies.into_iter().next();
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
