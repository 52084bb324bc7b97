//! From what a machine wants recorded to the record that a log keeps: the shell adds who asked for what.

use assent_common::coordinator::{Branch, Entry, Note, Outcome};
use assent_common::outcome::{Vote, Written};
use assent_common::record::{
    Acknowledged, AnswerRecord, Answered, Begun, Committed, CommittedBranch, Ended, Identity,
    Record, WrittenRecord,
};
use assent_common::{ParticipantName, TxNumber};

/// The record of an entry; `participants` are those of the branches, in their order.
#[must_use]
pub fn record(
    number: TxNumber,
    identity: Identity,
    mut participants: impl Iterator<Item = ParticipantName>,
    entry: Entry,
) -> Record {
    match entry {
        Entry::Begun(attempt) => {
            let participant = participants.next().expect("a transaction has a branch");
            Record::Begun(Begun { number, attempt, identity, participant })
        }
        Entry::Committed { attempt, votes, decided_at } => {
            let branches = participants.zip(votes).map(branch).collect();
            Record::Committed(Committed { number, attempt, identity, decided_at, branches })
        }
        Entry::Ended => Record::Ended(Ended { number }),
        Entry::Answered { attempt, decided_at, outcome, written } => Record::Answered(Answered {
            number,
            attempt,
            identity,
            decided_at,
            participants: participants.collect(),
            answer: answer(outcome),
            written: written.map(|Written { redo, incarnation, seq }| WrittenRecord {
                redo,
                incarnation,
                seq,
            }),
        }),
    }
}

/// The record of what a machine wants known of branches.
#[must_use]
pub fn note(number: TxNumber, participants: &[ParticipantName], note: &Note) -> Record {
    match note {
        Note::Acknowledged(branches) => {
            let name = |branch: &Branch| participants[branch.index()].clone();
            let participants = branches.iter().map(name).collect();
            Record::Acknowledged(Acknowledged { number, participants })
        }
    }
}

fn branch((participant, vote): (ParticipantName, Vote)) -> CommittedBranch {
    CommittedBranch {
        participant,
        replies: vote.replies,
        redo: vote.redo,
        incarnation: vote.incarnation,
        seq: vote.seq,
    }
}

fn answer(outcome: Outcome) -> AnswerRecord {
    match outcome {
        Outcome::Committed { replies, .. } => {
            AnswerRecord::Committed { replies: replies[0].clone() }
        }
        Outcome::Aborted(failure) => AnswerRecord::Aborted {
            branch: failure.branch.map(|branch| branch.0),
            code: failure.refusal.code,
            detail: failure.refusal.detail,
            op: None,
            reply: None,
        },
    }
}
